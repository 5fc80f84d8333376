"""Starting and ending a server, with a stand-in for vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import click
import pytest

from steerlab.cli import ExitCode, engine, run
from steerlab.cli.progress import load
from steerlab.core.recipe import ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.errors import ModelError
from steerlab.lab.lab import Lab
from steerlab.vllm_plugin import launch

STAND_IN = (
    "import http.server, subprocess, sys\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self): self.send_response(200); self.end_headers()\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid):
    for _ in range(100):
        if not is_running(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} goes on")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_is_ready_when_it_answers_and_ends_with_its_children(tmp_path):
    port, log = launch.free_port(), tmp_path / "log"
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-c", STAND_IN, str(port)]
    with launch.running(words, os.environ, address, log) as pid:
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert answer.status == 200
        child = int(log.read_text().split()[0])
        assert is_running(child)
    ends(pid)
    ends(child)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_ends_when_its_owner_is_killed(tmp_path):
    port, log = launch.free_port(), tmp_path / "log"
    owner = (
        "import os, pathlib, sys, time\n"
        "from steerlab.vllm_plugin import launch\n"
        "port, log, program = sys.argv[1:]\n"
        "words = [sys.executable, '-c', program, port]\n"
        "address = f'http://127.0.0.1:{port}'\n"
        "with launch.running(words, os.environ, address, pathlib.Path(log)):\n"
        "    print('runs', flush=True)\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", owner, str(port), str(log), STAND_IN]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "runs\n"
        process.kill()
    ends(int(log.read_text().split()[0]))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise ValueError('no such model')", "it ended: ValueError: no such model"),
        ("print(3)", "it ended: 3"),
    ],
)
def test_one_that_does_not_start_is_told_with_its_reason(tmp_path, program, why):
    words = [sys.executable, "-c", program]
    with (
        pytest.raises(ModelError, match=f"vLLM did not start, {why}"),
        launch.running(words, os.environ, "http://127.0.0.1:1", tmp_path / "log"),
    ):
        pass


def test_a_server_is_asked_directly_whatever_proxy_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # made with the proxies of its day
    monkeypatch.setattr(launch, "PATIENCE", 20.0)
    port = launch.free_port()
    words = [sys.executable, "-c", STAND_IN, str(port)]
    with launch.running(words, os.environ, f"http://127.0.0.1:{port}", tmp_path / "log"):
        pass


@pytest.fixture
def started(monkeypatch):
    """The words and variables of the servers that would be started."""
    started = []

    @contextmanager
    def running(words, variables, *_):
        started.append((words, variables))
        yield 1

    monkeypatch.setattr(launch, "python", lambda: sys.executable)
    monkeypatch.setattr(launch, "running", running)
    return started


@pytest.mark.parametrize("key", ["mine", ""])
def test_the_server_of_a_verb_takes_the_key_that_the_verb_sends(
    tmp_path, monkeypatch, started, key
):
    """Not the one of a vLLM that the user starts."""
    monkeypatch.setenv("VLLM_API_KEY", "of another")
    monkeypatch.delenv("STEERLAB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("STEERLAB_API_KEY", key)
    lab = Lab(tmp_path, source="org/model", revision="main", trust_remote_code=True)
    with click.Context(click.Command("generate")):
        engine.started(lab)
    ((words, variables),) = started
    assert variables["VLLM_API_KEY"] == key
    assert words[-3:] == ["--revision", "main", "--trust-remote-code"]


@pytest.mark.parametrize(
    ("named", "runs", "rest"),
    [("./copy", "./copy", []), (None, "org/model", ["--revision", "c0ffee"])],
)
def test_the_server_of_a_verb_runs_the_model_that_is_named(tmp_path, started, named, runs, rest):
    """Else the vector's own, as it was then."""
    of = ModelIdentity("org/model", "Tiny", 2, 4, revision="c0ffee")
    vector = SteeringVector({1: [1.0, 0, 0, 0]}, model=of)
    lab = Lab(tmp_path, source=named, engine="vllm")
    with click.Context(click.Command("generate")):
        load(lab, vector)
    ((words, _),) = started
    assert words[words.index("--model") + 1] == runs
    at = words.index("--port") + 2
    assert words[at:] == rest


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "a", "-v", "love", "-c", "1"],
        ["sweep", "love", "--prompt", "a", "--coefficients", "1", "--layers", "15"],
        ["serve"],
    ],
)
def test_without_vllm_every_verb_says_what_to_install(words, monkeypatch, capsys):
    Lab().store.names()
    capsys.readouterr()  # a fresh checkout restores its registry first, and says so
    monkeypatch.setenv("STEERLAB_VLLM_PYTHON", sys.executable)
    monkeypatch.setattr(launch, "_PROBE", "import vllm_is_not_here")
    assert run([*words, "--engine", "vllm"]) == ExitCode.MODEL
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install vllm" in error
