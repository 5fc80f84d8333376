"""No answer tells a path of the server's machine."""

import json
import shutil

import pytest
from aiohttp.test_utils import TestClient, TestServer

from steerlab import Lab, LanguageModel, Store
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine
from steerlab.serving.pathless import pathless
from tests.serving.conftest import Served


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/models/tiny has no layer 99", "tiny has no layer 99"),
        ("made on /a/b: other weights", "made on b: other weights"),
        ("/a/My Models/tiny is full; see /a/My Models", "tiny is full; see My Models"),
        ("'/a/b/c.safetensors' is missing", "'c.safetensors' is missing"),
        (r"C:\Users\me\tiny is missing", "tiny is missing"),
        ("org/model, love / 2 and 1/2/3", "org/model, love / 2 and 1/2/3"),
        ("org/My is no directory", "org/My is no directory"),
        ("see https://example.org/a/b/c", "see https://example.org/a/b/c"),
    ],
)
def test_paths_lose_their_directories(text, told):
    assert pathless(text, "/a/My Models/tiny", "/a/My Models", "org/My", None) == told


async def test_no_answer_tells_where_model_and_store_are(served: Served, tmp_path) -> None:
    home = tmp_path / "a home"
    shutil.copytree(served.lm.source, home / "my model")
    shutil.copytree(served.lab.store.path, home / "store")
    lm = LanguageModel.load(str(home / "my model"))
    lab = Lab(Store(home / "store"), lm)
    engine = Engine(lab.load)
    engine.start()
    bodies = [
        {"steering": "love layers=99"},
        {"steering": "lov"},
        {"prompt": [10**6]},
        {"prompt": "a", "max_tokens": 10**4},
        {"messages": [{"role": "user", "content": "a"}]},
        {"steering": "love", "steering_monitor": ["love[1]"]},
    ]
    told = []
    async with TestClient(
        TestServer(Server(lab, engine, "tiny", host="127.0.0.1").app())
    ) as client:
        for lost in (False, True):
            for body in bodies:
                path = "chat/completions" if "messages" in body else "completions"
                asked = {"model": "tiny", "max_tokens": 2, **body}
                asked |= {} if "messages" in body or "prompt" in body else {"prompt": "a"}
                told.append(await (await client.post(f"/v1/{path}", json=asked)).text())
            told += [await (await client.get(p)).text() for p in ("/v1/models", "/metrics")]
            told.append(await (await client.get("/v1/models/tiny:love layers=99")).text())
            if not lost:
                for payload in (home / "store" / "payloads").glob("**/*.safetensors"):
                    payload.write_bytes(b"damaged")
    engine.stop(now=True)
    assert engine.join(60)
    texts = json.dumps(told)
    assert "error" in texts
    for part in (str(tmp_path), "a home", str(served.lab.store.path), served.lm.source):
        assert part not in texts, texts[max(0, texts.find(part) - 200) :][:400]
