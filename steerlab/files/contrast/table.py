"""Columns of a text file, whatever its syntax: JSON, JSON lines, TOML, or cells with separators."""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from steerlab.core.display import printable, some
from steerlab.errors import BadPrompts
from steerlab.files.limits import from_json, from_toml
from steerlab.files.prompts import numbered_lines

_TOML = re.compile(r"(?:\s|#[^\n]*\n)*(?:[\w-]+\s*=\s*[\[\"'{]|\[\[?[\w.-]+\]\]?\s*(?:#|\n))")
_NEXT_LINE = re.compile(r"\n[^\S\n]*\S")
_CSV_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # of any system
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_MOST_CELLS = 4_000_000

QUESTIONS = ("question", "instruction", "prompt", "input", "user", "goal", "query")
TEXTS = (*QUESTIONS, "statement", "sentence", "text", "suffix", "positive")
"""Names of columns of user's turns, and of any texts."""


@dataclass(frozen=True)
class Table:
    """Named columns of a file, of one length unless the file holds lists.

    name: of the file, for messages. place: "FILE, line 3" for the number of a value. part: which
    part of the file it is, in words.
    """

    name: str
    columns: dict[str, list[Any]]
    place: Callable[[int], str]
    part: str = ""

    def find(self, name: str) -> str | None:
        """The column of that name, whatever the case; None if there is none."""
        folded = name.strip().lower()
        exact = [n for n in self.columns if n == name]
        return next(iter(exact or [n for n in self.columns if n.strip().lower() == folded]), None)

    @property
    def names(self) -> str:
        """The columns' names, as messages list them."""
        return some([printable(name)[:60] or "''" for name in self.columns], 12)


@dataclass(frozen=True)
class Document:
    """An object that holds neither rows nor columns."""

    name: str
    data: dict[str, Any]

    @property
    def names(self) -> str:
        """Its keys and the kinds of their values, as messages list them."""
        kinds: dict[type, str] = {list: "a list", dict: "an object", str: "a text"}
        named = {n: kinds.get(type(v), "a number") for n, v in self.data.items()}
        return some([f"{printable(n)[:60]} ({kind})" for n, kind in named.items()], 12)


Content = Table | Document


def parse(text: str, path: Path) -> Content:
    """What a text holds, by its own look; raises BadPrompts with the line."""
    start = text.lstrip()[:1]
    if not start:
        raise BadPrompts(f"{path} is empty")
    suffix = path.suffix.lower()
    if suffix == ".toml" or (_TOML.match(text[:4000]) and suffix not in (".json", ".jsonl")):
        return _object(_tables(text, path), path)
    if start in "[{" or suffix in (".json", ".jsonl"):
        return _from_json(text, path)
    return _from_cells(text, path)


def _tables(text: str, path: Path) -> dict[str, Any]:
    try:
        return from_toml(text)
    except ValueError as error:
        raise BadPrompts(f"{path}: not TOML that can be read: {error}") from None


def of_rows(rows: Iterable[tuple[int, Any]], path: Path | str, unit: str, part: str = "") -> Table:
    """The columns of rows, which are objects or all plain texts; rows: with their numbers."""
    columns: dict[str, list[Any]] = {}
    numbers = array("q")  # there may be many
    for number, row in rows:
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise BadPrompts(
                f'{path}, {unit} {number}: expected {{"positive": …, "negative": …}} or another '
                f"object, not {printable(json.dumps(row, default=str))[:40]}"
            )
        for name in row:
            if name not in columns:
                columns[name] = [None] * len(numbers)
        if len(columns) * (len(numbers) + 1) > _MOST_CELLS:
            raise BadPrompts(f"{path}, {unit} {number}: too many cells: leave out some columns")
        for name, values in columns.items():
            values.append(row.get(name))
        numbers.append(number)
    if not numbers:
        raise BadPrompts(f"{path} holds no prompts")
    return Table(str(path), columns, lambda i: f"{path}, {unit} {numbers[i]}", part)


def _from_json(text: str, path: Path) -> Content:
    if _NEXT_LINE.search(text, len(text) - len(text.lstrip())) and _is_whole(
        next(numbered_lines(text))[1]
    ):
        lines = ((n, _value(line, path, n)) for n, line in numbered_lines(text))
        return of_rows(lines, path, "line")
    data = _value(text, path, 1)
    if isinstance(data, dict):
        return _object(data, path)
    if not isinstance(data, list):
        raise BadPrompts(f'{path}: expected a list of {{"positive": …, "negative": …}} objects')
    return of_rows(enumerate(data, 1), path, "entry")


def _value(text: str, path: Path, first_line: int) -> Any:
    """The value of a JSON text of a file; raises BadPrompts with the line."""
    try:
        return from_json(text, unique=True)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadPrompts(f"{path}, line {line}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise BadPrompts(f"{path}, line {first_line}: not JSON that can be read: {error}") from None


def _is_whole(line: str) -> bool:
    try:
        from_json(line)
    except ValueError:
        return False
    return True


def _object(data: dict[str, Any], path: Path) -> Content:
    """An object that is one row, or holds rows or columns, as a table."""
    if not any(data.values()):
        raise BadPrompts(f"{path} holds no prompts")
    if data and all(isinstance(v, str | int | float | bool | None) for v in data.values()):
        return of_rows([(1, data)], path, "entry")
    lists = {name: v for name, v in data.items() if isinstance(v, list) and v}
    rows = [name for name, v in lists.items() if all(isinstance(row, dict) for row in v)]
    chosen = "train" if "train" in rows else rows[0] if len(rows) == 1 == len(lists) else None
    if chosen is not None:
        left = [name for name in data if name != chosen]
        part = f"{chosen} alone, not {some(left)}" if left else ""
        return of_rows(enumerate(data[chosen], 1), path, f"{chosen}, entry", part)
    flat = not any(isinstance(x, list | dict) for v in lists.values() for x in v)
    if data and flat and all(isinstance(v, list) for v in data.values()):
        return Table(str(path), dict(data), lambda i: f"{path}, entry {i + 1}")
    return Document(str(path), data)


def _from_cells(text: str, path: Path) -> Table:
    if path.suffix.lower() not in (".csv", ".tsv") and _is_list(text):
        return of_rows(numbered_lines(text), path, "line")
    try:
        return of_rows(_cells(text, path), path, "line")
    except csv.Error as error:
        raise BadPrompts(f"{path}: not CSV: {error}") from None


def _is_list(text: str) -> bool:
    """Whether a file has one text a line, and no line above that names them."""
    first = next(numbered_lines(text))[1].strip()
    return first.lower() not in TEXTS and not any(s in first for s in (*_SEPARATORS, "\r"))


def _cells(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows under a header, each with its number; raises BadPrompts for one with other cells."""
    lines = (match[0] for match in _CSV_LINE.finditer(text))
    before, separator, header = 0, "", ""
    for header in lines:
        if named := re.fullmatch(r"sep=(.)\s*", header):
            separator = named[1]
        elif header.strip():
            break
        before += 1
    separator = separator or _separator(header)
    names = next(csv.reader([header], delimiter=separator), [])
    apart = len(names) > 1 and all(name[:1] == " " for name in names[1:])  # blanks after separators
    rows = csv.reader(
        chain([header], lines), delimiter=separator, strict=True, skipinitialspace=apart
    )
    names = [name.strip() for name in next(rows, [])]
    named_twice = [n for n, times in Counter(map(str.lower, names)).items() if n and times > 1]
    if named_twice:
        column = printable(named_twice[0])[:60]
        raise BadPrompts(f"{path}, line {before + 1}: the column {column} is there twice")
    try:
        for cells in rows:
            number = rows.line_num + before
            if len(cells) > len(names):
                raise BadPrompts(
                    f"{path}, line {number}: {len(cells)} cells under {len(names)} columns: "
                    f'put "…" around a text with a {_SEPARATORS.get(separator, separator)} in it'
                )
            if cells:
                filled: Sequence[str | None] = [*cells, *[None] * (len(names) - len(cells))]
                yield number, dict(zip(names, filled, strict=True))
    except csv.Error as error:
        raise BadPrompts(
            f"{path}, line {rows.line_num + before}: not CSV: {error}: "
            'put "…" around the whole text, and "" for a quote in it'
        ) from None


def _separator(header: str) -> str:
    """The separator that splits the header into most columns."""
    counts = {s: len(next(csv.reader([header], delimiter=s), [])) for s in _SEPARATORS}
    return max(counts, key=lambda s: counts[s])
