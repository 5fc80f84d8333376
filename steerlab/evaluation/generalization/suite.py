"""Suites: prompts in several styles, and texts that steering should not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from steerlab.core.display import printable
from steerlab.core.prompts import check_text
from steerlab.core.record import canonical_json
from steerlab.errors import BadPrompts, NotFound
from steerlab.evaluation.metrics.items import ContrastItem, Fact
from steerlab.files.limits import from_json, from_toml
from steerlab.files.location import expanded
from steerlab.files.prompts import numbered_lines, read_text

STANDARD = "standard"
"""The built-in suite; each of its styles is a suite too, by its own name."""

_SUITES = Path(__file__).parent / "suites"
_TEXTS = ("neutral", "on_topic", "off_topic")
_ITEM = ("prompt", "positive", "negative")


@dataclass(frozen=True)
class Style:
    """Prompts of one kind. chat: they are messages to a chat model. items: contrast items."""

    name: str
    prompts: tuple[str, ...] = ()
    chat: bool = False
    items: tuple[ContrastItem, ...] = ()


@dataclass(frozen=True)
class Suite:
    """What a vector is measured on.

    facts, neutral (prompts), off_topic (texts): steering should leave them as they are.
    on_topic: texts about the vector's subject; empty if it is not known.
    """

    name: str
    styles: tuple[Style, ...]
    facts: tuple[Fact, ...] = ()
    neutral: tuple[str, ...] = ()
    on_topic: tuple[str, ...] = ()
    off_topic: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of prompts of all styles."""
        return sum(len(style.prompts) for style in self.styles)

    @property
    def digest(self) -> str:
        """sha256 of the content, without the name."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def suite(which: str | Path) -> Suite:
    """A built-in suite by its name, or one from a file ending in .toml or .jsonl.

    .toml    [styles.NAME] with prompts = […], chat = true for messages to a chat model, and
             items = [{prompt = "…", positive = "…", negative = "…"}, …]; [off_target] with
             facts = [{prompt = "…", answer = " …"}, …], neutral, on_topic, off_topic = […]
    .jsonl   one object a line: {"style": "letters", "prompt": "…"}, also with "chat": true, or with
             "positive" and "negative"; {"fact": "…", "answer": " …"}; {"neutral": "…"};
             {"on_topic": "…"}; {"off_topic": "…"}

    Facts, neutral and off_topic that a file lacks come from the standard suite.
    Raises NotFound, or BadPrompts with the line or the key at fault.
    """
    text = str(which)
    names = [STANDARD, *(style.name for style in _standard().styles)]
    if text == STANDARD:
        return _standard()
    if text in names:
        style = next(style for style in _standard().styles if style.name == text)
        return replace(_standard(), name=text, styles=(style,))
    path = expanded(which)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise NotFound(
            f"there is no suite {printable(text)!r}: give one of {', '.join(names)}, or a file "
            f"that ends in {' or '.join(_READERS)}"
        )
    made = reader(path)
    if not any(style.prompts or style.items for style in made.styles):
        raise BadPrompts(f"{path} has no prompts: give [styles.NAME] with prompts = […]")
    return made


def combined(suites: Sequence[Suite]) -> Suite:
    """Several suites as one: all their styles, facts and texts, each once.

    Raises BadPrompts if two different styles have the same name.
    """
    first, *rest = suites
    if not rest:
        return first
    styles: dict[str, Style] = {}
    for style in (style for each in suites for style in each.styles):
        if styles.setdefault(style.name, style) != style:
            raise BadPrompts(
                f"two suites have a style {printable(style.name)!r}: rename one of them"
            )
    together = {
        name: tuple(dict.fromkeys(x for each in suites for x in getattr(each, name)))
        for name in ("facts", *_TEXTS)
    }
    name = "+".join(dict.fromkeys(each.name for each in suites))
    return Suite(name, tuple(styles.values()), **together)


@cache
def _standard() -> Suite:
    return _from_toml(_SUITES / f"{STANDARD}.toml")


def _from_toml(path: Path) -> Suite:
    try:
        data = from_toml(read_text(path, "suite"))
    except ValueError as error:
        raise BadPrompts(f"{path}: not valid TOML: {error}") from None
    where = str(path)
    _table(data, where, ("about", "styles", "off_target"))
    tables = _table(data.get("styles", {}), f"{where}, styles")
    styles = tuple(
        _style(name, table, f"{where}, styles.{_named(name)}") for name, table in tables.items()
    )
    return _with_off_target(path, styles, data.get("off_target", {}))


def _style(name: str, data: Any, where: str) -> Style:
    table = _table(data, where, ("about", "prompts", "chat", "items"))
    items = [
        ContrastItem(*(_text(row.get(key), f"{place}, {key}") for key in _ITEM))
        for row, place in _rows(table, "items", where, _ITEM)
    ]
    chat = table.get("chat", False)
    if not isinstance(chat, bool):
        _wrong(f"{where}, chat", "true or false", chat)
    return Style(name, _texts(table, "prompts", where), chat, tuple(items))


def _with_off_target(path: Path, styles: tuple[Style, ...], data: Any) -> Suite:
    """The suite; what the file lacks comes from the standard suite."""
    where = f"{path}, off_target"
    table = _table(data, where, ("facts", *_TEXTS))
    found: dict[str, Any] = {name: _texts(table, name, where) for name in _TEXTS if name in table}
    if "facts" in table:
        found["facts"] = tuple(
            Fact(*(_text(row.get(key), f"{place}, {key}") for key in ("prompt", "answer")))
            for row, place in _rows(table, "facts", where, ("prompt", "answer"))
        )
    if path.parent == _SUITES:
        return Suite(path.stem, styles, **found)
    usual = {name: getattr(_standard(), name) for name in ("facts", "neutral", "off_topic")}
    return Suite(path.stem, styles, **(usual | found))


def _from_jsonl(path: Path) -> Suite:
    styles: dict[str, dict[str, Any]] = {}
    rest: dict[str, list[Any]] = {}
    for number, line in numbered_lines(read_text(path, "suite")):
        where = f"{path}, line {number}"
        try:
            data = from_json(line)
        except ValueError as error:
            raise BadPrompts(f"{where}: not valid JSON: {error}") from None
        row = _table(data, where)
        if "style" in row:
            _add_to_style(styles, row, where)
        elif "fact" in row:
            _table(row, where, ("fact", "answer"))
            fact = {"prompt": row["fact"], "answer": _text(row.get("answer"), f"{where}, answer")}
            rest.setdefault("facts", []).append(fact)
        else:
            _table(row, where, _TEXTS)
            for name, text in row.items():
                rest.setdefault(name, []).append(_text(text, f"{where}, {name}"))
    made = [_style(name, table, f"{path}, style {_named(name)}") for name, table in styles.items()]
    return _with_off_target(path, tuple(made), rest)


def _add_to_style(styles: dict[str, dict[str, Any]], row: Mapping[str, Any], where: str) -> None:
    _table(row, where, ("style", "chat", *_ITEM))
    name = _text(row["style"], f"{where}, style")
    chat = row.get("chat", False)
    table = styles.setdefault(name, {"prompts": [], "items": [], "chat": chat})
    if chat != table["chat"]:
        raise BadPrompts(f"{where}: chat differs from the other prompts of the style")
    given = {key: _text(row[key], f"{where}, {key}") for key in _ITEM if key in row}
    if set(given) == {"prompt"}:
        table["prompts"].append(given["prompt"])
    elif set(given) == set(_ITEM):
        table["items"].append(given)
    else:
        missing = next(key for key in _ITEM if key not in given)
        raise BadPrompts(f"{where}: {missing} is missing")


_READERS: Mapping[str, Callable[[Path], Suite]] = {".toml": _from_toml, ".jsonl": _from_jsonl}


def _table(data: Any, where: str, known: Sequence[str] | None = None) -> dict[str, Any]:
    """The data if it is a table with no keys but the known ones; raises BadPrompts."""
    if not isinstance(data, dict):
        _wrong(where, "a table of keys", data)
    for key in data:
        if known is not None and key not in known:
            raise BadPrompts(f"{where}: unknown key {_named(key)!r}; known: {', '.join(known)}")
    return data


def _rows(
    table: Mapping[str, Any], key: str, where: str, keys: Sequence[str]
) -> Iterable[tuple[dict[str, Any], str]]:
    rows = table.get(key, [])
    if not isinstance(rows, list):
        _wrong(f"{where}.{key}", "a list", rows)
    for number, row in enumerate(rows, 1):
        place = f"{where}.{key}, entry {number}"
        yield _table(row, place, keys), place


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    texts = table.get(key, [])
    if not isinstance(texts, list):
        _wrong(f"{where}, {key}", "a list of texts", texts)
    return tuple(_text(t, f"{where}, {key}, entry {i}") for i, t in enumerate(texts, 1))


def _named(name: str) -> str:
    """A key or a style's name as quoted in errors."""
    return printable(name)[:60]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        _wrong(where, "a text", value)
    check_text(value, where)
    return value


def _wrong(where: str, expected: str, found: Any) -> NoReturn:
    if found is None:
        raise BadPrompts(f"{where} is missing")
    raise BadPrompts(f"{where}: expected {expected}, not {printable(repr(found))[:60]}")
