"""A real vLLM for tests: started with the plugin, asked over HTTP, and ended with its children."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request

from steerlab.models.embedded import ALIAS
from steerlab.vllm_plugin import launch

OPTIONS = (
    *("--dtype", "float32", "--max-model-len", "512", "--block-size", "32"),
    *("--max-num-seqs", "16", "--enforce-eager", "--enable-prompt-tokens-details"),
)
SETTINGS = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
_PATIENCE = 500  # seconds, beside other work


class Server:
    """A running one. url: of its API. pid: of its first process, which leads the group."""

    def __init__(self, url, pid):
        self.url, self.pid = url, int(pid)

    def ask(self, prompt="I think you are a", path="completions", **fields):
        """Status and answer; greedy, eight tokens with their likeliest five."""
        content = (
            {"messages": [{"role": "user", "content": prompt}], "max_completion_tokens": 8}
            if path.startswith("chat/")
            else {"prompt": prompt, "max_tokens": 8, "logprobs": 5}
        )
        body = {"model": "smollm2", "temperature": 0, **content, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def cpu_seconds(self):
        """Of all its processes, until now."""
        ticks = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:13])) if int(fields[3]) == self.pid else 0
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def vllm(log, store=None):
    """Serve smollm2; store: None leaves the plugin off."""
    port, name = launch.free_port(), "smollm2"
    started = launch.command(launch.python(), ALIAS, name, "127.0.0.1", port, OPTIONS)
    if store is None:
        place = started.index("--middleware")
        del started[place : place + 2]
    variables = {**os.environ} if store is None else {**launch.environment(store, None)}
    variables = {k: v for k, v in variables.items() if k != "PYTHONPATH"} | SETTINGS
    address = f"http://127.0.0.1:{port}"
    with launch.running(started, variables, address, log) as pid:
        yield Server(f"{address}/v1", pid)
