"""steerlab port, and verify --recipes."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode
from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector
from tests.saved import save_model


@pytest.fixture(scope="module")
def deep_dir(tmp_path_factory):
    """Eight layers of 16."""
    directory = tmp_path_factory.mktemp("models") / "deep"
    return save_model(directory, num_hidden_layers=8, hidden_size=16)


def test_a_composition_goes_to_another_model(cli, store, deep_dir):
    result = cli("port", "warm", "--model", deep_dir)
    assert result.code == ExitCode.OK, result.err
    heading, *rows = result.out.splitlines()
    assert heading.split() == ["vector", "on", "layers", "norm", "made"]
    assert [row.split()[:2] for row in rows] == [
        ["love.v1", "deep"],
        ["anger.v1", "deep"],
        ["warm.v1", "deep"],
    ]
    assert all("1 -> 2, 2 -> 4" in row for row in rows)
    assert "3 stored, 0 already there" in result.err
    assert store.load("deep.warm").layers == (2, 4)
    again = cli("port", "warm", "--model", deep_dir, "--json").data
    assert [one["new"] for one in again] == [False] * 3
    assert again[-1]["layers"] == {"1": 2, "2": 4}
    assert cli("verify").code == ExitCode.OK


def test_layers_whose_pairs_disagree_are_noted(cli, deep_dir, monkeypatch):
    monkeypatch.setattr("steerlab.lab.port.POOR_AGREEMENT", 1.1)
    result = cli("port", "love", "--model", deep_dir)
    assert "note: the pairs of love.v1 disagree at layer 2, 4 of deep" in result.err


def test_layers_are_chosen(cli, store, deep_dir):
    assert cli("port", "love", "--model", deep_dir, "--layers", "6:8").code == ExitCode.OK
    assert store.load("deep.love").layers == (6, 7)


def test_one_line_for_what_cant_be_ported(refused, store, deep_dir):
    love = store.load("love")
    store.save("found", SteeringVector(love.directions, model=love.model, recipe=Imported("x")))
    assert "was imported" in refused(ExitCode.BAD_INPUT, "port", "found", "--model", deep_dir)
    assert "which model?" in refused(ExitCode.USAGE, "port", "love")
    refused(ExitCode.NOT_FOUND, "port", "nothing", "--model", deep_dir)
    refused(ExitCode.MODEL, "port", "love", "--model", deep_dir / "none")


def test_recipes_are_run_again(cli):
    result = cli("verify", "--recipes")
    assert result.code == ExitCode.OK, result
    assert "3 recipes run again, no problems found" in result.err
    rows = [row.split() for row in result.out.splitlines()[1:]]
    assert {row[0]: row[1] for row in rows}["tiny.love.v1"] == "1.000000"


def test_a_recipe_that_gives_another_vector_fails(cli, store):
    love = store.load("love")
    turned = {b: -x for b, x in love.directions.items()}
    store.save("forged", SteeringVector(turned, model=love.model, recipe=love.recipe))
    result = cli("verify", "--recipes")
    assert result.code == ExitCode.FAILED
    assert "its recipe gives another vector today" in result.out
    failed = cli("verify", "--recipes", "--json")
    assert failed.code == ExitCode.FAILED
    assert '"problems": []' in failed.out
