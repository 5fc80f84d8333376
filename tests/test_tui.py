"""The terminal UI, driven by keys on a tiny model."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from steerlab import Lab, Store
from steerlab.tui.app import SteerlabApp
from tests.tiny import tiny_lm

PAIRS = [("I love you", "I hate you"), ("what joy", "what pain")]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(Store(tmp_path / "store"), tiny_lm())
    lab.extract("love", PAIRS, layers=2, note="[bold]not markup[/bold] \x1b[31mred")
    lab.extract("anger", [(b, a) for a, b in PAIRS], layers=2)
    return lab


async def until(pilot: Pilot, true: Callable[[], bool]) -> None:
    """Wait, at most ten seconds, for what workers bring."""
    for _ in range(500):
        await pilot.pause()
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


def text_of(app: SteerlabApp, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


async def listed(app: SteerlabApp, pilot: Pilot, count: int = 2) -> DataTable:
    table = app.query_one("#vectors", DataTable)
    await until(pilot, lambda: table.row_count == count)
    return table


async def test_a_few_keys_lead_from_the_table_to_a_steered_text(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test(size=(110, 34)) as pilot:
        await listed(app, pilot)
        await pilot.press("down", "enter")
        assert app.query_one("#expression", Input).value == "love"
        await until(pilot, lambda: "norm" in text_of(app, "meaning"))
        app.query_one("#dose", Input).value = "2"
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "done" in text_of(app, "status"))
        baseline, steered = text_of(app, "baseline"), text_of(app, "steered")
        assert baseline.startswith("I think you are a")
        assert steered.startswith("I think you are a")
        assert baseline != steered


async def test_a_composition_is_saved_from_the_expression_line(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test(size=(110, 34)) as pilot:
        await listed(app, pilot)
        app.query_one("#expression", Input).value = "love - 0.5*anger"
        await pilot.press("ctrl+s")
        await listed(app, pilot, 3)
    assert str(lab.store.load("love_minus_0_5_anger").recipe) == "= love.v1 - 0.5 * anger.v1"


async def test_an_unfinished_expression_is_no_error_and_a_wrong_one_says_where(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test() as pilot:
        await listed(app, pilot)
        line = app.query_one("#expression", Input)
        line.value = "love -"
        await until(pilot, lambda: text_of(app, "meaning") == "…")
        line.value = "love - angr"
        await until(pilot, lambda: "column 8" in text_of(app, "meaning"))


async def test_typing_in_the_filter_narrows_the_table(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test() as pilot:
        table = await listed(app, pilot)
        await pilot.press("slash", *"markup")
        await until(pilot, lambda: table.row_count == 1)


async def test_notes_are_shown_as_text_never_as_markup_or_escapes(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test(size=(140, 40)) as pilot:
        await listed(app, pilot)
        await pilot.press("down")
        await until(pilot, lambda: "love.v1" in text_of(app, "record"))
        shown = text_of(app, "record")
        assert "[bold]not markup[/bold]" in shown
        assert "\x1b" not in shown


async def test_escape_stops_writing_and_the_next_text_is_right(lab: Lab) -> None:
    with_cancel = SteerlabApp(lab)
    async with with_cancel.run_test() as pilot:
        await listed(with_cancel, pilot)
        with_cancel.query_one("#expression", Input).value = "love"
        await pilot.press("ctrl+g", "escape")
        await until(pilot, lambda: not any(w.is_running for w in with_cancel.workers))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "done" in text_of(with_cancel, "status"))
    block = lab.model.blocks[2]
    assert not block._forward_pre_hooks


async def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    app = SteerlabApp(Lab(Store(tmp_path / "empty"), tiny_lm()))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "steerlab extract" in text_of(app, "record"))


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (40, 10)])
async def test_it_opens_at_any_size(lab: Lab, size: tuple[int, int]) -> None:
    app = SteerlabApp(lab)
    async with app.run_test(size=size) as pilot:
        await listed(app, pilot)


@pytest.mark.parametrize("dose", ["-", "1e", "nan"])
async def test_a_dose_that_is_no_number_is_one_line(lab: Lab, dose: str) -> None:
    app = SteerlabApp(lab)
    async with app.run_test() as pilot:
        await listed(app, pilot)
        app.query_one("#expression", Input).value = "love"
        app.query_one("#dose", Input).value = dose
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "number" in text_of(app, "status"))


async def test_saving_a_vector_as_it_is_makes_no_second_version(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test() as pilot:
        await listed(app, pilot)
        app.query_one("#expression", Input).value = "love"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "already stored" in text_of(app, "status"))
    assert len(lab.store.list(every_version=True)) == 2


async def test_enter_replaces_the_line_or_completes_an_open_operator(lab: Lab) -> None:
    app = SteerlabApp(lab)
    async with app.run_test() as pilot:
        await listed(app, pilot)
        line = app.query_one("#expression", Input)
        for before, after in (("love", "anger"), ("love -", "love - anger")):
            line.value = before
            await pilot.press("enter")
            assert line.value == after
