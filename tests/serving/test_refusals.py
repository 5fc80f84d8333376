"""What is refused, in OpenAI's shape, and what a client can't do to others."""

import asyncio
import json
import shutil
from io import BytesIO
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from steerlab import Lab, Store
from steerlab.errors import Cancelled
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine, Limits
from tests.serving.conftest import Served

OK = {"prompt": "I am", "max_tokens": 2}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("completions", {"prompt": "a", "steering": "lovee"}, "did you mean love?"),
        ("completions", {"prompt": "a", "steering": "love +"}, "stops too early"),
        ("completions", {"prompt": "a", "steering": "love operation=ablate"}, "operation"),
        ("completions", {"prompt": "a", "steering": "love layers=99"}, "no layer 99"),
        ("completions", {"prompt": "a", "steering": "front"}, "longer prompt"),
        ("completions", {"prompt": "a", "steering_monitor": ["love"]}, "no single layer"),
        ("completions", {"prompt": "a", "model": "other"}, "no model 'other'"),
        ("completions", {"prompt": "a", "model": "tiny:nothing"}, "no vector called nothing"),
        ("completions", {"prompt": ""}, "prompt is a text"),
        ("completions", {"prompt": []}, "prompt is empty"),
        ("completions", {"prompt": [[1, 2], []]}, "prompt is a text"),
        ("completions", {"prompt": [1, 10**9]}, "no token 1000000000"),
        ("completions", {"prompt": "a", "n": 1000}, "n is a whole number"),
        ("completions", {"prompt": ["a"] * 200}, "one request can ask for"),
        ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 10**6}, "do not fit"),
        ("completions", {"prompt": "a", "temperature": "hot"}, "temperature is a number"),
        ("completions", {"prompt": "a", "temperature": -1}, "temperature has to be"),
        ("completions", {"prompt": "a", "top_p": 0}, "top_p has to be"),
        ("completions", {"prompt": "a", "frequency_penalty": 1}, "frequency_penalty"),
        ("completions", {"prompt": "a", "strength": 1}, "strength is not known"),
        ("completions", {"prompt": "a", "stop": [""]}, "stop is a text"),
        ("completions", {"prompt": "a", "stream_options": {}}, "goes with stream"),
        (
            "completions",
            {"prompt": "a", "max_tokens": 1, "steering": "love positions=continuation"},
            "at least two",
        ),
        ("chat/completions", {"messages": []}, "messages are"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "a message has a role"),
        ("chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, "role"),
    ],
)
async def test_a_bad_request_is_a_400_with_its_reason(
    served: Served, path: str, body: dict[str, Any], message: str
) -> None:
    import re

    error = (await served.post(path, 400 if "no model" not in message else 404, **body))["error"]
    assert re.search(message, error["message"])
    assert error["type"] == "invalid_request_error"
    await served.idle()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10000, b'{"model": NaN}'])
async def test_a_body_that_is_no_json_object_is_a_400(served: Served, body: bytes) -> None:
    response = await served.client.post("/v1/completions", data=body)
    assert response.status == 400
    assert "error" in await response.json()


async def test_a_body_of_two_megabytes_is_a_413(served: Served) -> None:
    body = json.dumps({"model": "tiny", "prompt": "a" * 2_000_000})
    response = await served.client.post("/v1/completions", data=BytesIO(body.encode()))
    assert response.status == 413
    assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_an_unknown_route_is_a_404_in_the_same_shape(served: Served) -> None:
    response = await served.client.get("/v2/nothing")
    assert response.status == 404
    assert "error" in await response.json()


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(served: Served) -> None:
    await served.post("completions", **OK)
    with served.lm.lock:  # the model waits
        first = [
            asyncio.create_task(
                served.client.post("/v1/completions", json={"model": "tiny", "n": 4, **OK})
            )
            for _ in range(5)
        ]
        while served.engine.queued <= served.engine.limits.rows:  # as many may still be taken up
            await asyncio.sleep(0.01)
        response = await served.client.post(
            "/v1/completions", json={"model": "tiny", "n": 16, **OK}
        )
        assert response.status == 429
        assert int(response.headers["Retry-After"]) >= 1
    assert {(await one).status for one in first} <= {200, 429}
    await served.idle()


async def test_a_client_that_goes_away_frees_its_row(served: Served) -> None:
    body = {"model": "tiny", "prompt": "I am", "max_tokens": 120, "temperature": 0}
    await served.post("completions", **OK)
    for stream in (True, False):
        with served.lm.lock:
            request = asyncio.create_task(
                served.client.post("/v1/completions", json={**body, "stream": stream})
            )
            await asyncio.sleep(0.1)
            request.cancel()
            await asyncio.sleep(0.05)
        await served.idle()
    assert await served.text("I am", max_tokens=5) == served.alone("I am", max_new_tokens=5)


async def test_an_error_of_one_row_leaves_the_others_alone(served: Served) -> None:
    wrong, right = await asyncio.gather(
        served.post(
            "completions", 400, prompt="I am", max_tokens=9, steering="love coefficient=1e38"
        ),
        served.text("I am", max_tokens=9),
    )
    assert "NaN or infinite" in wrong["error"]["message"]
    assert right == served.alone("I am", max_new_tokens=9)


async def test_a_vector_saved_meanwhile_is_usable_and_a_lost_store_is_told(
    served: Served, tmp_path
) -> None:
    shutil.copytree(served.lab.store.path, tmp_path / "store")
    served.lab._store = Store(tmp_path / "store")
    await served.post("completions", 400, steering="brandnew", **OK)
    served.lab.store.save("brandnew", 2 * served.lab.store.load("love"))
    answer = await served.post("completions", steering="brandnew", **OK)
    assert answer["steering"][0]["coefficient"] == 1.0
    listed = await (await served.client.get("/v1/models")).json()
    assert "tiny:brandnew" in {one["id"] for one in listed["data"]}
    shutil.rmtree(tmp_path / "store")
    lost = await served.client.post(
        "/v1/completions", json={"model": "tiny", "steering": "love", **OK}
    )
    assert lost.status in (400, 500)
    assert "internal" not in (await lost.json())["error"]["message"]
    assert (await served.post("completions", **OK))["choices"]


async def test_models_are_listed_before_the_model_is_loaded(served: Served) -> None:
    import threading

    gate = threading.Event()

    def load() -> Any:
        gate.wait(60)
        return served.lm

    lab = Lab(served.lab.store, source=served.lm.source)
    engine = Engine(load, Limits())
    engine.start()
    server = Server(lab, engine, "tiny", host="127.0.0.1")
    async with TestClient(TestServer(server.app())) as client:
        listed = await (await client.get("/v1/models")).json()
        assert listed["data"][0]["id"] == "tiny"
        assert (await (await client.get("/health")).json())["status"] == "loading"
        waiting = asyncio.create_task(client.post("/v1/completions", json={"model": "tiny", **OK}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        lab._model = served.lm
        gate.set()
        assert (await waiting).status == 200
        engine.stop()
        late = await client.post("/v1/completions", json={"model": "tiny", **OK})
        assert late.status == 503
    assert engine.join(60)


async def test_a_key_and_the_names_of_this_machine_are_asked_for(served: Served) -> None:
    keyed = Server(served.lab, served.engine, "tiny", host="0.0.0.0", api_key="secret")
    async with TestClient(TestServer(keyed.app())) as client:
        assert (await client.get("/v1/models")).status == 401
        wrong = {"Authorization": "Bearer secre"}
        assert (await client.get("/v1/models", headers=wrong)).status == 401
        right = {"Authorization": "Bearer secret"}
        assert (await client.get("/v1/models", headers=right)).status == 200
    rebound = await served.client.get("/v1/models", headers={"Host": "evil.example"})
    assert rebound.status == 403
    foreign = await served.client.get("/v1/models", headers={"Origin": "http://evil.example"})
    assert foreign.status == 403


async def test_metrics_count_requests_and_tokens(served: Served) -> None:
    await served.post("completions", prompt="I am", max_tokens=5, temperature=0)
    await served.idle()
    text = await (await served.client.get("/metrics")).text()
    assert "steerlab_written_tokens_total 5\n" in text
    assert "steerlab_texts_total 1\n" in text
    assert 'steerlab_requests_total{route="/v1/completions",status="200"} 1\n' in text
    assert "steerlab_running_texts 0\n" in text


def test_a_stopped_engine_takes_no_texts() -> None:
    engine = Engine(lambda: None)  # type: ignore[arg-type,return-value]
    engine.stop()
    with pytest.raises(Cancelled):
        engine.submit([])
