"""Headless Chromium, spoken to in the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
# textual-serve keeps its xterm.js terminal to itself: catch it where it is assigned
CATCH_TERMINAL = """
Object.defineProperty(Object.prototype, 'terminal', {
  configurable: true,
  set(value) {
    if (value && value.buffer && value.cols) window.caught = value;
    Object.defineProperty(
      this, 'terminal', {value, writable: true, configurable: true, enumerable: true});
  },
});
"""
READ_TERMINAL = """
(() => {
  const buffer = window.caught && window.caught.buffer.active;
  if (!buffer) return '';
  const lines = [];
  for (let i = 0; i < window.caught.rows; i++) lines.push(
    buffer.getLine(buffer.viewportY + i)?.translateToString(true) ?? '');
  return lines.join('\\n');
})()
"""
MEASURE_TERMINAL = """
(() => {
  const box = document.querySelector('.xterm-screen').getBoundingClientRect();
  const {cols, rows} = window.caught;
  return [box.left, box.top, box.width / cols, box.height / rows];
})()
"""
KEYS = {"enter": ("Enter", 13), "escape": ("Escape", 27)}
PUNCTUATION = {"-": 189, ".": 190, "/": 191, "*": 56}  # whose own codes are Insert, Delete …


def find() -> str | None:
    """The browser's path; None where there is none. STEERLAB_CHROMIUM names one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("STEERLAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Page:
    """A page of the browser; requests holds the address of everything that it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "method": method, "params": arguments})
        return await asyncio.wait_for(self._answers[number], 30)

    async def _read(self) -> None:
        async for message in self.socket:
            data = json.loads(message.data)
            if "id" in data:
                answer = self._answers.pop(data["id"])
                if "error" in data:
                    answer.set_exception(RuntimeError(data["error"]["message"]))
                else:
                    answer.set_result(data["result"])
            elif data["method"] == "Network.requestWillBeSent":
                self.requests.append(data["params"]["request"]["url"])
            elif data["method"] == "Network.webSocketCreated":
                self.requests.append(data["params"]["url"])
            elif data["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(data["params"]["exceptionDetails"])[:500])

    async def open(self, address: str, width: int = 1200, height: int = 700) -> None:
        """Go to an address."""
        for domain in ("Page", "Runtime", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=CATCH_TERMINAL)
        await self.call("Page.navigate", url=address)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    async def text(self) -> str:
        """What the terminal in the page shows."""
        return str(await self.evaluate(READ_TERMINAL) or "")

    async def type(self, text: str) -> None:
        """Press keys that write a character each."""
        for character in text:
            for kind in ("keyDown", "keyUp"):
                pressed = {"text": character} if kind == "keyDown" else {}
                await self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=character,
                    windowsVirtualKeyCode=PUNCTUATION.get(character) or ord(character.upper()),
                    **pressed,
                )

    async def press(self, key: str) -> None:
        """Press a key by Textual's name of it: enter, escape or ctrl and a letter."""
        control, letter = key.startswith("ctrl+"), key[-1]
        name, code = (letter, ord(letter.upper())) if control else KEYS[key]
        for kind in ("rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                windowsVirtualKeyCode=code,
                modifiers=2 if control else 0,
            )

    async def click(self, column: int, row: int) -> None:
        """Click on a cell of the terminal, counted from 0."""
        left, top, width, height = await self.evaluate(MEASURE_TERMINAL)
        x, y = left + (column + 0.5) * width, top + (row + 0.5) * height
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def screenshot(self, path: Path) -> None:
        """Save a PNG of the page."""
        result = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(result["data"]))


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """A browser of its own with one empty page; ended afterwards."""
    program = find()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            address = pages[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=2**27) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        await process.wait()


async def _port(profile: Path) -> str:
    for _ in range(600):
        file = profile / "DevToolsActivePort"
        if file.exists() and (lines := file.read_text().split()):
            return lines[0]
        await asyncio.sleep(0.1)
    raise AssertionError("the browser did not start")
