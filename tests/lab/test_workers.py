"""A process alone has all of the work; which is said without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from steerlab.lab.workers import WorkerShard


def test_alone_everything_is_its_own():
    shard = WorkerShard.current("cpu")
    assert (shard.index, shard.count, shard.device, shard.is_first) == (0, 1, "cpu", True)
    assert shard.of([1, 2, 3]) == [1, 2, 3]
    shard.wait()
    shard.leave()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_whole(count):
    units = list(range(20))
    shares = [WorkerShard(index, count).of(units) for index in range(count)]
    assert sorted(unit for shard in shares for unit in shard) == units
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_imports_no_torch():
    code = (
        "from steerlab.lab.workers import WorkerShard; WorkerShard.current(); "
        "import sys; print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "accelerate"} & set(out.stdout.split())
