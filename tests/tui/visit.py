"""What a user does, from opening the starter store to quitting, on anything like a terminal."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from steerlab import Store

STORE = Path(__file__).parents[2] / "store"
EXPRESSION, PROMPT, NAME = "love - 0.5*anger", "Today I feel", "kindness"
TOKENS = 6
SECONDS = 60  # a busy machine needs some to import textual
LOADING = 240  # and more to import torch and read a model


class Door(Protocol):
    """Keys go in, and what is on the screen comes out."""

    async def type(self, text: str) -> None: ...

    async def press(self, key: str) -> None: ...

    async def click(self, column: int, row: int) -> None: ...

    async def text(self) -> str: ...


def starter_store(path: Path) -> Path:
    """The starter vectors, in a store that may be changed."""
    shutil.copytree(STORE, path, ignore=shutil.ignore_patterns("registry.db*"))
    return path


async def until(door: Door, true: str | Callable[[str], object], seconds: float = SECONDS) -> str:
    """The screen, once it shows a text or is as wanted."""
    end = time.monotonic() + seconds
    while True:
        text = await door.text()
        if true in text if isinstance(true, str) else true(text):
            return text
        assert time.monotonic() < end, f"it never came ({true}):\n{text}"
        await asyncio.sleep(0.05)


async def visit(door: Door) -> None:
    """Filter, select, type an expression and a prompt, generate, save, quit."""
    await until(door, lambda text: "calm" in text and "⏎ use" in text)
    await door.type("/")
    await until(door, lambda text: "⏎ use" not in text)  # the filter has the keys now
    await door.type("anger")
    await until(door, lambda text: "2 found" in text and "calm" not in text)
    await door.press("enter")
    await until(door, "⏎ use")
    await door.press("enter")
    await until(door, lambda text: re.search("steer +anger", text))
    await fill_in(door, "steer ", EXPRESSION)
    await until(door, "cos love +")
    await fill_in(door, "prompt ", PROMPT)
    await door.press("ctrl+o")
    await until(door, "new tokens")
    await fill_in(door, "new tokens ", str(TOKENS))
    await door.press("enter")
    await until(door, f"lab · {TOKENS} tokens")
    await door.press("ctrl+g")
    await until(door, f"done · {TOKENS} tokens", LOADING)
    await door.press("ctrl+s")
    await until(door, "save the vector")
    await fill_in(door, "name ", NAME)
    await door.press("enter")
    await until(door, f"saved as {NAME}.v1")
    await door.press("ctrl+q")


async def fill_in(door: Door, label: str, text: str) -> None:
    """Click on the line with a label, empty it, and type.

    Letters that arrive together with a key such as ctrl+u overtake it: its effect is waited for.
    """
    lines = (await door.text()).splitlines()
    row = max(number for number, line in enumerate(lines) if label in line)
    await door.click(lines[row].index(label) + 40, row)
    await door.press("ctrl+u")
    await until(door, lambda shown: shown.splitlines()[row] != lines[row])
    await door.type(text)
    await until(door, lambda shown: re.search(rf"{label} +{re.escape(text)}", shown))


def check_what_is_left(path: Path) -> None:
    """The store holds the composition and the run, and all of it is sound."""
    store = Store(path)
    assert store.verify() == []
    assert str(store.record(NAME).recipe) == "= love.v1 - 0.5 * anger.v1"
    assert store.load(NAME) == store.evaluate(EXPRESSION)
    (run,) = store.runs.list("love")
    assert (run.prompt, run.sampling.max_new_tokens) == (PROMPT, TOKENS)
    assert [bool(g.coefficient) for g in run.generations] == [False, True]
    assert all(g.text for g in run.generations)
