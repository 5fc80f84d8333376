"""What the tests of the terminal UI share."""

import shutil
from pathlib import Path

import pytest
from textual import app, pilot

from steerlab import Lab, Store
from steerlab.tui import expression_line
from steerlab.tui.detail import detail
from steerlab.tui.workbench import browser
from tests.tiny import tiny_lm
from tests.tui.driver import NASTY, PAIRS
from tests.tui.idle import wait_for_idle


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two vectors of a tiny model; tests copy it, which is faster than extracting."""
    lab = Lab(Store(tmp_path_factory.mktemp("tui") / "store"), tiny_lm())
    lab.extract("love", PAIRS, layers=2, note=NASTY, tags=["[red]t[/red]"])
    lab.extract("anger", [(b, a) for a, b in PAIRS], layers=2)
    return lab.store.path


@pytest.fixture
def lab(tmp_path: Path, extracted: Path) -> Lab:
    """Two vectors of a tiny model."""
    return Lab(Store(shutil.copytree(extracted, tmp_path / "store")), tiny_lm())


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for as long as a test needs, not a user."""
    monkeypatch.setattr(detail, "REST", 0.01)
    monkeypatch.setattr(expression_line, "PATIENCE", 0.02)
    monkeypatch.setattr(browser, "FOLLOW", 0.3)
    for module in (app, pilot):
        monkeypatch.setattr(module, "wait_for_idle", wait_for_idle)
