"""Running a server until a signal, which lets texts be finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from steerlab.serving.app import Server
from steerlab.serving.engine import Engine
from steerlab.web.listening import listen, on_signals

GRACE = 30.0
"""Seconds in which texts may be finished after the first signal; a second one ends them."""


async def run(
    server: Server, engine: Engine, host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Listen until SIGINT or SIGTERM, then finish the texts that are being written.

    ready: called with the address; the model is still being loaded then. Raises BadOption for a
    port that is taken, and what loading the model raises.
    """
    stopped = asyncio.Event()

    def stop() -> None:
        engine.stop(now=stopped.is_set())
        stopped.set()

    on_signals(stop)
    logging.getLogger("aiohttp.server").addFilter(_of_the_server)
    runner = web.AppRunner(
        server.app(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None
    )
    await runner.setup()
    try:
        ready(await listen(runner, host, port))
        engine.start()
        await _until_stopped(engine, stopped)
    finally:
        engine.stop(now=True)
        await runner.cleanup()


def _of_the_server(record: logging.LogRecord) -> bool:
    """Whether an error is ours; one of a malformed request would fill the log with tracebacks."""
    error = record.exc_info and record.exc_info[1]
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


async def _until_stopped(engine: Engine, stopped: asyncio.Event) -> None:
    """Wait for a signal, then until texts are finished; raises what loading the model raises."""
    loaded: asyncio.Future[Any] = asyncio.wrap_future(engine.model)
    waiting: asyncio.Future[Any] = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((loaded, waiting), return_when=asyncio.FIRST_COMPLETED)
    if loaded.done():
        loaded.result()
        await waiting
        await asyncio.to_thread(engine.join, GRACE)
