"""conform compares with other programs, and its exit code says whether they agree."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode
from steerlab.conformance.conform import Conformance, Outcome


def test_conform_prints_a_table_or_json(cli, store):
    arguments = ("conform", "love[2]", "--dose", "2", "--with", "hook,bake", "-n", "2")
    done = cli(*arguments, "--prompt", "I think")
    lines = done.out.splitlines()
    assert done.code == ExitCode.OK, done.err
    assert lines[0].startswith("love.v1[2] at coefficient ")
    columns = "target unsteered steered likeliest unsteered likeliest steered equal texts verdict"
    assert " ".join(lines[1].split()) == columns
    assert [line.split()[0] for line in lines[2:]] == ["hook", "bake"]
    assert all(line.endswith("2 of 2       agrees") for line in lines[2:])
    data = cli(*arguments, "--prompt", "I think", "--json").data
    assert data["tolerance"] == 1e-4
    assert [outcome["verdict"] for outcome in data["outcomes"]] == ["agrees", "agrees"]
    for outcome in data["outcomes"]:
        assert 0 <= outcome["steered_likeliest"] <= outcome["steered"] <= 1e-4
        assert 0 <= outcome["unsteered_likeliest"] <= outcome["unsteered"] <= 1e-4


@pytest.mark.parametrize(
    ("outcomes", "named", "code"),
    [
        ([Outcome("hook", "agrees"), Outcome("peft", "differs", 1e-6, 1.0)], False, 1),
        ([Outcome("hook", "agrees"), Outcome("peft", "missing", why="not here")], False, 0),
        ([Outcome("hook", "agrees"), Outcome("peft", "missing", why="not here")], True, 1),
        ([Outcome("peft", "refused", why="not here")], False, 1),
    ],
)
def test_the_exit_code_says_whether_all_agree(cli, store, monkeypatch, outcomes, named, code):
    found = Conformance(1.0, tuple(outcomes))
    monkeypatch.setattr("steerlab.conformance.conform.conform", lambda *_, **how: found)
    done = cli("conform", "love", *(["--with", "hook,peft"] if named else []))
    assert done.code == code
    assert all(f"{o.target}: {o.why}" in done.err for o in outcomes if o.why)


def test_an_unknown_program_is_refused(refused):
    assert "there is no target 'abacus'" in refused(
        ExitCode.USAGE, "conform", "love", "--with", "abacus"
    )


def test_another_model_is_refused(refused, store, other_dir):
    assert "other weights" in refused(ExitCode.MODEL, "conform", "love", "--model", str(other_dir))
