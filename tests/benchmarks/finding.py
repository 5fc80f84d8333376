"""What it costs to find things in a store of many vectors: `python -m tests.benchmarks.finding`.

Prints milliseconds, the best of five; builds the store in a temporary directory first (minutes).
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from steerlab import Store
from tests.benchmarks.large import large_store

COUNT = 100_000
QUERIES = ("angry customer", "customer 4242", "pirate", "zebra", "customer")


def best(what: Callable[[], object], times: int = 5) -> float:
    """Milliseconds of the fastest call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        what()
        found.append(time.perf_counter() - start)
    return 1000 * min(found)


def measure(store: Store) -> None:
    """Print a line a task."""
    print(f"first search, texts read    {best(lambda: store.read_texts(), 1):9.1f} ms")
    for text in QUERIES:
        print(f"search {text!r:20} {best(lambda: store.search(text)):9.1f} ms")  # noqa: B023
    vector = store.load("vector_77")
    again = store.load("vector_88")
    save = best(lambda: store.save("saved", again))
    print(f"save                        {save:9.1f} ms")
    print(f"twins, equal                {best(lambda: store.twins(vector)):9.1f} ms")
    print(f"twins, none equal           {best(lambda: store.twins(vector + again)):9.1f} ms")
    print(f"log of a name               {best(lambda: store.log('vector_77')):9.1f} ms")
    print(f"usage                       {best(store.usage, 1):9.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Store(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            measure(large_store(Path(directory) / "store", COUNT))
