"""The campaign of `python -m tests.fuzz`, in small and always the same."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.readers import ACCEPTED, READERS

SEED = 5
CASES = {"payload": 1500, "import": 20, "rebuild": 20}


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_CONFIG", str(tmp_path))
    tally = run(name, range(CASES.get(name, 150)), tmp_path, SEED)
    assert tally.failures == []
    assert tally.outcomes[ACCEPTED] > 0
    if name not in ("rebuild", "tui memory"):  # which take what they can use and leave the rest
        assert tally.outcomes[ACCEPTED] < tally.cases
