"""The figures: dose-response, sweep heatmaps, layer profiles, generalization, store maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from steerlab.plots.drawing import (
    CHANCE,
    COOL,
    LINE,
    MUTED,
    PAPER,
    SAFE,
    UNSOUND,
    WARM,
    in_style,
    new_figure,
    plain,
)
from steerlab.plots.store_map import MapPoint, StoreMap
from steerlab.plots.values import DoseResponse, EffectPanel, HeatGrid, Profile, limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOSE = "dose  (‖c·v‖ / median ‖residual‖)"
DASHED = (0, (4, 3))
_EXTREME_COOL, _EXTREME_WARM = "#1c4f96", "#b35c00"
_MIDDLE = "#f7f8fa"
_DARK, _LIGHT = "#0a0d12", "#fefefe"
_KINDS = {"contrast": ("o", COOL), "expression": ("D", WARM), "imported": ("s", SAFE)}


@in_style
def dose_response(found: DoseResponse) -> Figure:
    """Effect over dose with its interval, that of random directions, and the safe doses."""
    figure = new_figure(7.4, 4.4)
    axes = figure.subplots()
    _chance(axes, found)
    _safe(axes, found)
    doses = [p.dose for p in found.points]
    means = [p.effect.mean for p in found.points]
    lows, highs = [p.effect.low for p in found.points], [p.effect.high for p in found.points]
    _band(axes, doses, lows, highs, COOL, 0.18, "95% interval")
    axes.plot(doses, means, color=COOL, linewidth=2, label=plain(found.name), zorder=3)
    for sound in (True, False):
        points = [(p.dose, p.effect.mean) for p in found.points if p.sound == sound]
        label = "" if sound or not points else UNSOUND
        face = {"color": COOL, "markerfacecolor": COOL if sound else PAPER}
        _dots(axes, points, markersize=5.5, zorder=4, label=label, **face)
    _mark_chosen(axes, found)
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    _grid(axes, "y")
    axes.set_ylim(*found.window)
    axes.set_xlabel(DOSE)
    axes.set_ylabel(f"change in {plain(found.unit)}")
    at = "" if found.layer is None else f", layer {found.layer}"
    axes.set_title(f"Dose-response of {plain(found.name)}{at}")
    _legend(figure, first=plain(found.name))
    return figure


def _band(
    axes: Axes,
    x: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    colour: str,
    alpha: float,
    label: str = "",
) -> None:
    axes.fill_between(x, lows, highs, color=colour, alpha=alpha, linewidth=0, label=label)


def _dots(axes: Axes, points: Sequence[tuple[float, float]], **look: Any) -> None:
    """Markers without a line."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    axes.plot(xs, ys, **{"linestyle": "none", "marker": "o", **look})


def _grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    axes.grid(True, axis=axis)
    axes.set_axisbelow(True)


def _legend(figure: Figure, first: str = "") -> None:
    """One legend below all panels, each label once; `first` begins it."""
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    labels = sorted(shown, key=lambda label: label != first)
    handles = [shown[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _chance(axes: Axes, found: DoseResponse) -> None:
    points = [(p.dose, p.controls.mean, *p.controls.reach) for p in found.points]
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return
    doses, means, lows, highs = zip(*points, strict=True)
    label = f"{found.controls or ''} random directions, ±2 sd".strip()
    _band(axes, doses, lows, highs, CHANCE, 0.28, label)
    axes.plot(doses, means, color=CHANCE, linewidth=1.2, linestyle=DASHED)


def _safe(axes: Axes, found: DoseResponse) -> None:
    if found.safe is None:
        return
    axes.axvspan(*found.safe, color=SAFE, alpha=0.09, linewidth=0, label="safe doses", zorder=0)
    for edge in found.safe:
        axes.axvline(edge, color=SAFE, alpha=0.55, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)


def _mark_chosen(axes: Axes, found: DoseResponse) -> None:
    point = found.at_chosen
    if point is None:
        return
    ring = {"markerfacecolor": "none", "markeredgecolor": WARM, "markeredgewidth": 2}
    label = f"chosen: dose {point.dose:+.2f}"
    _dots(axes, [(point.dose, point.effect.mean)], markersize=12, label=label, zorder=5, **ring)


def colours(diverging: bool) -> Any:
    """The colour map: blue over near white to orange, or its warm half."""
    from matplotlib.colors import LinearSegmentedColormap

    half = [_MIDDLE, "#f3d4a8", "#e9a348", WARM, _EXTREME_WARM]
    other = [_EXTREME_COOL, COOL, "#7aa6e0", "#c3d8f2"]
    return LinearSegmentedColormap.from_list("steerlab", [*other, *half] if diverging else half)


@in_style
def heatmap(grid: HeatGrid) -> Figure:
    """Layers down, strengths across, numbers in the cells; colours diverge at the baseline."""
    wide, high = 2.6 + 0.78 * len(grid.columns), 1.5 + 0.42 * len(grid.layers)
    figure = new_figure(max(4.6, wide), max(2.4, high))
    axes = figure.subplots()
    diverging = grid.centre is not None
    shares = [[grid.share(x) for x in row] for row in grid.values]
    scheme = colours(diverging).with_extremes(bad=LINE)
    mesh = axes.pcolormesh(
        shares, cmap=scheme, vmin=-1 if diverging else 0, vmax=1, edgecolors=PAPER, linewidth=1.5
    )
    for i, row in enumerate(grid.values):
        for j, value in enumerate(row):
            ink = _on(scheme, shares[i][j], diverging)
            middle: dict[str, Any] = {"ha": "center", "va": "center"}
            axes.text(j + 0.5, i + 0.5, grid.shown(value), fontsize=9, color=ink, **middle)
    axes.set_xticks([j + 0.5 for j in range(len(grid.columns))], grid.columns)
    axes.set_yticks([i + 0.5 for i in range(len(grid.layers))], [str(b) for b in grid.layers])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(DOSE if grid.strength == "dose" else "coefficient")
    axes.set_ylabel("layer")
    axes.set_title(plain(grid.title))
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    low, high = grid.ends
    ticks = [-1, 0, 1] if diverging else [0, 1]
    ends = [low, grid.centre, high] if diverging else [low, high]
    bar.set_ticks(ticks, labels=[grid.shown(x) for x in ends])
    bar.set_label(plain(grid.unit) + (", baseline in the middle" if diverging else ""))
    return figure


def _on(scheme: Any, share: float, diverging: bool) -> str:
    """The colour of a number in a cell: near black or near white, by contrast.

    Neither is the page's ink, which changes in dark mode while the cells keep their colours.
    """
    if math.isnan(share):
        return _DARK
    rgb = scheme((share + 1) / 2 if diverging else share)[:3]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return _LIGHT if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.054 else _DARK


@in_style
def layer_profile(name: str, found: Sequence[Profile]) -> Figure:
    """A small panel for each quantity, over the same layers."""
    across = min(len(found), 2)
    down = -(-len(found) // across)
    figure = new_figure(3.9 * across if across > 1 else 5.6, 0.5 + 2.2 * down)
    grid = figure.subplots(down, across, squeeze=False, sharex=True)
    panels = list(grid.flat)
    for axes, profile in zip(panels, found, strict=False):
        if profile.level is not None:
            axes.axhline(profile.level, color=CHANCE, linewidth=1.2, linestyle=DASHED)
        if profile.band:
            lows, highs = zip(*profile.band, strict=True)
            _band(axes, profile.layers, lows, highs, COOL, 0.18)
        axes.plot(profile.layers, profile.values, color=COOL, linewidth=2, marker="o", markersize=4)
        values = [*profile.values, *(x for pair in profile.band for x in pair)]
        axes.set_ylim(*limits(values if profile.level is None else [*values, profile.level], 0.12))
        axes.set_title(plain(profile.name), fontsize=10)
        _grid(axes, "y")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    for axes in panels[max(len(found) - across, 0) : len(found)]:
        axes.set_xlabel("layer")
    chance = any(profile.level is not None for profile in found)
    title = f"{plain(name)}, layer by layer" + ("  (dashed: chance)" if chance else "")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


@in_style
def generalization(found: Sequence[EffectPanel]) -> Figure:
    """A panel for each metric and a row for each style: the effect and its controls."""
    heights = [len(panel.rows) + 1.2 for panel in found]
    figure = new_figure(7.4, 1.0 + 0.45 * sum(heights))
    panels = figure.subplots(len(found), squeeze=False, height_ratios=heights)
    for axes, panel in zip(panels.flat, found, strict=True):
        _effect_panel(axes, panel)
    _legend(figure)
    return figure


def _effect_panel(axes: Axes, found: EffectPanel) -> None:
    """Random directions as a bar, shuffled labels as a diamond, the effect with its interval."""
    rows = range(len(found.rows))
    effects = [r.effect for r in found.rows]
    axes.hlines(rows, [e.low for e in effects], [e.high for e in effects], color=COOL, linewidth=2)
    means = [(e.mean, i) for i, e in enumerate(effects)]
    _dots(axes, means, markersize=7, color=COOL, label="S(+c) − S(−c), 95% interval")
    chance = [(i, r.control) for i, r in enumerate(found.rows) if r.control is not None]
    axes.barh(
        [i for i, _ in chance],
        [4 * control.sd for _, control in chance],
        left=[control.reach[0] for _, control in chance],
        height=0.62,
        color=CHANCE,
        alpha=0.28,
        label="random directions, ±2 sd",
        zorder=1,
    )
    shuffled = [(r.shuffled, i) for i, r in enumerate(found.rows) if r.shuffled is not None]
    if shuffled:
        _dots(axes, shuffled, marker="D", markersize=5, color=WARM, label="shuffled labels")
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.set_yticks(list(rows), [plain(r.style) for r in found.rows])
    axes.set_ylim(len(found.rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    _grid(axes, "x")
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.set_xlabel(f"change in {plain(found.metric)}")
    beside = axes.get_yaxis_transform()
    for i, row in enumerate(found.rows):
        axes.text(1.01, i, row.finding, transform=beside, va="center", fontsize=9)
    axes.set_title(f"Does {plain(found.name)} generalize? ({plain(found.metric)})")


@in_style
def map_of(found: StoreMap) -> Figure:
    """The vectors of a model as named points, with equal units on both axes."""
    left, right = limits((p.x for p in found.points), 0.14)
    low, high = limits((p.y for p in found.points), 0.14)
    ratio = max(0.5, min(1.0, (high - low) / (right - left)))
    figure = new_figure(7.4, 6.4 * ratio + 1.2)
    axes = figure.subplots()
    for kind, (marker, colour) in _KINDS.items():
        points = [(p.x, p.y) for p in found.points if p.kind == kind]
        edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.8}
        size = 7 if len(found.points) < 80 else 4
        if points:
            look = {"marker": marker, "markersize": size, "color": colour, "zorder": 3}
            _dots(axes, points, label=kind, **look, **edge)
    half = max((right - left) / 2, (high - low) / 2 / ratio)
    axes.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
    axes.set_ylim((low + high) / 2 - half * ratio, (low + high) / 2 + half * ratio)
    axes.set_aspect("equal")
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    axes.set_xlabel(f"axis 1 ({found.variance[0]:.0%} of the variance)")
    axes.set_ylabel(f"axis 2 ({found.variance[1]:.0%} of the variance)")
    axes.set_title(f"{len(found.points)} vectors of {plain(found.model)} at layer {found.layer}")
    _legend(figure)
    figure.draw_without_rendering()  # labels are placed in pixels, which the layout decides
    _label(axes, found.points)
    return figure


_OFFSETS = ((8, 0), (-8, 0), (0, 9), (0, -9), (7, 8), (-7, 8), (7, -8), (-7, -8))


def _label(axes: Axes, points: Sequence[MapPoint]) -> None:
    """Put names beside their points, except where one would cover a point or another name."""
    at = axes.transData.transform([(p.x, p.y) for p in points])
    scale = 72 / axes.figure.dpi  # pixels to points
    dots = [(x * scale - 4, y * scale - 4, x * scale + 4, y * scale + 4) for x, y in at]
    window = axes.get_window_extent()
    room = (window.x0 * scale, window.y0 * scale, window.x1 * scale, window.y1 * scale)
    taken = list(dots)
    for i, point in enumerate(points):
        text = plain(point.ref)[:40]
        wide, high = 5.1 * len(text), 9.0  # of DejaVu Sans at 8 points, on average
        for dx, dy in _OFFSETS:
            left = dots[i][0] + 4 + dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0)
            bottom = dots[i][1] + 4 + dy - high / 2
            box = (left, bottom, left + wide, bottom + high)
            inside = box[0] >= room[0] and box[2] <= room[2] and box[1] >= room[1] - 2
            if inside and not any(_overlap(box, other) for other in taken if other != dots[i]):
                side = "right" if dx < 0 else "center" if dx == 0 else "left"
                place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "ha": side}
                axes.annotate(text, (point.x, point.y), (dx, dy), fontsize=8, **place)
                taken.append(box)
                break


Box = tuple[float, float, float, float]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
