"""steerlab log."""

from __future__ import annotations

from steerlab.cli import ExitCode


def test_the_story_of_a_name(cli, store):
    store.save("love", 2 * store.load("love"), tags=["strong"])
    result = cli("log", "love")
    assert result.code == ExitCode.OK, result.err
    heading, *rows = result.out.splitlines()
    assert heading.split() == ["when", "vector", "what"]
    assert rows[0].split()[2:4] == ["love.v2", "made"]
    assert rows[0].endswith("#strong")
    assert "= 2 * love.v1" in rows[0]
    assert rows[-1].split()[2:4] == ["love.v1", "made"]
    assert rows[-1].endswith("#feeling  “the first”")
    assert any("used in  warm.v1  = love.v1 - 0.5 * anger.v1" in row for row in rows)


def test_a_long_story_is_cut_and_says_so(cli):
    result = cli("log", "love", "--limit", "1")
    assert len(result.out.splitlines()) == 2
    assert result.err == "and 1 older (--limit shows more)\n"


def test_the_story_for_programs(cli):
    made = cli("log", "warm", "--json").data
    assert [(e["what"], e["ref"]) for e in made] == [("version", "warm.v1")]


def test_no_story_of_what_is_not_there(refused):
    assert "did you mean love?" in refused(ExitCode.NOT_FOUND, "log", "lvoe")
