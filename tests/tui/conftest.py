"""What the tests of the terminal UI share."""

from pathlib import Path

import pytest

from steerlab import Lab, Store
from tests.tiny import tiny_lm
from tests.tui.driver import NASTY, PAIRS


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two vectors of a tiny model."""
    lab = Lab(Store(tmp_path / "store"), tiny_lm())
    lab.extract("love", PAIRS, layers=2, note=NASTY, tags=["[red]t[/red]"])
    lab.extract("anger", [(b, a) for a, b in PAIRS], layers=2)
    return lab
