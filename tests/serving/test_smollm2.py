"""The real model: 16 requests under 5 settings in one batch, against the lab."""

import asyncio
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from steerlab import Injection, Lab, LanguageModel, Store, steering
from steerlab.models.inference import log_probs
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine, Limits

pytestmark = pytest.mark.smollm2

PROMPTS = ["I think you are a", "The weather today", "Once upon a time there was", "My"]
SETTINGS = [("", 0.0, "all"), ("love", 0.2, "all"), ("anger", 0.15, "generated"),
            ("love", -0.2, "continuation"), ("anger", 0.3, "prompt")]  # fmt: skip


async def test_texts_and_log_probabilities_are_those_of_the_lab(
    smollm2: LanguageModel, tmp_path: Path
) -> None:
    copytree(Path(__file__).parents[2] / "store", tmp_path / "store")
    lab = Lab(Store(tmp_path / "store"), smollm2)
    engine = Engine(lab.load, Limits())
    engine.start()
    asked = [(PROMPTS[i % 4], *SETTINGS[i % 5]) for i in range(16)]
    async with TestClient(TestServer(Server(lab, engine, "smollm2", host="::1").app())) as client:

        async def ask(prompt: str, name: str, dose: float, where: str) -> Any:
            field = f"{name}[15] dose={dose} positions={where}" if name else ""
            body = {
                "model": "smollm2", "prompt": prompt, "temperature": 0, "max_tokens": 16,
                "steering": field, "logprobs": 0,
            }  # fmt: skip
            answer = await client.post("/v1/completions", json=body)
            told = await answer.json()
            assert answer.status == 200, told
            return told["choices"][0]

        found = await asyncio.gather(*(ask(*one) for one in asked))
    engine.stop(now=True)
    assert engine.join(30)
    for choice, (prompt, name, dose, where) in zip(found, asked, strict=True):
        vector = lab.store.load(name)[15] if name else None
        steered = [Injection(vector, vector.coefficient(dose), where)] if vector else []
        ids = smollm2.tokens(prompt)
        with steering(smollm2, steered):
            alone = smollm2.generate(prompt, max_new_tokens=16)
        assert choice["text"] == alone.text
        with steering(smollm2, steered, prompt_length=len(ids)):
            logs = log_probs(smollm2, [*ids, *alone.token_ids])
        wanted = [float(logs[len(ids) - 1 + i][t]) for i, t in enumerate(alone.token_ids)]
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(wanted, abs=1e-4)
