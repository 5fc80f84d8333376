"""How figures look and how they are saved; matplotlib is imported when the first is drawn.

No window is ever opened: a figure is made without pyplot and rendered when it is saved.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from steerlab.core.display import printable
from steerlab.errors import BadOption
from steerlab.files import durable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

SUFFIXES = (".png", ".svg", ".pdf")
"""What a picture can be saved as."""

INK, MUTED, LINE, PAPER = "#1f2933", "#5f6c7b", "#dde3ea", "#ffffff"
COOL, WARM, SAFE, CHANCE = "#2f6fc4", "#d97b0d", "#0b8a6a", "#8895a4"
"""Below and above the baseline, sound doses, random directions: told apart by colour-blind eyes."""

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
    """Our settings, and none of the user's own matplotlibrc."""
    from matplotlib import rc_context, rcParamsDefault

    with rc_context(), warnings.catch_warnings():
        # a letter that no font has is drawn as a box: not worth a line on the user's terminal
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        import matplotlib

        ours: Any = {k: v for k, v in rcParamsDefault.items() if not k.startswith("backend")}
        matplotlib.rcParams.update(ours)
        matplotlib.rcParams.update(_STYLE)
        yield


def in_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under our settings."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with styled():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, *, laid_out: bool = True) -> Figure:
    """An empty figure, in inches, that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained" if laid_out else None)


# saving


def check_file(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise BadOption, in a line, where no such file can be written; before any work is done."""
    if path.suffix.lower() not in suffixes:
        raise BadOption(f"can't write {path}: the name has to end in {_either(suffixes)}")
    if path.is_dir():
        raise BadOption(f"can't write {path}: it is a directory")
    if not path.parent.is_dir():
        raise BadOption(f"can't write {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadOption(f"can't write {path}: {path.parent} is read-only")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as its file's suffix says, whole or not at all.

    Equal figures give equal bytes. Raises BadOption for a suffix that is none of ours,
    StoreError where the file can't be written.
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
    """A figure as markup to stand in a page, whose colours follow the page's.

    name: unique in the page, so that what the figure defines inside stays its own. Ink, muted,
    line and paper become its --ink, --muted, --line and --paper. least: below which share of
    its size it is not shrunk, but scrolls; as it is, 7.4 inches fit a telephone.
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
    """The first tag: as wide as its column, but neither too small to be read nor blown up."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    small, large = (round(float(box[1]) * scale) for scale in (least, 1.45))  # of points, in px
    size = f"min-width: {small}px; max-width: {large}px"
    return f'<svg {box[0]} class="figure" style="{size}">'


def _either(suffixes: Sequence[str]) -> str:
    *most, last = suffixes
    return f"{', '.join(most)} or {last}" if most else last


def plain(text: str) -> str:
    """A name as it can stand in a figure: no control characters; a leading `_` hides a legend."""
    shown = printable(text)
    return f"\u200b{shown}" if shown.startswith("_") else shown
