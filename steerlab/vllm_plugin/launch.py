"""Starting vLLM's own server with the plugin; needs neither torch nor vLLM."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from steerlab.errors import ModelError
from steerlab.models.waiting import inherited

MIDDLEWARE = "steerlab.vllm_plugin.http.SteeringFields"
PATIENCE = 900.0
"""Seconds in which a server has to answer: it loads and compiles the model before."""

_KEEPER = """
import os, signal, subprocess, sys, threading, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end():
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=lambda: (server.wait(), end())).start()
sys.stdin.read()
server.terminate()
time.sleep(20)
end()
"""
"""Runs a server until that ends, or this process closes its pipe or is killed; then ends all."""

_REASON = re.compile(r"\w*(?:Error|Exception): .+")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks this machine itself, whatever proxy the environment names."""

_PROBE = (
    "import vllm; from importlib.metadata import entry_points as found; "
    "assert any(e.value.startswith('steerlab.') for e in found(group='vllm.general_plugins'))"
)


def python() -> str:
    """The Python that has vLLM: STEERLAB_VLLM_PYTHON, or this one.

    Raises ModelError if vLLM or the plugin is not there.
    """
    chosen = os.environ.get("STEERLAB_VLLM_PYTHON", sys.executable)
    try:
        done = subprocess.run([chosen, "-c", _PROBE], capture_output=True, check=False)
    except OSError as error:
        raise ModelError(f"STEERLAB_VLLM_PYTHON={chosen} can't be run: {error.strerror}") from None
    if done.returncode:
        raise ModelError(
            f"{chosen} has no vLLM with steerlab beside it: `pip install vllm sqlmodel alembic "
            "platformdirs && pip install --no-deps steerlab` in an environment of its own, then "
            "set STEERLAB_VLLM_PYTHON to its bin/python"
        )
    return chosen


def command(
    chosen: str, source: str, name: str, host: str, port: int, more: Sequence[str] = ()
) -> list[str]:
    """What starts a server. source: the model. name: what clients call it. more: words of vLLM."""
    from steerlab.models.embedded import ALIAS, checkpoint

    location = str(checkpoint()) if source == ALIAS else source
    served = ["--model", location, "--served-model-name", name, "--middleware", MIDDLEWARE]
    module = "vllm.entrypoints.openai.api_server"
    return [chosen, "-m", module, *served, "--host", host, "--port", str(port), *more]


def environment(store: Path, api_key: str | None) -> Mapping[str, str]:
    """The variables that it runs with; the key is not in its command, which others can see.

    api_key: "" for none; None leaves VLLM_API_KEY as it is.
    """
    key = {} if api_key is None else {"VLLM_API_KEY": api_key}
    return {**inherited(), "STEERLAB_STORE": str(store.absolute()), **key}


def options(loading: Mapping[str, Any]) -> list[str]:
    """VLLM's words for how a model is loaded, where that is given."""
    words = [
        word
        for name in ("dtype", "revision")
        if loading.get(name)
        for word in (f"--{name}", str(loading[name]))
    ]
    return [*words, *(["--trust-remote-code"] if loading.get("trust_remote_code") else [])]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(
    words: Sequence[str], variables: Mapping[str, str], address: str, log: Path
) -> Iterator[int]:
    """A server from when it answers at address/health until the end of the `with` block.

    It ends when this process is killed, too. words: as of `command`. log: what it says. Yields the
    id of the session in which its processes are. Raises ModelError with its reason if it ends
    before, or is not ready in PATIENCE.
    """
    with log.open("wb") as file:
        keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, *words],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with keeper:  # closes its standard input and waits
        _wait(keeper, address, log)
        yield keeper.pid


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), _DIRECT.open(f"{address}/health", timeout=5):
            return
        time.sleep(0.5)
    said = log.read_text(errors="replace")
    lines = _REASON.findall(said)[:1] or said.splitlines()[-1:]
    late = f"no answer in {PATIENCE:.0f} s" if server.poll() is None else "it ended"
    raise ModelError(f"vLLM did not start, {late}: {''.join(lines)[:300]}")
