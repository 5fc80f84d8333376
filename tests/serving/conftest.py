"""A tiny model served in this process, with a store of vectors of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from steerlab import Lab, LanguageModel, Store
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine, Limits
from tests.saved import fill_store, save_model


@dataclass
class Served:
    """A server with its client; `lm` writes the texts to compare with."""

    lab: Lab
    lm: LanguageModel
    engine: Engine
    client: TestClient[Any, Any]

    async def post(self, path: str, status: int = 200, **body: Any) -> Any:
        body = {"model": "tiny", **body}
        response = await self.client.post(f"/v1/{path}", json=body)
        answer = await response.json()
        assert response.status == status, answer
        return answer

    async def text(self, prompt: str, **body: Any) -> str:
        answer = await self.post("completions", prompt=prompt, temperature=0, **body)
        return str(answer["choices"][0]["text"])

    async def stream(self, path: str, **body: Any) -> list[Any]:
        body = {"model": "tiny", "stream": True, **body}
        response = await self.client.post(f"/v1/{path}", json=body)
        assert response.status == 200, await response.text()
        lines = (await response.text()).split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def alone(self, prompt: str, steering: Any = (), **options: Any) -> str:
        """The text that `lm.generate` writes, steered by these injections."""
        from steerlab import steering as steer

        with self.lm.lock, steer(self.lm, steering):
            return self.lm.generate(prompt, **options).text

    async def idle(self) -> None:
        """Wait until no row is left."""
        for _ in range(6000):
            if not (self.engine.running or self.engine.queued):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a row was not freed")


@pytest.fixture(scope="session")
def _served_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    model = save_model(tmp_path_factory.mktemp("served") / "tiny")
    return fill_store(tmp_path_factory.mktemp("served") / "store", model), model


@pytest.fixture(scope="session")
def served_lm(_served_store: tuple[Path, Path]) -> LanguageModel:
    return LanguageModel.load(str(_served_store[1]))


@pytest.fixture
def limits() -> Limits:
    return Limits(rows=4, queue=16, tokens=4096)


@pytest.fixture
async def served(
    _served_store: tuple[Path, Path], served_lm: LanguageModel, limits: Limits
) -> AsyncIterator[Served]:
    lab = Lab(Store(_served_store[0]), served_lm)
    engine = Engine(lab.load, limits)
    server = Server(lab, engine, "tiny", host="127.0.0.1")
    engine.start()
    async with TestClient(TestServer(server.app())) as client:
        yield Served(lab, served_lm, engine, client)
    engine.stop(now=True)
    assert engine.join(60)


@pytest.fixture(scope="session")
def served_model(_served_store: tuple[Path, Path]) -> Path:
    return _served_store[1]
