"""steerlab diff."""

import pytest

from steerlab.cli import ExitCode


def test_it_shows_layers_and_recipes_side_by_side(cli, store):
    out = cli("diff", "love", "anger").out
    head, _, rest = out.partition("\n\n")
    assert head.splitlines() == ["- love.v1", "+ anger.v1"]
    table, _, recipe = rest.partition("\n\n")
    assert table.splitlines()[0].split()[:4] == ["layer", "norm", "A", "norm"]
    assert [row.split()[0] for row in table.splitlines()[1:]] == ["1", "2"]
    cosine = store.load("love").cosines(store.load("anger"))[1]
    assert f"{cosine:+.3f}" in table
    assert "  method         mean_difference" in recipe
    assert "- pair           I love you so | I hate you so" in recipe
    assert "+ pair           I am so angry | I am so calm" in recipe
    assert "\x1b" not in out


def test_json_names_the_owner_of_every_fact(cli):
    data = cli("diff", "love", "-love", "--json").data
    assert data["layers"][0]["cosine"] == pytest.approx(-1)
    assert data["layers"][0]["sum_keeps"] == 0
    assert {"in": "a", "label": "made by", "text": "contrast"} in data["recipe"]
    assert {"in": "both", "label": "scope", "text": "broadcast"} in data["recipe"]


def test_layers_that_are_not_shared_are_said(cli):
    result = cli("diff", "love[1]", "anger[2]")
    assert result.code == ExitCode.OK
    assert "they share no layer" in result.err


def test_what_can_not_be_compared_is_one_line(refused):
    assert "no vector called nobody" in refused(ExitCode.NOT_FOUND, "diff", "love", "nobody")
    assert "can't be combined" in refused(ExitCode.BAD_INPUT, "diff", "love", "front")
    assert "column" in refused(ExitCode.BAD_INPUT, "diff", "love", "anger +")
    assert "No such option" in refused(ExitCode.USAGE, "diff", "love", "--jsn")
    assert "Missing argument" in refused(ExitCode.USAGE, "diff", "love")


def test_another_models_vector_is_refused(refused, both_models):
    said = refused(ExitCode.BAD_INPUT, "diff", "tiny.love", "other.love")
    assert "different models can't be combined" in said
