"""The whole app on a terminal of a given size: `Session` opens it, `Driver` is its user."""

import re
import shutil
import threading
from pathlib import Path

from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from steerlab import Lab
from steerlab.cli.forms import CommandLine
from steerlab.tui.app import SteerlabApp
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.workbench.lab_panel import LabPanel
from steerlab.tui.workbench.screen import Workbench
from steerlab.tui.workbench.table import VectorTable
from steerlab.tui.workbench.texts import Column
from tests.tui.hosts import until
from tests.tui.idle import wait_for_idle

PAIRS = [("I love you", "I hate you"), ("what joy", "what pain")]
NASTY = "[bold]not markup[/bold] \x1b[31mred"
SIZES = [(40, 10), (60, 16), (80, 24), (100, 30), (140, 40), (200, 60)]


def delete(folder: Path) -> None:
    """Delete a store that is being read: SQLite may remove its side files first."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


class Gate:
    """Holds the model at each forward pass until the test lets it go on; counts the passes."""

    def __init__(self, lab: Lab) -> None:
        self.passes, self._let, self._open = 0, 0, threading.Semaphore(0)
        lab.model.model.register_forward_pre_hook(self._enter)

    def _enter(self, *_: object) -> None:
        self.passes += 1
        assert self._open.acquire(timeout=60)

    def let(self, passes: int) -> None:
        """Let so many more passes through."""
        self._let += passes
        self._open.release(passes)

    def step(self) -> None:
        """Let a pass through that is waiting."""
        if self.passes > self._let:
            self.let(1)


class Driver:
    """What a user sees and does."""

    def __init__(self, app: SteerlabApp, pilot: Pilot) -> None:
        self.app, self.pilot = app, pilot

    @property
    def bench(self) -> Workbench:
        assert self.app.workbench is not None
        return self.app.workbench

    @property
    def lab_panel(self) -> LabPanel:
        return self.bench.query_one(LabPanel)

    @property
    def line(self) -> ExpressionLine:
        return self.bench.query_one(ExpressionLine)

    @property
    def texts(self) -> list[str]:
        return [c.query_one(Static).render().plain for c in self.bench.query(Column) if c.display]

    @property
    def screenshot(self) -> str:
        """The text of a picture; a word may be drawn in two pieces after a partial refresh."""
        drawn = self.app.export_screenshot().replace("&#160;", " ")
        return re.sub(r"<[^>]*>", "", drawn)

    @property
    def at(self) -> str:
        current = self.bench.table.current
        return current.name if current is not None else ""

    @property
    def said(self) -> list[str]:
        return [notification.message for notification in self.app._notifications]

    async def listed(self, count: int) -> None:
        table = self.bench.query_one(VectorTable)
        await until(self.pilot, lambda: table.row_count == count and (not count or table.current))

    async def steer(self, text: str) -> None:
        self.line.text = text
        await until(self.pilot, lambda: self.line.meaning.text == text)

    async def begun(self, gate: Gate) -> None:
        """Go on pass by pass until a text shows; the app keeps up with the model."""
        while not any(column.written for column in self.bench.query(Column)):
            gate.step()
            await wait_for_idle()

    async def written(self) -> None:
        await until(self.pilot, lambda: not self.lab_panel.busy, 60)
        await self.pilot.pause()

    async def until(self, true) -> None:
        await until(self.pilot, true)

    def key(self, name: str) -> None:
        """Press a key without waiting for the app to become idle."""
        self.app.post_message(events.Key(name, None))


class Session:
    """`async with Session(lab) as user`."""

    def __init__(self, lab: Lab, size: tuple[int, int] = (120, 40), count: int | None = 2) -> None:
        self.app, self.count = SteerlabApp(lab, CommandLine()), count
        self.running = self.app.run_test(size=size)

    async def __aenter__(self) -> Driver:
        user = Driver(self.app, await self.running.__aenter__())
        await until(user.pilot, lambda: self.app.workbench is not None)
        await until(user.pilot, lambda: self.app.screen is self.app.workbench)
        if self.count is not None:
            await user.listed(self.count)
        await user.pilot.pause()
        return user

    async def __aexit__(self, *error) -> None:
        await self.running.__aexit__(*error)
