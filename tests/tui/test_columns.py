"""The texts side by side: growing, marked where they part, stacked where it is narrow."""

import random

import pytest
from textual.widgets import Static

from steerlab.core.audit import Audit, AuditedText, Change
from steerlab.core.run import Generation, Run
from steerlab.tui.frames import Frames
from steerlab.tui.generation_text import audited
from steerlab.tui.workbench.texts import Column, Paragraph, Texts, marked
from tests.tui.hosts import Host, until


def plain(column: Column) -> str:
    return column.query_one(Static).render().plain


@pytest.fixture
def host() -> Host:
    return Host(Texts())


async def test_texts_grow_after_the_prompt(host):
    async with host.run_test(size=(80, 12)) as pilot:
        texts = host.widget
        texts.begin(("baseline", "c +1"), "I am", baseline=0)
        for piece in (" a", " cat", "\n\x1b[31m[bold]"):
            texts.write(0, piece)
        texts.write(1, " not")
        await until(pilot, lambda: plain(texts.columns[0]) == "I am a cat\n\\x1b[31m[bold]")
        assert plain(texts.columns[1]) == "I am not"
        assert [c.border_title for c in texts.columns] == ["baseline", "c +1"]


async def test_the_first_piece_is_drawn_at_once(host):
    async with host.run_test(size=(80, 12)):
        host.widget.begin(("baseline",), "", baseline=0)
        host.widget.write(0, "now")
        assert plain(host.widget.columns[0]) == "now"


def drawn(host: Host) -> list[str]:
    """What stands on the screen, line by line."""
    return [strip.text for strip in host.screen._compositor.render_strips()]


async def test_what_grows_looks_as_if_it_were_drawn_as_a_whole(host):
    """Words that wrap, are longer than a line, wide, or end a line; until it scrolls."""
    chosen = random.Random(1)
    pieces = (" a", " word", "longer", "\n", "  ", "字字", "-", "x" * 45, " of it", "\x1b[1m")
    async with host.run_test(size=(60, 16)) as pilot:
        texts = host.widget
        texts.begin(("baseline", "c"), "it is", baseline=0)
        await pilot.pause()
        for _ in range(40):
            texts.write(chosen.randrange(2), chosen.choice(pieces))
            await pilot.pause()
            shown = drawn(host)
            texts.refresh(layout=True)
            for passage in texts.query(Paragraph):
                passage.refresh()
            await pilot.pause()
            assert shown == drawn(host)


async def test_only_the_end_of_what_grows_is_drawn(host, monkeypatch):
    async with host.run_test(size=(60, 16)) as pilot:
        texts = host.widget
        texts.begin(("baseline", "c"), "one\ntwo", baseline=0)
        await pilot.pause()
        texts.write(1, "\nthree")
        await pilot.pause()
        lines = []
        monkeypatch.setattr(
            Paragraph,
            "render_line",
            lambda self, y: lines.append(y) or Static.render_line(self, y),
        )
        texts.write(1, " and\nfour")
        await pilot.pause()
        assert lines == [2, 3]


def test_the_screen_is_told_of_pieces_a_few_times_a_second_and_takes_all(monkeypatch):
    now = 5.0
    monkeypatch.setattr("steerlab.tui.frames.time.perf_counter", lambda: now)
    frames, told, taken = Frames(10), 0, []
    for token in range(300):
        now += 0.01
        tells = [frames.add(0, f"{token} "), frames.add(1, f"{-token} ")]
        assert not tells[1]
        if tells[0]:
            told += 1
            taken.append(frames.take())
            assert taken[0] == {0: "0 ", 1: "0 "}  # the first at once, of all columns
    taken.append(frames.take())
    assert told == pytest.approx(3 * 10, abs=3)
    for column, sign in ((0, 1), (1, -1)):
        text = "".join(pieces.get(column, "") for pieces in taken)
        assert text == "".join(f"{sign * token} " for token in range(300))


async def test_a_long_prompt_shows_its_end(host):
    async with host.run_test(size=(80, 12)):
        host.widget.begin(("baseline",), "x" * 20_000 + "END", baseline=0)
        host.widget.write(0, " and on")
        text = plain(host.widget.columns[0])
        assert text.endswith("END and on")
        assert len(text) < 500


def rated(count: int) -> Run:
    """A run whose second text is the best, and was rated 4."""
    texts = [Generation(0.0, 0.0, "", rating=4 if index == 1 else None) for index in range(count)]
    return Run("love", "p", "m", tuple(texts), best=1)


async def test_a_new_run_clears_the_old_one(host):
    async with host.run_test(size=(120, 12)):
        texts = host.widget
        texts.begin([str(i) for i in range(5)], "p", baseline=2)
        for index in range(5):
            texts.write(index, " old")
        texts.show_ratings(rated(5))
        texts.begin(("baseline", "c"), "p", baseline=0)
        assert [plain(c) for c in texts.columns] == ["p", "p"]
        assert len([c for c in texts.query(Column) if c.display]) == 2
        assert not texts.query(".best")


async def test_a_stacked_column_shrinks_to_a_shorter_text(host):
    async with host.run_test(size=(40, 20)) as pilot:
        texts = host.widget
        for text in ("word " * 200, "hi"):
            texts.begin(("baseline", "c"), "", baseline=0)
            for index in (0, 1):
                texts.write(index, text)
            texts.finish()
            await pilot.pause()
        await until(pilot, lambda: [p.size.height for p in texts.query(Paragraph)][:2] == [1, 1])


@pytest.mark.parametrize(("width", "stacked"), [(40, True), (109, True), (111, False)])
async def test_columns_too_narrow_to_read_are_stacked(host, width, stacked):
    async with host.run_test(size=(width, 20)) as pilot:
        host.widget.begin([str(i) for i in range(5)], "p", baseline=2)
        await pilot.pause()
        assert host.widget.has_class("-stacked") is stacked


def audit_of(*tokens: str, prompt: int = 1) -> AuditedText:
    """A text whose tokens after the prompt were all changed, but for the last one."""
    places = tuple(range(prompt, len(tokens) - 1))
    change = Change(1, 2, 0, 0, places, tuple(float(p) for p in places))
    return AuditedText(tokens, prompt, Audit((change,), rows=1, passes=2))


async def test_changed_tokens_are_shown_in_place_of_a_text(host):
    async with host.run_test(size=(80, 12)):
        texts = host.widget
        texts.begin(("baseline", "c"), "I", baseline=0)
        texts.write(1, " am\x1b[bold]")
        assert texts.toggle_audit()
        assert plain(texts.columns[1]) == "I am\\x1b[bold]"  # not known yet
        texts.finish([None, audit_of("I", "␣am", "\x1b[bold]", "!")])
        summary, line = plain(texts.columns[1]).splitlines()
        assert line == r"·I → ▄ am█\x1b[bold]·!"
        assert summary.startswith("changed: 2 of 4 tokens, positions 1-2, layer 2")
        assert not texts.toggle_audit()
        assert plain(texts.columns[1]) == "I am\\x1b[bold]"
        texts.begin(("baseline", "c"), "I", baseline=0)
        assert not texts.is_audited


def test_changed_tokens_stand_on_colour_the_more_the_stronger():
    content = audited(audit_of("I", "a", "b", "c", "d", "e"))
    colours = [str(span.style) for span in content.spans if "accent" in str(span.style)]
    assert colours == [f"$text on $accent {share}%" for share in (32, 45, 58, 70)]


def test_of_a_long_prompt_the_last_tokens_are_shown():
    content = audited(audit_of(*"x" * 5000, "y", "z", prompt=5000))
    assert content.plain.splitlines()[1] == f"…{'·x' * 100} → █y·z"


async def test_a_star_says_which_text_was_best(host):
    async with host.run_test(size=(80, 12)) as pilot:
        host.widget.columns[1].focus()
        await pilot.press("asterisk")
        assert [(m.index, m.rating) for m in host.heard_of(Texts.Rated)] == [(1, None)]
        host.widget.show_ratings(rated(2))
        titles = [str(c.border_title) for c in host.widget.columns]
        assert titles == ["baseline", "★ best 4/5  steered"]


async def test_arrows_go_from_text_to_text(host):
    async with host.run_test(size=(80, 12)) as pilot:
        first, second = host.widget.columns
        first.focus()
        for key, there in (("right", second), ("right", second), ("left", first), ("left", first)):
            await pilot.press(key)
            assert there.has_focus


def test_the_first_word_that_differs_stands_out_most():
    content = marked(" a warm house", " a cold house")
    assert content.plain == " a warm house"
    (span,) = content.spans
    assert content.plain[span.start : span.end] == "warm"
    assert "underline" in str(span.style)


def test_equal_texts_have_no_marks():
    assert not marked("the same\n\nwords ", "the same\nwords").spans
