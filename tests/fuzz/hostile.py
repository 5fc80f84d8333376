"""What strangers may write where text, a number or any JSON value is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

TERMINAL = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\link",
    "\x1bc\x1b[2J",
    "\x9b31m",
    "\x9d0;t\x9c",
    "back\b\b\bspace",
    "over\rwritten",
    "two\nlines",
    "tab\tbed",
    "bell\x07",
    "\x00nul\x00",
    "\x7f",
    "\x85next",
    "\u2028\u2029",
    "\u202eevil\u202c",
    "\u2066isolated\u2069",
    "\u200bzero\ufeff",
)
"""Text that a terminal would obey, or show as something else than it is."""

MARKUP = (
    "[red]x[/red]",
    "[/]",
    "[/b]",
    "[@click=app.quit]quit[/]",
    "[link=file:///etc/passwd]x",
    "\\[b]",
    "[bold",
    "$accent",
)
"""Text that Textual and Rich would obey, or fail on."""

TIMES = (
    "9999-99-99T99:99:99.999999+00:00",
    "0001-01-01T00:00+23:59",
    "9999-12-31T23:59-23:59",
    "2024-01-01",
    "２０２４-01-01T00:00:00.000000+00:00",
    "yesterday",
)

STRINGS = (
    *TERMINAL,
    *MARKUP,
    "",
    " ",
    "\ud800",
    "a\udfff\ud800b",
    "\U0001f469\u200d\U0001f467",
    "é",
    "e\u0301" * 40,
    "漢" * 9,
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "..\\x",
    "C:\\x",
    "~root",
    "|ls",
    "`id`",
    *("%s%n", "{0.__class__}", "'; DROP TABLE vector; --", '"', "\\", "${HOME}", "<script>"),
    *("love.v1", "lambda", "v1", "unit", "__import__", "None", "nan", "1e999", "0x10"),
    *TIMES,
    *("x" * 81, "x" * 5000, "a." * 500, "a\n" * 500),
)

EXPRESSIONS = (
    "__import__('os').system('touch pwned')",
    "().__class__.__base__.__subclasses__()",
    "(lambda: 1)()",
    "[x for x in love]",
    "love if 1 else anger",
    "love := 1",
    "f'{love}'",
    "9**9**9**9",
    "'a' * 10**10",
    "love[0:99999999999]",
    "love[-1]",
    "love[::0]",
    "1e999 * love",
    "love / 0",
    "love @ anger",
    "mean()",
    "unit(*love)",
    "love.v1.v2.v3",
    "love.__class__",
    "loveé",
    "love\0",
    "love\n- anger",
    "love # anger",
    "\\",
    "",
    "((((",
    "love))",
    "(" * 150 + "love" + ")" * 150,
    "(" * 5000 + "love" + ")" * 5000,
    "-" * 5000 + "love",
    "[" * 3000 + "]" * 3000,
    "mean(" * 300 + "love" + ")" * 300,
    "love" + " + love" * 300,
    "love" + "[1]" * 300,
    "1" * 5000 + " * love",
    "love" * 30_000,
)

NUMBERS = (
    *(0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53, 2**60, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64), 10**400),
)


def deep(levels: int, kind: str = "list") -> Any:
    """A value nested so many levels; made without recursion."""
    value: Any = 0
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


VALUES: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [{}], {"": ""}, ["a"], [1], {"a": 1}, [None], "1"),
    *(deep(60), deep(60, "dict"), [0] * 300, {str(i): i for i in range(100)}),
)


def text(random: Random) -> str:
    """One hostile string, or several in one."""
    many = random.choice((1, 1, 1, 2, 3))
    return "".join(random.choice(STRINGS) for _ in range(many))


def value(random: Random) -> Any:
    """Anything that JSON can hold, and a little more."""
    kind = random.random()
    if kind < 0.4:
        return text(random)
    if kind < 0.7:
        return random.choice(NUMBERS)
    return deepcopy(random.choice(VALUES))


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a tree of dicts and lists."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from places(tree[key])


def _replace(random: Random, container: Any, key: Any) -> None:
    container[key] = value(random)


def _delete(random: Random, container: Any, key: Any) -> None:
    del container[key]


def _nest(random: Random, container: Any, key: Any) -> None:
    container[key] = random.choice(([container[key]], {"a": container[key]}))


def _repeat(random: Random, container: Any, key: Any) -> None:
    if isinstance(container, list):
        container.insert(key, container[key])
    else:
        container[f"{key}{random.choice(('', '2', ' ', chr(0)))}"] = container[key]


def _other_type(random: Random, container: Any, key: Any) -> None:
    old = container[key]
    container[key] = old != old if isinstance(old, bool) else str(old)[:100]


_CHANGES: tuple[Callable[[Random, Any, Any], None], ...] = (
    *(_replace, _replace, _replace, _delete, _nest, _repeat, _other_type),
)


def change_tree(random: Random, tree: Any, times: int = 1) -> None:
    """Change places of a tree: replace, delete, nest, repeat, turn into another type."""
    for _ in range(times):
        found = list(places(tree))
        if found:
            random.choice(_CHANGES)(random, *random.choice(found))


def dumps(tree: Any) -> str:
    """JSON as lenient as Python writes it: NaN, lone surrogates as escapes."""
    return json.dumps(tree)


def change_json(random: Random, text: str) -> str:
    """What no tree can say: keys twice, deep nesting, foreign syntax."""
    kind = random.randrange(7)
    if kind == 0:
        return text.replace("{", '{"note":1,"version":2,', 1)
    if kind == 1:
        return text.replace(":", ":" + "[" * random.choice((50, 2000, 100_000)), 1)
    if kind == 2:
        return text.replace(":", ":" + '{"a":' * random.choice((50, 2000, 50_000)), 1)
    if kind == 3:
        return text.replace(":", ":" + "9" * random.choice((400, 4299, 5000)) + ",", 1)
    if kind == 4:
        return text.replace(",", random.choice((",,", ";", "\n,", "/**/,", "")), 1)
    if kind == 5:
        return text[: random.randrange(len(text) + 1)]
    return random.choice(("", "null", "[]", "0", '"x"', "NaN", "\ufeff" + text, text + text))


def change_bytes(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """Bytes flipped, cut, repeated, overwritten, or spliced with another file's."""
    kind = random.randrange(8)
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 2, 8, 64, 1024)))
    if kind <= 1:
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8))):
            if changed:
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data[:at] + data[at:end] * random.choice((2, 3, 50)) + data[end:]
    if kind == 4:
        return data[:at] + bytes(end - at) + data[end:]
    if kind == 5:
        return data[:at] + random.randbytes(end - at) + data[end:]
    if kind == 6:
        return data[:at] + data[end:]
    return data[:at] + other[random.randrange(len(other) + 1) :]
