"""A session of the terminal UI that drives and measures itself; run in a pseudo-terminal."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from textual import events

from steerlab import Lab, Store
from steerlab.cli.forms import CommandLine
from steerlab.core.setting import Setting
from steerlab.tui.app import SteerlabApp
from steerlab.tui.setup import Setup
from steerlab.tui.workbench.browser import Browser
from steerlab.tui.workbench.lab_panel import LabPanel
from steerlab.tui.workbench.strength import Slider
from steerlab.tui.workbench.table import VectorTable
from steerlab.tui.workbench.texts import Texts

T = TypeVar("T")

TOKENS = 64
ROUNDS = 7
PROMPT = "I think you are a"
FILTERS = ("v", "ve", "vec", "4", "42", "a", "angry", "zzz", "customer 77", "vctr9", "e", "")


class Session(SteerlabApp):
    """The app with a script instead of a user; reports what it measured as rows of a table."""

    def __init__(self, mode: str, store: Path, report: Path) -> None:
        super().__init__(Lab(Store(store), source="smollm2"), CommandLine())
        self.mode, self.report = mode, report
        self.rows: list[dict[str, object]] = []
        self.steps = 0
        self.news, self.began, self.finished = (asyncio.Event() for _ in range(3))
        self.said: dict[asyncio.Event, float] = {}

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self.script())

    def on_browser_listed(self) -> None:
        """A list whose rows on the screen are the old ones is not drawn again."""
        self.news.set()

    async def script(self) -> None:
        await self.until(lambda: self.workbench is not None and self.workbench.is_mounted)
        await self.until(lambda: self.table.current is not None)
        await (self.browse() if self.mode == "browse" else self.write())
        self.report.write_text(json.dumps(self.rows), "utf-8")
        self.exit()

    @property
    def browser(self) -> Browser:
        assert self.workbench is not None
        return self.workbench.browser

    @property
    def table(self) -> VectorTable:
        return self.browser.table

    @property
    def lab_panel(self) -> LabPanel:
        assert self.workbench is not None
        return self.workbench.lab_panel

    async def until(self, true: Callable[[], object], seconds: float = 120) -> None:
        start = time.perf_counter()
        while not true():
            await asyncio.sleep(0.0005)
            if time.perf_counter() - start > seconds:
                raise RuntimeError("it never came true")

    async def drawn(self) -> None:
        """Wait until what is on the screen is what was last changed."""
        done = asyncio.Event()
        self.call_after_refresh(done.set)
        await done.wait()

    def limit(self, what: str, seconds: Sequence[float], limit: float, asked: str) -> None:
        """A latency: its 95th percentile, as a multiple of the limit that is asked for."""
        p95 = sorted(seconds)[round(0.95 * (len(seconds) - 1))]
        self.row(what, p95, limit, [s / limit for s in seconds], p95 / limit, asked)

    def paired(
        self, what: str, pairs: Sequence[tuple[float, float]], asked: str, inverse: bool = False
    ) -> None:
        """Two times in turn: the median of their ratios."""
        ratios = [b / a if inverse else a / b for a, b in pairs]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        self.row(what, ours, theirs, ratios, statistics.median(ratios), asked)

    def row(
        self,
        what: str,
        seconds: float,
        baseline: float,
        ratios: Sequence[float],
        ratio: float,
        asked: str,
    ) -> None:
        self.rows.append(
            {
                "what": what,
                "seconds": seconds,
                "baseline": baseline,
                "ratio": ratio,
                "low": min(ratios),
                "high": max(ratios),
                "asked": asked,
            }
        )

    # 100,000 vectors

    async def browse(self) -> None:
        """Texts in the filter, and pages of the table, each until its rows are drawn."""
        await asyncio.sleep(4)  # names for completion are being read
        table, waits = self.table, []
        self.table.refresh = self.signalling(self.table.refresh, self.news)
        for text in FILTERS:
            self.browser.border_subtitle = ""
            start = time.perf_counter()
            self.browser.filter.value = text
            await self.shows(lambda: self.browser.border_subtitle and self.is_filled())
            waits.append(time.perf_counter() - start)
            await asyncio.sleep(0.3)
        self.limit("100,000: a key in the filter until drawn, p95  vs  100 ms", waits, 0.1, "<= 1")
        self.table.focus()
        waits = []
        for _ in range(40):
            place = self.table.cursor_row
            start = time.perf_counter()
            self.post_message(events.Key("pagedown", None))
            await self.shows(lambda place=place: table.cursor_row != place and self.is_filled())
            waits.append(time.perf_counter() - start)
            await asyncio.sleep(0.1)
        self.limit("100,000: a page down until drawn, p95  vs  50 ms", waits, 0.05, "<= 1")
        await self.far()

    async def far(self) -> None:
        """Jumps to rows of which nothing is known yet."""
        waits = []
        for share in range(1, 20):
            start = time.perf_counter()
            self.table.cursor_row = share * self.table.row_count // 20
            await self.shows(self.is_filled)
            waits.append(time.perf_counter() - start)
            await asyncio.sleep(0.1)
        self.limit(
            "100,000: a jump to unread rows until drawn, p95  vs  50 ms", waits, 0.05, "<= 1"
        )

    async def shows(self, true: Callable[[], object]) -> None:
        """Wait until something is so of the table, and drawn."""
        while not true():
            self.news.clear()
            await self.news.wait()
        await self.drawn()

    def is_filled(self) -> bool:
        """Whether every row on the screen has been read."""
        top = round(self.table.scroll_y)
        shown = self.table._ids[top : top + self.table.size.height - 1]
        return all(row in self.table._rows or row in self.table._gone for row in shown)

    # writing

    async def write(self) -> None:
        """Time to the first token and tokens a second, here and in plain Python, in turn."""
        self.lab_panel.use(Setup("love", PROMPT, max_new_tokens=TOKENS))
        vector = await asyncio.to_thread(self.lab.evaluate, "love")
        model = await asyncio.to_thread(self.lab.load, vector)
        model.model.register_forward_pre_hook(self.count)
        texts = self.lab_panel.query_one(Texts)
        texts.write = self.signalling(texts.write, self.began)
        texts.finish = self.signalling(texts.finish, self.finished)
        await self.plain(vector)
        await self.shown()
        pairs = []
        for turn in range(ROUNDS):
            if turn % 2:
                shown, plain = await self.shown(), await self.plain(vector)
            else:
                plain, shown = await self.plain(vector), await self.shown()
            pairs.append((shown, plain))
        first = [(s[0], p[0]) for s, p in pairs]
        rest = [(s[1] - s[0], p[1] - p[0]) for s, p in pairs]
        self.paired("key to the first token on the screen  vs  in Python", first, "<= 1.15")
        self.paired("tokens a second after it  vs  in Python", rest, ">= 0.95", inverse=True)
        await self.keys()
        await self.stop()

    def count(self, *_: object) -> None:
        self.steps += 1

    async def plain(self, vector: object) -> tuple[float, float]:
        """Seconds to the first text and to the end, with nothing happening on the screen."""
        seen: list[float] = []
        settings = [Setting(), Setting(vector, vector.coefficient(0.2))]

        def call() -> tuple[float, float]:
            start = time.perf_counter()
            self.lab.compare(
                [PROMPT],
                settings,
                on_text=lambda column, text: seen.append(time.perf_counter()),
                max_new_tokens=TOKENS,
            )
            return seen[0] - start, time.perf_counter() - start

        await asyncio.sleep(0.5)
        return await asyncio.to_thread(call)

    async def shown(self) -> tuple[float, float]:
        """The same from the key to the first text drawn, and to the last."""
        await asyncio.sleep(0.5)
        start = time.perf_counter()
        await self.begin()
        await self.drawn()
        first = time.perf_counter() - start
        await self.finished.wait()
        total = self.said[self.began] - start  # the last piece of text
        await self.drawn()
        return first, total

    def signalling(self, call: Callable[..., T], event: asyncio.Event) -> Callable[..., T]:
        """A method of a widget that says when it was called.

        To ask again and again would take from what is measured.
        """

        def calling(*arguments: object, **options: object) -> T:
            result = call(*arguments, **options)
            self.said[event] = time.perf_counter()
            event.set()
            return result

        return calling

    async def keys(self) -> None:
        """How long a key press waits while the model writes."""
        slider = self.lab_panel.query_one(Slider)
        slider.focus()
        waits: list[float] = []
        for _ in range(3):
            await self.begin()
            while not self.finished.is_set():
                before = slider.value
                start = time.perf_counter()
                self.post_message(events.Key("left" if before > 0 else "right", None))
                await self.until(lambda before=before: slider.value != before)
                await self.drawn()
                waits.append(time.perf_counter() - start)
                await asyncio.sleep(0.03)
        what = f"a key until drawn, while writing ({len(waits)} keys), p95  vs  50 ms"
        self.limit(what, waits, 0.05, "<= 1")

    async def begin(self) -> None:
        """Press the key, and wait for the first text."""
        self.began.clear()
        self.finished.clear()
        self.post_message(events.Key("ctrl+g", None))
        await self.began.wait()

    async def stop(self) -> None:
        """Tokens that are still written after Esc."""
        counts = []
        for _ in range(5):
            await self.begin()
            await asyncio.sleep(0.2)
            before = self.steps
            self.post_message(events.Key("escape", None))
            await self.finished.wait()
            counts.append(self.steps - before)
            await asyncio.sleep(0.2)
        counted = [count / 1000 for count in counts]  # the table shows thousandths
        self.limit("tokens after Esc, most of 5  vs  2 (not ms)", counted, 0.002, "<= 1")


if __name__ == "__main__":
    mode, store, report = sys.argv[1:]
    Session(mode, Path(store), Path(report)).run()
