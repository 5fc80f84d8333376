"""Closed streams, other code pages, numbers that JSON lacks, files for spreadsheets."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from steerlab.cli import ExitCode, sweep_tables
from steerlab.core.cell import Cell
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store


def steerlab(store, *words, encoding="utf-8", **streams):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "STEERLAB_STORE": str(store.path)}
    command = [sys.executable, "-m", "steerlab", *words]
    return subprocess.run(command, env=environment, capture_output=True, check=False, **streams)


def test_a_closed_stdout_is_a_line(store):
    def close():
        os.close(1)

    for words in (["list"], ["list", "--json"], ["--help"]):
        done = steerlab(store, *words, preexec_fn=close)
        assert done.returncode == ExitCode.FAILED
        assert done.stderr == b"steerlab: standard output is closed: nothing was printed\n"


def test_a_console_without_our_letters_gets_escapes_and_json_stays_json(store):
    store.tag("love", add=["日本😀é"])
    shown = steerlab(store, "show", "love", encoding="cp1252")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "\\u65e5\\u672c\\U0001f600é" in shown.stdout.decode("cp1252")
    data = json.loads(steerlab(store, "show", "love", "--json", encoding="cp1252").stdout)
    assert "日本😀é" in data["tags"]


def test_a_number_that_json_lacks_is_null(cli, store):
    love = store.load("love")
    arrays = {1: np.full_like(love.directions[1], 1e20)}
    store.save("big", SteeringVector(arrays, model=love.model, residual_norms={1: 1e-300}))
    (big,) = cli("list", "big", "--json").data
    assert big["doses"] == {"1": None}
    assert cli("show", "big", "--json").code == ExitCode.OK


def test_a_map_of_parallel_vectors(cli, tmp_path, store):
    other = Store(tmp_path / "other")
    other.save("a", store.load("love"))
    other.save("b", 2 * store.load("love"))
    result = cli("map", "--store", other.path)
    assert result.code == ExitCode.OK
    assert result.out.splitlines()[-1] == "all directions are the same, so nothing spreads them"


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "plain", " =1"])
def test_a_text_is_no_formula_in_a_spreadsheet(text, tmp_path, monkeypatch):
    from tests.registry.operations import CELLS, PLAN

    cell = replace(CELLS[0], text=text)
    assert isinstance(cell, Cell)
    sweep_tables.write_csv(replace(PLAN, cells=(cell,)), tmp_path / "cells.csv")
    with (tmp_path / "cells.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["text"] == (text if text in ("plain", " =1") else f"'{text}")
    assert float(row["coefficient"]) == cell.setting.coefficient
