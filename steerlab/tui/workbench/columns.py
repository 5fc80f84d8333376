"""The columns of the vector table: which fit a width, and what each says of a vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from steerlab.core.display import printable
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.registry import Summary

GUTTER = 3  # cursor, mark, a space


@dataclass(frozen=True)
class Column:
    """How a column is laid out.

    width: cells; a flexible column takes at least that, and its share of what is left.
    at_least: the smallest table that shows it. sort: what `Listing.matching`
    sorts it by, None if it can't.
    """

    name: str
    width: int
    at_least: int
    sort: str | None = None
    share: int = 0
    right: bool = False


COLUMNS = (
    Column("name", 8, 0, "name", share=3),
    Column("layer", 5, 34, "layer"),
    Column("works", 11, 24),
    Column("norm", 6, 58, "norm", right=True),
    Column("dose", 5, 64, right=True),
    Column("made", 8, 40, "kind", share=4),
    Column("tags", 8, 72, share=2),
    Column("model", 12, 56, "model"),
    Column("created", 10, 96, "created"),
)
SORTS = ("name", "layer", "norm", "kind", "created")


Columns = tuple[tuple[Column, int], ...]
"""The columns shown, each with its width in cells."""


def cells_of(summary: Summary, calibrated: str) -> Mapping[str, str]:
    """The text of every column; calibrated: the dose and layer at which it works."""
    name = summary.ref if summary.version > 1 else summary.name
    front = " front" if summary.scope == "front" else ""
    return {
        "name": name,
        "layer": span(summary.layers) + front,
        "works": calibrated,
        "norm": f"{summary.norm:#.3g}".rstrip("."),
        "dose": "-" if summary.dose is None else f"{summary.dose:.2f}",
        "made": summary.recipe,
        "tags": " ".join(summary.tags),
        "model": summary.model,
        "created": summary.created[:10],
    }


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """The text padded to `width` terminal cells, or cut with …."""
    shown = printable(text[: 2 * width + 2])
    if cell_len(shown) > width:
        shown = f"{set_cell_size(shown, width - 1)}…" if width > 1 else "…"[:width]
    missing = width - cell_len(shown)
    return " " * missing + shown if right else shown + " " * missing


@lru_cache(maxsize=4)
def layout(width: int, *, show_model: bool) -> Columns:
    """The columns that fit into `width`, gaps included."""
    shown = [c for c in COLUMNS if width >= c.at_least and (c.name != "model" or show_model)]
    left = max(1, width - GUTTER - (len(shown) - 1) - sum(c.width for c in shown if not c.share))
    shares = sum(c.share for c in shown)
    sizes = {c.name: c.width if not c.share else left * c.share // shares for c in shown}
    longest = next(c.name for c in reversed(shown) if c.share)
    sizes[longest] += left - sum(sizes[c.name] for c in shown if c.share)
    return tuple((c, sizes[c.name]) for c in shown)


def row_text(summary: Summary, columns: Columns, calibrated: str) -> str:
    """A vector as one line."""
    cells = cells_of(summary, calibrated)
    return " ".join(fitted(cells[c.name], width, right=c.right) for c, width in columns)
