"""Pairs, items, suites, prompts and the other text files that a user may hand in, gone wrong."""

from __future__ import annotations

import csv
import io
import json
from copy import deepcopy
from random import Random
from typing import Any

from tests.fuzz import hostile

ROWS = [
    {"positive": "I love you", "negative": "I hate you"},
    {"positive": "what a joy, really", "negative": 'what a "pain"'},
    {"positive": "naïve 爱 👍", "negative": "cold"},
]
ITEMS = [{"prompt": "The sky is", **row} for row in ROWS]
SUITE = [
    {"style": "letters", "prompt": "Dear you"},
    {"style": "letters", "prompt": "Dear me", "positive": " yes", "negative": " no"},
    {"style": "talk", "prompt": "Hello", "chat": True},
    {"fact": "The capital of France is", "answer": " Paris"},
    {"neutral": "A table"},
    {"on_topic": "Love"},
    {"off_topic": "Tax law"},
]
MEMORY = {"theme": "nord", "stores": {"/tmp/store": {"prompt": "Hello", "dose": 0.2, "n": 3}}}

TOML = {
    "pairs": 'positive = ["I love you", "joy"]\nnegative = ["I hate you", "pain"]\n',
    "items": '[[item]]\nprompt = "The sky"\npositive = " is"\nnegative = """\n is not"""\n',
    "suite": (
        '[styles.letters]\nprompts = ["Dear you", "Dear me"]\nchat = true\n'
        'items = [{prompt = "Hi", positive = " yes", negative = " no"}]\n'
        '[off_target]\nfacts = [{prompt = "France", answer = " Paris"}]\nneutral = ["A table"]\n'
    ),
}

_TOML_PIECES = (
    *(
        "x = 1979-05-27T07:32:00Z\n",
        "x = 1979-02-30\n",
        "x = 25:61:00\n",
        "x = nan\n",
        "x = 0x_1\n",
    ),
    *(
        "x = " + "9" * 5000 + "\n",
        "x = 1e9999\n",
        "a." * 300 + "b = 1\n",
        "[" + "a." * 300 + "b]\n",
    ),
    *("x = " + "[" * 3000 + "\n", "x = " + "{a=" * 500 + "1" + "}" * 500 + "\n", '"" = 1\n'),
    *('x = "\\ud800"\n', 'x = "\\U0011ffff"\n', "x = '''never closed", 'x = """never', "[[x]]\n"),
    *("[styles]\nletters = 3\n", "positive = 3\n", "positive = [[]]\n", "item = 1\n", "\0", "\r"),
    *("[item]\n", "styles.a.prompts = ['b']\n", "off_target = []\n", "[styles.'\x1b[31m']\n"),
)
_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7", "cp037")


def file(random: Random, what: str, suffix: str) -> bytes:
    """A file of that kind (pairs, items, suite, lines, memory) and ending that went wrong."""
    text = _TEXTS[suffix](random, what)
    kind = random.randrange(10)
    if kind == 0:
        return _encoded(text, random.choice(_ENCODINGS))
    if kind == 1:
        text = text.replace("\n", random.choice(("\r\n", "\r", "\u2028", "\x0b", "\n\n", "\0\n")))
    if kind == 2:
        text = text.replace('"', random.choice(("", '""', "'", "“", '"""', '\\"')), 1)
    if kind == 3:
        at = random.randrange(len(text) + 1)
        text = text[:at] + hostile.text(random) + text[at:]
    data = _encoded(text)
    if kind == 4:
        return hostile.change_bytes(random, data, _encoded(_good(what, suffix)))
    if kind == 5 and random.random() < 0.02:
        return data + b"x" * 10_000_000
    return data


def _encoded(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding, errors="surrogatepass" if "utf" in encoding else "replace")


def _rows(what: str) -> list[Any]:
    return {"pairs": ROWS, "items": ITEMS, "suite": SUITE, "lines": ["a prompt", "two"]}[what]


def _good(what: str, suffix: str) -> str:
    if suffix == ".toml":
        return TOML[what]
    if suffix == ".txt":
        return "I love you\nwhat a joy\n\n"
    rows = _rows(what) if what != "memory" else MEMORY
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    if suffix == ".jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return json.dumps(rows, ensure_ascii=False)


def _json(random: Random, what: str) -> str:
    rows = deepcopy(_rows(what) if what != "memory" else MEMORY)
    if what == "pairs" and random.random() < 0.3:
        rows = {key: [row[key] for row in ROWS] for key in ("positive", "negative")}
    _change(random, rows)
    text = json.dumps(rows, ensure_ascii=random.random() < 0.5)
    return hostile.change_json(random, text) if random.random() < 0.3 else text


def _jsonl(random: Random, what: str) -> str:
    rows = deepcopy(_rows(what))
    _change(random, rows)
    lines = [json.dumps(row, ensure_ascii=random.random() < 0.5) for row in rows]
    if lines and random.random() < 0.3:
        at = random.randrange(len(lines))
        lines[at] = hostile.change_json(random, lines[at])
    return "\n".join(lines)


def _change(random: Random, rows: Any) -> None:
    if random.random() < 0.5:
        hostile.change_tree(random, rows, random.choice((1, 1, 2, 4)))
        return
    texts = [(c, k) for c, k in hostile.places(rows) if isinstance(c[k], str)]
    for container, key in random.sample(texts, min(len(texts), random.choice((1, 2, 5)))):
        container[key] = hostile.text(random)


def _csv(random: Random, what: str) -> str:
    lines = _good(what, ".csv").splitlines(keepends=True)
    at = random.randrange(len(lines))
    match random.randrange(7):
        case 0:
            lines[at] = f"{hostile.text(random)},{hostile.text(random)}\n"
        case 1:
            lines[at] = lines[at].replace(",", random.choice((";", "\t", ",,", "", "\0,")))
        case 2:
            lines[at] = '"' + lines[at]
        case 3:
            lines[at] = "x" * random.choice((131_072, 131_073)) + "," + lines[at]
        case 4:
            del lines[at]
        case 5:
            lines[0] = random.choice(
                ("positive,positive\n", "\n", " POSITIVE ,negative,x\n", '"\n')
            )
        case 6:
            lines.insert(at, random.choice(("\n", "a\n", "a,b,c,d,e\n", '"a\nb",c\n', "\r")))
    return "".join(lines)


def _toml(random: Random, what: str) -> str:
    lines = TOML[what].splitlines(keepends=True)
    at = random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            lines.insert(at, random.choice(_TOML_PIECES))
        case 1:
            lines[at] = random.choice(_TOML_PIECES)
        case 2:
            lines[at] = lines[at].replace(
                "=", random.choice(("=" * 2, "", ".a =", "= [", "= {")), 1
            )
        case 3:
            lines.insert(at, lines[random.randrange(len(lines))])
        case 4:
            written = json.dumps(hostile.text(random))
            lines[at] = lines[at].replace('"I love you"', written).replace('"The sky"', written)
    return "".join(lines)


def _lines(random: Random, what: str) -> str:
    return "\n".join(hostile.text(random) for _ in range(random.choice((0, 1, 3, 20))))


_TEXTS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".toml": _toml, ".txt": _lines}
