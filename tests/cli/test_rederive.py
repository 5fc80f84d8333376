"""steerlab rederive."""

from __future__ import annotations

from steerlab.cli import ExitCode


def test_the_next_version_and_what_changed(cli, store):
    store.save("love", 2 * store.load("love"))
    result = cli("rederive", "warm")
    assert result.code == ExitCode.OK, result.err
    lines = result.out.splitlines()
    assert lines[0] == "warm.v2  = love.v2 - 0.5 * anger.v1  (stored)"
    assert lines[1] == "newer: love.v1 -> love.v2"
    assert lines[2].split() == ["layer", "cosine", "norm", "before", "norm", "now"]
    assert [line.split()[0] for line in lines[3:]] == ["1", "2"]
    assert store.record("warm").version == 2
    again = cli("rederive", "warm")
    assert (again.out, again.code) == ("", ExitCode.OK)
    assert again.err.startswith("warm is up to date: none of its operands has a newer version")


def test_a_dry_run_and_json(cli, store):
    store.save("love", 2 * store.load("love"))
    assert "(would be stored)" in cli("rederive", "warm", "--dry-run").out
    (step,) = cli("rederive", "warm", "--dry-run", "--json").data
    assert (step["before"], step["after"]) == ("warm.v1", "warm.v2")
    assert step["operands"] == {"love.v1": "love.v2"}
    assert store.record("warm").version == 1


def test_ancestors_first(cli, store):
    store.save("hot", 2 * store.load("warm"))
    store.save("love", 2 * store.load("love"))
    assert "up to date" in cli("rederive", "hot").err
    made = cli("rederive", "hot", "--deep", "--json").data
    assert [step["after"] for step in made] == ["warm.v2", "hot.v2"]
    assert cli("verify").code == ExitCode.OK


def test_one_line_for_what_cant_be(refused):
    assert "love.v1 is no composition" in refused(ExitCode.BAD_INPUT, "rederive", "love")
    refused(ExitCode.NOT_FOUND, "rederive", "nothing")
