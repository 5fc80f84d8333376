"""The fields of `steerlab serve` in vLLM's server, and how it is started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from steerlab.cli import run
from steerlab.errors import BadOption, ModelError
from steerlab.vllm_plugin import http, launch


@pytest.mark.parametrize(
    ("steering", "expected"),
    [
        (None, ["love - anger"]),
        ("joy", ["love - anger", "joy"]),
        ([{"vector": "joy"}, "calm"], ["love - anger", {"vector": "joy"}, "calm"]),
    ],
)
def test_the_vector_of_a_model_joins_the_steering(steering, expected):
    body = {"model": "m:love - anger", "prompt": "p", "steering": steering}
    found = json.loads(http.with_vector(json.dumps(body).encode()))
    assert found == {"model": "m", "prompt": "p", "steering": expected}


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"model": "m", "steering": "love"}', b""])
def test_other_bodies_are_left_as_they_are(body):
    assert http.with_vector(body) == body


async def answered(path, *pieces, method="POST", kind=None):
    """What the middleware sends, and what the server behind it reads."""
    seen, sent = [], []
    messages = [
        {"type": "http.request", "body": piece, "more_body": n < len(pieces) - 1}
        for n, piece in enumerate(pieces)
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def server(scope, receive, send):
        seen.append((dict(scope["headers"]), (await receive())["body"], await receive()))

    headers = [(b"Content-Length", b"1"), (b"a", b"b")]
    headers += [(b"Content-Type", kind)] if kind else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await http.SteeringFields(server)(scope, receive, send)
    return seen, sent


@pytest.fixture
def active(monkeypatch):
    monkeypatch.setattr(http, "is_active", lambda: True)


async def test_a_request_in_pieces_arrives_whole_with_its_length(active):
    seen, sent = await answered("/v1/completions", b'{"model"', b': "m:love"}')
    ((headers, body, after),) = seen
    assert json.loads(body) == {"model": "m", "steering": ["love"]}
    assert headers == {b"a": b"b", b"content-length": str(len(body)).encode()}
    assert after == {"type": "http.disconnect"}
    assert not sent


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions/batch"])
async def test_a_route_that_does_not_steer_refuses_the_field(active, path):
    asked = b'{"model": "m", "steering": "love"}'
    seen, sent = await answered(path, asked, kind=b"application/json")
    assert not seen
    assert sent[0]["status"] == 400
    assert "/v1/completions" in sent[1]["body"].decode()
    plain = b'{"model": "m", "steering": null}'
    ((_, body, _),), _ = await answered(path, plain, kind=b"application/json")
    assert body == plain


async def test_other_paths_are_passed_on_untouched(active):
    asked = b'{"steering": "love"}'
    ((headers, body, _),), _ = await answered("/v1/models", asked, method="GET")
    assert body == b'{"steering": "love"}'
    assert headers[b"Content-Length"] == b"1"


async def test_long_bodies_and_monitors_are_refused(active):
    for pieces in ([b" " * 2**20, b" "], [b'{"steering_monitor": ["love"]}']):
        seen, sent = await answered("/v1/chat/completions", *pieces)
        assert not seen
        assert sent[0]["status"] == 400
        assert json.loads(sent[1]["body"])["error"]["message"]


def test_it_does_not_start_where_the_plugin_is_not_active(monkeypatch):
    monkeypatch.setattr(http, "is_active", lambda: False)
    with pytest.raises(BadOption, match="STEERLAB_STORE"):
        http.SteeringFields(None)


def test_a_python_without_vllm_is_told_with_what_to_install(monkeypatch, tmp_path):
    for program, said in ((tmp_path / "none", "can't be run"), (sys.executable, "pip install")):
        monkeypatch.setenv("STEERLAB_VLLM_PYTHON", str(program))
        with pytest.raises(ModelError, match=said):
            launch.python()


def test_the_key_is_in_the_environment_and_not_in_the_command():
    made = launch.command("python", "/m", "m", "127.0.0.1", 1, ["--dtype", "float32"])
    assert made[-2:] == ["--dtype", "float32"]
    variables = launch.environment(Path("store"), "secret")
    assert variables["VLLM_API_KEY"] == "secret"
    assert Path(variables["STEERLAB_STORE"]).is_absolute()
    assert "secret" not in " ".join(made)


def test_serve_becomes_vllm_with_the_store_and_the_key(monkeypatch, tmp_path):
    found = {}

    def execve(program, words, variables):
        found.update(words=words, variables=variables)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "python", lambda: "/vllm/bin/python")
    monkeypatch.setattr("os.execve", execve)
    words = ["serve", "org/model", "--engine", "vllm", "--store", str(tmp_path), "--api-key", "k"]
    options = ["--port", "1", "--dtype", "float32", "--vllm-option=--max-num-seqs=4"]
    run([*words, *options])
    line = " ".join(found["words"])
    assert line.startswith("/vllm/bin/python -m vllm.entrypoints.openai.api_server --model org/m")
    assert line.endswith("--host 127.0.0.1 --port 1 --dtype float32 --max-num-seqs=4")
    assert found["variables"]["STEERLAB_STORE"] == str(tmp_path)
    assert found["variables"]["VLLM_API_KEY"] == "k"
