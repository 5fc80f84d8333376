"""The terminal UI in a browser: textual-serve, closed to other sites and other users.

A token in the printed address admits its reader, and a cookie admits the browser from then on:
other users of this machine reach the port, but have neither.

Each tab runs its own app in its own process, which ends with the tab.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import shlex
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import WSCloseCode, web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from steerlab.tui.verbs.child import program
from steerlab.web.guard import check_site
from steerlab.web.listening import listen, on_signals

GRACE = 5.0
"""Seconds an app has to quit after its tab is closed."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' ws://{host}; frame-ancestors 'none'"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(options: Sequence[str], host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the app until Ctrl+C or SIGTERM.

    options: of `steerlab tui`, for the processes of the tabs. port: 0 picks a free one.
    ready: called with the address once the server answers.
    Raises BadOption if it can't listen at host and port.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_Web(shell_command(options), host, port).until_stopped(ready))


def shell_command(options: Sequence[str]) -> str:
    """A shell command for `steerlab tui` with these options, in this interpreter."""
    words = [*program(), "tui", *options]
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return f"exec {shlex.join(words)}"  # exec: end the app, not a shell


class _Session(AppService):
    """The app of one tab."""

    async def end(self) -> None:
        """Ask the app to quit, kill it if it does not, and wait for its process."""
        # errors of textual-serve do not matter: the process is ended below
        await asyncio.gather(asyncio.wait_for(self.stop(), GRACE), return_exceptions=True)
        process = self._process
        if process is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
            if process.returncode is None:
                process.kill()
                await process.wait()


class _Web(Server):
    """textual-serve's server, closed to other sites and users, that ends its apps."""

    def __init__(self, command: str, host: str, port: int) -> None:
        super().__init__(command, host, port, title="steerlab")
        self._sockets: set[web.WebSocketResponse] = set()
        self._token = secrets.token_urlsafe(24)
        # named by the token: a browser keeps the cookies of all ports of a host together
        self._cookie = f"steerlab-{hashlib.sha256(self._token.encode()).hexdigest()[:12]}"

    async def until_stopped(self, ready: Callable[[str], None]) -> None:
        """Listen until a signal, then end every app."""
        stopped = asyncio.Event()
        on_signals(stopped.set)
        runner = web.AppRunner(await self._make_app(), shutdown_timeout=2 * GRACE)
        await runner.setup()
        try:
            address = await listen(runner, self.host, self.port)
            ready(f"{address}/?token={self._token}")
            await stopped.wait()
        finally:
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests of other sites and other users."""
        check_site(request, self.host)
        if self._is_token(request.query.get("token", "")) and request.path == "/":
            return self._admitted()
        if not self._is_token(request.cookies.get(self._cookie, "")):
            raise web.HTTPForbidden(text="open the address that steerlab printed: it has a token")
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = _POLICY.format(host=request.host)
            response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())

    def _admitted(self) -> web.StreamResponse:
        """Give the browser its cookie, and an address without the token, for its history."""
        response = web.HTTPSeeOther("/", headers={"Referrer-Policy": "no-referrer"})
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="Lax", path="/")
        return response

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, with links to the address it was requested at, also through a tunnel."""
        self.public_url = f"{request.scheme}://{request.host}"
        return await super().handle_index(request)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run an app for as long as the socket is open."""
        socket = web.WebSocketResponse(heartbeat=15, timeout=2)
        await socket.prepare(request)
        session = _Session(
            self.command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=socket.close,  # type: ignore[arg-type]  # it returns whether it was open
            download_manager=self.download_manager,
        )
        self._sockets.add(socket)
        try:
            await session.start(_size(request, "width", 80), _size(request, "height", 24))
            await self._process_messages(socket, session)
        finally:
            self._sockets.discard(socket)
            await asyncio.shield(session.end())
        return socket

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing: the command does."""

    async def on_shutdown(self, app: web.Application) -> None:
        """Close the tabs' sockets, which ends their apps."""
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in set(self._sockets))
        await asyncio.gather(*closing, return_exceptions=True)


def _size(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return min(max(int(text), 1), 1000) if text.isdecimal() else default
