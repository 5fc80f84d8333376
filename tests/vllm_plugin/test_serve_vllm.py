"""`steerlab serve --engine vllm` and `generate --engine vllm`: needs STEERLAB_VLLM_PYTHON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from steerlab import Store
from steerlab.models.embedded import checkpoint
from steerlab.vllm_plugin import launch
from tests.vllm_plugin.servers import OPTIONS, SETTINGS, Server

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.smollm2,
    pytest.mark.skipif("STEERLAB_VLLM_PYTHON" not in os.environ, reason="STEERLAB_VLLM_PYTHON"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("serve") / "store"
    shutil.copytree(Path(__file__).parents[2] / "store", directory)
    return Store(directory)


@contextmanager
def serving(store, log):
    """The verb as a process, which has become vLLM; ended by one Ctrl-C."""
    port = launch.free_port()
    words = [
        sys.executable,
        "-m",
        "steerlab",
        "serve",
        str(checkpoint()),
        "--engine",
        "vllm",
        "--port",
        str(port),
    ]
    options = [f"--vllm-option={word}" for word in OPTIONS if word not in ("--dtype", "float32")]
    where = ["--store", str(store.path), "--dtype", "float32"]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*words, *options, *where],
            env={**os.environ, **SETTINGS},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        launch._wait(server, f"http://127.0.0.1:{port}", log)
        yield Server(f"http://127.0.0.1:{port}/v1", server.pid), server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def alive(group):
    """The processes of a group."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat") as file:
            state, _, of = file.read().rpartition(")")[2].split()[:3]
            found += [int(name)] if int(of) == group and state != "Z" else []
    return found


def streamed(server, **fields):
    """The text of a streamed chat, and its events."""
    body = {
        "model": "smollm2", "messages": [{"role": "user", "content": "How are you?"}],
        "max_tokens": 12, "temperature": 0, "stream": True, **fields,
    }  # fmt: skip
    headers = {"Content-Type": "application/json"}
    address = f"{server.url}/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        lines = [line.decode().strip().removeprefix("data: ") for line in answer if line.strip()]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events), events


def test_a_server_from_its_start_to_ctrl_c(store, tmp_path):
    with serving(store, tmp_path / "log") as (server, process):
        with urllib.request.urlopen(f"{server.url}/models") as answer:
            listed = json.loads(answer.read())["data"]
        assert [one["id"] for one in listed] == ["smollm2"]
        assert "/" not in json.dumps(listed)

        plain, events = streamed(server)
        steered, _ = streamed(server, steering="anger dose=0.3 layers=15")
        assert len(events) > 3
        assert steered != plain
        status, whole = server.ask(
            "How are you?", "chat/completions", max_completion_tokens=12,
            steering="anger dose=0.3 layers=15",
        )  # fmt: skip
        assert (status, whole["choices"][0]["message"]["content"]) == (200, steered)

        for path, fields in (
            ("messages", {"messages": [{"role": "user", "content": "a"}], "prompt": None}),
            ("chat/completions/batch", {"messages": [[{"role": "user", "content": "a"}]]}),
        ):
            status, found = server.ask(path=path, steering="anger", **fields)
            assert status == 400
            assert "/v1/completions" in found["error"]["message"]
        told = [
            server.ask(path="responses", input="I am", prompt=None, logprobs=None, **steered)
            for steered in ({}, {"steering": "anger dose=0.3 layers=15"})
        ]
        assert [status for status, _ in told] == [200, 200]
        assert told[0][1]["output"] != told[1][1]["output"]

        status, found = server.ask(steering="angr")
        assert status == 400
        assert "did you mean anger" in found["error"]["message"]
        assert server.ask(steering="newer dose=0.2")[0] == 400
        store.save("newer", store.load("love") - store.load("anger"))
        assert server.ask(steering="newer dose=0.2 layers=15")[0] == 200
        assert server.ask(steering="love")[0] == 200  # at its calibrated layer, which is made

        assert len(alive(process.pid)) > 1, "vLLM runs its engine in a process of its own"
        process.send_signal(signal.SIGINT)
        process.wait(60)
        end = time.monotonic() + 20
        while alive(process.pid) and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive(process.pid)


def test_generate_starts_one_and_ends_it(store):
    words = [sys.executable, "-m", "steerlab", "generate", "I think you are a", "-v", "love"]
    options = ["--dose", "0.2", "--max-new-tokens", "6", "--dtype", "float32", "--json"]
    done = subprocess.run(
        [*words, *options, "--engine", "vllm", "--store", str(store.path)],
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    here = subprocess.run(
        [*words, *options, "--store", str(store.path)], capture_output=True, text=True, check=True
    )
    texts = [[one["text"] for one in json.loads(run.stdout)] for run in (done, here)]
    assert texts[0] == texts[1]
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "--served-model-name model" not in running.stdout
