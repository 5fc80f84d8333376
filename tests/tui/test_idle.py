"""How the tests wait: until nothing is about to happen, on a busy machine too."""

import asyncio
from threading import Event
from time import sleep

from textual.app import App

from tests.tui.idle import wait_for_idle


async def test_it_waits_for_callbacks_and_for_timers_that_are_due_soon():
    loop, done = asyncio.get_running_loop(), []
    loop.call_soon(lambda: loop.call_soon(done.append, "callback"))
    loop.call_later(0.02, done.append, "timer")
    later = loop.call_later(60, done.append, "later")
    await wait_for_idle(max_sleep=60)
    later.cancel()
    assert done == ["callback", "timer"]


async def test_it_waits_for_short_threads_and_not_for_the_models_work():
    app, go_on = App(), Event()
    async with app.run_test():
        reading = app.run_worker(lambda: sleep(0.05), thread=True, group="read")
        writing = app.run_worker(lambda: go_on.wait(60), thread=True, group="write")
        await wait_for_idle(max_sleep=60)
        assert reading.is_finished
        assert not writing.is_finished
        go_on.set()
        await app.workers.wait_for_complete()
