"""map, tree, and --plot: pictures in the terminal and in files."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import click
import pytest

from steerlab.cli import ExitCode
from steerlab.evaluation.statistics import Estimate
from steerlab.plots import terminal as charts
from steerlab.plots.store_map import MapPoint, StoreMap
from steerlab.plots.values import DoseResponse, HeatGrid
from tests.evaluation.measurements import calibration, evaluation, point

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def plain(lines):
    return [ANSI.sub("", line) for line in lines]


def test_the_map_names_every_vector_and_says_what_it_leaves_out(cli):
    out = cli("map").out
    assert "3 vectors of tiny at layer 1" in out
    for name in ("love", "anger", "warm"):
        assert re.search(rf"(● {name}|{name} ●)", out), out
    assert re.search(r"across: \d+% of the variance, up: \d+%; not shown: \d+%", out)
    data = cli("map", "--json", "--layer", 2).data
    assert data["layer"] == 2
    assert sum(data["variance"]) == pytest.approx(1)  # three points lie in a plane
    assert {point["ref"] for point in data["points"]} == {"love", "anger", "warm"}
    assert "not on the map: 1 of scope front" in cli("map").err


def test_a_map_without_two_vectors_is_one_line(refused):
    assert "a map takes at least two" in refused(ExitCode.NOT_FOUND, "map", "--layer", 3)
    assert "no vectors of a model" in refused(ExitCode.NOT_FOUND, "map", "--model", "x")


def test_the_tree_goes_up_and_down(cli):
    out = cli("tree", "warm").out
    assert out.startswith("warm.v1  = love.v1 - 0.5 * anger.v1\n")
    assert re.search(r"made from\n├── tiny\.love\.v1 .*\n└── tiny\.anger\.v1", out)
    assert "used in\n└── tiny.warm.v1" in cli("tree", "love").out
    assert cli("tree", "love", "--json").data["children"][0]["ref"] == "tiny.warm.v1"
    alone = cli("tree", "front")
    assert "no other vector was made from it" in alone.err


@pytest.mark.parametrize("arguments", [["map"], ["tree", "warm"], ["show", "love"]])
def test_a_picture_is_saved_beside_what_is_printed(cli, tmp_path, arguments):
    bare = cli(*arguments)
    for suffix in ("png", "svg"):
        file = tmp_path / f"picture.{suffix}"
        result = cli(*arguments, "--plot", file)
        assert result.out == bare.out
        assert f"wrote {file}" in result.err
        assert file.stat().st_size > 2000


@pytest.mark.parametrize("arguments", [["map"], ["tree", "warm"], ["show", "love"]])
def test_a_file_that_cant_be_is_said_first(refused, tmp_path, arguments):
    assert "there is no directory" in refused(
        ExitCode.USAGE, *arguments, "--plot", tmp_path / "no" / "x.png"
    )
    assert "must end in .png" in refused(ExitCode.USAGE, *arguments, "--plot", tmp_path / "x.bmp")


POINTS = tuple(
    point(d, Estimate(10 * d, 10 * d - 0.5, 10 * d + 0.5, 8), (0.0, 0.4), abs(d) < 0.3)
    for d in (-0.4, -0.2, 0.0, 0.2, 0.4)
)


def test_a_dose_response_stands_where_its_numbers_say():
    curve = DoseResponse("love.v1", "log-odds (nats)", POINTS, 15, (-0.2, 0.2), 0.2, 10)
    head, _, *rows, legend = plain(charts.dose_response(curve, 90))
    assert head == "change in log-odds (nats) at layer 15, by dose"
    assert len(rows) == 5
    marks = [re.search("[●○]", row).start() for row in rows]
    gaps = [b - a for a, b in pairwise(marks)]
    assert max(gaps) - min(gaps) <= 1  # the effects are evenly spaced
    assert rows[0].count("○") == rows[4].count("○") == 1
    assert [row.startswith("*") for row in rows] == [False, False, False, True, False]
    assert "+2.00  +1.50 to +2.50" in rows[3]
    zero = {row.index("│") for row in rows if "│" in row}
    assert zero == {marks[2]} or not zero
    assert "10 random directions" in legend


def test_effects_that_are_unknown_are_dashes():
    points = (point(0.1, Estimate(math.nan, math.nan, math.nan, 0)),)
    rows = plain(charts.dose_response(DoseResponse("x", "vader", points), 60))
    assert rows[2].rstrip().endswith("-  -")
    assert "random" not in rows[-1]


def test_a_heatmap_can_be_read_without_colour():
    grid = HeatGrid("vader", "vader", (5, 15), ("-0.2", "0"), ((0.1, 0.3), (math.nan, None)), 0.3)
    with click.Context(click.Command("x"), color=False).scope():
        lines = plain(charts.heatmap(grid))
    assert lines[1].split() == ["layer", "-0.2", "0"]
    assert [line.split() for line in lines[2:]] == [["5", "0.10", "0.30"], ["15", "–", "·"]]
    coloured = list(charts.heatmap(grid))
    assert "\x1b[" in coloured[2]
    assert ANSI.sub("", coloured[2]) == lines[2]


def test_vectors_in_one_place_have_letters_and_a_legend():
    points = (*(MapPoint(f"same{i}", 0.0, 0.0) for i in range(3)), MapPoint("far", 1.0, 1.0))
    lines = plain(charts.map_lines(StoreMap("m", 1, points, (1.0, 0.0), {}), 60))
    drawn = "\n".join(lines)
    assert "far ●" in drawn
    for letter, i in (("a", 0), ("b", 1), ("c", 2)):
        assert f"{letter} same{i}" in drawn
    assert all(len(line) <= 60 for line in lines)


def test_a_map_of_very_many_vectors_is_one_too():
    points = tuple(MapPoint(f"v{i}", math.sin(i), math.cos(3 * i)) for i in range(500))
    lines = plain(charts.map_lines(StoreMap("m", 1, points, (0.5, 0.5), {}), 80))
    assert "more (--json lists all positions)" in lines[-1]


SWEEP = ["sweep", "love", "--layers", "1,2", "--doses", "-0.2,0,0.2", "-n", "3"]


def test_a_sweeps_grid_is_saved_and_again_from_the_store(cli, tmp_path):
    made = cli(*SWEEP, "--metric", "length", "--plot", tmp_path / "a.svg")
    assert made.code == ExitCode.OK, made.err
    cli("sweeps", 1, "--metric", "length", "--plot", tmp_path / "b.svg")
    first, second = ((tmp_path / f"{x}.svg").read_text() for x in "ab")
    assert first == second
    assert "length: number of words" in first
    assert ">+0.20<" in first


@pytest.mark.parametrize("arguments", [SWEEP, ["sweeps", "1"]])
def test_a_grid_takes_a_metric(refused, tmp_path, arguments):
    file = tmp_path / "a.svg"
    assert "say which with --metric" in refused(ExitCode.USAGE, *arguments, "--plot", file)
    assert not file.exists()


def test_a_dose_response_is_printed_saved_and_shown_again(cli, store, tmp_path, monkeypatch):
    made = calibration(store.load("love").digest)
    monkeypatch.setattr(
        "steerlab.evaluation.calibration.calibrate.calibrate", lambda *_, **__: made
    )
    result = cli("calibrate", "love", "--plot", tmp_path / "love.svg")
    assert result.code == ExitCode.OK, result.err
    assert "*+0.20" in result.out
    assert "random directions" in result.out
    assert "Dose-response of love.v1, layer 2" in (tmp_path / "love.svg").read_text("utf-8")
    shown = cli("show", "love").out
    assert re.search(r"\*\+0\.20 .*●.* \+2\.00  \+1\.00 to \+3\.00", shown)


def test_an_evaluation_is_saved_as_a_picture(cli, store, tmp_path, monkeypatch):
    made = evaluation(store.load("love").digest)
    data = {**made.data, "coefficient": 0.8, "tokens": {}, "notes": []}
    made = replace(made, data=data)
    monkeypatch.setattr(
        "steerlab.evaluation.generalization.evaluate.evaluate", lambda *_, **__: made
    )
    file = tmp_path / "love.svg"
    result = cli("evaluate", "love", "--plot", file, "--json")
    assert result.code == ExitCode.OK, result.err
    assert "Does love generalize? (vader)" in file.read_text("utf-8")
    empty = replace(made, values=())
    monkeypatch.setattr(
        "steerlab.evaluation.generalization.evaluate.evaluate", lambda *_, **__: empty
    )
    result = cli("evaluate", "love", "--plot", tmp_path / "no.svg", "--json")
    assert "no effect has an interval" in result.err
