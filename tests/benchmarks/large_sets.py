"""Extraction of 10,000 pairs against 100: peak memory, and CPU time for each pair.

On a tiny model, whose own work hides least of what is done beside it. Each memory figure is a
process's own; times are in turns.
"""

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from steerlab import LanguageModel
from steerlab.core.recipe import Contrast
from steerlab.files.contrast import read_pairs
from tests.benchmarks.timing import Ratio
from tests.tiny import tiny_lm

FEW, MANY, TOKENS = 100, 10_000, 100
WORDS = ("the", "day", "was", "calm", "and", "they", "went", "to", "see", "old", "trees", "by", "a",
         "slow", "river", "with", "friends")  # fmt: skip


def write_pairs(path: Path, count: int) -> None:
    """A CSV of pairs of about 100 tokens each (bytes, for the tiny tokenizer)."""
    rng = random.Random(0)

    def text(end: str) -> str:
        return " ".join(rng.choices(WORDS, k=40))[: TOKENS - len(end)] + end

    rows = "".join(f"{text(' yes')},{text(' not')}\n" for _ in range(count))
    path.write_text(f"good,bad\n{rows}")


def extract(lm: LanguageModel, path: Path, method: str = "mean_difference") -> float:
    """Read and extract a file; CPU seconds for each pair."""
    start = time.process_time()
    found = read_pairs(path)
    recipe = Contrast.of(found.positive, found.negative, method=method)
    lm.reextract(replace(recipe, prompt_set=found.named), 2)
    return (time.process_time() - start) / len(found.positive)


def peak(path: Path, method: str) -> float:
    """Peak memory of a process of its own, in MB."""
    command = [sys.executable, "-m", "tests.benchmarks.large_sets", str(path), method]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run(rounds: int = 3) -> Iterator[Ratio]:
    """Memory by method, then time."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["STEERLAB_CACHE"] = directory
        few, many = Path(directory) / "few.csv", Path(directory) / "many.csv"
        write_pairs(few, FEW)
        write_pairs(many, MANY)
        for method in ("mean_difference", "pca", "probe"):
            large, small = peak(many, method), peak(few, method)
            ratio, name = large / small, f"peak memory of 10,000 pairs vs 100 ({method}), MB"
            yield Ratio(name, large / 1e3, small / 1e3, ratio, ratio, ratio, "<= 1.2")
        lm = tiny_lm()
        extract(lm, few)
        times = []
        for _ in range(rounds):
            each = [extract(lm, few) for _ in range(10)]
            times.append((extract(lm, many), statistics.mean(each)))
        ratios = sorted(a / b for a, b in times)
        yield Ratio(
            "CPU time for each of 10,000 pairs vs each of 100",
            statistics.median(a for a, _ in times),
            statistics.median(b for _, b in times),
            statistics.median(ratios),
            ratios[0],
            ratios[-1],
            "<= 1",
        )


if __name__ == "__main__":
    extract(tiny_lm(), Path(sys.argv[1]), sys.argv[2])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
