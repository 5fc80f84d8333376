"""A layer that a vector lacks is made between the passes of the batch, once, and within a bound."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from steerlab.errors import Incompatible
from steerlab.serving.extractions import PROMPTS, WAITING, Extractions
from tests.serving.conftest import Served


class Recipe:
    sizes = (2, 2, 0)


def test_requests_that_wait_for_one_layer_make_it_once():
    gate, made = threading.Event(), []

    def make(recipe, layers):
        gate.wait(60)
        made.append(layers)
        return object()

    extractions, wanted = Extractions(make), Recipe()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(extractions, wanted, [3]) for _ in range(4)]
        gate.set()
        assert len({one.result() for one in asked}) == 1
    assert made == [[3]]


def test_a_recipe_of_many_prompts_is_refused_with_the_command():
    large = SimpleNamespace(sizes=(PROMPTS, 1, 0))
    with pytest.raises(Incompatible, match="layer 3 first, by `steerlab extract"):
        Extractions(lambda *_: None)(large, [3])


async def test_texts_go_on_while_a_layer_is_made(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.text("I am", max_tokens=1)
    begun = asyncio.create_task(served.text("I am", max_tokens=100))
    while not served.engine.running:
        await asyncio.sleep(0.001)
    passes: list[int] = []
    exact = served.lm.reextract(served.lab.store.load("love").recipe, [3])
    reextract = type(served.lm).reextract

    def slow(lm, wanted, layers, *, progress, should_stop):
        """Three readings, as of a recipe whose prompts take three passes."""
        with lm.lock:
            for done in range(3):
                assert not should_stop()
                passes.append(served.engine.counts.passes)
                progress(done, 3)
        return reextract(lm, wanted, layers, progress=progress, should_stop=should_stop)

    monkeypatch.setattr(type(served.lm), "reextract", slow)
    field = "love layers=3 coefficient=2"
    steered = await served.text("I am", max_tokens=4, steering=field)
    assert len(set(passes)) == 3, "the batch made no pass in between"
    assert passes[-1] - passes[0] == 2, "the batch did not wait for its turn"
    assert await begun == served.alone("I am", max_new_tokens=100)
    made = served.lab.at_layers(served.lab.evaluate("love"), 3)
    np.testing.assert_array_equal(made.directions[3], exact.directions[3])
    from steerlab import Injection

    assert steered == served.alone("I am", [Injection(made, 2.0)], max_new_tokens=4)


async def test_others_are_answered_while_many_wait_for_a_layer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than may wait is told to come back; nobody waits for a thread."""
    gate, exact = threading.Event(), type(served.lm).reextract

    def slow(lm, *what, progress, should_stop):
        with lm.lock:
            while not gate.wait(0.01):
                assert not should_stop()
                progress(1, 2)
        return exact(lm, *what, progress=progress, should_stop=should_stop)

    monkeypatch.setattr(type(served.lm), "reextract", slow)
    path, body = "/v1/completions", {"model": "tiny", "prompt": "I am", "max_tokens": 1}
    asked = {**body, "steering": "love layers=3 coefficient=2"}
    tasks = [asyncio.create_task(served.client.post(path, json=asked)) for _ in range(WAITING + 1)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert [(one.result().status, one.result().headers["Retry-After"]) for one in done] == [
            (429, "10")
        ]
        answer = await asyncio.wait_for(served.client.post(path, json=body), 60)
        assert answer.status == 200
    finally:
        gate.set()
    statuses = [answer.status for answer in await asyncio.gather(*tasks)]
    assert statuses.count(200) >= served.engine.limits.queue  # which takes them all at once
    assert set(statuses) == {200, 429}


async def test_an_extraction_that_fails_lets_the_batch_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(lm, *_, **__):
        raise Incompatible("no")

    monkeypatch.setattr(type(served.lm), "reextract", fails)
    await served.post("completions", 400, prompt="I am", steering="love layers=0 coefficient=2")
    assert await served.text("I am", max_tokens=4) == served.alone("I am", max_new_tokens=4)
