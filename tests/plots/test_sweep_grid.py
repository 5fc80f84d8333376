"""The grid of a sweep against means taken by hand."""

from __future__ import annotations

import math

import pytest

from steerlab.core.cell import Cell, MetricValue
from steerlab.core.setting import BASELINE
from steerlab.core.sweep import Sweep
from steerlab.evaluation.metrics.texts import METRICS
from steerlab.plots.sweep_grid import heat_grid, metric_of, values_of
from tests.registry.samples import swept_setting

SETTINGS = (
    BASELINE,
    *(swept_setting(b, d, 10 * d, d) for b in (3, 5) for d in (-0.2, 0.2)),
)


def sweep(settings=SETTINGS, strength="dose"):
    cells = [
        Cell(s, prompt, seed, "word " * (i + 3 * (prompt == "q") + seed), "length", 4)
        for prompt in ("p", "q")
        for seed in (0, 1)
        for i, s in enumerate(settings)
    ]
    plan = Sweep("plan", "love", "digest", "tiny", "key", strength, settings, ("p", "q"), (0, 1))
    return plan.with_cells(cells)


def test_a_cell_is_the_mean_over_prompts_and_seeds():
    found = sweep()
    length = METRICS["length"]
    values = [value for value, _ in values_of(found, length)]
    grid = heat_grid(found, length, values)
    assert (grid.layers, grid.columns) == ((3, 5), ("-0.20", "0", "+0.20"))
    for row, layer in zip(grid.values, grid.layers, strict=True):
        for value, dose in zip(row, (-0.2, 0.0, 0.2), strict=True):
            wanted = [
                len(cell.text.split())
                for cell in found.cells
                if cell.setting.strength == dose and cell.setting.layer in (layer, None)
            ]
            assert len(wanted) == 4
            assert value == pytest.approx(sum(wanted) / 4)
    assert grid.centre == grid.values[0][1]
    assert grid.share(grid.centre) == 0


def test_without_a_baseline_there_is_no_centre_and_coefficients_are_called_so():
    found = sweep(SETTINGS[1:], "coefficient")
    grid = heat_grid(found, METRICS["length"], [1.0] * len(found.cells))
    assert grid.centre is None
    assert (grid.strength, grid.columns) == ("coefficient", ("-0.2", "+0.2"))
    undefined = heat_grid(sweep(), METRICS["length"], [math.nan] * len(sweep().cells))
    assert undefined.centre is None
    assert undefined.shown(undefined.values[0][0]) == "–"


def test_what_was_measured_with_the_model_is_read_from_the_cells():
    found = sweep()
    cells = [
        Cell(c.setting, c.prompt, c.seed, c.text, c.finish, c.tokens, {"kl": MetricValue(2.0)})
        if i
        else c
        for i, c in enumerate(found.cells)
    ]
    found = found.with_cells(cells)
    values = values_of(found, metric_of(found, "kl"))
    assert math.isnan(values[0][0])
    assert values[0][1] == "it was not measured"
    assert {value for value, _ in values[1:]} == {2.0}
