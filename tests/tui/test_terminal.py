"""The terminal UI in a real terminal, through tmux: from opening a store to a saved vector."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tui import tmux
from tests.tui.visit import check_what_is_left, starter_store, until, visit

pytestmark = [
    pytest.mark.terminal,
    pytest.mark.skipif(tmux.find() is None, reason="there is no tmux here"),
]

ROOT = str(Path(__file__).parents[2])


@contextmanager
def opened(store: Path, config: Path, size: tuple[int, int] = tmux.SIZE) -> Iterator[tmux.Terminal]:
    """`steerlab tui` in a terminal of its own."""
    command = [sys.executable, "-m", "steerlab", "tui", f"--store={store}"]
    variables = {"PYTHONPATH": ROOT, "STEERLAB_CONFIG": str(config), "OMP_NUM_THREADS": "1"}
    with tmux.terminal(store.parent / "tmux", command, variables, size) as terminal:
        yield terminal


async def quits(terminal: tmux.Terminal) -> None:
    """It ends by itself, well, and without a last word."""
    assert "Traceback" not in await until(terminal, "ended with 0")


@pytest.mark.smollm2
async def test_from_opening_a_store_to_a_saved_vector(tmp_path: Path, own_config: Path) -> None:
    store = starter_store(tmp_path / "store")
    with opened(store, own_config) as terminal:
        await visit(terminal)
        await quits(terminal)
    check_what_is_left(store)


async def test_a_tiny_terminal_shows_the_vectors_and_quits(
    tmp_path: Path, own_config: Path
) -> None:
    with opened(starter_store(tmp_path / "store"), own_config, (40, 10)) as terminal:
        await until(terminal, lambda text: "anger" in text and "calm" in text)
        await terminal.press("ctrl+q")
        await quits(terminal)


async def test_sigterm_restores_the_terminal(tmp_path: Path, own_config: Path) -> None:
    with opened(starter_store(tmp_path / "store"), own_config, (80, 24)) as terminal:
        await until(terminal, lambda text: "anger" in text and "^g generate" in text)
        pane = int(terminal.tmux("display-message", "-p", "#{pane_pid}"))
        children = Path(f"/proc/{pane}/task/{pane}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        text = await until(terminal, "ended with 143")
        assert "anger" not in text  # not the alternate screen
        await terminal.type("typed")
        await until(terminal, "typed")  # echoed again


async def test_the_first_screen_says_how_to_generate(tmp_path: Path, own_config: Path) -> None:
    with opened(starter_store(tmp_path / "store"), own_config, (80, 24)) as terminal:
        text = await until(terminal, lambda text: "anger" in text and "^g generate" in text)
        assert "Press ctrl+g to generate" in text
        assert "? help" in text
        await terminal.press("ctrl+q")
        await quits(terminal)
