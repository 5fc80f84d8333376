"""steerlab inspect."""

import re

import click
import pytest

from steerlab.cli import ExitCode


def test_it_shows_what_store_and_model_know(cli):
    out = cli("inspect", "love", "--prompt", "I love\tit", "--pairs").out
    titles = [part.splitlines()[0] for part in out.split("\n\n")]
    assert titles[0] == "love.v1"
    assert titles[2:5] == [
        "agreement of its pairs",
        "nearest stored vectors",
        "tokens it promotes and suppresses",
    ]
    assert "its tokens along the direction, in doses" in titles[5]
    assert "split half" in out
    assert "recipe  2 contrast pairs" in out
    assert len(re.findall(r"^promoted +logit +suppressed +logit$", out, re.M)) == 2
    assert re.search(r"^ +6  \\t +[+-]\d+\.\d{3} +[+-]", out, re.M)  # no colours: a table
    assert "\x1b" not in out


def test_colours_stand_in_for_the_table(cli, monkeypatch):
    monkeypatch.setattr("steerlab.cli._color", lambda: True)
    out = cli("inspect", "love[1]", "--prompt", "I love you", "--tokens", "3").out
    (line,) = [x for x in out.splitlines() if click.unstyle(x).startswith("layer 1  ")]
    assert click.unstyle(line).startswith("layer 1  I love you  ")
    assert "48;5;202" in line or "48;5;27" in line  # the furthest token is the darkest
    assert "position  token" not in out


def test_many_directions_get_a_line_each(cli):
    out = cli("inspect", "love", "--layers", "all", "--tokens", "2", "-q").out
    assert re.search(r"^layer +promoted +suppressed$", out, re.M)
    assert len(re.findall(r"^[0-3] .*\S  \S", out, re.M)) >= 4


def test_json_and_the_fast_path(cli, store):
    data = cli("inspect", "love - anger", "--no-model", "--json").data
    assert data["vector"] == "love.v1 - anger.v1"
    assert data["tokens"] == []
    assert data["projections"] is None
    assert data["neighbours"][0]["layers"] == [1, 2]
    assert len(data["neighbours"][0]["cosines"]) == 2
    assert cli("inspect", "-love", "--no-model").out.startswith("-love.v1\n")
    front = cli("inspect", "front", "--tokens", "2")
    assert "row 1" in front.out
    assert "made from one pair" in front.err


def test_what_can_not_be_is_one_line(refused, other_dir):
    assert "no vector called nobody" in refused(ExitCode.NOT_FOUND, "inspect", "nobody")
    assert "leave out --no-model" in refused(
        ExitCode.USAGE, "inspect", "love", "--no-model", "--prompt", "x"
    )
    assert "leave out --no-model" in refused(
        ExitCode.USAGE, "inspect", "love", "--no-model", "--prompt", ""
    )
    assert "is a front vector" in refused(ExitCode.BAD_INPUT, "inspect", "front", "--prompt", "x")
    assert "prompt is empty" in refused(ExitCode.BAD_INPUT, "inspect", "love", "--prompt", "")
    assert "other weights" in refused(ExitCode.MODEL, "inspect", "love", "--model", other_dir, "-q")
    assert "has no layer 9" in refused(ExitCode.NOT_FOUND, "inspect", "love", "--layers", "9", "-q")
    assert "No such option" in refused(ExitCode.USAGE, "inspect", "love", "--tkens", "3")


@pytest.mark.parametrize("option", ["--tokens", "--neighbours"])
def test_nothing_can_be_asked_for(cli, option):
    assert cli("inspect", "love", option, "0").code == ExitCode.OK
