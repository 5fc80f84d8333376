"""What extract, compose and import report of duplicates."""

from __future__ import annotations

from steerlab.core.vector import SteeringVector
from steerlab.registry import Store
from tests.saved import LOVE


def test_compose_says_what_it_equals(cli):
    assert cli("compose", "love - 0.5*anger", "--as", "again").err == (
        "note: again.v1: equals warm.v1\n"
    )
    assert cli("compose", "warm", "+", "love").err == ""
    assert "note: this: equals warm.v1" in cli("compose", "love - anger/2", "--dry-run").err


def test_extract_says_what_it_equals(cli, model_dir):
    prompts = [x for p, n in LOVE for x in ("--positive", p, "--negative", n)]
    options = ["--layers", "1,2", "--model", model_dir]
    made = cli("extract", "again", *prompts, *options)
    assert "note: again.v1: equals love.v1\n" in made.err
    assert "equals" not in cli("extract", "third", *prompts, *options, "-q").err


def test_import_says_what_it_equals(cli, store, tmp_path):
    cli("export", "love", tmp_path / "love.st")
    elsewhere = Store(tmp_path / "elsewhere")
    love = store.load("love")
    elsewhere.save("liebe", SteeringVector(love.directions, model=love.model, recipe=love.recipe))
    made = cli("import", tmp_path / "love.st", "--store", elsewhere.path)
    assert made.out == (
        "love.v1  imported from love.v1; same numbers as liebe.v1, which differs in: "
        "layers, created\n"
    )
    assert made.err == "note: love.v1: equals liebe.v1\n"
