"""Text for people: numbers, counts, sizes, and strings made safe to print."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.setting import Setting


def count(n: int, what: str) -> str:
    """A number and its noun: "1 file", "3,000 files"."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of several names, and how many more there are: "a, b and 3 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def size_text(size: int) -> str:
    """A size in bytes as text: "1.2 MB", in powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale * 0.99995:  # rounds to 1000.0 of the smaller unit
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def printable(text: str, *, newlines: bool = False) -> str:
    """Untrusted text without control characters, which become visible escapes."""
    if text.isprintable():
        return text
    keep = "\n" if newlines else ""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of digits; "-" for None."""
    if value is None:
        return "-"
    return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def signed_dose(value: float | None) -> str:
    """A dose with its sign: "+0.15", "0", "-"; far from 1 as "+3e+04"."""
    if value is None:
        return "-"
    if not value:
        return "0"
    return f"{value:+.2f}" if 0.005 <= abs(value) < 100 else f"{value:+.2g}"


def signed(coefficient: float) -> str:
    """A coefficient with its sign: "+2", "-0.315", "0"."""
    return f"{coefficient:+.4g}" if coefficient else "0"


_DIFFED = 600  # words up to which texts are compared word by word


def differing(words: Sequence[str], baseline: Sequence[str]) -> list[bool]:
    """For each word, whether it differs from the baseline (longest common blocks)."""
    from difflib import SequenceMatcher

    marks = [True] * len(words)
    for block in SequenceMatcher(None, baseline, words, autojunk=False).get_matching_blocks():
        marks[block.b : block.b + block.size] = [False] * block.size
    return marks


def marked_words(text: str, baseline: str | None) -> list[tuple[str, bool]]:
    """A printable text in words and spaces, each with whether it differs from the baseline's.

    None differs without a baseline, and in texts of more than 600 words.
    """
    pieces = re.findall(r"\S+|\s+", printable(text, newlines=True))
    words = [piece for piece in pieces if not piece.isspace()]
    if baseline is None or len(words) > _DIFFED:
        return [(piece, False) for piece in pieces]
    marks = iter(differing(words, printable(baseline, newlines=True).split()))
    return [(piece, not piece.isspace() and next(marks)) for piece in pieces]


def strength_text(setting: Setting) -> str:
    """The strength of a setting: "baseline", or its dose if that is known, and its coefficient."""
    if setting.is_baseline:
        return "baseline"
    dose = f"dose {signed_dose(setting.dose)}, " if setting.dose is not None else ""
    return f"{dose}c {setting.coefficient:+.3g}"
