"""What a file says of itself is shown as text: no markup, no link, no escape, anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.strip import Strip
from textual.widgets import Input

from steerlab import Lab, Store
from steerlab.tui.control_chars import CONTROL_CHARS
from steerlab.tui.detail import Detail
from tests.fuzz.stranger import SHORT, STYLED, TEXT, fill
from tests.tui.driver import Driver, Session

SHOWN = "[red]x[/red]"
SIZE = (190, 60)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    store = Store(tmp_path / "store")
    fill(store, tmp_path / "evil.safetensors")
    return Lab(store)


def check(user: Driver) -> str:
    """The text on the screen: printable, with no link and no action that is not the program's."""
    strips: list[Strip] = user.app.screen._compositor.render_strips()
    for segment in (segment for strip in strips for segment in strip):
        assert not CONTROL_CHARS.search(segment.text) or segment.control
        if segment.style is not None:
            assert segment.style.link is None
            assert segment.style.meta.get("@click") != "app.quit"
    svg = user.app.export_screenshot()
    assert not CONTROL_CHARS.search(svg.replace("\n", ""))
    return "\n".join(strip.text for strip in strips)


async def test_the_table_and_every_tab_show_text(lab):
    async with Session(lab, SIZE, count=4) as user:
        seen = ""
        names = {summary.kind: summary.name for summary in lab.store.list()}
        for name in (names["contrast"], names["expression"]):
            user.bench.query_one("#filter", Input).value = name
            await user.until(lambda name=name: user.at == name)
            user.bench.table.focus()
            for tab in map(str, range(1, len(Detail.TABS) + 1)):
                await user.pilot.press(tab)
                await user.pilot.pause()
                seen += check(user)
        assert SHOWN in seen
        assert "[@click=app.quit]" in seen
        assert r"\x1b[35;5m" in seen


DIALOGS = {
    "rename": ["r"],
    "remove": ["delete"],
    "model": ["m"],
    "save": ["enter", "ctrl+s"],
    "extract": ["x"],
    "copied": ["y"],
}


async def test_dialogs_show_text(lab):
    async with Session(lab, SIZE, count=4) as user:
        for keys in DIALOGS.values():
            user.bench.table.focus()
            for key in keys:
                await user.pilot.press(key)
                if key == "enter":
                    await user.until(lambda: user.line.meaning.vector)
            await user.pilot.pause()
            check(user)
            while user.app.screen is not user.bench:
                await user.pilot.press("escape")


async def test_what_goes_wrong_is_said_as_text(lab):
    async with Session(lab, SIZE, count=4) as user:
        user.bench.query_one("#filter", Input).value = SHORT
        await user.pilot.pause()
        check(user)
        for text in (STYLED, TEXT, SHORT, "contrast + orphan[9]", f"{SHORT}.v1"):
            await user.steer(text)
            await user.pilot.pause()
            check(user)
        for file in user.app.lab.store.path.rglob("*.safetensors"):
            file.write_bytes(b"junk")
        user.line.text = "2 * made"
        await user.pilot.press("ctrl+g")
        await user.until(lambda: user.said)
        await user.pilot.pause()
        check(user)
