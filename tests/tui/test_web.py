"""The terminal UI served to a browser: over textual-serve's protocol, and in Chromium."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from textual_serve.download_manager import DownloadManager
from yarl import URL

from steerlab import Store
from steerlab.tui import web
from steerlab.tui.web import shell_command
from steerlab.web.guard import is_loopback
from tests.registry.samples import vector
from tests.tui import chromium
from tests.tui.emulator import Emulator
from tests.tui.visit import check_what_is_left, starter_store, until, visit

pytestmark = pytest.mark.terminal

NAMES = ("mellow_bay", "black_jug")
SECONDS = 60  # a busy machine needs some to import textual


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in a directory whose name a shell would trip over."""
    path = tmp_path_factory.mktemp("web") / "my $(touch hacked) 'store'"
    for seed, name in enumerate(NAMES):
        Store(path).save(name, vector(seed))
    return path


@dataclass
class Served:
    """A running `steerlab tui --web`."""

    process: subprocess.Popen[str]
    printed: str

    @property
    def address(self) -> str:
        """The address without its token."""
        return self.printed.partition("/?token=")[0]

    async def enter(self, session: aiohttp.ClientSession) -> None:
        """Open the printed address, for a session that keeps cookies of addresses that are IPs."""
        async with session.get(self.printed) as answer:
            assert answer.status == 200
            assert str(answer.url) == f"{self.address}/"  # the history has no token

    def apps(self) -> list[int]:
        """The processes that it has started and that are still there."""
        pid = self.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children")
        if listed.exists():
            return [int(child) for child in listed.read_text().split()]
        found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False)
        return [int(child) for child in found.stdout.split()]


def browser(**options: Any) -> aiohttp.ClientSession:
    """A session that keeps cookies of addresses that are IPs, as browsers do."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), **options)


@contextmanager
def serving(store: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "steerlab", "tui", "--web", "--port=0", f"--store={store}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=store.parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("steerlab is at http://127.0.0.1:"), line
        yield Served(process, line.split()[3])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Served]:
    with serving(store) as found:
        yield found


class Tab:
    """What the page in a browser does: keys go out, frames come in."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.screen = Emulator(100, 30)

    async def press(self, keys: str) -> None:
        await self.connection.send_json(["stdin", keys])

    async def until(self, true: Callable[[str], bool], seconds: float = SECONDS) -> None:
        """Take frames until the screen is as wanted."""
        end = time.monotonic() + seconds
        while not true(str(self.screen)):
            left = end - time.monotonic()
            try:
                message = await self.connection.receive(timeout=max(left, 0.01))
            except TimeoutError:
                raise AssertionError(f"it never came:\n{self.screen}") from None
            assert message.type is aiohttp.WSMsgType.BINARY, (message, str(self.screen))
            self.screen.feed(message.data)

    async def closed(self) -> None:
        """Wait until the other side hangs up."""
        frames = (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)
        while (await self.connection.receive(timeout=SECONDS)).type in frames:
            pass


async def open_tab(session: aiohttp.ClientSession, served: Served) -> Tab:
    size = {"width": "100", "height": "30"}
    await served.enter(session)
    tab = Tab(await session.ws_connect(f"{served.address}/ws", params=size))
    await tab.connection.send_json(["focus"])
    return tab


async def ended(served: Served) -> None:
    for _ in range(SECONDS * 10):
        if not served.apps():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("an app outlived its tab")


def both(text: str) -> bool:
    return all(name in text for name in NAMES)


async def filtered(
    press: Callable[[str], Awaitable[None]], until: Callable[..., Awaitable[None]]
) -> None:
    """Filter by typing; a letter that comes before the focus has moved is lost, so patiently."""
    for patience in (1, 3, 9):
        await press("/")
        await asyncio.sleep(patience)
        await press("jug")
        try:
            await until(lambda text: NAMES[1] in text and NAMES[0] not in text, 3 * patience)
            return
        except AssertionError:
            if patience == 9:
                raise


async def test_a_tab_browses_filters_and_quits(served: Served, store: Path) -> None:
    async with browser() as session:
        tab = await open_tab(session, served)
        await tab.until(both)
        assert len(served.apps()) == 1
        await filtered(tab.press, tab.until)
        await tab.press("\x11")  # ctrl+q
        await tab.closed()
    await ended(served)
    assert not (store.parent / "hacked").exists()


async def test_an_app_ends_with_its_tab_and_others_go_on(served: Served) -> None:
    async with browser() as session:
        first, second = await open_tab(session, served), await open_tab(session, served)
        await first.until(both)
        await second.until(both)
        assert len(served.apps()) == 2
        await first.connection.close()
        for _ in range(SECONDS * 10):
            if len(served.apps()) == 1:
                break
            await asyncio.sleep(0.1)
        assert len(served.apps()) == 1
        await filtered(second.press, second.until)
    await ended(served)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_server_and_apps_and_says_nothing(
    store: Path, number: signal.Signals
) -> None:
    with serving(store) as served:
        async with browser() as session:
            tab = await open_tab(session, served)
            await tab.until(both)
            apps = served.apps()
            served.process.send_signal(number)
            await tab.closed()
        out, err = await asyncio.to_thread(served.process.communicate, timeout=SECONDS)
        assert (served.process.returncode, out, err) == (0, "", "")
        assert apps
        for pid in apps:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_an_app_whose_server_is_killed_ends_by_itself(store: Path) -> None:
    with serving(store) as served:
        async with browser() as session:
            tab = await open_tab(session, served)
            await tab.until(both)
            (app,) = served.apps()
            served.process.kill()
    for _ in range(SECONDS * 10):
        try:
            os.kill(app, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the app outlived its server")


@pytest.mark.parametrize("command", ["exec sleep 600", "no-such-program"])
async def test_an_app_that_does_not_quit_is_killed(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "GRACE", 0.2)

    async def nowhere(*_: object) -> None:
        """There is no browser."""

    session = web._Session(
        command,
        write_bytes=nowhere,
        write_str=nowhere,
        close=nowhere,
        download_manager=DownloadManager(),
    )
    await session.start(80, 24)
    await asyncio.wait_for(session.end(), SECONDS)
    assert session._process is not None
    assert session._process.returncode is not None


async def test_a_tab_that_closes_at_once_leaves_nothing(served: Served) -> None:
    async with browser() as session:
        tab = await open_tab(session, served)
        await tab.connection.close()
    await ended(served)


@pytest.mark.parametrize("path", ["/", "/ws", "/static/js/textual.js", "/?token=wrong", "/?token="])
async def test_without_its_token_nobody_gets_in(served: Served, path: str) -> None:
    for cookies in ({}, {"steerlab": "wrong"}):
        async with browser(cookies=cookies) as session:
            async with session.get(served.address + path) as answer:
                assert answer.status == 403
                assert "the address that steerlab printed" in await answer.text()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{served.address}/ws?token=wrong")
    assert served.apps() == []


async def test_each_server_has_a_token_of_its_own(served: Served, store: Path) -> None:
    async with browser() as session:
        await served.enter(session)
        with serving(store) as other:
            async with session.get(other.address) as answer:
                assert answer.status == 403
            await other.enter(session)
            await served.enter(session)  # a cookie each: both stay open


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "localhost:9000"}, 200),  # through an ssh tunnel
        ("/", {"Host": "evil.example"}, 403),
        ("/", {"Host": "[::1"}, 400),
        ("/", {"Origin": "http://["}, 400),
        ("/ws", {"Origin": "http://evil.example"}, 403),
        ("/ws", {"Origin": "null"}, 403),
        ("/ws", {"Origin": "http://127.0.0.1:1"}, 403),
        ("/static/js/textual.js", {}, 200),
    ],
)
async def test_only_its_own_page_may_talk_to_it(
    served: Served, path: str, headers: dict[str, str], status: int
) -> None:
    async with browser() as session:
        await served.enter(session)
        token = session.cookie_jar.filter_cookies(URL(served.address))
        known = {"Cookie": token.output(header="", sep=";").strip()}
        request = session.get(served.address + path, headers=headers | known)
        answer, page = await request, ""
        async with answer:
            page = await answer.text()
        assert answer.status == status
        if path == "/" and status == 200:
            host = headers.get("Host", served.address.removeprefix("http://"))
            assert f'"ws://{host}/ws"' in page
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert served.apps() == []


def test_a_port_that_is_taken_is_one_line(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "steerlab", "tui", "--web", f"--port={port}"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stdout) == (4, "")
    assert f"can't serve at 127.0.0.1 port {port}: Address already in use" in result.stderr
    assert result.stderr.count("\n") == 1


def test_options_reach_the_apps_through_the_shell() -> None:
    options = ["--store=a b; $(c)", '--model=it\'s "x"', "--trust-remote-code"]
    words = shlex.split(shell_command(options))
    assert words[0] == "exec"
    assert words[-len(options) - 3 :] == ["-m", "steerlab", "tui", *options]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("::", False),
        ("a.name", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_command_line_warns_of_other_hosts_and_passes_its_options_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from steerlab.cli import run

    calls: list[tuple[list[str], str, int]] = []
    monkeypatch.setattr(web, "serve", lambda *call: calls.append(call[:3]))
    options = ["--model=m", "--dtype=bfloat16", "--plain", "--trust-remote-code"]
    assert run(["tui", "--web", *options]) == 0
    assert calls.pop() == (
        options,
        "127.0.0.1",
        8000,
    )
    assert capsys.readouterr().err == ""
    assert run(["tui", "--web", "--host=0.0.0.0", "--port=80", "--store=/s"]) == 0
    assert calls.pop() == (["--store=/s"], "0.0.0.0", 80)
    assert "nothing is encrypted" in capsys.readouterr().err
    assert run(["tui", "--port=80"]) == 2
    assert "go with --web" in capsys.readouterr().err


@pytest.mark.smollm2
@pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium here")
async def test_in_a_browser_from_opening_a_store_to_a_saved_vector(tmp_path: Path) -> None:
    store = starter_store(tmp_path / "store")
    with serving(store) as served:
        async with chromium.browsing(tmp_path / "profile") as page:
            await page.open(f"{served.address}/?token=wrong")
            while "printed" not in (await page.evaluate("document.body?.innerText") or ""):
                await asyncio.sleep(0.1)
            await page.open(served.printed)
            await until(page, "calm")
            assert await page.evaluate("location.search") == ""
            await page.click(10, 3)  # on the first vector: keys go to the page from now on
            await visit(page)
            if pictures := os.environ.get("STEERLAB_PICTURES"):
                await page.screenshot(Path(pictures) / "web.png")
            while not await page.evaluate("document.body.classList.contains('-closed')"):
                await asyncio.sleep(0.1)
            here = (served.address, served.address.replace("http", "ws"), "data:", "about:")
            outside = [url for url in page.requests if not url.startswith(here)]
            assert [url for url in outside if "fonts.googleapis.com" not in url] == []
            assert page.complaints == []
        await ended(served)
    check_what_is_left(store)
