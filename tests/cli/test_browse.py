"""list, show and models."""

from __future__ import annotations

import re

import pytest

from steerlab.cli import ExitCode
from steerlab.core.results import Calibration

ESCAPE = "\x1b[31m[red]evil[/]\x07"
VISIBLE = r"\x1b[31m[red]evil[/]\x07"


def names(result):
    return [line.split()[0] for line in result.out.splitlines()[1:]]


def test_list_is_a_table(cli):
    result = cli("list")
    assert result.out.splitlines()[0].split() == [
        "name",
        "layers",
        "norm",
        "dose/c",
        "made",
        "tags",
    ]
    assert names(result) == ["anger", "front", "love", "warm"]
    assert "1 front" in result.out
    assert "= love.v1 - 0.5 * anger.v1" in result.out
    assert result.err == ""


def test_list_as_json(cli, store):
    data = cli("list", "--json").data
    love = next(entry for entry in data if entry["name"] == "love")
    record = store.record("love")
    assert love["ref"] == "love.v1"
    assert love["digest"] == record.digest
    assert love["layers"] == [1, 2]
    assert love["doses"] == {str(b): d for b, d in record.doses().items()}
    assert love["tags"] == ["feeling"]
    assert "id" not in love


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["love"], ["front", "love", "warm"]),  # in a prompt and a recipe, too
        (["stay here"], ["anger"]),  # in a prompt
        (["the first"], ["love"]),  # in the note
        (["--tag", "feeling"], ["anger", "love"]),
        (["--kind", "expression"], ["warm"]),
        (["--layer", "2"], ["anger", "love", "warm"]),
        (["--model", "tiny"], ["anger", "front", "love", "warm"]),
        (["--limit", "2"], ["anger", "front"]),
        (["--reverse"], ["warm", "love", "front", "anger"]),
        (["--sort", "created"], ["love", "anger", "warm", "front"]),
        (["--layer", "0"], []),
        (["--tag", ""], []),
        (["100%_"], []),
    ],
)
def test_list_filters_and_sorts(cli, arguments, found):
    assert names(cli("list", *arguments)) == found
    assert [entry["name"] for entry in cli("list", *arguments, "--json").data] == found


def test_list_says_when_nothing_fits(cli):
    result = cli("list", "nothing_like_it")
    assert (result.out, result.err) == ("", "no vectors match\n")


def test_what_nothing_contains_brings_the_closest_names(cli):
    listed, searched = cli("list", "lvoe"), cli("search", "lvoe")
    assert (listed.out, listed.err) == ("", "no vectors match: did you mean love?\n")
    assert (searched.out, searched.err) == ("", "no vector contains 'lvoe': did you mean love?\n")
    assert cli("list", "love", "--layer", 0).err == "no vectors match\n"  # it is there, elsewhere
    assert cli("list", "lvoe", "--json").data == []


def test_an_empty_store_says_how_to_begin(cli, tmp_path):
    result = cli("list", "--store", tmp_path / "new")
    assert result.code == ExitCode.OK
    assert result.out == ""
    assert "steerlab extract" in result.err
    assert cli("list", "--store", tmp_path / "new", "--json").data == []
    assert cli("models", "--store", tmp_path / "new", "--json").data == []
    assert "no models are known" in cli("models", "--store", tmp_path / "new").err
    assert not (tmp_path / "new").exists()


def test_list_shows_versions_and_models_where_there_are_several(cli, store, both_models):
    store.save("love", 2 * store.load("love", "tiny"))
    assert cli("list").out.splitlines()[0].split()[:2] == ["name", "model"]
    assert "love.v2" in names(cli("list", "--model", "tiny"))
    listed = names(cli("list", "the first", "--all-versions", "--model", "tiny"))
    assert listed == ["love.v1"]


def test_list_needs_an_existing_model(refused):
    line = refused(ExitCode.NOT_FOUND, "list", "--model", "gpt9")
    assert "no vectors of model 'gpt9' (it has: tiny)" in line


def test_show_tells_everything(cli, store):
    result = cli("show", "love")
    record = store.record("love")
    assert result.out.startswith("love.v1\n")
    for text in (
        "(llama, 4 layers of 32, float32)",
        "2 contrast pairs, mean_difference, last token",
        "broadcast",
        "the first",
        "feeling",
        record.digest,
        "+ I love you so\n- I hate you so\n",
        "used in\n└── tiny.warm.v1  = love.v1 - 0.5 * anger.v1\n",
    ):
        assert text in result.out
    rows = [line.split() for line in result.out.splitlines()]
    assert ["layer", "norm", "residual", "dose/c"] in [row[:4] for row in rows]
    assert {row[0] for row in rows if len(row) > 5 and row[0].isdigit()} == {"1", "2"}


def test_show_of_a_composition_tells_operands_and_tree(cli, store):
    cli("compose", "2 * warm", "--as", "deep")
    result = cli("show", "deep")
    assert f"warm.v1  {store.record('warm').digest[:16]}" in result.out
    assert (
        "made from\n"
        "└── tiny.warm.v1  = love.v1 - 0.5 * anger.v1\n"
        "    ├── tiny.love.v1  2 contrast pairs, mean_difference, last token\n"
        "    └── tiny.anger.v1  2 contrast pairs, mean_difference, last token\n"
    ) in result.out


def test_show_of_a_front_vector_counts_its_rows(cli):
    out = cli("show", "front").out
    assert re.search(r"^scope +front$", out, re.M)
    assert ["layer", "rows"] in [line.split()[:2] for line in out.splitlines()]


def test_show_of_many_children_is_short(cli, store):
    love = store.load("love")
    store.save_many([(f"x{i}", (i + 2) * love) for i in range(30)])
    out = cli("show", "love").out
    assert "and 11 more" in out
    assert len(cli("show", "love", "--json").data["lineage"]["children"]) == 31


def test_show_as_json_is_the_record_and_its_lineage(cli, store):
    data = cli("show", "love", "--json").data
    lineage = data.pop("lineage")
    record = store.record("love").to_json()
    assert data.pop("calibration") is None
    assert data.pop("calibrations_beside") == []
    assert set(data) == set(record)
    assert data["recipe"]["positive"] == ["I love you so", "what a joy"]
    assert [node["ref"] for node in lineage["children"]] == ["tiny.warm.v1"]


def test_show_of_what_is_not_there(refused):
    assert "did you mean love?" in refused(ExitCode.NOT_FOUND, "show", "lov")
    assert "love has no version 3" in refused(ExitCode.NOT_FOUND, "show", "love.v3")
    assert "no vector can be called" in refused(ExitCode.NOT_FOUND, "show", "a.b.c.d")
    line = refused(ExitCode.NOT_FOUND, "show", ESCAPE)
    assert "\x1b" not in line.replace("\x1b[31m\x1b[1m", "")


def test_models_lists_each_with_its_vectors(cli, store, both_models):
    store.save("more", store.load("love", "tiny"))
    rows = [line.split() for line in cli("models").out.splitlines()]
    assert [row[0] for row in rows] == ["name", "other", "tiny"]
    assert [row[-2] for row in rows[1:]] == ["4", "5"]
    data = cli("models", "--json").data
    assert [entry["name"] for entry in data] == ["other", "tiny"]
    assert data[1]["n_layers"] == 4


def test_strangers_text_cant_control_the_terminal(cli, store):
    store.tag("love", add=[ESCAPE])
    store.note("love", ESCAPE)
    for arguments in (["list"], ["show", "love"], ["note", "love"], ["tag", "love", "x"]):
        out = cli(*arguments).out
        assert VISIBLE in out
        assert "\x1b" not in out
        assert "\x07" not in out
    assert cli("list", "--json", "--tag", ESCAPE).data[0]["note"] == ESCAPE


def test_a_fresh_clone_lists_at_once(cli, store, tmp_path):
    for file in store.path.glob("registry.db*"):
        file.unlink()
    result = cli("list")
    assert names(result) == ["anger", "front", "love", "warm"]
    assert result.err.startswith("note: ")
    assert "restored 4 vectors" in result.err
    assert cli("list").err == ""


def test_list_shows_what_is_calibrated_and_no_column_that_says_the_same(cli, store):
    digest = store.record("love").digest
    for dose, works in ((0.1, True), (0.2, True)):
        made = Calibration(digest, works, 2, dose, 1.5, (-0.3, 0.3))
        store.results.save_calibration(made)
    store.results.save_calibration(Calibration(store.record("anger").digest, False))
    lines = {line.split()[0]: line for line in cli("list").out.splitlines()}
    assert "+0.20 at 2" in lines["love"]
    assert "not shown" in lines["anger"]
    result = cli("list", "--tag", "feeling")
    assert result.out.splitlines()[0].split() == ["name", "norm", "dose/c", "calibrated", "made"]
    assert result.err == "all of them: stored at layer 1-2, tags feeling\n"
