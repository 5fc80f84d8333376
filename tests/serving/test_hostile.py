"""Odd and hostile requests: none is a bug's 500, and none ends the engine."""

import asyncio
import gzip
import json
import logging
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from steerlab.serving.app import Server
from steerlab.serving.run import _of_the_server
from tests.serving.conftest import Served

OK = {"model": "tiny", "prompt": "I am", "max_tokens": 2}

REFUSED: list[dict[str, Any]] = [
    {"seed": -(2**63) - 1},
    {"temperature": 10**400},
    {"temperature": 1e400},
    {"prompt": [-1]},
    {"prompt": [10**30]},
    {"prompt": "\ud800"},
    {"model": "tiny:\ud800"},
    {"steering": "\ud800 dose=1"},
    {"steering": {"vector": "love", "dose": 10**400}},
    {"steering": {"vector": "love", "layers": 10**30}},
    {"steering": {"vector": "love", "layers": [-1]}},
    {"steering": "love layers=0:100000000000"},
    {"steering": f"love layers=1:{10**30}"},
    {"steering": ["love"] * 1000},
    {"steering": "love;" * 300},
    {"stop": ["a"] * 1000},
    {"steering": "-" * 1900 + "love"},
    {"steering": "(" * 900 + "love" + ")" * 900},
    {"steering": "love" + "*1e308" * 3},
    {"steering_monitor": ["-" * 100_000 + "love"]},
    {"steering_monitor": "(" * 500 + "love[1]" + ")" * 500},
    {"logprobs": 10**30},
    {"max_tokens": 2**40},
]
TAKEN: list[dict[str, Any]] = [
    {"seed": 2**64},
    {"seed": 2**64 - 1, "n": 2},
    {"stop": "\ud800"},
    {"repetition_penalty": 1e-320},
    {"temperature": 1e-320},
    {"metadata": {"a": [[[[]]]]}},
]


async def test_odd_values_are_taken_or_refused(served: Served) -> None:
    for status, bodies in ((400, REFUSED), (200, TAKEN)):
        for body in bodies:
            response = await served.client.post("/v1/completions", json={**OK, **body})
            told = f"{json.dumps(body)[:80]}: {await response.text()}"
            assert response.status == status, told
    await served.post("completions", **OK)  # the engine goes on


@pytest.mark.parametrize(
    "headers", [{"Host": "[::1"}, {"Host": ""}, {"Origin": "http://["}, {"Origin": "null"}]
)
async def test_headers_that_are_no_address_are_refused(
    served: Served, headers: dict[str, str]
) -> None:
    response = await served.client.get("/v1/models", headers=headers)
    assert response.status in (400, 403)
    assert "error" in await response.json()


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"\x1f\x8b\x08 no gzip", 400),
        ("gzip", gzip.compress(b"[" * 20_000_000, mtime=0), 413),
        ("gzip", gzip.compress(json.dumps(OK).encode(), mtime=0), 200),
    ],
)
async def test_a_packed_body_is_bounded_as_it_is_unpacked(
    served: Served, encoding: str, body: bytes, status: int
) -> None:
    response = await served.client.post(
        "/v1/completions", data=body, headers={"Content-Encoding": encoding}
    )
    assert response.status == status
    assert "internal" not in await response.text()


async def test_a_request_in_another_is_refused_with_it(served: Served) -> None:
    inner = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"
    for lengths in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked",
        b"Content-Length: 4\r\nContent-Length: 5",
    ):
        reader, writer = await asyncio.open_connection(
            served.client.server.host, served.client.server.port
        )
        head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        writer.write(head + lengths + b"\r\n\r\n0\r\n\r\n" + inner)
        answer = await reader.read()
        assert answer.count(b"HTTP/1.") == 1
        assert b" 400 " in answer.splitlines()[0]
        writer.close()


def test_malformed_requests_write_no_tracebacks_into_the_log() -> None:
    from aiohttp.http_exceptions import BadHttpMessage

    def record(error: Exception) -> logging.LogRecord:
        told = (type(error), error, None)
        return logging.LogRecord("aiohttp.server", logging.ERROR, "", 0, "", (), told)

    assert not _of_the_server(record(BadHttpMessage("a")))
    assert _of_the_server(record(ValueError("a")))


async def test_a_key_of_odd_bytes_is_a_wrong_key(served: Served) -> None:
    keyed = Server(served.lab, served.engine, "tiny", host="0.0.0.0", api_key="secret")
    async with TestServer(keyed.app()) as server, TestClient(server):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(
            b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n"
        )
        assert b" 401 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    "part", ["row.draws", "batch.RunningBatch.prune", "batch.RunningBatch.step"]
)
async def test_an_error_in_the_engine_ends_its_texts_and_not_the_engine(
    served: Served, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    await served.text("I am", max_tokens=2)

    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(f"steerlab.serving.{part}", fails)
        async with asyncio.timeout(10):
            answer = await served.post("completions", 500, prompt="I am", max_tokens=9)
        assert answer["error"]["message"] == "the pass failed: no memory"
        await served.idle()
    assert await served.text("I am", max_tokens=9) == served.alone("I am", max_new_tokens=9)
