"""Writing beside other work: what steerlab takes, against the best fixed number of threads."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from steerlab import LanguageModel
from tests.benchmarks.timing import Ratio

NEW_TOKENS = 20
RUNS = 3
BUSY = 2  # processes, one for each core of the machine that the figures are asked of
_CHOSEN = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def run() -> Iterator[Ratio]:
    """Seconds of 20 tokens at 2 rows, alone and beside two busy processes."""
    counts = sorted({1, os.cpu_count() or 1})
    for busy in (0, BUSY):
        with beside(busy):
            own = _measured({})
            fixed = {count: _measured({"OMP_NUM_THREADS": str(count)}) for count in counts}
        best = min(fixed, key=fixed.__getitem__)
        what = f"20 tokens, 2 rows, {busy} busy  vs  {best} thread{'s' * (best > 1)}"
        ratio = own / fixed[best]
        yield Ratio(what, own, fixed[best], ratio, ratio, ratio, "<= 1.50" if busy else "")


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many processes that compute without end, while the block runs."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _measured(chosen: dict[str, str]) -> float:
    """The median seconds in a process of its own, whose environment says no more than `chosen`."""
    kept = {name: value for name, value in os.environ.items() if name not in _CHOSEN}
    call = [sys.executable, "-m", "tests.benchmarks.busy"]
    done = subprocess.run(call, env=kept | chosen, capture_output=True, text=True, check=True)
    return sorted(json.loads(done.stdout))[RUNS // 2]


def _seconds() -> Iterator[float]:
    lm = LanguageModel.load("smollm2")
    prompts = ["I think you are a"] * 2
    lm.generate(prompts, max_new_tokens=2)
    for _ in range(RUNS):
        start = time.perf_counter()
        lm.generate(prompts, max_new_tokens=NEW_TOKENS)
        yield time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(list(_seconds())))
