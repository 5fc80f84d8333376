"""Programs that speak OpenAI's API, against `steerlab serve`: openai's client, lm-eval."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web

from steerlab import Lab, LanguageModel, Store, steering
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine, Limits
from tests.saved import fill_store, save_model

pytestmark = [pytest.mark.conformance, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    model = save_model(tmp_path_factory.mktemp("model") / "tiny")
    store = fill_store(tmp_path_factory.mktemp("store") / "store", model)
    return Lab(Store(store), LanguageModel.load(str(model)))


@pytest.fixture(scope="module")
def address(lab: Lab) -> Iterator[str]:
    """A server in a thread of its own."""
    engine, loop = Engine(lab.load, Limits()), asyncio.new_event_loop()
    engine.start()
    runner = web.AppRunner(Server(lab, engine, "tiny", host="127.0.0.1").app())

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}/v1"
    engine.stop(now=True)
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


def test_the_openai_client_steers_by_a_field_or_by_the_models_name(lab: Lab, address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=address, api_key="none")
    vector = lab.store.load("love")
    with steering(lab.model, vector, 3.0):
        wanted = lab.model.generate("I am", max_new_tokens=8).text
    how = {"model": "tiny", "prompt": "I am", "max_tokens": 8, "temperature": 0}
    field = {"steering": {"vector": "love", "coefficient": 3}}
    assert client.completions.create(**how, extra_body=field).choices[0].text == wanted
    pieces = client.completions.create(**how, extra_body=field, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == wanted
    with steering(lab.model, vector):
        named = lab.model.generate("I am", max_new_tokens=8).text
    found = client.completions.create(**{**how, "model": "tiny:love"})
    assert found.choices[0].text == named
    assert found.usage.completion_tokens == 8
    assert {"tiny", "tiny:love"} <= {one.id for one in client.models.list()}


def test_the_openai_client_chats_and_reads_errors(lab: Lab, address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    how = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    whole = client.chat.completions.create(**how, max_tokens=8, logprobs=True, top_logprobs=2)
    assert (
        whole.choices[0].message.content
        == lab.model.generate("Hi", chat=True, max_new_tokens=8).text
    )
    assert len(whole.choices[0].logprobs.content) == 8
    stream = client.chat.completions.create(
        **how, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 8
    with pytest.raises(openai.BadRequestError, match="did you mean love"):
        client.chat.completions.create(**how, extra_body={"steering": "lovee"})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**how, "model": "other"})


def test_lm_eval_reads_log_likelihoods_and_texts(lab: Lab, address: str) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    lm = lab.model
    api = LocalCompletionsAPI(
        base_url=f"{address}/completions", model="tiny:love", tokenizer_backend="huggingface",
        tokenizer=lm.source, batch_size=2, max_length=100, max_retries=1,
    )  # fmt: skip
    pairs = [("I am", " so happy"), ("what a", " pain this is"), ("go", " away")]
    requests = [
        Instance("loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)
    ]
    found = api.loglikelihood(requests)
    from steerlab.models.inference import log_probs

    with steering(lm, lab.store.load("love")):
        for (context, rest), (value, greedy) in zip(pairs, found, strict=True):
            start, ids = len(lm.tokens(context)), lm.tokens(context + rest)
            logs = log_probs(lm, ids)
            wanted = sum(float(logs[i - 1][ids[i]]) for i in range(start, len(ids)))
            assert value == pytest.approx(wanted, abs=1e-3)
            best = [int(logs[i - 1].argmax()) for i in range(start, len(ids))]
            assert greedy == (best == ids[start:])
        texts = [lm.generate(context, max_new_tokens=6).text for context, _ in pairs]
    until = {"until": ["never there"], "max_gen_toks": 6, "temperature": 0}
    asked = [
        Instance("generate_until", doc={}, arguments=(context, dict(until)), idx=i)
        for i, (context, _) in enumerate(pairs)
    ]
    assert api.generate_until(asked) == texts
