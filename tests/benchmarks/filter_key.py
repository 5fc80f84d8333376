"""What a key in the filter costs: calls from one file into another until the screen is quiet.

A count, unlike a time, is the same on every machine. Two keys are counted on the starter store at
140x40: one that leaves the cursor where it is, and one that moves it, after which the details are
read again.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from textual import events

import steerlab
from steerlab import Lab, Store
from steerlab.cli.forms import CommandLine
from steerlab.tui.app import SteerlabApp
from steerlab.tui.workbench.screen import Workbench
from tests.benchmarks.timing import Ratio

STORE = Path(__file__).parents[2] / "store"
OURS = os.path.dirname(steerlab.__file__) + os.sep
SIZE = (140, 40)
QUIET, IDLE = 0.4, 300
"""The screen is quiet after so many seconds (longer than the details wait) with at most so many
calls, which timers make.
"""

BEFORE = {"a": (113, 12_122), "l": (174, 50_967)}
"""The same keys at f029898, before the details waited for the cursor to rest."""


@dataclass
class Calls:
    """Calls between files. ours: between two of steerlab's. all: Textual's and others' too."""

    ours: int = 0
    all: int = 0
    counting: bool = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """As `sys.setprofile` wants it."""
        caller = frame.f_back
        if not self.counting or event != "call" or caller is None:
            return
        here, there = frame.f_code.co_filename, caller.f_code.co_filename
        if here != there:
            self.all += 1
            self.ours += here.startswith(OURS) and there.startswith(OURS)

    @contextmanager
    def profiling(self) -> Iterator[None]:
        """Watch this thread and those that start inside."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    async def until_quiet(self) -> "Calls":
        """What was called since the last time, once nothing more is."""
        self.counting, before = True, -IDLE - 1
        while self.all - before > IDLE:
            before = self.all
            await asyncio.sleep(QUIET)
        self.counting = False
        counted, self.ours, self.all = Calls(self.ours, self.all), 0, 0
        return counted


async def count_keys(store: Path, keys: Sequence[str] = "al") -> dict[str, Calls]:
    """What each of some keys costs, typed into the filter one after the other."""
    calls, counted = Calls(), {}
    with calls.profiling():
        app = SteerlabApp(Lab(Store(store), source="smollm2"), CommandLine())
        async with app.run_test(size=SIZE) as pilot:
            while app.workbench is None or not _is_ready(app.workbench):
                await asyncio.sleep(0.05)
            box = app.workbench.browser.filter
            await pilot.press("slash")
            box.cursor_blink = False
            await asyncio.sleep(2 * QUIET)
            for key in keys:
                app.post_message(events.Key(key, key))
                counted[key] = await calls.until_quiet()
    return counted


def _is_ready(bench: Workbench) -> bool:
    return (
        bench.is_mounted and bench.table.current is not None and bool(bench.detail.query("#head"))
    )


def run() -> Iterator[Ratio]:
    """Two keys, each counted in two ways."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEERLAB_CONFIG"] = folder
        store = Path(folder) / "store"
        shutil.copytree(STORE, store, ignore=shutil.ignore_patterns("registry.db*"))
        for key, calls in asyncio.run(count_keys(store)).items():
            for what, number, before in zip(
                ("steerlab", "all"), (calls.ours, calls.all), BEFORE[key], strict=True
            ):
                what = f"calls between files of {what}, key {key!r}  (not ms)"
                share = number / before
                yield Ratio(what, number / 1e3, before / 1e3, share, share, share, "<= 0.5")
