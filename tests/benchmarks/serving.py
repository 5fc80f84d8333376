"""`steerlab serve` on the embedded model: many requests at once, and the first token of one.

By HTTP in one process. Beside it, on the same weights in float32 and with one thread, a plain
llama-server where xllamacpp is installed, and a plain vLLM where STEERLAB_VLLM_PYTHON has one.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from steerlab import Injection, Lab, LanguageModel, Store, steering
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine, Limits
from tests.benchmarks import llama_server
from tests.benchmarks.timing import Ratio, paired
from tests.vllm_plugin.servers import vllm

TOKENS = 24
PROMPTS = [
    f"{start} {end}"
    for start in ("I think you are a", "The weather today is", "Once upon a time", "My brother")
    for end in ("man who", "day and", "girl with", "house in")
]
NAMES = ("love", "anger", "joy", "calm")


def _settings(store: Store) -> list[tuple[str, Injection]]:
    """16 settings: vectors at strengths and positions of their own."""
    known = [name for name in NAMES if name in store.names("smollm2")] or [*store.names("smollm2")][
        :4
    ]
    found = []
    for number in range(16):
        name, dose = known[number % len(known)], 0.05 + 0.01 * number
        vector = store.load(name, "smollm2")
        positions = ("all", "generated")[number % 2]
        field = f"smollm2.{name} dose={dose} layers={vector.layers[0]} positions={positions}"
        at = vector[vector.layers[0]]
        found.append((field, Injection(at, at.coefficient(dose), positions)))
    return found


class _Client:
    """Requests of one event loop to one address."""

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.address, self.loop = address, loop

    async def _post(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> str:
        async with session.post(f"{self.address}/v1/completions", json=body) as answer:
            return str((await answer.json())["choices"][0]["text"])

    async def _all(self, bodies: list[dict[str, Any]]) -> list[str]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(self._post(session, body) for body in bodies))

    async def _first(self, body: dict[str, Any]) -> float:
        begun = time.perf_counter()
        async with aiohttp.ClientSession() as session:
            post = session.post(f"{self.address}/v1/completions", json={**body, "stream": True})
            async with post as answer:
                async for line in answer.content:
                    if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                        return time.perf_counter() - begun
        raise AssertionError("no text came")

    def write(self, bodies: list[dict[str, Any]]) -> list[str]:
        return self.loop.run_until_complete(self._all(bodies))

    def first(self, body: dict[str, Any]) -> float:
        return self.loop.run_until_complete(self._first(body))


def _body(prompt: str, steered: str = "", tokens: int = TOKENS) -> dict[str, Any]:
    field = {"steering": steered} if steered else {}
    return {
        "model": "smollm2", "prompt": prompt, "max_tokens": tokens, "temperature": 0, **field
    }  # fmt: skip


class _FirstTextError(Exception):
    """The first text came."""


def _first_of_generate(lm: LanguageModel, prompt: str) -> None:
    def heard(row: int, piece: str) -> None:
        raise _FirstTextError

    try:
        lm.generate(prompt, max_new_tokens=TOKENS, on_text=heard)
    except _FirstTextError:
        return


def _others() -> dict[str, Callable[[Path], AbstractContextManager[str]]]:
    """Name -> what starts the server and gives its address, of those that are installed."""
    found: dict[str, Callable[[Path], AbstractContextManager[str]]] = {}
    if find_spec("xllamacpp"):
        found["llama-server"] = llama_server.running
    if "STEERLAB_VLLM_PYTHON" in os.environ:
        found["vLLM"] = _vllm
    return found


@contextmanager
def _vllm(work: Path) -> Iterator[str]:
    with vllm(work / "log") as running:
        yield running.url.removesuffix("/v1")


def _beside(name: str, ours: _Client, other: _Client) -> Iterator[Ratio]:
    """Both unsteered: tokens a second of 1 and 16 requests, and the first token of one."""
    for number in (1, 16):
        bodies = [_body(prompt) for prompt in PROMPTS[:number]]
        found = paired(
            "", partial(ours.write, bodies), partial(other.write, bodies), runs=5, asked=""
        )
        rates = (number * TOKENS / s for s in (found.seconds, found.baseline))
        told = "{:.0f} tokens/s, {name}'s {:.0f}".format(*rates, name=name)
        yield replace(found, what=f"{number} unsteered: {told}")
    first = _body(PROMPTS[0])
    yield paired(
        f"first token, against {name}",
        lambda: ours.first(first), lambda: other.first(first), runs=9, asked="",
    )  # fmt: skip


def run() -> Iterator[Ratio]:
    """16 requests with 16 settings, one request, the first token; and other servers beside."""
    lm, store = LanguageModel.load("smollm2"), Store(os.environ.get("STEERLAB_STORE", "store"))
    settings = _settings(store)
    lab = Lab(store, lm)
    engine = Engine(lab.load, Limits())
    engine.start()
    engine.model.result()
    loop = asyncio.new_event_loop()
    server = TestServer(Server(lab, engine, "smollm2", host="127.0.0.1").app())
    loop.run_until_complete(server.start_server())
    client = _Client(str(server.make_url("")).rstrip("/"), loop)
    bodies = [_body(p, field) for p, (field, _) in zip(PROMPTS, settings, strict=True)]

    def alone() -> list[str]:
        texts = []
        for prompt, (_, injection) in zip(PROMPTS, settings, strict=True):
            with lm.lock, steering(lm, injection):
                texts.append(lm.generate(prompt, max_new_tokens=TOKENS).text)
        return texts

    texts: list[list[str]] = []
    yield paired(
        "16 requests, 16 settings, against 16 generate calls",
        lambda: texts.append(client.write(bodies)), lambda: texts.append(alone()),
        runs=5, asked=">= 6", inverse=True, warm_up=False,
    )  # fmt: skip
    assert all(one == texts[0] for one in texts)
    one = _body(PROMPTS[0])
    yield paired(
        "1 request against generate",
        lambda: client.write([one]),
        lambda: lm.generate(PROMPTS[0], max_new_tokens=TOKENS), runs=5, asked="",
    )  # fmt: skip
    yield paired(
        "first token, streamed, against on_text",
        lambda: client.first(one),
        lambda: _first_of_generate(lm, PROMPTS[0]), runs=11, asked="<= 1.2",
    )  # fmt: skip
    for name, server_of in _others().items():
        with tempfile.TemporaryDirectory() as work, server_of(Path(work)) as address:
            yield from _beside(name, client, _Client(address, loop))
    engine.stop(now=True)
    engine.join(10)
    loop.run_until_complete(server.close())
