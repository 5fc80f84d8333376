"""The lineage of a vector as a graph: its parents to the left, its children to the right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.plots.drawing import COOL, INK, LINE, MUTED, PAPER, WARM, in_style, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from steerlab.registry.lineage import Lineage, Node

MOST = 60
"""The largest number of vectors in a graph."""

_WIDE, _HIGH = 2.6, 0.6  # inches of a box
_APART, _ABOVE = 0.7, 0.28  # and between boxes
_EDGE, _TITLE = 0.2, 0.5


@dataclass(frozen=True)
class Box:
    """A vector of the graph. column: its generation, 0 for the middle; row: from the top."""

    ref: str
    recipe: str
    stored: bool
    column: int
    row: float


@dataclass(frozen=True)
class Graph:
    """Boxes by ref, and edges from parents to children."""

    boxes: Mapping[str, Box]
    edges: tuple[tuple[str, str], ...]
    left_out: int


def graph_of(lineage: Lineage, recipe: str = "") -> Graph:
    """Lay out a lineage: each vector once, in the column of its longest path to the middle."""
    edges: dict[tuple[str, str], None] = {}
    nodes: dict[str, Node] = {}
    columns = {lineage.ref: 0}
    for node, near in _walk(lineage.parents, lineage.ref):
        nodes.setdefault(node.ref, node)
        edges[node.ref, near] = None
    for node, near in _walk(lineage.children, lineage.ref):
        nodes.setdefault(node.ref, node)
        edges[near, node.ref] = None
    _place(columns, edges, lineage.ref)
    near_first = sorted(nodes, key=lambda ref: abs(columns[ref]))  # stable: else as met
    kept = {lineage.ref, *near_first[: MOST - 1]}
    rows = _rows([lineage.ref, *nodes], columns, tuple(edges), kept)
    known = {ref: (node.recipe, node.stored) for ref, node in nodes.items()}
    known[lineage.ref] = (recipe, True)
    boxes = {ref: Box(ref, *known[ref], columns[ref], rows[ref]) for ref in rows}
    drawn = tuple(edge for edge in edges if edge[0] in kept and edge[1] in kept)
    return Graph(boxes, drawn, len(nodes) + 1 - len(kept))


def _walk(branches: Sequence[Node], near: str) -> Iterator[tuple[Node, str]]:
    """Every node with the ref that it hangs from."""
    for node in branches:
        yield node, near
        yield from _walk(node.branches, node.ref)


def _place(columns: dict[str, int], edges: Mapping[tuple[str, str], None], middle: str) -> None:
    """Put parents left of all their children, and children right of all their parents."""
    for way in (-1, 1):
        level = {middle}
        for depth in range(1, len(edges) + 1):
            pairs = edges if way > 0 else [(b, a) for a, b in edges]
            level = {far for near, far in pairs if near in level}
            if not level:
                break
            columns.update(dict.fromkeys(level, way * depth))


def _rows(
    refs: Sequence[str],
    columns: Mapping[str, int],
    edges: Sequence[tuple[str, str]],
    kept: set[str],
) -> dict[str, float]:
    """Rows within each column, centred, in the order of the mean rows of their neighbours."""
    rows: dict[str, float] = {}
    shown = [ref for ref in dict.fromkeys(refs) if ref in kept]
    for column in sorted({columns[ref] for ref in shown}, key=abs):
        members = [ref for ref in shown if columns[ref] == column]

        def pull(ref: str) -> float:
            joined = [
                rows[b if a == ref else a]
                for a, b in edges
                if ref in (a, b) and (b if a == ref else a) in rows
            ]
            return sum(joined) / len(joined) if joined else 0.0

        members.sort(key=pull)
        for i, ref in enumerate(members):
            rows[ref] = i - (len(members) - 1) / 2
    return rows


@in_style
def lineage_graph(lineage: Lineage, recipe: str = "") -> Figure:
    """Boxes joined by arrows from parents to children, a column for each generation."""
    graph = graph_of(lineage, recipe)
    boxes = graph.boxes.values()
    first, last = min(box.column for box in boxes), max(box.column for box in boxes)
    wide = max((last - first + 1) * (_WIDE + _APART) - _APART + 2 * _EDGE, 4.6)
    top = max(abs(box.row) for box in boxes)
    high = 2 * top * (_HIGH + _ABOVE) + _HIGH + _EDGE + _TITLE
    figure = new_figure(wide, high, laid_out=False)
    axes = figure.add_axes((0, 0, 1, 1))  # in inches, from the middle of the first column
    axes.set_axis_off()
    axes.set_xlim(-_EDGE, wide - _EDGE)
    lift = top * (_HIGH + _ABOVE)
    axes.set_ylim(-_EDGE, high - _EDGE)
    places = {
        box.ref: ((box.column - first) * (_WIDE + _APART), lift - box.row * (_HIGH + _ABOVE))
        for box in boxes
    }
    for start, end in graph.edges:
        _arrow(axes, places[start], places[end])
    for box in boxes:
        _draw(axes, box, places[box.ref], lineage.ref)
    more = f"  (and {graph.left_out} more)" if graph.left_out else ""
    title = f"Lineage of {plain(lineage.ref)}{more}"
    figure.text(_EDGE / wide, 1 - 0.17 / high, title, fontsize=11, fontweight="bold", va="top")
    return figure


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 1}
    tip, tail = (end[0], end[1] + _HIGH / 2), (start[0] + _WIDE, start[1] + _HIGH / 2)
    axes.annotate("", tip, tail, arrowprops={**look, "connectionstyle": "arc3,rad=0"}, zorder=1)


def _draw(axes: Axes, box: Box, place: tuple[float, float], middle: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    here = box.ref == middle
    look: dict[str, Any] = {
        "facecolor": PAPER if box.stored else LINE,
        "edgecolor": WARM if here else COOL if box.stored else MUTED,
        "linewidth": 2 if here else 1.2,
        "linestyle": "solid" if box.stored else (0, (3, 2)),
    }
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(place, _WIDE, _HIGH, boxstyle=shape, zorder=2, **look))
    name = box.ref.split(".", 1)[1] if box.ref.count(".") == 2 else box.ref  # all of one model
    recipe = box.recipe if box.stored else "not in this store"
    for text, size, up, weight, colour in (
        (plain(name), 9.5, 0.62, "bold", INK),
        (plain(recipe), 7.5, 0.24, "normal", MUTED),
    ):
        most = int((_WIDE - 0.15) * 72 / (size * (0.66 if weight == "bold" else 0.54)))
        shown = text if len(text) <= most else text[: most - 1] + "…"
        font: dict[str, Any] = {"fontsize": size, "fontweight": weight, "color": colour}
        axes.text(x + 0.09, y + _HIGH * up, shown, va="center", zorder=3, **font)
