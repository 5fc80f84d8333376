"""The expression line: what a text means while it is typed, and when a mistake is one."""

from pathlib import Path

import pytest
from textual.widgets import Input

from steerlab import Lab, Store
from steerlab.tui.expression_line import (
    LABEL,
    ExpressionLine,
    completion,
    last_word,
    meaning_of,
)
from tests.tiny import tiny_lm
from tests.tui.hosts import Host, text_of, until

PAIRS = [("I love you", "I hate you"), ("what joy", "what pain")]
NAMES = ["anger", "love"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    lab = Lab(Store(tmp_path_factory.mktemp("line") / "store"), tiny_lm())
    lab.extract("love", PAIRS, layers=2)
    lab.extract("anger", [(b, a) for a, b in PAIRS], layers=[1, 2])
    return lab


@pytest.mark.parametrize(
    "text",
    [
        "love -",
        "love - ",
        "love - a",
        "love - ang",
        "lo",
        "uni",
        "unit(",
        "unit(love",
        "love[",
        "love[1",
        "0.5*",
        "2",
        "love.",
        "love.v",
        "mean(love, ",
        "(love - anger",
    ],
)
def test_what_may_still_become_an_expression_is_no_mistake(lab, text):
    meaning = meaning_of(lab, text, NAMES)
    assert meaning.vector is None
    assert meaning.unfinished, meaning.problem


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("love - angr ", 8),
        ("lvoe", 1),
        ("love - x", 8),
        ("love @ anger", None),
        ("love love", None),
        ("love * anger", None),
        ("love[9]", None),
        ("unit(2)", None),
        ("love - import", None),
        ("x" * 5000, 1),
        ("love\x1b[31m", None),
    ],
)
def test_a_mistake_says_why_and_where(lab, text, column):
    meaning = meaning_of(lab, text, NAMES)
    assert meaning.vector is None
    assert meaning.problem
    assert not meaning.unfinished
    if column is not None:
        assert meaning.column == column
        assert "column" not in meaning.problem


def test_a_meaning_has_cosines_to_its_operands_and_warnings(lab):
    meaning = meaning_of(lab, "love - 0.5*anger", NAMES)
    assert [ref for ref, _ in meaning.cosines] == ["love", "anger"]
    assert meaning.cosines[0][1] == pytest.approx(1, abs=1e-6)
    assert "different layers" in meaning.warnings[0]
    assert meaning_of(lab, "love", NAMES).cosines == ()


def test_completion_takes_the_first_name_or_function_that_fits():
    assert completion("lo", NAMES) == "love"
    assert completion("un", NAMES) == "unit("
    assert completion("zz", NAMES) is None
    assert last_word("love - an") == "an"
    assert last_word("love - ") == ""
    assert last_word("2*lo.v") == "lo.v"


async def shown(lab: Lab, text: str, size=(80, 5)) -> tuple[str, bool]:
    host = Host(ExpressionLine(lab), ".line { height: 1 } .label { width: 8 }")
    async with host.run_test(size=size) as pilot:
        host.widget.show_names(NAMES)
        host.widget.query_one(Input).focus()
        host.widget.text = text
        await until(pilot, lambda: host.widget.meaning.text == text)
        await pilot.pause(0.6)
        problem = host.widget.query_one("#meaning").has_class("problem")
        return text_of(host.widget, "#meaning"), problem


async def test_the_mark_stands_under_the_mistake(lab):
    text, problem = await shown(lab, "love - x*anger")
    assert problem
    assert text.index("^") == LABEL + len("love - ")
    assert "no vector called x" in text


async def test_an_unfinished_text_shows_no_problem_however_long_one_waits(lab):
    assert await shown(lab, "love - an") == (" " * LABEL + "…", False)


@pytest.mark.parametrize(("text", "says"), [("love - an", "no vector called an"), ("love -", "…")])
async def test_an_unfinished_name_is_a_mistake_once_the_line_is_left(lab, text, says):
    """After a trailing operator the table appends its vector."""
    host = Host(ExpressionLine(lab))
    async with host.run_test(size=(80, 5)) as pilot:
        host.widget.show_names(NAMES)
        host.widget.query_one(Input).focus()
        host.widget.text = text
        await until(pilot, lambda: host.widget.meaning.text == text)
        assert text_of(host.widget, "#meaning").strip() == "…"
        host.screen.set_focus(None)
        await pilot.pause(0.1)
        assert says in text_of(host.widget, "#meaning")


async def test_a_mistake_is_not_shown_before_typing_pauses(lab):
    host = Host(ExpressionLine(lab))
    async with host.run_test() as pilot:
        host.widget.show_names(NAMES)
        host.widget.text = "love @"
        host.widget.text = "love @ x"
        await until(pilot, lambda: host.widget.meaning.text == "love @ x")
        assert not host.widget.query_one("#meaning").has_class("problem")
        host.widget.text = "love"  # typed away in time
        await pilot.pause(0.8)
        assert "norm" in text_of(host.widget, "#meaning")


async def test_right_takes_the_completion(lab):
    host = Host(ExpressionLine(lab))
    async with host.run_test() as pilot:
        host.widget.show_names(NAMES)
        host.widget.query_one(Input).focus()
        await pilot.press(*"love - an")
        await pilot.pause(0.2)
        await pilot.press("right")
        assert host.widget.text == "love - anger"


async def test_a_name_is_put_behind_an_open_operator(lab):
    host = Host(ExpressionLine(lab))
    async with host.run_test():
        for before, after in (("", "love"), ("anger", "love"), ("anger -", "anger - love")):
            host.widget.text = before
            host.widget.put("love")
            assert host.widget.text == after


async def test_a_store_that_cannot_be_read_is_said_on_the_line(tmp_path: Path):
    broken = tmp_path / "store"
    broken.mkdir()
    (broken / "registry.db").write_bytes(b"no database at all" * 100)
    text, problem = await shown(Lab(Store(broken), tiny_lm()), "love")
    assert problem
    assert "rebuild" in text
