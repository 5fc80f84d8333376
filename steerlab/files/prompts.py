"""Texts of files, and the JSON and TOML in them, with the line that is wrong."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steerlab.errors import BadPrompts, NotFound
from steerlab.files.limits import check_memory, from_json, from_toml

_LARGEST = 16 * 2**20
_MEMBERS = 1000
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_CSV_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def read_lines(path: Path) -> list[str]:
    """Prompts from a text file, one a line; raises NotFound or BadPrompts."""
    lines = [line for _, line in numbered_lines(read_text(path, "prompts"))]
    if not lines:
        raise BadPrompts(f"{path} holds no prompt")
    return lines


def read_text(path: Path, what: str) -> str:
    """A whole file: UTF-8, or UTF-16 with its mark; may be gzipped, whatever its name.

    Raises NotFound or BadPrompts, which call it a `what` file.
    """
    try:
        with open(path, "rb") as file:  # not by its size: a device or a pipe has none
            data = file.read(_LARGEST + 1)
        if data[:2] == b"\x1f\x8b":
            data = _unpacked(data, path)
        if len(data) > _LARGEST:
            raise BadPrompts(f"{path} is larger than {_LARGEST // 2**20} MiB: split it")
        text = _decoded(data, path)
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


_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_OTHERS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive or a workbook",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file)",
    b"<!DOCTYPE html": "a web page",
    b"<html": "a web page",
}


def _decoded(data: bytes, path: Path) -> str:
    for start, what in _OTHERS.items():
        if data.startswith(start):
            raise BadPrompts(f"{path} is {what}: give a text file")
    text = data.decode(_MARKS.get(data[:2], "utf-8-sig"))
    if text[:1000].count("\0") > len(text[:1000]) / 4:
        raise BadPrompts(f"{path} is UTF-16 without its mark, or no text: save it as UTF-8")
    return text


def _unpacked(data: bytes, path: Path) -> bytes:
    """The content of gzip members, up to one byte more than is allowed."""
    found = b""
    try:
        for _ in range(_MEMBERS):
            if not data or len(found) > _LARGEST:
                return found
            unpacker = zlib.decompressobj(wbits=31)
            found += unpacker.decompress(data, _LARGEST + 1 - len(found))
            if len(found) <= _LARGEST and not unpacker.eof:
                raise BadPrompts(f"{path} is cut short: its gzip data has no end")
            data = unpacker.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise BadPrompts(f"{path} is damaged gzip data: {error}") from None
    raise BadPrompts(f"{path} has more than {_MEMBERS} gzip members: pack it as one")


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number from 1, one at a time."""
    for number, match in enumerate(_LINE.finditer(text), 1):  # splitlines knows more line ends
        if match[0].strip():
            yield number, match[0].rstrip("\r\n")


def cell_lines(text: str) -> Iterator[str]:
    """The lines of a file of cells, with their ends, which may be those of any system."""
    return (match[0] for match in _CSV_LINE.finditer(text))


def parsed_json(text: str, path: Path, first_line: int = 1, *, unique: bool = False) -> Any:
    """The value of a JSON text of a file; raises BadPrompts with the line.

    unique: refuse a key that an object has twice.
    """
    try:
        return from_json(text, unique=unique)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadPrompts(f"{path}, line {line}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise BadPrompts(f"{path}, line {first_line}: not JSON that can be read: {error}") from None


def json_lines(text: str, path: Path, *, unique: bool = False) -> Iterator[tuple[int, Any]]:
    """The value of each line, with its number; as `parsed_json`."""
    for number, line in numbered_lines(text):
        yield number, parsed_json(line, path, number, unique=unique)


def parsed_toml(text: str, path: Path) -> dict[str, Any]:
    """The tables of a TOML text of a file; raises BadPrompts."""
    try:
        return from_toml(text)
    except ValueError as error:
        raise BadPrompts(f"{path}: not TOML that can be read: {error}") from None
