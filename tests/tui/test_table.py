"""The table of vectors: any number of rows, of which only those on screen are read."""

from array import array
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from steerlab.core.results import Calibration
from steerlab.registry import Summary
from steerlab.tui.workbench.columns import COLUMNS, GUTTER, fitted, layout
from steerlab.tui.workbench.table import KEPT, VectorTable
from tests.tui.hosts import Host, until


def summary(number: int, name: str = "", **more) -> Summary:
    values = {
        "id": number,
        "name": name or f"vector_{number}",
        "version": 1,
        "model": "smollm2",
        "digest": "d" * 64,
        "layers": (15,),
        "scope": "broadcast",
        "kind": "contrast",
        "norm": 55.07,
        "recipe": "4 contrast pairs, mean_difference, last token",
        "created": "2026-11-24T10:00:00.000000+00:00",
        "note": "",
        "tags": ("many",),
        "doses": {15: 0.33},
    }
    return Summary(**(values | more))


class Table(Host):
    """A table whose rows are made up as they are wanted; `lost` ones are gone."""

    def __init__(self, rows: Sequence[int], names: dict[int, str] | None = None) -> None:
        super().__init__(VectorTable())
        self.rows, self.names = rows, names or {}
        self.lost: set[int] = set()
        self.wanted: list[int] = []

    def on_mount(self) -> None:
        self.widget.show(self.rows)

    def on_vector_table_wanted(self, event: VectorTable.Wanted) -> None:
        self.wanted += event.ids
        found = [summary(i, self.names.get(i, "")) for i in event.ids if i not in self.lost]
        self.widget.fill(found, event.ids)

    def lines(self) -> list[str]:
        return [self.widget.render_line(y).text for y in range(self.widget.size.height)]


async def test_rows_stand_under_their_headings():
    app = Table(range(3))
    async with app.run_test(size=(100, 8)) as pilot:
        await pilot.pause()
        header, first, *_ = app.lines()
        shown = ["name", "▲", "layer", "works", "norm", "dose", "made", "tags", "created"]
        assert header.split() == shown
        assert first.startswith("▸  vector_0")
        for name, shown in (("layer", "15"), ("made", "4 contrast"), ("tags", "many")):
            assert first.index(shown) == header.index(name)
        assert first.index("55.1") + 4 == header.index("norm") + 4  # numbers stand at the right


async def test_a_row_says_at_which_dose_and_layer_the_vector_works():
    works = Calibration("d" * 64, True, 21, 0.15, 0.5, (-0.1, 0.15))
    app = Table(range(3))
    async with app.run_test(size=(80, 8)) as pilot:
        await pilot.pause()
        rows = [summary(i) for i in range(3)]
        app.widget.fill(rows, (), {0: works, 1: replace(works, works=False)})
        header, *lines = app.lines()
        at = header.index("works")
        assert [line[at : at + 11].strip() for line in lines[:3]] == [
            "+0.15 at 21",
            "not shown",
            "",
        ]
        app.widget.fill(rows)
        assert "at 21" not in app.lines()[1]


@pytest.mark.parametrize("width", [5, 12, 20, 28, 33, 40, 56, 64, 72, 80, 96, 110, 200])
async def test_every_line_is_as_wide_as_the_table(width):
    names = {0: "x" * 300, 1: "日本語" * 30, 2: "[red]a[/red]\x1b[31m\n\tb", 3: "é̂ e\u0301\u200b"}
    app = Table(range(30), names)
    async with app.run_test(size=(width, 12)) as pilot:
        await pilot.pause()
        inner = app.widget.scrollable_content_region.width
        for y in range(app.widget.size.height):
            strip = app.widget.render_line(y)
            assert cell_len(strip.text) == strip.cell_length == inner
            assert "\x1b" not in strip.text


@given(st.text(max_size=40), st.integers(1, 30), st.booleans())
def test_a_cell_has_exactly_its_width(text, width, right):
    assert cell_len(fitted(text, width, right=right)) == width


@given(st.integers(4, 300), st.booleans())
def test_columns_fill_the_width_and_never_more(width, show_model):
    columns = layout(width, show_model=show_model)
    used = GUTTER + sum(size for _, size in columns) + len(columns) - 1
    assert used == max(width, used if width < 14 else width)
    assert columns[0][0].name == "name"
    assert all(size > 0 for _, size in columns)
    assert [c for c, _ in columns] == [c for c in COLUMNS if c in {k for k, _ in columns}]


async def test_a_hundred_thousand_rows_are_listed_and_few_are_read():
    app = Table(array("q", range(100_000)))
    async with app.run_test(size=(80, 30)) as pilot:
        await pilot.press("pagedown", "pagedown", "end", "pageup")
        await pilot.pause()
        assert app.widget.cursor_row == 99_999 - 29
        assert len(app.wanted) == len(set(app.wanted)) < 400
        assert "vector_99970" in "".join(app.lines())


async def test_remembered_rows_are_bounded():
    app = Table(range(20_000))
    async with app.run_test(size=(80, 60)) as pilot:
        for page in range(1, 121):
            app.widget.action_page(1)
            await until(pilot, lambda page=page: 59 * page in app.widget._rows)
        assert len(app.widget._rows) <= KEPT
        await pilot.press("home")
        await pilot.pause()
        assert "vector_0 " in app.lines()[1]


async def test_the_cursor_stays_on_its_vector():
    app = Table(range(10))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("down", "down", "down")
        assert app.widget.current.id == 3
        app.widget.show([9, 3, 1])
        assert (app.widget.current.id, app.widget.cursor_row) == (3, 1)
        app.widget.show([9, 1])  # it is filtered out: the cursor stays where it was
        assert app.widget.current.id == 1
        app.widget.show([])
        assert app.widget.current is None
        await pilot.press("down", "up", "end", "enter", "space", "s")


async def test_what_is_under_the_cursor_is_told_once():
    app = Table(range(5))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("down", "up", "down")
        await pilot.pause()
        told = [event.summary.id for event in app.heard_of(VectorTable.Highlighted)]
        assert told == [0, 1, 0, 1]
        app.widget.fill([summary(1, "renamed")])
        await pilot.pause()
        assert app.heard_of(VectorTable.Highlighted)[-1].summary.name == "renamed"


async def test_a_changed_store_is_read_again_without_a_flicker():
    app = Table(range(5))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.pause()
        app.names = {2: "new_name"}
        app.wanted.clear()
        app.widget.refresh_rows()
        assert "vector_2" in app.lines()[3]  # the old row stays until the new one is there
        await pilot.pause()
        assert sorted(app.wanted) == [0, 1, 2, 3, 4]
        assert "new_name" in app.lines()[3]


async def test_a_row_that_is_gone_says_so_and_loses_its_mark():
    app = Table(range(4))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("space")
        app.lost = {0}
        app.widget.refresh_rows()
        await pilot.pause()
        assert "removed from the store" in app.lines()[1]
        assert app.widget.marked == ()


async def test_marks_keep_their_order_and_survive_a_filter():
    app = Table(range(6))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("down", "down", "space", "home", "space")
        assert [s.id for s in app.widget.marked] == [2, 0]
        app.widget.show([4, 5])
        app.widget.show(range(6))
        assert "●" in app.lines()[3]
        await pilot.press("home", "space")
        assert [s.id for s in app.widget.marked] == [2]
        await pilot.press("u")
        assert app.widget.marked == ()


async def test_enter_and_a_double_click_choose():
    app = Table(range(5))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("down", "enter")
        await pilot.click(VectorTable, offset=(5, 4))
        assert app.widget.cursor_row == 3
        await pilot.click(VectorTable, offset=(5, 4), times=2)
        await pilot.pause()
        assert [e.summary.id for e in app.heard_of(VectorTable.Chosen)] == [1, 3]


async def test_keys_and_the_header_sort():
    app = Table(range(5))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.press("s", "S")
        header = app.lines()[0]
        await pilot.click(VectorTable, offset=(header.index("norm") + 1, 0))
        await pilot.click(VectorTable, offset=(4, 0))
        await pilot.pause()
        asked = [(e.column, e.reverse) for e in app.heard_of(VectorTable.SortBy)]
        assert asked == [("layer", False), ("name", True), ("norm", False), ("name", True)]
        app.widget.sort = ("norm", True)
        assert "norm ▼" in app.lines()[0]


async def test_a_damaged_row_is_marked():
    app = Table(range(3))
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.pause()
        app.widget.flag(1, damaged=True)
        assert "✗" in app.lines()[2]
        app.widget.flag(1, damaged=False)
        assert "✗" not in app.lines()[2]


async def test_a_resize_loses_nothing():
    app = Table(range(100))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("end", "space")
        await pilot.resize_terminal(40, 8)
        await pilot.pause()
        assert app.widget.current.id == 99
        assert any("▸●" in line for line in app.lines())
