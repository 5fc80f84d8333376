"""steerlab demo, on the real model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from steerlab import Lab, LanguageModel, Store, random_like, unit
from steerlab.cli import run
from steerlab.cli.demo import COEFFICIENTS, LAYERS, PROMPT, _ranges

STORE = Path(__file__).parents[1] / "store"

pytestmark = pytest.mark.smollm2


@pytest.fixture
def demo(tmp_path, monkeypatch, smollm2, capsys):
    """Run the demo on a copy of the shipped store, and with the model that is loaded already."""
    shutil.copytree(STORE, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LanguageModel, "load", lambda *_, **__: smollm2)

    def call(*options: str) -> str:
        assert run(["demo", "--store", str(tmp_path / "store"), "-n", "8", *options]) == 0
        return capsys.readouterr().out

    return call


def test_the_demo_tells_its_story(demo):
    text = demo("-q")
    for what in ("love - anger", "layer", "warmth", "dose", "control", "Try next", "z = "):
        assert what in text
    assert f"{PROMPT} …" in text
    rows = re.findall(r"^ *(none|10|15|20|control) +(?:0|[+-]\d+) ", text, re.M)
    assert rows == ["none", *(str(b) for b in LAYERS for _ in COEFFICIENTS), "control", "control"]
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_warmth_rises_with_the_coefficient(demo):
    cells = json.loads(demo("--json"))
    baseline, *grid = cells[:-2]
    assert baseline["vector"] is None
    assert baseline["warmth"] == pytest.approx(0, abs=1e-4)
    assert [(c["layers"], c["coefficient"]) for c in grid] == [
        ([b], c) for b in LAYERS for c in COEFFICIENTS
    ]
    assert [c["vector"] for c in cells[-2:]] == ["random", "random"]
    middle = [c for c in grid if c["layers"] == [15]]
    assert [c["warmth"] for c in middle] == sorted(c["warmth"] for c in middle)
    assert [c["dose"] for c in middle] == pytest.approx([-0.23, -0.12, 0.12, 0.23], abs=0.02)


def test_no_random_direction_warms_as_much(smollm2, tmp_path):
    shutil.copytree(STORE, tmp_path / "store")
    lab = Lab(Store(tmp_path / "store"), smollm2)
    steered = unit(lab.evaluate("love - anger"))
    warming, *controls = _ranges(lab, [steered, *(random_like(steered, k) for k in range(20))])
    assert warming > max(map(abs, controls))
