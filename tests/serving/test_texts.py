"""A text of the server is the text that `lm.generate` writes alone."""

import asyncio

import numpy as np
import pytest

from steerlab import Injection, steering
from tests.serving.conftest import Served

PROMPTS = ["I am", "what a lovely day it is to", "a", "go away now, please", "stay"]


async def test_an_unsteered_text_is_that_of_generate(served: Served) -> None:
    assert await served.text("I am", max_tokens=12) == served.alone("I am", max_new_tokens=12)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "continuation"])
async def test_a_steered_text_is_that_of_generate(served: Served, positions: str) -> None:
    vector = served.lab.store.load("love")
    wanted = [Injection(vector, 3.0, positions)]
    found = await served.text(
        "I am", max_tokens=12, steering=f"love coefficient=3 positions={positions}"
    )
    assert found == served.alone("I am", wanted, max_new_tokens=12)
    assert found != served.alone("I am", max_new_tokens=12)


async def test_rows_with_settings_of_their_own_join_and_leave_one_batch(served: Served) -> None:
    love, anger = (served.lab.store.load(name) for name in ("love", "anger"))
    front = served.lab.store.load("front")
    settings = [
        ("", []),
        ("love coefficient=4", [Injection(love, 4.0)]),
        ("anger coefficient=-3 positions=generated", [Injection(anger, -3.0, "generated")]),
        (
            "love[1] coefficient=2; anger coefficient=2",
            [Injection(love[1], 2), Injection(anger, 2)],
        ),
        ("front coefficient=2", [Injection(front, 2.0)]),
    ]
    asked = [
        (prompt, field, wanted, 6 + (number * 7) % 20)
        for number, (prompt, (field, wanted)) in enumerate(
            (prompt, setting) for prompt in PROMPTS for setting in settings
        )
        if not (field.startswith("front") and len(prompt) < 4)
    ]

    async def one(number: int, prompt: str, field: str, tokens: int) -> str:
        await asyncio.sleep(number % 5 * 0.01)
        return await served.text(prompt, steering=field, max_tokens=tokens)

    first = await asyncio.gather(
        *(one(i, prompt, field, tokens) for i, (prompt, field, _, tokens) in enumerate(asked[:14]))
    )
    second = await asyncio.gather(
        *(one(i, prompt, field, tokens) for i, (prompt, field, _, tokens) in enumerate(asked[14:]))
    )
    for found, (prompt, _, wanted, tokens) in zip([*first, *second], asked, strict=True):
        assert found == served.alone(prompt, wanted, max_new_tokens=tokens)
    await served.idle()


async def test_each_row_draws_from_its_own_seed(served: Served) -> None:
    how = {"temperature": 0.9, "top_p": 0.8, "max_new_tokens": 10}
    body = {"temperature": 0.9, "top_p": 0.8, "max_tokens": 10}
    answer = await served.post("completions", prompt="I am", n=3, seed=5, **body)
    found = [choice["text"] for choice in answer["choices"]]
    assert found == [served.alone("I am", seed=5 + i, **how) for i in range(3)]
    assert len(set(found)) > 1
    penal = await served.text("I am", max_tokens=12, repetition_penalty=1.3)
    assert penal == served.alone("I am", max_new_tokens=12, repetition_penalty=1.3)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "continuation"])
async def test_copies_of_a_prompt_are_read_once(
    served: Served, monkeypatch: pytest.MonkeyPatch, positions: str
) -> None:
    from steerlab.serving.batch import RunningBatch

    await served.text("I am", max_tokens=1)
    read: list[int] = []
    forward = RunningBatch._forward

    def counted(batch, rows, *arguments, **options):
        if not options.get("decoding"):
            read.append(len(rows))
        return forward(batch, rows, *arguments, **options)

    monkeypatch.setattr(RunningBatch, "_forward", counted)
    love = Injection(served.lab.store.load("love"), 3.0, positions)
    answer = await served.post(
        "completions", prompt=["I am", "what a lovely"], n=2, seed=5, temperature=0.9,
        max_tokens=8, echo=True, logprobs=1, steering=f"love coefficient=3 positions={positions}",
    )  # fmt: skip
    assert read == [2]
    options = {"temperature": 0.9, "max_new_tokens": 8}
    for index, choice in enumerate(answer["choices"]):
        prompt = ("I am", "what a lovely")[index // 2]
        alone = served.alone(prompt, [love], seed=5 + index % 2, **options)
        assert choice["text"] == prompt + alone
        assert choice["logprobs"]["token_logprobs"][0] is None
    assert len({choice["text"] for choice in answer["choices"]}) == 4


async def test_log_probabilities_are_those_of_the_model(served: Served) -> None:
    from steerlab.models.inference import log_probs

    prompt = "I am so"
    answer = await served.post(
        "completions", prompt=prompt, temperature=0, max_tokens=6, logprobs=3, echo=True
    )
    logs = answer["choices"][0]["logprobs"]
    ids = served.lm.tokens(prompt)
    written = served.lm.generate(prompt, max_new_tokens=6).token_ids
    wanted = log_probs(served.lm, [*ids, *written])
    assert logs["token_logprobs"][0] is None
    assert len(logs["tokens"]) == len(ids) + 6
    for place, token in enumerate([*ids, *written][1:]):
        assert logs["token_logprobs"][place + 1] == pytest.approx(
            float(wanted[place][token]), abs=1e-4
        )
        best = max(logs["top_logprobs"][place + 1].values())
        assert best == pytest.approx(float(wanted[place].max()), abs=1e-4)


async def test_token_ids_are_a_prompt_and_several_prompts_are_choices(served: Served) -> None:
    ids = [served.lm.tokens(prompt) for prompt in PROMPTS[:3]]
    answer = await served.post("completions", prompt=ids, temperature=0, max_tokens=5)
    found = [choice["text"] for choice in answer["choices"]]
    assert found == [served.alone(prompt, max_new_tokens=5) for prompt in PROMPTS[:3]]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert answer["usage"]["completion_tokens"] == 15


async def test_a_stop_string_ends_a_text_before_it(served: Served) -> None:
    whole = served.alone("I am", max_new_tokens=30)
    stop = whole[7:9]
    answer = await served.post(
        "completions", prompt="I am", temperature=0, max_tokens=30, stop=[stop, "never there"]
    )
    assert answer["choices"][0]["text"] == whole[: whole.find(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    chunks = await served.stream(
        "completions", prompt="I am", temperature=0, max_tokens=30, stop=stop
    )
    streamed = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert streamed == whole[: whole.find(stop)]


async def test_a_chat_is_streamed_with_its_usage(served: Served) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "How are you?"},
    ]
    body = {"messages": messages, "temperature": 0, "max_tokens": 8}
    whole = await served.post("chat/completions", **body)
    chunks = await served.stream("chat/completions", stream_options={"include_usage": True}, **body)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


async def test_scores_are_the_projections_of_each_written_token(served: Served) -> None:
    vector = served.lab.store.load("love")
    chunks = await served.stream(
        "completions",
        prompt="I am",
        temperature=0,
        max_tokens=6,
        steering="love coefficient=2",
        steering_monitor="love[2]",
    )
    found = [s["love[2]"] for c in chunks for s in c["choices"][0].get("steering_scores", [])]
    with served.lm.lock, steering(served.lm, vector, 2.0):
        ids = served.lm.tokens("I am")
        ids += served.lm.generate("I am", max_new_tokens=6).token_ids
    with served.lm.lock, steering(served.lm, vector[1], 2.0):
        stream = served.lm.record_tokens(ids, [2])[2][-6:]
    direction = vector.directions[2][0]
    stream = stream + 2.0 * direction  # recorded before layer 2 is steered
    size = float(np.linalg.norm(direction)) * vector.residual_norms[2]
    assert found == pytest.approx(list(stream @ direction / size), abs=1e-4)


async def test_prompts_of_requests_that_arrive_together_are_read_together(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steerlab.serving import engine
    from steerlab.serving.batch import RunningBatch

    await served.text("I am", max_tokens=1)
    read: list[int] = []
    joining = RunningBatch.joining

    def counted(batch, jobs):
        read.append(len(jobs))
        return joining(batch, jobs)

    monkeypatch.setattr(RunningBatch, "joining", counted)
    monkeypatch.setattr(engine, "GATHER", 60.0)
    with served.engine.arriving():
        asked = [asyncio.create_task(served.text(prompt, max_tokens=3)) for prompt in PROMPTS[:3]]
        while served.engine.queued < 3:
            await asyncio.sleep(0.001)
        assert read == []
    await asyncio.gather(*asked)
    assert read == [3]
    monkeypatch.setattr(engine, "GATHER", 0.01)
    with served.engine.arriving():  # one that takes long holds nobody up
        assert await served.text("I am", max_tokens=3) == served.alone("I am", max_new_tokens=3)


async def test_without_a_limit_as_many_tokens_are_written_as_fit(served: Served) -> None:
    ids = [5] * 120
    answer = await served.post("completions", prompt=ids, temperature=0)
    assert answer["usage"]["completion_tokens"] <= 128 - 120
    chat = {"messages": [{"role": "user", "content": "I am"}]}
    answer = await served.post("chat/completions", temperature=0, **chat)
    assert answer["usage"]["total_tokens"] <= 128
    refused = await served.post("completions", 400, prompt=ids, max_tokens=16)
    assert "do not fit" in refused["error"]["message"]
    refused = await served.post("completions", 400, prompt=[5] * 128)
    assert "do not fit" in refused["error"]["message"]


async def test_streamed_log_probabilities_say_where_their_tokens_are(served: Served) -> None:
    body = {"prompt": "I am", "temperature": 0, "max_tokens": 6, "logprobs": 1, "echo": True}
    (whole,) = (await served.post("completions", **body))["choices"]
    chunks = await served.stream("completions", **body)
    offsets = [
        o for c in chunks for o in (c["choices"][0]["logprobs"] or {}).get("text_offset", ())
    ]
    assert offsets[:5] == whole["logprobs"]["text_offset"][:5]
    assert offsets == sorted(offsets)
    assert offsets[-1] > len("I am")
    chat = {"messages": [{"role": "user", "content": "I"}], "logprobs": True, "max_tokens": 9}
    (choice,) = (await served.post("chat/completions", temperature=0, **chat))["choices"]
    for token in choice["logprobs"]["content"]:
        known = "\ufffd" not in token["token"]
        assert token["bytes"] == (list(token["token"].encode()) if known else None)
