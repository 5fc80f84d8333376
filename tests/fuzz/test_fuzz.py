"""The campaign of `python -m tests.fuzz`, in small and always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.readers import ACCEPTED, READERS

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
SEED = 5
CASES = {"payload": 1500, "import": 20, "rebuild": 20, "import .tar": 30, "restore .tar": 30}


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_CONFIG", str(tmp_path))
    tally = run(name, range(CASES.get(name, 150)), tmp_path, SEED)
    assert tally.failures == []
    assert tally.outcomes[ACCEPTED] > 0
    if name not in ("rebuild", "tui memory"):  # which take what they can use and leave the rest
        assert tally.outcomes[ACCEPTED] < tally.cases


def test_no_file_takes_much_more_memory_than_it_has(tmp_path):
    """In a process of its own, whose memory nobody else has made large before."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("only Linux tells the most memory that a process held since a moment")
    command = [sys.executable, "-m", "tests.fuzz.memory"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
