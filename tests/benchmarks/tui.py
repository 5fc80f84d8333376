"""The terminal UI, in a real pseudo-terminal: first paint, 100,000 vectors, writing, keys."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.crowd import large_store
from tests.benchmarks.timing import Ratio, paired

STORE = Path(__file__).parents[2] / "store"
SIZE = (40, 140)

MINIMAL = """
import sqlmodel
from textual.app import App
from textual.widgets import DataTable

ROWS = {rows!r}

class Minimal(App):
    def compose(self):
        yield DataTable()

    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns("name", "layer", "norm", "made")
        table.add_rows(ROWS)

Minimal().run()
"""


def run() -> Iterator[Ratio]:
    """First paint against a minimal app; then what a session measures of itself."""
    with tempfile.TemporaryDirectory() as folder:
        stores = _stores(Path(folder))
        minimal = [sys.executable, "-c", MINIMAL.format(rows=_rows(stores["starter"]))]
        for what, text in (("first frame", "strength"), ("first rows", "weddings")):
            yield paired(
                f"steerlab tui, {what}  vs  minimal Textual app",
                _until(_tui(stores["starter"]), text),
                _until(minimal, "weddings"),
                runs=9,
                asked="<= 1.5",
            )
        yield paired(
            "first rows of 100,000 vectors  vs  of 10",
            _until(_tui(stores["100000"]), "vector_"),
            _until(_tui(stores["10"]), "vector_"),
            runs=7,
            asked="<= 1.5",
        )
        yield from _session(stores["100000"], Path(folder) / "large.json", "browse")
        yield from _session(stores["starter"], Path(folder) / "writing.json", "write")


def _stores(folder: Path) -> dict[str, Path]:
    starter = folder / "starter"
    shutil.copytree(STORE, starter, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
    stores = {"starter": starter}
    for count in (10, 100_000):
        stores[str(count)] = large_store(folder / str(count), count).path
    for store in stores.values():  # a fresh clone builds its registry once
        subprocess.run([*_steerlab(), "models", "--store", str(store)], check=True, stdout=-3)
    return stores


def _rows(store: Path) -> list[tuple[str, str, str, str]]:
    from steerlab import Store

    found = Store(store).list(sort="name")
    return [(s.name, str(s.layers[0]), f"{s.norm:.3g}", s.recipe) for s in found]


def _steerlab() -> list[str]:
    return [sys.executable, "-m", "steerlab"]


def _tui(store: Path) -> list[str]:
    return [*_steerlab(), "tui", "--store", str(store)]


def _until(command: list[str], text: str) -> Callable[[], None]:
    """Run a program in a terminal until it has drawn `text`, then end it."""

    def call() -> None:
        child, terminal = pty.fork()
        if child == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(SIZE[1]), "LINES": str(SIZE[0])}
            os.environ["STEERLAB_CONFIG"] = tempfile.gettempdir() + "/none"
            os.execvp(command[0], command)
        drawn = b""
        deadline = time.monotonic() + 60
        while text.encode() not in drawn and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                drawn += os.read(terminal, 65536)
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)
        if text.encode() not in drawn:
            raise RuntimeError(f"{command} never drew {text!r}: {drawn[-2000:]!r}")

    return call


def _session(store: Path, report: Path, mode: str) -> Iterator[Ratio]:
    """Run `tests.benchmarks.tui_session` in a terminal; it drives the app from inside."""
    command = [sys.executable, "-m", "tests.benchmarks.tui_session", mode, str(store), str(report)]
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(SIZE[1]), "LINES": str(SIZE[0])}
        os.environ["STEERLAB_CONFIG"] = str(report.parent)
        os.execvp(command[0], command)
    tail = b""
    try:
        while piece := os.read(terminal, 65536):
            tail = (tail + piece)[-4000:]
    except OSError:  # how a pseudo-terminal says that the other end is gone
        pass
    os.waitpid(child, 0)
    if not report.exists():
        raise RuntimeError(f"the session did not report: {tail.decode(errors='replace')}")
    for row in json.loads(report.read_text("utf-8")):
        yield Ratio(**row)
