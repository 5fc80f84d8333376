"""The widget and the rich displays in JupyterLab, in headless Chromium, with a real kernel."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.saved import fill_store, save_model
from tests.tui import chromium

MISSING = [name for name in ("jupyterlab", "ipykernel", "anywidget") if find_spec(name) is None]
pytestmark = [
    pytest.mark.terminal,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(chromium.find() is None, reason="no chromium: apt-get install chromium"),
]
SECONDS = 40  # a busy machine needs some to start a kernel and import torch
SOURCE = """
import os, signal, threading
from steerlab import LanguageModel, Store, compare, playground
from steerlab.core.results import Calibration
lm = LanguageModel.load({model!r})
store = Store()
love = store["love"]
c = love[1].coefficient(0.2)
store.results.save_calibration(Calibration(love.digest, True, 1, 0.2, c, (-0.1, 0.2)))
playground(lm, "love", "Hello", dose=0.1, max_new_tokens=12)
"""
PANEL = "[...(window.jupyterapp?.shell?.widgets('main') ?? [])][0]"
SHOWN = (
    "[...document.querySelectorAll('.jp-OutputArea-output')].map((x) => x.innerText).join('\\n')"
)
RUN_ALL = f"""
void {PANEL}.context.sessionContext.ready.then(() => {{
  window.jupyterapp.shell.activateById({PANEL}.id);
  {PANEL}.content.activate();
  window.jupyterapp.commands.execute('notebook:run-all-cells');
}})
"""
CELLS = (
    SOURCE,
    "compare(lm, 'love', 'Hello', doses=[0, 1], max_new_tokens=4)",
    "store",
    # a person presses "interrupt the kernel" in mid-generation; nothing is left behind
    "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    "from steerlab import steering\n"
    "try:\n"
    "    with steering(lm, love, dose=0.5):\n"
    "        while True: lm.generate('Hello', max_new_tokens=100)\n"
    "except KeyboardInterrupt:\n"
    "    left = [b for b in lm.blocks if b._forward_pre_hooks]\n"
    "    print('interrupted,', len(left), 'hooks left,', lm.generate('Hello').finish)",
    "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    "with steering(lm, love, dose=0.5):\n"
    "    while True: await lm.agenerate('Hello', max_new_tokens=100)",
    "print('awaited,', len([b for b in lm.blocks if b._forward_pre_hooks]), 'hooks left,',\n"
    "      lm.generate('Hello').finish)",
)


def notebook(cells: tuple[str, ...]) -> str:
    made = [
        {"cell_type": "code", "id": f"c{i}", "source": source.strip(), "outputs": [],
         "metadata": {"tags": ["raises-exception"]}, "execution_count": None}
        for i, source in enumerate(cells)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def jupyterlab(directory: Path, store: Path) -> AsyncIterator[str]:
    """A JupyterLab of its own; the address at which its notebook opens."""
    port, home = free_port(), directory / "home"
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    places = {f"JUPYTER_{name}": str(home / name) for name in names}
    settings = home / "lab/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    own = {"IPYTHONDIR": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home / "lab")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=secret"),
        *("--expose-app-in-browser", f"--ServerApp.root_dir={directory}"),
        env=os.environ | places | own | {"STEERLAB_STORE": str(store)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}/lab/tree/try.ipynb?token=secret"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def until(page: chromium.Page, script: str) -> object:
    """The value of a script, once it is true."""
    for _ in range(SECONDS * 5):
        if found := await page.evaluate(script):
            return found
        await asyncio.sleep(0.2)
    shown = await page.evaluate("document.body.innerText")
    raise AssertionError(f"never true: {script}\n{shown}")


async def test_a_person_steers_in_a_notebook(tmp_path: Path) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    model = save_model(tmp_path / "tiny")
    store = fill_store(tmp_path / "store", model)
    source = CELLS[0].format(model=str(model))
    (directory / "try.ipynb").write_text(notebook((source, *CELLS[1:])))
    async with jupyterlab(directory, store) as address, chromium.browsing(tmp_path / "b") as page:
        await opened(page, address)
        await until(page, "!!document.querySelector('.steerlab-playground')")
        await until(page, f"{SHOWN}.includes('awaited,')")
        shown = str(await page.evaluate(SHOWN))
        assert "interrupted, 0 hooks left, length" in shown
        assert "awaited, 0 hooks left, length" in shown
        assert "IProgress not found" not in shown
        assert await page.evaluate("!!document.querySelector('.steerlab table')")
        await steer(page)
        if picture := os.environ.get("STEERLAB_SCREENSHOT"):
            await page.screenshot(Path(picture))
    assert page.complaints == []


async def opened(page: chromium.Page, address: str) -> None:
    """Open the notebook once the server is up, and run all cells, errors or not."""
    for _ in range(SECONDS):
        try:
            await page.open(address, 1200, 2200)
            if await page.evaluate("!!document.querySelector('#main, .jp-LabShell')"):
                break
        except RuntimeError:
            pass
        await asyncio.sleep(1)
    await until(page, f"!!{PANEL}?.context?.isReady")
    await page.evaluate(RUN_ALL)


async def steer(page: chromium.Page) -> None:
    """Generate, move the slider beyond the safe range, name what is not there, and stop."""
    await page.evaluate("window.find1 = (q) => document.querySelector('.steerlab-playground ' + q)")
    await page.evaluate("find1('button').click()")
    await until(page, "find1('.steered').textContent.length > 'Hello'.length")
    await until(page, "find1('button').textContent === 'generate'")
    assert "safe doses -0.10 to +0.20" in await page.evaluate("find1('small').textContent")
    assert (await page.evaluate("find1('.baseline').textContent")).startswith("Hello")
    await page.evaluate("document.querySelectorAll('.steerlab-playground input')[1].value = 'Ho'")
    await move(page, 0.5)
    assert "outside" in await page.evaluate("find1('output').textContent")
    await until(page, "find1('button').textContent === 'generate'")
    await until(page, "/^Ho[^]/.test(find1('.steered').textContent)")
    assert not (await page.evaluate("find1('.baseline').textContent")).startswith("Hello")
    await page.evaluate("find1('input').value = '<img src=x onerror=window.hacked=1>'")
    await page.evaluate("find1('button').click()")
    await until(page, "find1('.error').textContent.length > 0")
    assert not await page.evaluate("window.hacked")


async def move(page: chromium.Page, dose: float) -> None:
    await page.evaluate(
        f"(() => {{ const x = find1('input[type=range]'); x.value = {dose};"
        "for (const e of ['input', 'change']) x.dispatchEvent(new Event(e)); })()"
    )
