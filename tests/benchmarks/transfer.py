"""What moving and checking a store of many vectors costs: `python -m tests.benchmarks.transfer`.

Prints seconds and the most memory that was used until then; builds the store in a temporary
directory first (minutes), or takes the one that is named.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from steerlab import Store
from tests.benchmarks.large import large_store

COUNT = 100_000


def timed(label: str, what: Callable[[], object]) -> None:
    """Print a line a task."""
    start = time.perf_counter()
    what()
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{label:34} {seconds:8.2f} s {memory:8.0f} MB", flush=True)


def measure(store: Store, place: Path) -> None:
    """All verbs that read or write everything."""
    archive, backup = place / "all.tar", place / "backup.tar"
    timed("du", store.upkeep.usage)
    timed("gc", store.upkeep.gc)
    timed("backup", lambda: store.transfer.backup(backup))
    timed("restore", lambda: Store(place / "restored").transfer.restore(backup))
    timed("export 1 of them", lambda: store.transfer.export("vector_77", place / "one.safetensors"))
    timed("list all", lambda: store.list(every_version=True))
    timed("export all", lambda: store.transfer.export(store.list(every_version=True), archive))
    timed("import all", lambda: Store(place / "imported").transfer.import_(archive))
    timed("import all, already here", lambda: Store(place / "imported").transfer.import_(archive))
    timed("verify", store.verify)
    timed("rebuild", store.upkeep.rebuild)
    for file in (archive, backup, store.path / "registry.db"):
        print(f"{file.name:34} {file.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        if len(sys.argv) > 1:
            measure(Store(sys.argv[1]), Path(directory))
        else:
            measure(large_store(Path(directory) / "store", COUNT), Path(directory))
