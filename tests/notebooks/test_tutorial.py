"""The tutorial runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from steerlab import LanguageModel

pytestmark = pytest.mark.smollm2
TUTORIAL = Path(__file__).parent / "tutorial.ipynb"
MOST = 30
"""Times the CPU of `yardstick`: a machine with half the speed takes twice of both. It was 23."""


def cpu() -> float:
    used = os.times()
    return used.children_user + used.children_system


def yardstick() -> float:
    """Seconds of CPU in which torch's own layers write 16 texts of 15 tokens."""
    lm = LanguageModel.load("smollm2", layout="plain")
    begin = time.process_time()
    lm.generate([f"{number} little ducks" for number in range(16)], max_new_tokens=15)
    return time.process_time() - begin


@pytest.mark.filterwarnings("default")  # of Jupyter's own libraries
def test_it_runs_and_shows_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="pip install 'steerlab[jupyter]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = cpu()
    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [o["data"]["text/html"] for o in shown if "text/html" in o.get("data", {})]
    assert len(pages) >= 6
    assert any("<mark>" in page for page in pages)
    assert any("calibration of" in page for page in pages)
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output["output_type"] == "error" for output in shown)
    columns = re.findall("<th[^>]*>((?:dose|baseline)[^<]*)", pages[-1])
    assert [name.split(",")[0] for name in columns] in (
        ["baseline", "dose +0.10"],
        ["baseline", "dose +0.20"],
    )
    taken = cpu() - before
    assert taken <= MOST * yardstick()


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(TUTORIAL.read_text("utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
