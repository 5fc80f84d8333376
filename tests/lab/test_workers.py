"""A process alone has all of the work; which is said without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from steerlab.lab.workers import Share


def test_alone_everything_is_its_own():
    share = Share.current("cpu")
    assert (share.index, share.count, share.device, share.is_first) == (0, 1, "cpu", True)
    assert share.of([1, 2, 3]) == [1, 2, 3]
    share.wait()
    share.leave()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_whole(count):
    units = list(range(20))
    shares = [Share(index, count).of(units) for index in range(count)]
    assert sorted(unit for share in shares for unit in share) == units
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_imports_no_torch():
    code = (
        "from steerlab.lab.workers import Share; Share.current(); import sys; print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "accelerate"} & set(out.stdout.split())
