"""The texts side by side: growing, marked where they part, stacked where it is narrow."""

import pytest
from textual.widgets import Static

from steerlab.tui.texts import Column, Texts, marked
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


async def test_a_long_prompt_shows_its_end(host):
    async with host.run_test(size=(80, 12)):
        host.widget.begin(("baseline",), "x" * 20_000 + "END", baseline=0)
        host.widget.write(0, " and on")
        text = plain(host.widget.columns[0])
        assert text.endswith("END and on")
        assert len(text) < 500


async def test_a_new_run_clears_the_old_one(host):
    async with host.run_test(size=(120, 12)):
        texts = host.widget
        texts.begin([str(i) for i in range(5)], "p", baseline=2)
        for index in range(5):
            texts.write(index, " old")
        texts.show_best(1)
        texts.begin(("baseline", "c"), "p", baseline=0)
        assert [plain(c) for c in texts.columns] == ["p", "p"]
        assert len([c for c in texts.query(Column) if c.display]) == 2
        assert not texts.query(".best")


@pytest.mark.parametrize(("width", "stacked"), [(40, True), (109, True), (111, False)])
async def test_columns_too_narrow_to_read_are_stacked(host, width, stacked):
    async with host.run_test(size=(width, 20)) as pilot:
        host.widget.begin([str(i) for i in range(5)], "p", baseline=2)
        await pilot.pause()
        assert host.widget.has_class("-stacked") is stacked


async def test_a_star_says_which_text_was_best(host):
    async with host.run_test(size=(80, 12)) as pilot:
        host.widget.columns[1].focus()
        await pilot.press("asterisk")
        assert [m.index for m in host.heard_of(Texts.Picked)] == [1]
        host.widget.show_best(1)
        assert host.widget.columns[1].border_subtitle == "★ best"


def test_the_first_word_that_differs_stands_out_most():
    content = marked(" a warm house", " a cold house")
    assert content.plain == " a warm house"
    (span,) = content.spans
    assert content.plain[span.start : span.end] == "warm"
    assert "underline" in str(span.style)


def test_equal_texts_have_no_marks():
    assert not marked("the same\n\nwords ", "the same\nwords").spans
