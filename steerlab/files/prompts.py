"""Texts of files, and their lines."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from steerlab.errors import BadPrompts, NotFound
from steerlab.files.limits import check_memory

_LARGEST = 16 * 2**20
_MEMBERS = 1000
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


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
