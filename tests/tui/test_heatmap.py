"""The heatmap: numbers, colours, a cursor for keys and mouse, at any size."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from steerlab.plots.values import HeatGrid
from steerlab.tui.sweep.heatmap import Heatmap
from tests.tui.hosts import Host

GRID = HeatGrid(
    "how kind",
    "how kind",
    (10, 13, 15),
    ("-0.2", "0", "+0.2", "+0.4"),
    (
        (-1.0, 0.0, 0.5, 1.0),
        (-0.5, 0.0, math.nan, None),
        (0.25, 0.75, 0.125, -0.25),
    ),
    centre=0.0,
    digits=3,
)


def lines(heatmap: Heatmap) -> list[str]:
    return [heatmap.render_line(y).text for y in range(heatmap._view.height)]


async def filled(heatmap: Heatmap, pilot: Pilot[None]) -> None:
    heatmap.show(GRID)
    heatmap.focus()
    await pilot.pause()


async def test_values_stand_under_their_labels_with_a_legend_below() -> None:
    heatmap = Heatmap()
    async with Host(heatmap).run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        heading, *rows, legend = lines(heatmap)
        assert heading.split() == ["layer", *GRID.columns]
        assert rows[0].replace("▸", " ").replace("◂", " ").split() == [
            "10",
            "-1.000",
            "0.000",
            "0.500",
            "1.000",
        ]
        assert rows[1].split() == ["13", "-0.500", "0.000", "–", "·"]
        assert legend.split() == ["-1.000", "1.000", "how", "kind"]
        ends = [match.end() for match in re.finditer(r"\S+", heading)][1:]
        for row in rows:  # right-aligned under one another
            assert [match.end() for match in re.finditer(r"[^ ▸◂]+", row)][1:] == ends


async def test_arrows_move_and_stop_at_the_edges() -> None:
    heatmap = Heatmap()
    host = Host(heatmap)
    async with host.run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        host.heard.clear()
        await pilot.press("up", "left", "right", "down")
        assert heatmap.cursor == (1, 1)
        moved = [(m.row, m.column) for m in host.heard_of(Heatmap.Moved)]
        assert moved == [(0, 1), (1, 1)]
        await pilot.press("end", "pagedown")
        assert heatmap.cursor == (2, 3)
        await pilot.press("right", "down", "home", "pageup")
        assert heatmap.cursor == (0, 0)


async def test_the_cursor_needs_no_colour() -> None:
    heatmap = Heatmap()
    async with Host(heatmap).run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        await pilot.press("right", "right")
        assert re.search("▸ *0.500◂", lines(heatmap)[1])


async def test_enter_and_a_double_click_choose() -> None:
    heatmap = Heatmap()
    host = Host(heatmap)
    async with host.run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        await pilot.press("down", "enter")
        x = lines(heatmap)[3].index("0.125") + 1
        await pilot.click(heatmap, offset=(x, 3))
        assert heatmap.cursor == (2, 2)
        await pilot.click(heatmap, offset=(x, 3), times=2)
        chosen = [(m.row, m.column) for m in host.heard_of(Heatmap.Chosen)]
        assert chosen == [(1, 0), (2, 2)]


@pytest.mark.parametrize("offset", [(1, 1), (20, 0), (20, 4), (59, 2)])
async def test_a_click_beside_the_cells_does_nothing(offset: tuple[int, int]) -> None:
    heatmap = Heatmap()
    async with Host(heatmap).run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        await pilot.press("down")
        await pilot.click(heatmap, offset=offset)
        assert heatmap.cursor == (1, 0)


async def test_a_small_terminal_scrolls_under_its_labels() -> None:
    heatmap = Heatmap()
    async with Host(heatmap, "Heatmap { max-height: 5; }").run_test(size=(24, 8)) as pilot:
        await filled(heatmap, pilot)
        await pilot.press("end", "pagedown")
        await pilot.pause()
        drawn = lines(heatmap)
        assert drawn[0].startswith("layer")
        assert "+0.4" in drawn[0]
        row = next(line for line in drawn if "▸" in line)
        assert row.strip().startswith("15")
        assert "-0.250◂" in row
        assert drawn[-1].strip().startswith("-1")
        await pilot.click(heatmap, offset=(row.index("-0.250"), drawn.index(row) - 1))
        assert heatmap.cursor == (1, 3)


async def test_it_keeps_its_cell_where_that_still_exists() -> None:
    heatmap = Heatmap()
    async with Host(heatmap).run_test(size=(60, 12)) as pilot:
        await filled(heatmap, pilot)
        await pilot.press("end", "pagedown")
        heatmap.show(replace(GRID, layers=(1, 2), columns=("a", "b"), values=((1, 2), (3, 4))))
        assert heatmap.cursor == (1, 1)
        heatmap.show(replace(GRID, layers=(), columns=(), values=()))
        await pilot.press("down", "enter")
        assert heatmap.cursor == (0, 0)
        assert all(not line.strip() for line in lines(heatmap))


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark", "ansi-light"])
async def test_every_colour_can_be_read(theme: str) -> None:
    heatmap = Heatmap()
    host = Host(heatmap)
    async with host.run_test(size=(60, 12)) as pilot:
        host.theme = theme
        await filled(heatmap, pilot)
        for share in (-1, -0.7, -0.5, -0.2, 0, 0.2, 0.5, 0.7, 1):
            style = heatmap._colour(share)
            assert style.color is not None
            assert style.bgcolor is not None
            text, back = (c.get_truecolor() for c in (style.color, style.bgcolor))
            assert contrast(tuple(text), tuple(back)) > 3.5


def contrast(a: Sequence[int], b: Sequence[int]) -> float:
    """As WCAG 2 defines it."""

    def luminance(rgb: Sequence[int]) -> float:
        parts = [c / 255 for c in rgb]
        red, green, blue = (c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
