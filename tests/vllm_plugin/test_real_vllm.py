"""The plugin in a real vLLM, against lm.generate: needs STEERLAB_VLLM_PYTHON."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from steerlab import LanguageModel, Store, steering
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.interventions.injection import Injection
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.lab.engine import EngineRuntime
from steerlab.lab.lab import Lab
from steerlab.models.inference import log_probs
from steerlab.serving.request import parse_steering
from tests.vllm_plugin.servers import vllm

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif("STEERLAB_VLLM_PYTHON" not in os.environ, reason="STEERLAB_VLLM_PYTHON"),
]

PROMPTS = ("I think you are a", "The weather in the mountains was", "Dear neighbour, I am writing")
SETTINGS = (
    None,
    "love dose=0.2",
    "anger dose=0.15 positions=generated",
    "love - anger coefficient=1 positions=prompt",
    "calm coefficient=-20 positions=continuation",
    "love dose=-0.2; joy dose=0.1 layers=15",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vllm") / "store"
    shutil.copytree(Path(__file__).parents[2] / "store", directory)
    return Store(directory)


@pytest.fixture(scope="module")
def server(store):
    with vllm(store.path.parent / "log", store.path) as running:
        yield running


@pytest.fixture(scope="module")
def lab(store):
    return Lab(store, LanguageModel.load("smollm2"))


_RESOLVING = """
import asyncio, threading, types
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat as Chat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion as Text
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses as Responses
from steerlab.vllm_plugin import plugin

async def create(self, request):
    return len(threads)

threads = []
ways = [(Chat, "create_chat_completion"), (Text, "create_completion")]
ways += [(Responses, "create_responses")]
for kind, name in ways:
    setattr(kind, name, create)
look = lambda asked: threads.append(threading.current_thread())
plugin._resolve_in_threads(types.SimpleNamespace(steering=look))
request = types.SimpleNamespace(model_extra={"steering": "love"}, vllm_xargs=None)
assert [asyncio.run(getattr(kind, name)(None, request)) for kind, name in ways] == [1, 2, 3]
assert threading.main_thread() not in threads
"""


def test_vectors_are_found_in_threads_for_every_route():
    """Which may take seconds, in which others would wait."""
    subprocess.run([os.environ["STEERLAB_VLLM_PYTHON"], "-c", _RESOLVING], check=True)


def injections(lab, text):
    for steer in parse_steering(text):
        point = lab.operating_point(lab.evaluate(steer.vector), steer.layers)
        c = steer.coefficient
        c = point.vector.coefficient(steer.dose) if c is None else c
        yield Injection(point.vector, c, steer.positions)


def test_mixed_settings_give_the_texts_and_log_probabilities_of_the_lab(server, lab):
    rows = [(setting, prompt) for setting in SETTINGS for prompt in PROMPTS]

    def answer(row):
        setting, prompt = row
        how = {"max_tokens": 16, "return_tokens_as_token_ids": True}
        return server.ask(prompt, vllm_xargs=setting and {"steering": setting}, **how)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(answer, rows))
    worst, texts = 0.0, {}
    for (setting, prompt), (status, found) in zip(rows, answers, strict=True):
        assert status == 200, found
        told = found["choices"][0]["logprobs"]["top_logprobs"]
        with steering(lab.model, list(injections(lab, setting))):
            (ours,) = lab.model.generate([prompt], max_new_tokens=16)
        assert found["choices"][0]["text"] == ours.text
        texts[setting, prompt] = ours.text
        ids = lab.model.tokens(prompt)
        with steering(lab.model, list(injections(lab, setting)), prompt_length=len(ids)):
            exact = log_probs(lab.model, [*ids, *ours.token_ids])
        for column, likeliest in enumerate(told, len(ids) - 1):
            for token, value in likeliest.items():
                place = int(token.removeprefix("token_id:"))
                worst = max(worst, abs(float(exact[column, place]) - value))
    assert worst < 1e-4
    assert len(set(texts.values())) > len(PROMPTS) * 4, "steering changed too few texts"


def test_the_lab_writes_through_it(server, lab):
    love = lab.evaluate("love")
    rows = [
        (Setting(love, c), prompt, 0) for c in (0.0, love.coefficient(0.2)) for prompt in PROMPTS
    ]
    there = EngineRuntime(server.url).generate(rows, Sampling(12))
    here = TransformersRuntime(lab.model).generate(rows, Sampling(12))
    assert [(t.text, t.tokens, t.finish) for t in there] == [
        (t.text, t.tokens, t.finish) for t in here
    ]


def test_an_unsteered_prefix_is_not_taken_from_a_steered_one(server):
    prompt = "The house at the end of the road was old, and nobody had lived in it. " * 6

    def asked(**fields):
        status, found = server.ask(prompt, **fields)
        assert status == 200, found
        details = found["usage"]["prompt_tokens_details"] or {}
        return found["choices"][0]["logprobs"]["top_logprobs"], details.get("cached_tokens") or 0

    asked()
    before, cached = asked()
    assert cached, "the cache was not used at all"
    steered, of_others = asked(vllm_xargs={"steering": "love dose=0.3"})
    assert not of_others
    assert steered != before
    assert asked() == (before, cached)
    assert asked(vllm_xargs={"steering": "love dose=0.3"})[1], "steered prefixes are cached too"


def test_all_ways_to_ask_are_the_same(server):
    text = server.ask(vllm_xargs={"steering": "love dose=0.2"})[1]["choices"][0]["text"]
    for fields in (
        {"steering": "love dose=0.2"},
        {"steering": {"vector": "love", "dose": 0.2}},
        {"steering": [{"vector": "love", "dose": 0.1}, "love dose=0.1"]},
        {"vllm_xargs": {"steering": ['{"vector": "love", "dose": 0.2}']}},
        {"model": "smollm2:love dose=0.2"},
    ):
        status, found = server.ask(**fields)
        assert status == 200, found
        assert found["choices"][0]["text"] == text


def test_a_chat_is_steered(server):
    plain, steered = (
        server.ask("How are you?", "chat/completions", steering=steering)
        for steering in (None, "anger dose=0.3")
    )
    assert plain[0] == steered[0] == 200
    assert plain[1]["choices"] != steered[1]["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_name_is_a_bad_request(server, stream):
    status, found = server.ask(vllm_xargs={"steering": "lvoe"}, stream=stream)
    assert status == 400, found
    assert "did you mean love" in found["error"]["message"]
    assert server.ask()[0] == 200


def test_a_vector_saved_while_it_runs_is_served(server, store):
    assert server.ask(steering="newer dose=0.2")[0] == 400
    store.save("newer", store.load("love") - store.load("anger"))
    assert server.ask(steering="newer dose=0.2")[0] == 200
