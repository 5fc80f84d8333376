"""Parsing untrusted JSON and TOML; texts that would take too much memory are refused.

Some texts take far more memory parsed than their bytes: `{"a":1},` is 8 bytes of a file and 190
of memory, and a TOML key of n parts makes n tables.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

MOST_MEMORY = 64_000_000
"""Bytes of memory, about, that the values of one text may take."""

LONGEST_TOML = 4_000_000
_SMALLEST_LARGE = 200_000
_SMALL = re.compile(r"(?<=[,\[])(?:1?\d{5}|\d{1,4})(?=[,\]])", re.ASCII)
_PARTS = 32
_PART = r"""(?>[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_KEY_PART = re.compile(rf"(?<![\w-]){_PART}", re.ASCII)
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{_PARTS}}}", re.ASCII)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


class TooLarge(ValueError):
    """A text that may be valid, but takes more memory to parse than is allowed."""


def check_memory(text: str, most: int = MOST_MEMORY) -> None:
    """Raise TooLarge for a text of too many small values.

    most: the approximate bytes that they may take, beside the text.
    """
    values = 56 * (text.count(",") + text.count("\n")) + 64 * text.count("[")
    memory = values + 200 * text.count("{")
    if memory > most:  # small numbers are one object each time: two pointers are left, less text
        memory -= sum(42 + 2 * (found.end() - found.start()) for found in _SMALL.finditer(text))
    if memory > most:
        raise TooLarge("it holds too many small values: split it")


def from_json(text: str, most: int = MOST_MEMORY, *, unique: bool = False) -> Any:
    """Parse JSON; raises ValueError (JSONDecodeError for invalid JSON).

    most: as in `check_memory`. unique: refuse a key that an object has twice.
    """
    check_memory(text, most)
    small: dict[int, int] = {}

    def integer(digits: str) -> int:
        number = int(digits)
        return small.setdefault(number, number) if 0 <= number < _SMALLEST_LARGE else number

    try:
        return json.loads(text, parse_int=integer, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in items:
        if name in found:
            raise ValueError(f"the key {name!r:.60} is there twice in one object")
        found[name] = value
    return found


def from_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raises ValueError (TOMLDecodeError for invalid TOML)."""
    if len(text) > LONGEST_TOML:
        raise ValueError(f"more than {LONGEST_TOML / 1e6:.0f} MB: write so much as JSON lines")
    check_memory(text)
    tables, parts = (sum(1 for _ in found.finditer(text)) for found in (_TABLE, _KEY_PART))
    if 1000 * tables + 500 * parts > MOST_MEMORY:
        raise ValueError("it holds too many tables: split it")
    if _LONG_KEY.search(text):
        raise ValueError(f"a key of {_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
