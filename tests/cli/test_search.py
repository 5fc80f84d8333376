"""steerlab search."""

from __future__ import annotations

from steerlab import cli as command_line
from steerlab.cli import ExitCode


def test_hits_with_their_place(cli):
    result = cli("search", "hate", "you")
    assert result.code == ExitCode.OK, result.err
    assert result.out == "love.v1  prompt  I hate you so\n"
    assert cli("search", "angry", "calm").code == ExitCode.OK
    assert cli("search", "zebra").err == "no vector contains 'zebra'\n"


def test_words_are_bold_where_that_can_be_seen(cli, monkeypatch):
    monkeypatch.setattr(command_line, "_color", lambda: True)
    assert "I \x1b[1mhate\x1b[0m you so" in cli("search", "hate").out


def test_text_from_strangers_is_harmless(cli, store):
    store.note("love", "red \x1b[31m needle")
    assert "\x1b" not in cli("search", "needle").out


def test_hits_for_programs(cli):
    data = cli("search", "feeling", "--tag", "feeling", "--json").data
    assert data["total"] == 2
    assert {hit["ref"] for hit in data["hits"]} == {"love.v1", "anger.v1"}
    assert data["hits"][0]["place"] == "tag"
    assert data["hits"][0]["spans"] == [[0, 7]]


def test_a_limit_says_what_is_left(cli):
    assert cli("search", "feeling", "--limit", "1").err.startswith("the best 1 of 2")


def test_words_are_needed(refused):
    assert "at least one word" in refused(ExitCode.BAD_INPUT, "search", " ")
    refused(ExitCode.USAGE, "search")
