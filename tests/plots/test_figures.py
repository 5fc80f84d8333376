"""What the figures hold, read from their axes, and how they are saved."""

from __future__ import annotations

import math
import os
import sys

import numpy as np
import pytest

from steerlab.core.record import record_of
from steerlab.errors import BadOption, StoreError
from steerlab.evaluation.statistics import Estimate
from steerlab.plots import drawing, figures
from steerlab.plots.lineage import MOST, graph_of, lineage_graph
from steerlab.plots.store_map import MapPoint, StoreMap
from steerlab.plots.values import DoseResponse, HeatGrid, Profile, profiles
from steerlab.registry.lineage import Lineage, Node
from tests.evaluation.measurements import point
from tests.registry.samples import vector

POINTS = tuple(
    point(d, Estimate(10 * d, 10 * d - 1, 10 * d + 1, 8), (0.1 * d, 0.5), abs(d) < 0.3)
    for d in (-0.4, -0.2, 0.0, 0.2, 0.4)
)
CURVE = DoseResponse("love.v1", "log-odds (nats)", POINTS, 15, (-0.2, 0.2), 0.2, 10)
GRID = HeatGrid(
    "vader",
    "vader",
    (10, 15),
    ("-0.2", "0", "+0.2"),
    ((0.1, 0.3, 0.5), (math.nan, 0.3, None)),
    centre=0.3,
)


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_the_curve_its_interval_chance_and_the_safe_range_are_drawn():
    figure = figures.dose_response(CURVE)
    (axes,) = figure.axes
    curve = next(line for line in axes.lines if line.get_label() == "love.v1")
    np.testing.assert_allclose(curve.get_xdata(), [-0.4, -0.2, 0, 0.2, 0.4])
    np.testing.assert_allclose(curve.get_ydata(), [-4, -2, 0, 2, 4])
    bands = {c.get_label(): c.get_paths()[0].get_extents() for c in axes.collections}
    assert bands["95% interval"].ymin == pytest.approx(-5)
    assert bands["10 random directions, ±2 sd"].ymax == pytest.approx(0.04 + 1)
    safe = next(p for p in axes.patches if p.get_label() == "safe doses")
    assert (safe.get_x(), safe.get_x() + safe.get_width()) == pytest.approx((-0.2, 0.2))
    unsound = next(line for line in axes.lines if line.get_label() == drawing.UNSOUND)
    assert list(unsound.get_xdata()) == [-0.4, 0.4]
    chosen = next(line for line in axes.lines if "chosen" in str(line.get_label()))
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.2], [2.0])
    assert axes.get_xlabel().startswith("dose")
    assert axes.get_ylabel() == "change in log-odds (nats)"


def test_a_curve_without_controls_safe_range_or_choice_is_one_too():
    points = tuple(point(p.dose, Estimate(1.0, math.nan, math.nan, 1)) for p in POINTS)
    figure = figures.dose_response(DoseResponse("x", "vader", points))
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["x", "95% interval"]
    drawing.rendered(figure, "png")


def test_the_heatmap_has_each_number_in_its_cell_and_turns_at_the_baseline():
    figure = figures.heatmap(GRID)
    axes, bar = figure.axes
    assert texts(axes) == ["0.10", "0.30", "0.50", "–", "0.30", "·"]
    shares = axes.collections[0].get_array()
    np.testing.assert_allclose(shares[0], [-1, 0, 1])
    assert list(shares.mask[1]) == [True, False, True]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["10", "15"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["-0.2", "0", "+0.2"]
    low, high = axes.get_ylim()
    assert low > high  # the first layer at the top
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0.10", "0.30", "0.50"]


def test_numbers_can_be_read_on_every_colour():
    def luminance(colour):
        from matplotlib.colors import to_rgb

        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return np.dot(parts, (0.2126, 0.7152, 0.0722))

    for diverging in (True, False):
        scheme = figures.colours(diverging)
        for share in np.linspace(-1 if diverging else 0, 1, 41):
            back = luminance(scheme((share + 1) / 2 if diverging else share)[:3])
            text = luminance(figures._on(scheme, share, diverging))
            low, high = sorted((back, text))
            assert (high + 0.05) / (low + 0.05) >= 4.3, share


def test_a_grid_without_a_baseline_goes_from_its_least_to_its_largest():
    grid = HeatGrid("x", "x", (1,), ("a", "b", "c"), ((2.0, 4.0, 3.0),))
    np.testing.assert_allclose(
        figures.heatmap(grid).axes[0].collections[0].get_array(), [[0, 1, 0.5]]
    )
    one = HeatGrid("x", "x", (1,), ("a",), ((2.0,),), centre=2.0)
    assert one.share(2.0) == 0.0
    for empty in (None, 0.0):
        drawing.rendered(
            figures.heatmap(HeatGrid("x", "x", (1,), ("a",), ((None,),), empty)), "svg"
        )


def test_profiles_are_those_of_the_record():
    record = record_of(vector(0, 2, 3), "love", 1)
    found = {profile.name: profile for profile in profiles(record)}
    assert list(found) == ["norm", "dose of coefficient 1", "agreement", "separability"]
    assert found["norm"].values == tuple(facts.norm for facts in record.layers)
    assert found["dose of coefficient 1"].values == pytest.approx(
        [facts.reach / 4 for facts in record.layers]
    )
    assert found["separability"].level == 0.5
    figure = figures.layer_profile("love.v1", list(found.values()))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(found)
    assert list(figure.axes[0].lines[0].get_xdata()) == [2, 3]


def test_a_profile_shows_intervals_and_what_was_never_measured_is_left_out():
    panel = Profile("effect", (3, 5), (1.0, 2.0), ((0.5, 1.5), (1.0, 3.0)))
    axes = figures.layer_profile("x", [panel]).axes[0]
    assert axes.collections[0].get_paths()[0].get_extents().ymax == 3.0
    bare = record_of(vector(0, 2, residual_norms={}, diagnostics={}), "x", 1)
    assert [profile.name for profile in profiles(bare)] == ["norm"]


def map_of_many(count):
    rng = np.random.default_rng(0)
    points = tuple(
        MapPoint(f"_v{i}$", *map(float, rng.normal(size=2)), ("contrast", "expression")[i % 2])
        for i in range(count)
    )
    return StoreMap("tiny", 3, points, (0.5, 0.25), {})


def test_the_map_has_every_point_and_names_that_do_not_overlap():
    found = map_of_many(60)
    figure = figures.map_of(found)
    axes = figure.axes[0]
    drawn = [(x, y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)]
    assert {(p.x, p.y) for p in found.points} <= set(drawn)
    assert "50%" in axes.get_xlabel()
    assert "25%" in axes.get_ylabel()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 20
    for i, box in enumerate(boxes):  # widths are estimated when they are placed
        assert sum(box.overlaps(other) for other in boxes[:i]) <= 1
    ratio = np.diff(axes.get_xlim())[0] / np.diff(axes.get_ylim())[0]
    extent = axes.get_window_extent()
    assert extent.width / extent.height == pytest.approx(ratio, rel=0.01)


def test_points_in_one_place_are_drawn():
    same = tuple(MapPoint(f"v{i}", 0.0, 0.0) for i in range(3))
    drawing.rendered(figures.map_of(StoreMap("tiny", 3, same, (0.0, 0.0), {})), "png")


def lineage():
    """Made of `both` and `base`, where both is made of base: generations are longest paths."""
    base = Node("m.base.v1", "1", "4 contrast pairs")
    both = Node(
        "m.both.v1", "2", "= base.v1 + gone", branches=(base, Node("gone", "3", stored=False))
    )
    child = Node("m.child.v1", "5", "= -mix.v1")
    cut = Node("m.base.v1", "1", "4 contrast pairs", cut=True)
    return Lineage("m.mix.v1", (both, cut), (child,))


def test_a_lineage_has_each_vector_once_and_arrows_from_part_to_whole():
    graph = graph_of(lineage(), "= both.v1 - base.v1")
    columns = {ref: box.column for ref, box in graph.boxes.items()}
    assert columns == {
        "m.mix.v1": 0,
        "m.both.v1": -1,
        "m.base.v1": -2,
        "gone": -2,
        "m.child.v1": 1,
    }
    assert set(graph.edges) == {
        ("m.both.v1", "m.mix.v1"),
        ("m.base.v1", "m.both.v1"),
        ("gone", "m.both.v1"),
        ("m.base.v1", "m.mix.v1"),
        ("m.mix.v1", "m.child.v1"),
    }
    places = [(box.column, box.row) for box in graph.boxes.values()]
    assert len(set(places)) == len(places)
    figure = lineage_graph(lineage(), "= both.v1 - base.v1")
    shown = texts(figure.axes[0])
    assert {"mix.v1", "both.v1", "base.v1", "gone", "child.v1", "not in this store"} <= set(shown)
    arrows = [a for a in figure.axes[0].texts if getattr(a, "arrow_patch", None)]
    assert len(arrows) == 5


def test_of_a_large_family_the_nearest_are_drawn_and_the_rest_counted():
    children = tuple(Node(f"m.c{i}.v1", str(i), "= a") for i in range(100))
    graph = graph_of(Lineage("m.a.v1", (), children))
    assert len(graph.boxes) == MOST
    assert graph.left_out == 101 - MOST
    figure = lineage_graph(Lineage("m.a.v1", (), children))
    assert "and 41 more" in figure.texts[0].get_text()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_equal_figures_are_equal_files(tmp_path, suffix):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        drawing.save(figures.heatmap(GRID), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert first.startswith(start)
    assert sorted(tmp_path.iterdir()) == paths  # no temporary file is left


def test_an_impossible_file_is_one_line(tmp_path):
    with pytest.raises(BadOption, match=r"must end in \.png, \.svg or \.pdf"):
        drawing.check_file(tmp_path / "x.gif")
    with pytest.raises(BadOption, match="there is no directory"):
        drawing.check_file(tmp_path / "no" / "x.png")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(BadOption, match="it is a directory"):
        drawing.check_file(tmp_path / "d.png")


def test_a_directory_that_is_read_only_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BadOption, match="is read-only"):
        drawing.check_file(tmp_path / "x.png")


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.svg"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(StoreError, match="No space"):
        drawing.save(figures.heatmap(GRID), path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.svg"]
    assert path.read_text() == "before"


def test_names_from_strangers_are_drawn_as_they_are(tmp_path):
    for name in ("_$x_1^ <script>", "a\x1b[31m愛"):
        curve = DoseResponse(name, "nats", POINTS)
        for form in ("png", "svg"):
            drawing.rendered(figures.dose_response(curve), form)
    svg = drawing.inline_svg(figures.dose_response(DoseResponse("<script>", "&", POINTS)), "f")
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_a_figure_in_a_page_takes_the_pages_colours_and_keeps_its_names_apart():
    one = drawing.inline_svg(figures.dose_response(CURVE), "one")
    two = drawing.inline_svg(figures.dose_response(CURVE), "two")
    assert one.startswith('<svg viewBox="')
    assert "var(--ink)" in one
    assert drawing.INK not in one
    import re

    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", one))
    assert used == ids[0]
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", one)


def test_nothing_opens_a_window_or_changes_a_notebooks_settings():
    import matplotlib

    with matplotlib.rc_context({"font.size": 7}):
        drawing.rendered(figures.dose_response(CURVE), "png")
        assert matplotlib.rcParams["font.size"] == 7
    assert "matplotlib.pyplot" not in sys.modules
