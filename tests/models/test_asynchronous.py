"""Generation for asyncio: the steering goes along, and cancelling leaves nothing running."""

from __future__ import annotations

import asyncio
import threading

import pytest

from steerlab import steering
from steerlab.core.arguments import UnknownArgument
from tests.saved import LOVE
from tests.tiny import tiny_lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def love(lm):
    return lm.extract(LOVE, layers=1)


async def test_it_writes_what_generate_writes_steered_too(lm, love):
    assert (await lm.agenerate("Hello")).text == lm.generate("Hello").text
    with steering(lm, love, dose=2.0):
        expected = lm.generate(["Hello", "Ho"])
        assert await lm.agenerate(["Hello", "Ho"]) == expected
        pieces = [piece async for piece in lm.stream("Hello")]
    assert "".join(pieces) == expected[0].text != lm.generate("Hello").text


async def test_cancelling_stops_within_a_token_and_leaves_nothing(lm, love):
    written, begun = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def hear(row, piece):
        written.append(piece)
        loop.call_soon_threadsafe(begun.set)

    with steering(lm, love, dose=1.0):
        task = asyncio.ensure_future(lm.agenerate("Hello", max_new_tokens=100, on_text=hear))
        waiting = asyncio.ensure_future(lm.agenerate("Hello", on_text=hear))
        await begun.wait()
        task.cancel()
        waiting.cancel()
        for one in (task, waiting):
            with pytest.raises(asyncio.CancelledError):
                await one
    count = len(written)
    assert count < 90
    await asyncio.sleep(0.05)
    assert len(written) == count
    assert not lm.parent._forward_pre_hooks
    assert not any(block._forward_pre_hooks for block in lm.blocks)
    assert lm.generate("Hello").finish != "cancelled"


async def test_leaving_a_stream_stops_it(lm):
    stream = lm.stream("Hello", max_new_tokens=100)
    async for _ in stream:
        break
    await stream.aclose()
    assert (await asyncio.wait_for(lm.agenerate("Hello", max_new_tokens=1), 5)).token_ids


async def test_errors_and_other_stops_come_through(lm):
    with pytest.raises(UnknownArgument, match="max_new_tokens"):
        await lm.agenerate("Hello", max_tokens=3)
    with pytest.raises(UnknownArgument):
        _ = [piece async for piece in lm.stream("Hello", max_tokens=3)]
    assert (await lm.agenerate("Hello", should_stop=lambda: True)).finish == "cancelled"


async def test_one_thread_owns_the_model(lm):
    names = set()

    def hear(row, piece):
        names.add(threading.current_thread().name)

    await asyncio.gather(*(lm.agenerate("Hello", on_text=hear) for _ in range(4)))
    assert len(names) == 1
