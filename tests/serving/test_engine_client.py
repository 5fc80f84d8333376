"""The lab on `steerlab serve`: what it writes there is what it writes itself."""

from __future__ import annotations

import asyncio

import pytest

from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE, Setting
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.lab.engine import EngineRuntime


@pytest.mark.parametrize("positions", ["all", "generated"])
async def test_texts_are_those_of_the_lab_with_each_rows_setting_and_seed(served, positions):
    love = served.lab.evaluate("love")
    by_text = served.lab.evaluate("2*love - love.v1")
    settings = [
        BASELINE,
        Setting(love, love.coefficient(0.4)),
        Setting(by_text[love.layers[0]], -3),
    ]
    rows = [(s, prompt, seed) for s in settings for prompt in ("a b", "c") for seed in (0, 1)]
    sampling = Sampling(6, temperature=0.8, top_p=0.95)
    engine = EngineRuntime(str(served.client.make_url("/")))
    theirs = await asyncio.to_thread(engine.generate, rows, sampling, positions=positions)
    ours = TransformersRuntime(served.lm).generate(rows, sampling, positions=positions)
    assert [t.text for t in theirs] == [t.text for t in ours]
    assert [t.tokens for t in theirs] == [t.tokens for t in ours]
    assert [t.finish for t in theirs] == [t.finish for t in ours]
    assert len({t.text for t in ours}) > len(rows) // 2


async def test_another_vector_under_the_name_is_refused(served):
    asked = {"vector": "love", "coefficient": 1.0, "digest": "0" * 64}
    answer = await served.post("completions", 400, prompt="a", steering=asked)
    assert "another vector" in answer["error"]["message"]
    right = {**asked, "digest": served.lab.evaluate("love").digest}
    await served.post("completions", prompt="a", steering=right)
