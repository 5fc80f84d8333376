"""A crowd: 500 requests of 32 clients, a third cut off in mid-text, and ten malformed kinds."""

import asyncio
import gc
import json
import random
from pathlib import Path
from typing import Any

import pytest

from steerlab import Injection
from steerlab.serving.engine import Limits
from tests.serving.conftest import Served

pytestmark = pytest.mark.campaign

REQUESTS, CLIENTS = 500, 32
MALFORMED: list[Any] = [
    b"",
    b"{",
    b"[1]",
    b"\x00\xff",
    {"prompt": "a", "n": 1000},
    {"prompt": ""},
    {"prompt": "a", "steering": "nothing_of_that_name"},
    {"prompt": "a", "steering": {"vector": "love", "dose": "much"}},
    {"prompt": "a", "max_tokens": 10**6},
    {"prompt": "a" * 1_100_000},
]


@pytest.fixture
def limits() -> Limits:
    return Limits(rows=16, queue=64, tokens=4096)


def memory() -> float:
    """Megabytes that this process takes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


async def test_a_crowd_gets_no_wrong_text_and_leaves_nothing_behind(served: Served) -> None:
    love, anger = (served.lab.store.load(name) for name in ("love", "anger"))
    settings: list[tuple[str, list[Injection]]] = [
        ("", []),
        ("love coefficient=3", [Injection(love, 3.0)]),
        ("anger coefficient=2 positions=generated", [Injection(anger, 2.0, "generated")]),
        ("love coefficient=-2; anger", [Injection(love, -2.0), Injection(anger, 1.0)]),
    ]
    wanted = {
        (prompt, field): served.alone(prompt, steered, max_new_tokens=40)
        for prompt in ("I am", "what a lovely day", "go", "stay here now please")
        for field, steered in settings
    }
    rng = random.Random(0)
    counts = dict.fromkeys(("right", "wrong", "cut", "busy", "malformed", "accepted"), 0)

    async def whole(body: dict[str, Any], text: str) -> None:
        while True:
            response = await served.client.post("/v1/completions", json=body)
            if response.status != 429:
                break
            counts["busy"] += 1
            await asyncio.sleep(0.05)
        answer = await response.json()
        right = response.status == 200 and answer["choices"][0]["text"] == text
        counts["right" if right else "wrong"] += 1

    async def cut(body: dict[str, Any], text: str) -> None:
        response = await served.client.post("/v1/completions", json={**body, "stream": True})
        found = ""
        if response.status == 200:
            for _ in range(rng.randrange(1, 12)):
                line = await response.content.readline()
                if line.startswith(b"data: {"):
                    found += json.loads(line[6:])["choices"][0]["text"]
        response.close()
        counts["cut" if text.startswith(found) else "wrong"] += 1

    async def malformed(kind: Any) -> None:
        how = {"data": kind} if isinstance(kind, bytes) else {"json": {"model": "tiny", **kind}}
        response = await served.client.post("/v1/completions", **how)
        counts["malformed" if response.status in (400, 413) else "accepted"] += 1

    async def client(numbers: range) -> None:
        for number in numbers:
            (prompt, field), text = rng.choice([*wanted.items()])
            body = {
                "model": "tiny", "prompt": prompt, "steering": field, "temperature": 0,
                "max_tokens": 40,
            }  # fmt: skip
            await (cut(body, text) if number % 3 == 0 else whole(body, text))
            if number % 10 == 0:
                await malformed(MALFORMED[number // 10 % len(MALFORMED)])

    async def crowd(requests: int) -> None:
        await asyncio.gather(*(client(range(i, requests, CLIENTS)) for i in range(CLIENTS)))
        await served.idle()

    await crowd(150)  # allocators settle
    before = memory()
    await crowd(REQUESTS)
    assert (counts["wrong"], counts["accepted"]) == (0, 0), counts
    assert counts["right"] + counts["cut"] == 150 + REQUESTS
    assert (served.engine.running, served.engine.queued) == (0, 0)
    print(counts, before, memory())
    assert memory() <= before * 1.05


async def test_a_slow_reader_holds_nobody_up(served: Served) -> None:
    body = {"model": "tiny", "prompt": "I am", "max_tokens": 110, "temperature": 0, "stream": True}
    slow = await served.client.post("/v1/completions", json=body)
    await slow.content.read(1)  # a byte, and no more for now
    text = await served.text("go", max_tokens=20)
    assert text == served.alone("go", max_new_tokens=20)
    await served.idle()  # its row is free before it has read
    assert b"[DONE]" in await slow.content.read()
