"""The look of figures and how they are saved. Imports matplotlib when the first is drawn.

Never opens a window: figures are made without pyplot and rendered when they are saved.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from steerlab.core.display import printable
from steerlab.errors import BadOption
from steerlab.files import durable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

SUFFIXES = (".png", ".svg", ".pdf")
"""File types of saved figures."""

INK, MUTED, LINE, PAPER = "#1f2933", "#5f6c7b", "#dde3ea", "#ffffff"
COOL, WARM, SAFE, CHANCE = "#2f6fc4", "#d97b0d", "#0b8a6a", "#8895a4"
"""Below and above the baseline, safe doses, random directions; distinct to colour-blind eyes."""

UNSOUND = "not sound: side effects beyond the limits"
"""The legend of doses at which text suffers; `Limits` says how much it may."""

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names and notes may hold a dollar sign
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",  # text stays text: to be read aloud, searched and copied
}


@contextmanager
def styled() -> Iterator[None]:
    """Use our matplotlib settings instead of the user's matplotlibrc."""
    from matplotlib import rc_context, rcParamsDefault

    with rc_context(), warnings.catch_warnings():
        # a character that the font lacks is drawn as a box, without a warning on the terminal
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        import matplotlib

        ours: Any = {k: v for k, v in rcParamsDefault.items() if not k.startswith("backend")}
        matplotlib.rcParams.update(ours)
        matplotlib.rcParams.update(_STYLE)
        yield


def in_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function so that it draws with our settings."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with styled():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, *, laid_out: bool = True) -> Figure:
    """An empty figure without a window; width and height in inches."""
    return _shown_class()(figsize=(width, height), layout="constrained" if laid_out else None)


@cache
def _shown_class() -> type[Figure]:
    """Figures that notebooks show; they show others of matplotlib only if pyplot is there."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            return rendered(self, "png")

    return ShownFigure


# saving


def check_file(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise BadOption if the file can't be written; called before any work is done."""
    if path.suffix.lower() not in suffixes:
        raise BadOption(f"can't write {path}: the name must end in {_either(suffixes)}")
    if path.is_dir():
        raise BadOption(f"can't write {path}: it is a directory")
    if not path.parent.is_dir():
        raise BadOption(f"can't write {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadOption(f"can't write {path}: {path.parent} is read-only")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix, completely or not at all.

    Equal figures give equal bytes. Raises BadOption for an unknown suffix, StoreError if the
    file can't be written.
    """
    check_file(path)
    durable.write(path, rendered(figure, path.suffix.lower()[1:]))


def rendered(figure: Figure, form: str, *, transparent: bool = False) -> bytes:
    """A figure's bytes as png, svg or pdf."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with styled():
        import matplotlib

        matplotlib.rcParams["svg.hashsalt"] = "steerlab"
        figure.savefig(
            buffer, format=form, dpi=160, metadata=dates.get(form), transparent=transparent
        )
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, *, least: float = 0.68) -> str:
    """A figure as SVG markup for a page, in the page's colours.

    name: unique in the page; prefixes the ids that the figure defines. The colours INK, MUTED,
    LINE and PAPER become the page's --ink, --muted, --line and --paper. least: the smallest
    scale before the figure scrolls instead of shrinking; by default 7.4 inches fit a telephone.
    """
    text = rendered(figure, "svg", transparent=True).decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))

    def own(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([^"]*)"', own, text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", text)
    text = re.sub(r"<svg [^>]*>", _opening(text, least), text, count=1)
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (LINE, "line"), (PAPER, "paper")):
        text = text.replace(colour, f"var(--{variable})")
    return text


def _opening(svg: str, least: float) -> str:
    """The first tag: as wide as its column, within limits that keep it legible."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    small, large = (round(float(box[1]) * scale) for scale in (least, 1.45))  # of points, in px
    size = f"min-width: {small}px; max-width: {large}px"
    return f'<svg {box[0]} class="figure" style="{size}">'


def _either(suffixes: Sequence[str]) -> str:
    *most, last = suffixes
    return f"{', '.join(most)} or {last}" if most else last


def plain(text: str) -> str:
    """A name without control characters, and shown in legends even if it begins with `_`."""
    shown = printable(text)
    return f"\u200b{shown}" if shown.startswith("_") else shown
