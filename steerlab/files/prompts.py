"""Contrast prompts from files: JSONL, JSON, CSV and TOML, with the line that is wrong."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.core.prompts import check_prompts, check_text
from steerlab.errors import BadPrompts, NotFound
from steerlab.files.limits import check_memory, from_json, from_toml

_LARGEST = 16 * 2**20
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_CSV_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@dataclass(frozen=True)
class Prompts:
    """Positive prompts, and as many negative ones or none."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


def read_pairs(path: Path) -> Prompts:
    """Read contrast prompts from a file; its ending says how.

    .jsonl  one {"positive": …, "negative": …} a line
    .json   a list of such objects, or {"positive": […], "negative": […]}
    .csv    a header naming the columns positive and negative
    .toml   positive = […] and negative = […]

    Raises NotFound, or BadPrompts with the line that is not what it should be.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise BadPrompts(f"{path} ends in {path.suffix or 'nothing'}: a pairs file is {known}")
    prompts = reader(read_text(path, "pairs"), path)
    try:
        check_prompts(prompts.positive, prompts.negative or None)
    except BadPrompts as error:
        raise BadPrompts(f"{path}: {error}") from None
    return prompts


def read_lines(path: Path) -> list[str]:
    """Prompts from a text file, one a line; raises NotFound or BadPrompts."""
    lines = [line.rstrip("\r") for _, line in numbered_lines(read_text(path, "prompts"))]
    if not lines:
        raise BadPrompts(f"{path} holds no prompt")
    return lines


def read_items(path: Path) -> list[dict[str, str]]:
    """Read contrast items: a prompt and two ways to go on, the first with more of the quality.

    .jsonl  one {"prompt": …, "positive": …, "negative": …} a line
    .json   a list of such objects
    .csv    a header naming the columns prompt, positive and negative
    .toml   [[item]] tables with these keys

    A prompt may be missing: the continuations then begin the text. Blanks count.
    Raises NotFound, or BadPrompts with the line that is not what it should be.
    """
    reader = _ITEMS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_ITEMS)
        raise BadPrompts(f"{path} ends in {path.suffix or 'nothing'}: an items file is {known}")
    found = [_item(row, where) for where, row in reader(read_text(path, "items"), path)]
    if not found:
        raise BadPrompts(f"{path} holds no item")
    return found


def read_text(path: Path, what: str) -> str:
    """A whole file as UTF-8; raises NotFound or BadPrompts, which call it a `what` file."""
    try:
        with open(path, "rb") as file:  # not by its size: a device or a pipe has none
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise BadPrompts(f"{path} is larger than {_LARGEST // 2**20} MiB: split it")
        text = data.decode("utf-8-sig")
        check_memory(text)
    except FileNotFoundError:
        raise NotFound(f"no {what} file {path}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadPrompts(f"{path}, line {line}: not UTF-8 text") from None
    except ValueError as error:
        raise BadPrompts(f"{path}: {error}") from None
    except OSError as error:
        raise BadPrompts(f"can't read {path}: {error.strerror}") from None
    return text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number from 1, one at a time."""
    for number, match in enumerate(_LINE.finditer(text), 1):  # splitlines knows more line ends
        if match[0].strip():
            yield number, match[0].removesuffix("\n")


def _from_jsonl(text: str, path: Path) -> Prompts:
    return _collected(_lines(text, path), path)


def _lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in numbered_lines(text):
        yield number, _json(line, path, number)


def _from_json(text: str, path: Path) -> Prompts:
    data = _json(text, path, 1)
    if isinstance(data, dict):
        return _columns(data, path)
    if not isinstance(data, list):
        raise BadPrompts(f'{path}: expected a list of {{"positive": …, "negative": …}} objects')
    return _collected(enumerate(data, 1), path, unit="entry")


def _from_csv(text: str, path: Path) -> Prompts:
    return _collected(_csv_rows(text, path, ["positive"]), path)


def _csv_rows(text: str, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Any]]:
    try:
        lines = (match[0] for match in _CSV_LINE.finditer(text))
        reader = csv.DictReader(lines, strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or []]
        for name in needed:
            if name not in names:
                raise BadPrompts(f"{path}, line 1: no column called {name} in the header")
        reader.fieldnames = names
        for row in reader:
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise BadPrompts(f"{path}: not CSV: {error}") from None


def _from_toml(text: str, path: Path) -> Prompts:
    return _columns(_toml(text, path), path)


def _toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return from_toml(text)
    except ValueError as error:
        raise BadPrompts(f"{path}: not TOML that can be read: {error}") from None


_READERS: Mapping[str, Callable[[str, Path], Prompts]] = {
    ".jsonl": _from_jsonl,
    ".json": _from_json,
    ".csv": _from_csv,
    ".toml": _from_toml,
}


def _item(row: Any, where: str) -> dict[str, str]:
    if not isinstance(row, dict):
        raise BadPrompts(f'{where}: expected {{"prompt": …, "positive": …, "negative": …}}')
    prompt = row.get("prompt")
    if prompt is not None:
        check_text(prompt, f"{where}: the prompt")
    sides = {name: _prompt(row.get(name), name, where) for name in ("positive", "negative")}
    if sides["positive"] == sides["negative"]:
        raise BadPrompts(f"{where}: positive and negative are the same")
    return {"prompt": prompt or "", **sides}


def _json_items(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    data = _json(text, path, 1)
    if not isinstance(data, list):
        raise BadPrompts(f"{path}: expected a list of objects with prompt, positive and negative")
    return ((f"{path}, entry {number}", row) for number, row in enumerate(data, 1))


def _toml_items(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    data = _toml(text, path).get("item", [])
    if not isinstance(data, list):
        raise BadPrompts(f"{path}: items are [[item]] tables")
    return ((f"{path}, item {number}", row) for number, row in enumerate(data, 1))


def _numbered(rows: Iterator[tuple[int, Any]], path: Path) -> Iterator[tuple[str, Any]]:
    return ((f"{path}, line {number}", row) for number, row in rows)


_ITEMS: Mapping[str, Callable[[str, Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": lambda text, path: _numbered(_lines(text, path), path),
    ".json": _json_items,
    ".csv": lambda text, path: _numbered(_csv_rows(text, path, ["positive", "negative"]), path),
    ".toml": _toml_items,
}


def _json(text: str, path: Path, first_line: int) -> Any:
    try:
        return from_json(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadPrompts(f"{path}, line {line}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise BadPrompts(f"{path}, line {first_line}: not JSON that can be read: {error}") from None


def _columns(data: Mapping[str, Any], path: Path) -> Prompts:
    lists = []
    for name in ("positive", "negative"):
        value = data.get(name, [])
        if not isinstance(value, list):
            raise BadPrompts(f"{path}: {name} has to be a list of prompts")
        lists.append(tuple(value))
    return Prompts(*lists)


def _collected(rows: Iterator[tuple[int, Any]] | Any, path: Path, unit: str = "line") -> Prompts:
    positive: list[str] = []
    negative: list[str] = []
    for number, row in rows:
        where = f"{path}, {unit} {number}"
        if not isinstance(row, dict):
            raise BadPrompts(f'{where}: expected {{"positive": …, "negative": …}}')
        positive.append(_prompt(row.get("positive"), "positive", where))
        if row.get("negative") is not None:
            negative.append(_prompt(row["negative"], "negative", where))
        if negative and len(negative) != len(positive):
            raise BadPrompts(f"{where}: no negative prompt, though other rows have one")
    return Prompts(tuple(positive), tuple(negative))


def _prompt(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadPrompts(
            f"{where}: the {name} prompt is {'missing' if value is None else 'empty or not text'}"
        )
    check_text(value, f"{where}: the {name} prompt")
    return value
