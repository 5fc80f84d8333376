"""steerlab sweep keeps what it writes; steerlab sweeps shows it again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steerlab import LanguageModel
from steerlab.cli import ExitCode, progress
from steerlab.core.cell import MetricValue
from steerlab.core.results import Calibration
from steerlab.registry.upkeep.upkeep import Upkeep

ROOT = Path(__file__).parents[2]
GRID = ["--layers", "1,3", "--doses=-0.2,0,0.2", "-n", "4", "--prompt", "one", "--prompt", "two"]


@pytest.fixture
def swept(cli, store):
    """A kept sweep of 10 cells."""
    cli("sweep", "love - anger", *GRID)
    return store.sweeps.get(1)


def test_a_sweep_is_kept_and_not_written_again(cli, swept, store, monkeypatch):
    assert (swept.done, swept.expression) == (10, "love - anger")
    monkeypatch.setattr(LanguageModel, "generate", None)
    again = cli("sweep", "(love - anger)", *GRID, "--json")
    assert [cell["text"] for cell in again.data] == [cell.text for cell in swept.cells]
    assert "10 of 10 cells were already there" in again.err
    assert "kept as sweep 1" in again.err
    assert cli("sweep", "love - anger", *GRID, "-q").err == ""
    assert len(store.sweeps.list()) == 1


def test_doses_beyond_the_safe_range_are_told(cli, store):
    digest = store.record("love").digest
    store.results.save_calibration(Calibration(digest, True, 1, 0.2, 1.0, (-0.1, 0.25), {}))
    err = cli("sweep", "love", *GRID).err
    assert err.count("outside the safe range") == 1  # -0.2 at layer 1; 3 has no range
    assert "dose -0.20 is outside" in err


def test_without_layers_the_calibrated_one_is_compared_too(cli, store):
    digest = store.record("love").digest
    store.results.save_calibration(Calibration(digest, True, 3, 0.2, 1.0, (-0.2, 0.2), {}))
    cells = cli("sweep", "love", *GRID[2:], "--no-store", "--json").data
    assert {layer for cell in cells for layer in cell["layers"]} == {1, 2, 3}


def test_without_a_store_nothing_is_kept(cli, store):
    result = cli("sweep", "love", *GRID, "--no-store")
    assert "kept" not in result.err
    assert not store.sweeps.list()
    assert cli("sweep", "love", *GRID).out == result.out


def test_a_store_that_can_not_be_written_is_said_before_anything_is_loaded(
    refused, cli, store, monkeypatch
):
    monkeypatch.setattr(Upkeep, "writable", False)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "load", None)
        assert "use --no-store" in refused(ExitCode.STORE, "sweep", "love", *GRID)
    assert len(cli("sweep", "love", *GRID, "--no-store", "--json").data) == 10


def test_ctrl_c_says_how_to_go_on(cli, store, monkeypatch):
    whole = cli("sweep", "love", *GRID, "--no-store", "--json").data
    asked = []

    def press(self):
        asked.append(None)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)
        return self.fired

    with monkeypatch.context() as patch:
        patch.setattr(progress.Interrupt, "__call__", press)
        cut = cli("sweep", "love", *GRID, "--json")
    assert cut.code == ExitCode.CANCELLED
    kept = store.sweeps.get(1)
    assert kept.done < 10 == len(json.loads(cut.out))
    assert cut.err == (
        f"steerlab: cancelled; {kept.done} of 10 cells are kept as sweep 1: "
        "the same command goes on from there\n"
    )
    assert cli("sweep", "love", *GRID, "--json").data == whole
    assert store.sweeps.get(1).done == 10


def test_sweeps_are_listed(cli, swept):
    cli("sweep", "love", "--coefficients", "1,-1", "-n", "1", "--prompt", "[b]\x1b")
    lines = cli("sweeps").out.splitlines()
    columns = ["sweep", "when", "expression", "layers", "strengths", "cells", "prompts"]
    assert lines[0].split() == columns
    assert "c -1 +1" in lines[1]
    assert lines[1].endswith(r"4/4  [b]\x1b")
    assert "love - anger  1, 3    -0.20 0 +0.20  10/10  one (+1)" in lines[2]
    assert cli("sweeps", "anger").out.splitlines()[1].split()[0] == "1"
    assert [s["done"] for s in cli("sweeps", "--json").data] == [4, 10]
    assert "no sweeps are kept" in cli("sweeps", "warm").err


def test_a_sweep_is_shown_again(cli, swept, store):
    live = cli("sweep", "love - anger", *GRID, "--metric", "length")
    shown = cli("sweeps", "1", "--metric", "length")
    assert shown.out.endswith(live.out)
    assert "steer      love - anger" in shown.out
    assert "random directions" in shown.err
    data = cli("sweeps", "1", "--metric", "length", "--json").data
    assert (data["id"], data["done"], data["total"]) == (1, 10, 10)
    assert [cell["text"] for cell in data["cells"]] == [cell.text for cell in swept.cells]
    assert {cell["metric"] for cell in data["cells"]} == {"length"}


def test_what_was_measured_is_shown_with_its_cells(cli, swept, store, tmp_path):
    values = {c.key: MetricValue(i / 4) for i, c in enumerate(swept.cells[1:])}
    store.sweeps.measure(swept, "fluency", {swept.cells[0].key: MetricValue(None, "no"), **values})
    heading = cli("sweeps", "1").out.splitlines()[-6]
    assert heading.split() == ["layer", "c", "dose", "fluency", "text"]
    grid = cli("sweeps", "1", "--metric", "fluency").out
    assert "fluency: measured with the model" in grid
    cells = cli("sweeps", "1", "--json").data["cells"]
    assert cells[0]["metrics"] == {"fluency": {"value": None, "reason": "no"}}
    assert "wrote 10 cells" in cli("sweeps", "1", "--csv", tmp_path / "s.csv").err
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [cell.text for cell in swept.cells]
    assert [row["fluency"] for row in rows[:3]] == ["", "0.0", "0.25"]
    assert [row["layer"] for row in rows[:3]] == ["", "1", "1"]
    assert [float(row["dose"]) for row in rows] == [c.setting.dose for c in swept.cells]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["9"], 3, "there is no sweep 9"),
        (["nobody"], 3, "no vector called nobody"),
        (["--remove"], 2, "which sweep?"),
        (["love", "--csv", "x.csv"], 2, "which sweep?"),
        (["1", "--metric", "beauty"], 4, "there is no metric 'beauty'"),
        (["1", "--csv", "none/x.csv"], 4, "can't write none/x.csv: No such file"),
    ],
)
def test_what_can_not_be_is_one_line(cli, swept, arguments, code, line):
    result = cli("sweeps", *arguments)
    assert result.code == code
    assert result.err.count("\n") == 1
    assert line in result.err


def test_a_sweep_is_removed(cli, swept, store):
    assert cli("sweeps", "1", "--remove").out == "removed sweep 1\n"
    assert not store.sweeps.list()


@pytest.mark.campaign
def test_two_processes_share_the_cells(cli, store, tmp_path):
    options = ["sweep", "love", *GRID, "--seeds", "2", "--temperature", "1"]
    alone = cli(*options, "--no-store", "--json").data
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "steerlab"]
    done = subprocess.run(
        [*launch, *options, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "STEERLAB_STORE": str(store.path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone  # printed by one of them, once
    (sweep,) = store.sweeps.list()
    assert sweep.done == sweep.total == 20


def test_measuring_takes_the_model_and_is_kept(cli, store):
    result = cli("sweep", "love", *GRID, "--measure")
    names = ["KL", "distinct-2", "fluency-ratio", "longest-run"]
    columns = result.out.splitlines()[1].split()
    assert sorted(columns[3:-1]) == names
    data = cli("sweep", "love", *GRID, "--measure", "--json").data
    assert all(sorted(cell["metrics"]) == names for cell in data)
    assert all((cell["metrics"]["KL"]["value"] == 0) == (cell["layers"] == []) for cell in data)
    assert all(sorted(cell.metrics) == names for cell in store.sweeps.get(1).cells)
    assert "KL: measured" in cli("sweeps", "1", "--metric", "KL").out
