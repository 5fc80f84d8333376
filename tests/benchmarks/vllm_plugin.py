"""The plugin's cost in a real vLLM, in CPU time: needs STEERLAB_VLLM_PYTHON, so by name alone."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.startup import STORE
from tests.benchmarks.timing import Ratio
from tests.vllm_plugin.servers import Server, vllm

REQUESTS, NEW_TOKENS, ROUNDS = 16, 32, 12


def run() -> Iterator[Ratio]:
    """16 requests at once of vLLM without the plugin, with it, and with it and 16 settings."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = stack.enter_context(vllm(logs / "plain"))
        plugin = stack.enter_context(vllm(logs / "plugin", STORE))
        yield from measured(plain, plugin)


def measured(plain: Server, plugin: Server) -> Iterator[Ratio]:
    """The ratios of running servers: of CPU time, in turns whose order changes from round to round.

    A ratio compares what was measured in one round; the median of 12 stands a noisy machine.
    """
    settings = [f"love dose={0.01 * n:.2f} layers=15" for n in range(1, REQUESTS + 1)]
    cases = {"plain": (plain, None), "idle": (plugin, None), "steered": (plugin, settings)}
    for server, asked in cases.values():
        _seconds(server, asked)
    seconds = {name: [] for name in cases}
    for number in range(ROUNDS):
        turns = [*cases, *cases][number % len(cases) :][: len(cases)]
        for name in turns if number % 2 else reversed(turns):
            seconds[name].append(_seconds(*cases[name]))
    for name, least in (("idle", 0.98), ("steered", 0.95)):
        ratios = [b / a for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        yield Ratio(
            f"vLLM with the plugin, {name}  vs  without",
            statistics.median(seconds[name]),
            statistics.median(seconds["plain"]),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            f">= {least}",
        )


def _seconds(server: Server, settings: list[str] | None) -> float:
    """CPU time of all its processes for a batch of texts that do not end early."""

    def ask(number: int) -> None:
        steering = None if settings is None else {"steering": settings[number]}
        how = {"max_tokens": NEW_TOKENS, "ignore_eos": True, "logprobs": None}
        status, found = server.ask(f"Number {number}:", vllm_xargs=steering, **how)
        assert status == 200, found

    before = server.cpu_seconds()
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(ask, range(REQUESTS)))
    return server.cpu_seconds() - before


if __name__ == "__main__":  # of servers that run: URL and process of both
    first, second = (Server(*sys.argv[n : n + 2]) for n in (1, 3))
    for ratio in measured(first, second):
        print(ratio.row(), flush=True)
