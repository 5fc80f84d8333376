"""Metrics of a sweep's cells, each against its own function, one cell at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steerlab import Lab, Store
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.core.sweep import SweepPlan
from steerlab.evaluation.metrics.cells import FluencyRatio, NextTokenKL, default_metrics
from steerlab.evaluation.metrics.predictions import divergence
from steerlab.evaluation.metrics.texts import METRICS, Metric
from steerlab.lab.sweeps import run_sweep
from tests.evaluation.slow import scored
from tests.saved import LOVE
from tests.watching import shared

PROMPTS = ("Hello there", "What a day", "So")
PLAN = SweepPlan(
    "love",
    PROMPTS,
    layers=[1, 2],
    doses=[-0.3, 0, 0.3],
    seeds=[0, 1],
    sampling=Sampling(max_new_tokens=6, temperature=1.0),
)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(Store(tmp_path / "store"), shared("llama"))
    lab.extract("love", LOVE, layers=[1, 2])
    return lab


def at(lab):
    love = lab.store.load("love")
    return {b: love[b] for b in love.layers}


def test_every_cell_has_the_default_metrics(lab):
    broken = Metric("broken", "", lambda text: 1 / 0)
    swept = run_sweep(lab, PLAN, metrics=[*default_metrics(at(lab)), broken])
    names = {"distinct-2", "longest-run", "fluency-ratio", "KL"}
    assert len(swept.cells) == 5 * 3 * 2
    for cell in swept.cells:
        assert set(cell.metrics) == names | {"broken"}
        assert cell.metrics["broken"].reason == "ZeroDivisionError: division by zero"
        if cell.setting.layer is None:
            assert cell.metrics["KL"].value == 0
            assert cell.metrics["fluency-ratio"].value == pytest.approx(1)
        else:
            assert cell.metrics["KL"].value > 0
    assert lab.store.sweeps.get(swept.id).cells == swept.cells


def test_the_next_token_moves_as_its_own_function_says(lab):
    vectors = at(lab)
    swept = run_sweep(lab, PLAN, metrics=[NextTokenKL(vectors)], rows=7)
    for cell in swept.cells:
        s = cell.setting
        way = Setting(None if s.layer is None else vectors[s.layer], s.coefficient)
        alone_ = divergence(lab.model, [cell.prompt], [way]).nats[0, 0]
        assert cell.metrics["KL"].value == pytest.approx(alone_, abs=1e-5)


def test_fluency_is_a_ratio_of_perplexities_of_the_first_tokens(lab):
    swept = run_sweep(lab, PLAN, metrics=[FluencyRatio(scored=3)], rows=7)

    def perplexity(cell):
        start = len(lab.model.tokens(cell.prompt))
        ids = lab.model.tokens(cell.prompt + cell.text)
        assert ids[:start] == lab.model.tokens(cell.prompt)
        return np.exp(-np.mean(scored("llama", ids[: start + 3], start, Setting())))

    for cell in swept.cells:
        ratio = cell.metrics["fluency-ratio"]
        plain = swept.baseline(cell)
        if not cell.text or not plain.text:
            assert ratio.value is None
            assert "without a token" in ratio.reason
        else:
            expected = perplexity(cell) / perplexity(plain)
            assert ratio.value == pytest.approx(expected, rel=1e-4)


def test_without_a_baseline_there_is_a_reason_and_no_ratio(lab):
    plan = replace(PLAN, doses=[0.3], seeds=[0])
    metrics = [FluencyRatio(), METRICS["shared"]]
    for cell in run_sweep(lab, plan, metrics=metrics).cells:
        for name in ("fluency-ratio", "shared"):
            assert cell.metrics[name].value is None
            assert "no baseline" in cell.metrics[name].reason


def test_front_vectors_and_late_positions(lab):
    lab.extract("front", [("Love", "Hate")], layers=1, method="actadd")
    front = lab.store.load("front")
    plan = replace(PLAN, vector="front", layers=None, prompts=("Hello there",))
    metrics = default_metrics({1: front})
    for cell in run_sweep(lab, plan, metrics=metrics).cells:
        assert cell.metrics["KL"].value is not None
    late = replace(PLAN, positions="continuation", seeds=[0])
    for cell in run_sweep(lab, late, metrics=[NextTokenKL(at(lab))]).cells:
        kl = cell.metrics["KL"]
        assert kl.value is None
        assert "begins after the next token" in kl.reason
