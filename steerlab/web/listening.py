"""Listening at an address until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from steerlab.errors import BadOption


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGINT and SIGTERM, in the running loop."""
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: Ctrl+C raises KeyboardInterrupt there
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)


def check_free(host: str, port: int) -> None:
    """Raise BadOption, as `listen` does, for an address that is taken.

    Some servers share a port with others of their kind, and each then gets a part of the requests.
    """
    try:
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()
    except OSError as error:
        raise _refused(host, port, error) from None


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """Listen, and return the address; BadOption with the reason if that can't be done.

    port: 0 picks a free one.
    """
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise _refused(host, port, error) from None
    return f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"


def _refused(host: str, port: int, error: OSError) -> BadOption:
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return BadOption(
        f"can't serve at {host} port {port}: {why}; choose another with --port or --host"
    )
