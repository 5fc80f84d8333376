"""tag, note, rename and remove."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steerlab import SteeringVector
from steerlab.cli import ExitCode, output, run


def test_tags_come_and_go(cli, store):
    assert cli("tag", "love", "warm", "a b").out == "love.v1: a b feeling warm\n"
    assert store.record("love").tags == ("a b", "feeling", "warm")
    assert cli("tag", "love", "--remove", "warm", "a b", "feeling").out == "love.v1: no tags\n"
    result = cli("tag", "love", "--remove", "gone")
    assert (result.code, result.err) == (ExitCode.OK, "love has no tag gone\n")


def test_an_empty_tag_is_refused(refused):
    assert "a tag can't be empty" in refused(ExitCode.BAD_INPUT, "tag", "love", " ")


def test_a_note_is_written_printed_and_emptied(cli, store):
    assert cli("note", "love", "two", "words").out == "two words\n"
    assert cli("note", "love").out == "two words\n"
    cli("note", "love", "a\nb")
    assert cli("note", "love").out == "a\nb\n"
    result = cli("note", "love", "")
    assert (result.out, result.err) == ("", "love.v1 has no note\n")
    assert store.record("love").note == ""


def test_rename_moves_every_version_and_what_was_made_of_it(cli, store):
    store.save("love", 2 * store.load("love"))
    assert cli("rename", "love", "amour").out == "love is now tiny.amour\n"
    assert "amour.v1 - 0.5 * anger.v1" in str(store.record("warm").recipe)
    assert store.record("amour").version == 2


def test_rename_refuses_taken_and_impossible_names(refused):
    line = refused(ExitCode.BAD_INPUT, "rename", "love", "anger")
    assert "already has a vector called anger" in line
    assert "can't name a vector" in refused(ExitCode.BAD_INPUT, "rename", "love", "unit")
    assert "say love" in refused(ExitCode.BAD_INPUT, "rename", "love.v1", "x")
    assert "no vector called x" in refused(ExitCode.NOT_FOUND, "rename", "x", "y")


def test_remove_takes_the_newest(cli, store):
    store.save("front", 2 * store.load("front"))
    assert cli("remove", "front").out == "removed front.v2\n"
    assert store.record("front").version == 1


def test_remove_of_a_parent_is_refused_unless_forced(cli, refused, store):
    line = refused(ExitCode.STORE, "remove", "love")
    assert "tiny.warm.v1 was made from it" in line
    result = cli("remove", "love", "--force")
    assert result.out == "removed love.v1\n"
    assert "warning: can no longer be recomputed: tiny.warm.v1\n" in result.err
    assert "love.v1  not in this store" in cli("show", "warm").out


def test_remove_of_several_needs_all_of_them(refused, cli, store):
    assert "no vector called nope" in refused(ExitCode.NOT_FOUND, "remove", "front", "nope")
    assert cli("remove", "warm", "love", "anger", "front").code == ExitCode.OK
    assert store.names() == []


def test_model_decides(cli, refused, store, both_models):
    assert "several models have" in refused(ExitCode.BAD_INPUT, "tag", "love", "x")
    for arguments in (
        ["tag", "love", "x", "--model", "other"],
        ["note", "love", "x", "--model", "other"],
        ["rename", "love", "amour", "--model", "other"],
        ["remove", "amour", "--force", "--model", "other"],
    ):
        assert cli(*arguments).code == ExitCode.OK
    assert store.record("tiny.love").tags == ("feeling",)
    assert "amour" not in store.names()


def test_of_models_with_one_name_the_one_that_is_meant_loses_its_vector(cli, store):
    love = store.load("love")
    model = replace(love.model, source=f"elsewhere/{love.model.source}", fingerprint="0" * 64)
    other = SteeringVector(love.directions, model=model, recipe=love.recipe)
    store.save("love", other)
    first, second = (m.name for m in store.models())
    assert cli("remove", f"{second}.love", "--force").out == "removed love.v1\n"
    assert [s.model for s in store.list(name="love")] == [first]
    assert store.record("love").model == love.model


def test_changes_are_listed_and_undone(cli, store, refused):
    assert cli("log").err == "no changes yet: `steerlab log NAME` shows the history of a name\n"
    cli("tag", "love", "new")
    cli("remove", "front", "warm")
    assert [line.split()[0] for line in cli("log").out.splitlines()] == ["number", "2", "1"]
    assert [c["text"] for c in cli("log", "--json").data][1] == "tag tiny.love.v1 +new"
    assert "remove tiny.front.v1, tiny.warm.v1" in cli("undo").out
    assert "undone" in cli("log").out
    assert str(store.record("warm").recipe)
    assert cli("undo", 1).out == "undone: tag tiny.love.v1 +new\n"
    assert "new" not in store.record("love").tags
    assert "nothing to undo" in refused(ExitCode.NOT_FOUND, "undo")


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("y\n", False), ("", True)])
def test_remove_asks_in_a_terminal(store, answer, stays, monkeypatch):
    monkeypatch.setattr(output.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda *_: _answer(answer))
    code = run(["remove", "front"])
    assert code == (ExitCode.CANCELLED if stays else ExitCode.OK)
    assert ("front" in store.names()) is stays
    if stays:
        assert run(["remove", "front", "--yes"]) == ExitCode.OK


def _answer(text):
    if not text:
        raise EOFError
    return text.strip()
