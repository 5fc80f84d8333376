"""The header of a payload file, and the limits of its size.

A parsed header takes far more memory than its bytes. Headers that would take too much are refused
before they are parsed, and never written.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from steerlab.core.record import Record, canonical_json
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.files.limits import TooLarge, check_memory, from_json

METADATA_KEY = "steerlab"  # the only one: with several, the file's bytes vary between processes

LONGEST_SHARED = 12 * 2**20
"""Bytes of the longest header that is written for several vectors: a load reads all of it."""

LONGEST_HEADER = 95_000_000
"""Bytes of the longest header that is read; safetensors itself takes no more than 100 MB."""

MOST_OBJECTS = 120_000
"""Objects in a header without arrays: a parsed tensor takes ten times the memory of its line."""

MOST_MEMORY = 85_000_000
"""Bytes of memory, about, that the records of a file may take beside their text."""

_BYTES_PER_OBJECT = 256
_PIECE = 2**20
_ASTRAL = re.compile(r"\\u[dD][89abAB]")
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BEGIN = f'{{"__metadata__":{{"{METADATA_KEY}":"'


class FileTooLarge(CorruptPayload):
    """A file that may be intact, but takes more memory to read than is allowed."""

    @classmethod
    def of(cls, path: Path, error: TooLarge) -> FileTooLarge:
        """The error for a file with a part that is too large."""
        why = str(error).partition(":")[0]
        return cls(f"{path} is larger than this steerlab reads, and may be whole: {why}")


# writing


def check_size(records: Sequence[Record], data: bytes, text: str) -> None:
    """Refuse to write a file that is too large to be read again.

    data: the file. text: that of its records. Raises StoreError.
    """
    for record in records:
        check_labels(record)
    try:
        if len(records) > 1 and len(text) > LONGEST_SHARED:
            raise TooLarge(f"records of {len(text)} bytes, where {LONGEST_SHARED} are the most")
        length_of(io.BytesIO(data), len(data))
        check_memory(text, MOST_MEMORY - _widening(text))
    except ValueError as error:
        what = ", ".join(record.qualified for record in records[:3])
        cure = (
            "make it of fewer prompts"
            if len(records) == 1
            else "take fewer at a time, or call a file that is exported NAME.tar: it is an archive"
        )
        why = str(error).partition(":")[0]
        raise StoreError(
            f"what is to be kept of {what} is too large for a file ({why}): {cure}"
        ) from None


def check_labels(record: Record) -> None:
    """Raise StoreError for tags and a note that are too large to be read again."""
    labels = canonical_json([*record.tags, record.note])
    try:
        check_memory(labels)
        if len(labels) > LONGEST_SHARED:
            raise TooLarge(f"more than {LONGEST_SHARED} bytes")
    except ValueError as error:
        raise StoreError(
            f"the tags and the note of {record.qualified} are too large for a file "
            f"({str(error).partition(':')[0]}): shorten them"
        ) from None


# reading


def without_waiting(path: str, flags: int) -> int:
    """An opener that does not wait for the writer of a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_plain(path: Path) -> bytes:
    """The bytes of a regular file of bounded size; raises NotFound or StoreError."""
    try:
        with open(path, "rb", opener=without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LONGEST_HEADER:
                raise StoreError(f"can't read {path}: it is no plain file, or too large")
            return file.read(LONGEST_HEADER)
    except FileNotFoundError:
        raise NotFound(f"no file {path}") from None
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from None


def length_of(file: BinaryIO, size: int) -> int:
    """The length of a file's header, without parsing it.

    Raises ValueError if it is no header, TooLarge if it is too large to be parsed.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little") if len(start) == 8 else 0
    if length > size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > LONGEST_HEADER:
        raise TooLarge(f"a header of {length} bytes, where {LONGEST_HEADER} is the most")
    most = MOST_OBJECTS + (size - length) // _BYTES_PER_OBJECT
    pieces = (file.read(min(_PIECE, length - at)) for at in range(0, length, _PIECE))
    if sum(piece.count(b"{") for piece in pieces) > most:
        raise TooLarge(f"a header of more than {most} objects")
    return length


def unparsed(file: io.FileIO) -> bytes:
    """The bytes of a file's header; empty if it is invalid or too long."""
    size = os.fstat(file.fileno()).st_size  # 0 of a pipe or a device
    if size < 8:
        return b""
    length = int.from_bytes(file.read(8), "little")
    return file.read(length) if length <= min(size - 8, LONGEST_HEADER) else b""


def is_long(length: int) -> bool:
    """Whether a header is too long for safetensors, which holds it four times in memory.

    `long_text` reads it, if it is spelled as steerlab writes it.
    """
    return length > LONGEST_SHARED


def long_text(path: Path) -> str:
    """The records' text in the long header of a file that safetensors accepts.

    Raises StoreError if it can't be read, CorruptPayload if steerlab did not write it.
    """
    try:
        with open(path, "rb", opener=without_waiting) as file:
            length = length_of(file, os.fstat(file.fileno()).st_size)
            file.seek(8)
            data = file.read(length)
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from None
    plain = data.isascii() and b"\\u" not in data.replace(rb"\\", b"")  # else it takes 4 times more
    if not plain or not data.startswith(_BEGIN.encode()):
        raise CorruptPayload(f"{path} has a long header, which is not as steerlab writes it")
    text = data.decode("ascii")
    del data
    records, _ = json.JSONDecoder().raw_decode(text, len(_BEGIN) - 1)
    return str(records)


def values(text: str) -> Any:
    """The JSON value of the records' text; raises TooLarge, or ValueError for invalid JSON."""
    return from_json(text, MOST_MEMORY - _widening(text))


def _widening(text: str) -> int:
    """Extra bytes that strings of a long JSON text take: one emoji widens all characters."""
    wider = 0
    for found in _STRING.finditer(text) if is_long(len(text)) else ():
        string = found.group()
        if "\\u" in string:
            wide = 4 if _ASTRAL.search(string) else 2
            escapes = string.replace("\\\\", "").count("\\u")
            wider += max(0, wide * (len(string) - 5 * escapes) - len(string))
    return wider
