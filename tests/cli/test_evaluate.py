"""steerlab evaluate and steerlab check."""

from __future__ import annotations

import json
import re

import click
import pytest
import torch

from steerlab import LanguageModel
from steerlab.cli import ExitCode

SUITE = """
[styles.letters]
prompts = ["Dear you, ", "Dear sirs, ", "Hello ", "Well, "]
[styles.notes]
prompts = ["Note: ", "Remember ", "Buy "]
[off_target]
facts = [{prompt = "ab", answer = "c"}, {prompt = "12", answer = "3"}]
neutral = ["The map ", "A box "]
off_topic = ["A text of no great length.", "One more"]
"""


@pytest.fixture
def suite(store, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def evaluated(cli, suite):
    """Evaluate love on the suite, quickly."""

    def call(*arguments):
        return cli(
            "evaluate", "love", "--suite", suite, "--metric", "length", "--seeds", "1", *arguments
        )

    return call


def test_a_table_by_style_what_it_costs_and_a_verdict(evaluated, store):
    result = evaluated("--dose", "0.2", "--layers", "2")
    out = result.out
    assert out.startswith("love at layer 2, dose ±0.20, coefficient ±")
    assert re.search(
        r"^length\nstyle +base +\+ \[95%\] +- \[95%\] +range \[95%\] +random", out, re.M
    )
    for style in ("letters", "notes", "all styles"):
        assert re.search(rf"^{style} +\d+\.\d\d +[+-]\d+\.\d\d \[", out, re.M), style
    assert re.search(r"^own pairs, not held out +-?\d", out, re.M)
    assert re.search(r"^facts +P@1 +\d\.\d\d ", out, re.M)
    assert re.search(r"^letters +fluency ratio +- +\d+\.\d\d \[", out, re.M)
    assert "KL at +: " in out
    assert re.search(r"^length: .*; all styles together [+-]", out, re.M)
    assert re.search(r"^own pairs, not held out .* -$", out, re.M)  # no finding
    assert "\x1b" not in out
    assert "kept as evaluation 1" in result.err
    assert "note: no shuffled controls: the labels of 2 pairs can be halved" in result.err
    assert len(store.results.evaluations("love")) == 1


def test_json_and_nothing_kept(evaluated, store):
    data = evaluated("--json", "--no-save", "-q").data
    assert data["suite"] == "own"
    assert data["id"] is None
    assert data["data"]["plan"]["metrics"] == ["length"]
    assert {"style", "metric", "setting", "estimate", "low", "high", "n"} == set(data["values"][0])
    assert any(line.startswith("length: ") for line in data["verdict"])
    assert not store.results.evaluations()


def test_colours_are_words_too(evaluated, monkeypatch):
    plain = evaluated("--no-save").out
    monkeypatch.setattr("steerlab.cli._color", lambda: True)
    coloured = evaluated("--no-save").out
    assert "\x1b[3" in coloured
    assert click.unstyle(coloured) == plain


def test_a_scorer_that_fails_is_a_note(cli, suite, tmp_path):
    (tmp_path / "mine_fails.py").write_text("def score(text):\n    raise ValueError('too odd')\n")
    metric = ("--metric", "mine_fails:score")
    result = cli("evaluate", "love", "--suite", suite, *metric, "--no-save", "--seeds", "1")
    assert result.code == ExitCode.OK
    assert "texts have no value: ValueError: too odd" in result.err
    assert "mine_fails:score: not measured in letters and notes" in result.out


def test_what_can_not_be_is_one_line(refused, suite, tmp_path):
    def says(code, *arguments):
        return refused(code, "evaluate", "love", *arguments, "-q")

    suite.write_text(SUITE + "\n[broken")
    assert "own.toml: not valid TOML" in says(ExitCode.BAD_INPUT, "--suite", suite)
    lines = tmp_path / "own.jsonl"
    lines.write_text('{"style": "x", "prompt": "y"}\n{"style": "x"\n')
    assert "own.jsonl, line 2: not valid JSON" in says(ExitCode.BAD_INPUT, "--suite", lines)
    assert "no suite 'statemnts'" in says(ExitCode.NOT_FOUND, "--suite", "statemnts")
    assert "no metric 'vadr'" in says(ExitCode.USAGE, "--metric", "vadr")
    assert "not both" in says(ExitCode.BAD_INPUT, "--dose", "1", "--coefficient", "1")
    assert "above 0" in says(ExitCode.BAD_INPUT, "--dose=-0.1")
    assert "no items file" in says(ExitCode.NOT_FOUND, "--items", tmp_path / "none.jsonl")
    assert "x>=5" in says(ExitCode.USAGE, "--controls", "3")
    assert "no vector called nobody" in refused(ExitCode.NOT_FOUND, "evaluate", "nobody")
    assert "no vector called nobody" in refused(ExitCode.NOT_FOUND, "check", "nobody")


def test_a_check_finds_nothing_on_the_same_model(cli, evaluated, store):
    assert "no evaluation is stored" in cli("check").err
    evaluated("--dose", "0.2")
    result = cli("check")
    assert result.code == ExitCode.OK, result.err
    assert result.out.startswith("love.v1 on own (evaluation 1)\n")
    assert re.search(r"^\d+ values, none moved beyond the interval$", result.out, re.M)
    assert cli("check", "anger").code == ExitCode.OK
    (data,) = cli("check", "love", "--json", "-q").data
    assert data["moved"] == 0
    assert data["changed"] == {}
    assert all(value["then"] == value["now"] for value in data["values"])


def test_a_check_finds_a_model_that_changed(cli, evaluated, store, model_dir, tmp_path):
    evaluated("--dose", "0.2")
    lm = LanguageModel.load(str(model_dir))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in lm.model.parameters():
            weight.add_(weight.std() * torch.randn_like(weight))
    lm.model.save_pretrained(tmp_path / "changed")
    lm.tokenizer.save_pretrained(tmp_path / "changed")
    result = cli("check", "--model", tmp_path / "changed", "-q")
    assert result.code == ExitCode.FAILED
    assert result.err == ""
    assert re.search(r"^weights: [0-9a-f]{12}, now [0-9a-f]{12}$", result.out, re.M)
    assert re.search(r"^style +metric +what +then \[95%\] +now \[95%\] +moved\?$", result.out, re.M)
    assert re.search(r" moved$", result.out, re.M)
    again = cli("check", "--model", tmp_path / "changed", "-q", "--json")
    assert again.code == ExitCode.FAILED
    assert json.loads(again.out)[0]["moved"] > 0


def test_a_check_goes_on_after_what_can_not_be_run(cli, evaluated, store, suite):
    evaluated("--dose", "0.2")
    suite.unlink()
    result = cli("check", "-q")
    assert result.code == ExitCode.FAILED
    assert "could not be run again: no suite file" in result.out


def test_show_has_what_the_newest_evaluation_claims(cli, evaluated):
    assert "evaluated" not in cli("show", "love").out
    said = evaluated("--dose", "0.2", "--layers", "2").out
    claims = [line for line in cli("show", "love").out.splitlines() if "· length: " in line]
    assert len(claims) == 1
    assert claims[0].partition("· ")[2] in said
