"""The benchmark: each step stored, none repeated, one row a concept."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from steerlab import Lab, Store
from steerlab.errors import Cancelled, NotFound
from steerlab.evaluation import benchmark as module
from steerlab.evaluation.benchmark import extracted, made_so
from steerlab.evaluation.calibration.curve import Curve, Limits
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.guarantee import moved
from tests.evaluation.measurements import calibration, evaluation
from tests.tiny import tiny_lm


@pytest.fixture
def lab(tmp_path):
    return Lab(Store(tmp_path / "store"), tiny_lm())


@pytest.fixture
def at():
    """The coefficient of the calibrations that are made."""
    return {"coefficient": 0.8}


@pytest.fixture
def steps(monkeypatch, at):
    """What was calibrated and evaluated; anger does not work."""
    made = []

    def calibrate(lab, vector, **how):
        made.append(("calibrate", vector.ref))
        fails = {"reason": "no dose beats its control"} if "anger" in vector.ref else {}
        found = calibration(vector.digest, **fails)
        return replace(found, **at) if found.works else found

    def evaluate(lab, vector, plan, **how):
        made.append(("evaluate", vector.ref))
        found = evaluation(vector.digest)
        more = {"plan": plan.to_json(), "coefficient": at["coefficient"]}
        found = replace(found, data={**found.data, **more})
        return lab.store.results.save_evaluation(found)

    monkeypatch.setattr(module, "calibrate", calibrate)
    monkeypatch.setattr(module, "evaluate", evaluate)
    return made


PLAN = EvaluationPlan()
OPTIONS = Options(doses=(0.2, 0.4))  # of the calibrations made by hand
benchmark = partial(module.benchmark, options=OPTIONS)


def test_a_row_has_the_figures_of_its_calibration_and_evaluation(lab, steps):
    works, fails = (r.to_json() for r in benchmark(lab, ["love", "anger"], plan=PLAN))
    assert (works["vector"], works["layer"], works["dose"]) == ("love.v1", 2, 0.2)
    assert (works["effect"], works["interval"], works["z"]) == (4.0, [3.0, 5.0], 8.0)
    assert works["random"] == {"mean": 0.0, "sd": 0.5, "n": 20}
    assert works["shuffled"] is None
    assert (works["kl"], works["fluency"], works["shown"]) == (0.2, 1.1, [1, 2])
    assert works["verdict"].startswith("works: layer 2")
    assert (fails["works"], fails["dose"], fails["shown"]) == (False, None, None)
    json.dumps([works, fails], allow_nan=False)
    assert steps == [("calibrate", "love.v1"), ("evaluate", "love.v1"), ("calibrate", "anger.v1")]


def test_the_guarantee_is_that_of_the_verdict(lab, steps):
    (found,) = benchmark(lab, ["love"])
    held = replace(Curve.of(found.calibration).held, values=(1.0,) * 6)
    data = replace(Curve.of(found.calibration), held=held, added=(1.0, -1.0)).to_json()
    row = replace(found, calibration=replace(found.calibration, data=data)).to_json()
    assert f"at least {int(100 * row['moved'])}%" in moved([1.0] * 7 + [-1.0])


def test_what_is_stored_is_not_measured_again(lab, steps):
    first = list(benchmark(lab, ["love", "anger"]))
    assert len(steps) == 2
    assert list(benchmark(lab, ["love", "anger"])) == first
    assert len(steps) == 2
    (whole,) = benchmark(lab, ["love"], plan=PLAN)
    assert steps[2:] == [("evaluate", "love.v1")]
    assert list(benchmark(lab, ["love"], plan=PLAN)) == [whole]
    list(benchmark(lab, ["love"], plan=replace(PLAN, seeds=3)))
    assert len(steps) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 3},
        {"limits": Limits(kl=0.1)},
        {"measure": "vader"},
        {"crossed": False},
        {"layers": Curve.of(calibration("d")).layers[:1]},
        {"points": Curve.of(calibration("d")).points[1:-1]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_calibration_made_for_something_else_is_not_taken(lab, steps, other):
    (first,) = benchmark(lab, ["love"])
    assert made_so(first.calibration, OPTIONS)
    assert not made_so(first.calibration, replace(OPTIONS, controls=30))
    data = replace(Curve.of(first.calibration), **other).to_json()
    lab.store.results.save_calibration(replace(first.calibration, data=data, id=None, created=""))
    (again,) = benchmark(lab, ["love"])
    assert Curve.of(again.calibration) == Curve.of(first.calibration)
    assert steps == [("calibrate", "love.v1")] * 2


def test_an_evaluation_at_another_point_is_not_taken(lab, steps, at):
    list(benchmark(lab, ["love"], plan=PLAN))
    at["coefficient"] = 0.4
    list(benchmark(lab, ["love"], plan=PLAN, options=replace(OPTIONS, seed=1)))
    assert steps == [("calibrate", "love.v1"), ("evaluate", "love.v1")] * 2


def test_an_interrupted_benchmark_goes_on_where_it_was(lab, steps, monkeypatch):
    calls = module.calibrate

    def interrupted(lab, vector, **how):
        if vector.ref == "joy.v1":
            raise Cancelled("cancelled")
        return calls(lab, vector, **how)

    monkeypatch.setattr(module, "calibrate", interrupted)
    with pytest.raises(Cancelled):
        list(benchmark(lab, ["love", "joy"]))
    monkeypatch.setattr(module, "calibrate", calls)
    assert len(list(benchmark(lab, ["love", "joy"]))) == 2
    assert steps == [("calibrate", "love.v1"), ("calibrate", "joy.v1")]


def test_a_vector_of_the_same_name_and_other_pairs_is_not_taken_for_the_concept(lab):
    own = lab.extract("love", [("a", "b"), ("c", "d")], layers=1)
    found = extracted(lab, "love")
    assert found.ref == "love.v2"
    assert found.digest != own.digest
    assert extracted(lab, "love") == found
    assert found.layers == (lab.model.n_layers // 2,)
    pairs = list(zip(found.recipe.positive, found.recipe.negative, strict=True))
    lab.extract("love", pairs, layers=2, method="pca")
    assert extracted(lab, "love").ref == "love.v4"


def test_a_concept_that_is_none_is_said_before_anything_is_made(lab, steps):
    with pytest.raises(NotFound, match="no starter concept lvoe: there are love"):
        next(benchmark(lab, ["love", "lvoe"]))
    assert steps == []
