"""On the embedded model an evaluation finds what love does, and that it does not come by chance."""

from __future__ import annotations

import pytest

from steerlab import Lab, Store
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.evaluate import evaluate
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.generalization.verdict import Finding, by_name, judge, verdict
from steerlab.evaluation.statistics import critical_z
from tests.test_smollm2 import PAIRS

pytestmark = pytest.mark.smollm2

SUITE = """
[styles.statements]
prompts = ["I think you are a", "The people who live next door are", "To me, the last weeks were"]
items = [
    {prompt = "My neighbour is", positive = " kind and gentle", negative = " cruel and nasty"},
    {prompt = "The new teacher is", positive = " warm and caring", negative = " cold and horrible"},
    {prompt = "When I see you, I feel", positive = " happy", negative = " angry"},
    {prompt = "The film last night was", positive = " beautiful", negative = " dreadful"},
    {prompt = "People in this town are", positive = " friendly", negative = " hostile"},
    {prompt = "Working with this team is", positive = " a joy", negative = " a nightmare"},
]
[styles.technical]
prompts = [
    "To replace the filter, switch off the unit and",
    "The compiler reads the file in two passes. First it",
    "The bridge was inspected with ultrasound. The report states that",
]
[off_target]
facts = [
    {prompt = "The capital of France is", answer = " Paris"},
    {prompt = "The opposite of hot is", answer = " cold"},
    {prompt = "The day after Monday is", answer = " Tuesday"},
]
neutral = ["The map shows that", "The shop on the corner sells"]
off_topic = ["A triangle with two equal sides is called isosceles."]
"""


def test_love_on_statements_beats_random_directions_and_shuffled_labels(smollm2, tmp_path):
    (tmp_path / "small.toml").write_text(SUITE)
    lab = Lab(Store(tmp_path / "store"), smollm2)
    lab.extract("love", PAIRS, layers=15)
    plan = EvaluationPlan(
        suites=(str(tmp_path / "small.toml"),), dose=0.15, seeds=1, max_new_tokens=12
    )
    found = evaluate(lab, "love", plan)
    v = by_name(found.values)
    moved = judge(v, "statements", names.PROPENSITY)
    assert moved.finding is Finding.GENERALIZES, moved
    assert v["statements", names.PROPENSITY, names.Z].estimate > critical_z(5)
    assert v["statements", names.ANTI, names.RANGE].estimate == 0
    assert v[names.ALL, "vader", names.RANGE].n == 6
    assert v[names.FACTS, names.P10, names.BASELINE].estimate > 0.6
    assert any(line.startswith("propensity: shown in statements") for line in verdict(found))
