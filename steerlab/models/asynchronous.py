"""Generation for asyncio: in one thread of the model, and stopped within a token on cancelling."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from steerlab.core.prompts import Continued
from steerlab.errors import BadOption, BadPrompts
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    from steerlab.models.protocols import Writer

T = TypeVar("T")

_threads: WeakKeyDictionary[nn.Module, ThreadPoolExecutor] = WeakKeyDictionary()
"""Model -> the thread that writes its texts; those that wait for it can still be called off."""


async def generate(
    lm: Writer, prompts: Any, *, should_stop: ShouldStop | None = None, **options: Any
) -> Any:
    """What `lm.generate` returns, without blocking the event loop.

    An enclosing `steering(...)` applies. Cancelling waits for the token at hand, so that nothing
    runs any more when a `with` block is left.
    """
    stopped = threading.Event()

    def stop() -> bool:
        return stopped.is_set() or (should_stop is not None and should_stop())

    work = _start(lm.parent, partial(lm.generate, prompts, should_stop=stop, **options))
    result = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        stopped.set()
        work.cancel()
        while not result.done():
            with suppress(asyncio.CancelledError):  # of an impatient caller
                await asyncio.wait([result])
        if not result.cancelled():
            result.exception()  # nobody else asks for it
        raise


async def stream(lm: Writer, prompt: Any, **options: Any) -> AsyncIterator[str]:
    """Pieces of the text after a prompt, as it grows; leaving the loop stops the generation."""
    if not isinstance(prompt, Continued):
        raise BadPrompts(f"stream takes one prompt, not {prompt!r:.60}: `agenerate` takes several")
    if "on_text" in options:
        raise BadOption("stream gives the pieces itself: on_text is an argument of `agenerate`")
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def hear(row: int, piece: str) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    task = asyncio.ensure_future(generate(lm, prompt, on_text=hear, **options))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _start(module: nn.Module, work: Callable[[], T]) -> Future[T]:
    """Run work in the model's thread, in a copy of the caller's context."""
    if module not in _threads:
        _threads[module] = ThreadPoolExecutor(1, thread_name_prefix="steerlab")
    return _threads[module].submit(contextvars.copy_context().run, work)
