"""Evaluations on a tiny model: what is measured, kept, and found again by a check."""

from __future__ import annotations

from dataclasses import replace
from math import isclose

import numpy as np
import pytest
import torch

from steerlab import Lab, LanguageModel, Store
from steerlab.core.algebra import random_like
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.core.setting import Setting
from steerlab.errors import BadOption, BadPrompts, Cancelled, Incompatible, ModelMismatch, NotFound
from steerlab.evaluation.calibration.held_out import shuffled_controls, source_in
from steerlab.evaluation.controls import swaps
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.evaluate import evaluate
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.generalization.regression import check, compared, stored
from steerlab.evaluation.generalization.suite import suite
from steerlab.evaluation.generalization.verdict import by_name
from steerlab.evaluation.metrics.likelihood import perplexities, perplexity_ratio, propensity
from steerlab.evaluation.metrics.predictions import answer_ranks, divergence
from steerlab.evaluation.metrics.texts import METRICS
from tests.saved import save_model

PAIRS = [(f"I love {x}", f"I hate {x}") for x in ("it", "you", "art", "tea")]
SUITE = """
[styles.letters]
prompts = ["Dear you, ", "Dear sirs, ", "Hello "]
[styles.talk]
chat = true
prompts = ["How are you?", "Well?"]
items = [{prompt = "It is ", positive = "fun", negative = "bad"}]
[off_target]
facts = [
    {prompt = "ab", answer = "c"}, {prompt = "12", answer = "3"}, {prompt = "x", answer = "yz"}
]
neutral = ["The map ", "A box "]
off_topic = ["A text of no great length.", "One more"]
"""

BARE = """
styles.x.prompts = ["Dear you, "]
[off_target]
facts = []
neutral = []
off_topic = []
"""


def length(text):
    """Characters."""
    if "e" in text:
        raise ValueError("it has an e")
    return len(text)


def broken(text):
    """Never a number."""
    return float("nan")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def lab(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(SUITE)
    lab = Lab(Store(tmp_path / "store"), LanguageModel.load(str(model)))
    lab.extract("love", PAIRS, layers=[1, 2])
    return lab


PLAN = EvaluationPlan(
    suites=("own.toml",), metrics=("length",), layers=(2,), max_new_tokens=6, seeds=2, dose=0.3
)


def test_every_value_is_what_its_metric_says(lab):
    found = evaluate(lab, "love", PLAN)
    v, lm = by_name(found.values), lab.model
    at = lab.store.load("love")[2]
    c = at.coefficient(0.3)
    settings = [Setting(), Setting(at, c), Setting(at, -c)]
    own = suite("own.toml")
    cells = lab.compare(
        own.styles[0].prompts,
        settings,
        seeds=range(2),
        max_new_tokens=6,
        temperature=0.7,
        top_p=0.9,
    )
    plain, toward, away = (cells[i::3] for i in range(3))
    score = METRICS["length"].score
    pairs = zip(toward, away, strict=True)
    differences = [score(a.text) - score(b.text) for a, b in pairs]
    effect = v["letters", "length", names.RANGE]
    assert effect.estimate == pytest.approx(np.mean(differences))
    assert effect.n == 3  # prompts; seeds of one are no items of their own
    ids = [[cell.token_ids for cell in group] for group in (toward, plain)]
    prompts = [cell.prompt for cell in plain]
    steered, unsteered = (perplexities(lm, prompts, i, limit=names.TEXT_LIMIT) for i in ids)
    logs = np.log(steered / unsteered)
    assert isclose(
        v["letters", names.FLUENCY, names.TOWARD].estimate, np.exp(np.mean(logs)), rel_tol=1e-4
    )
    kl = divergence(lm, own.neutral, settings).nats
    assert v["neutral", names.KL, names.AWAY].estimate == pytest.approx(kl[2].mean(), rel=1e-4)
    ratio = perplexity_ratio(lm, own.off_topic, settings)
    by_token = np.exp(np.average(np.log(ratio.each[1]), weights=ratio.counts[1]))
    assert v[names.OFF_TOPIC, names.PERPLEXITY, names.TOWARD].estimate == pytest.approx(
        by_token, rel=1e-4
    )
    ranks = answer_ranks(lm, own.facts[:2], settings)
    known = v[names.FACTS, names.P10, names.BASELINE].estimate
    assert known == pytest.approx(np.mean(ranks[0] < 10))
    m = propensity(lm, own.styles[1].items, settings, chat=True)
    assert v["talk", names.PROPENSITY, names.RANGE].estimate == pytest.approx(
        float(m[1, 0] - m[2, 0]), rel=1e-3
    )
    assert v["talk", names.STEERABILITY, names.RANGE].estimate == pytest.approx(
        float(m[1, 0] - m[2, 0]) / 0.6, rel=1e-3
    )
    assert (names.OWN_PAIRS, names.PROPENSITY, names.RANGE) not in v  # the suite has items
    assert any("1 of 3 facts" in note for note in found.data["notes"])
    assert set(found.data["tokens"]) == {names.TOWARD, names.AWAY}


def test_it_is_kept_with_all_that_decided_it(lab):
    found = evaluate(lab, "love", PLAN)
    (kept,) = lab.store.results.evaluations("love")
    assert kept == found
    assert kept.data == found.data
    assert EvaluationPlan.from_json(kept.data["plan"]) == PLAN
    assert kept.suite == "own"
    assert kept.suite_digest == suite("own.toml").digest
    assert {"steerlab", "torch", "transformers"} <= set(kept.versions)
    assert kept.model_key.endswith(lab.model.identity.key[-1])
    assert evaluate(lab, "love", PLAN, keep=False).values == found.values
    assert len(lab.store.results.evaluations()) == 1


def test_a_scorer_that_fails_leaves_its_value_out_and_says_why(lab):
    module = f"{__name__}:"
    plan = replace(PLAN, metrics=(f"{module}length", f"{module}broken", "length"))
    found = evaluate(lab, "love", plan, keep=False)
    v = by_name(found.values)
    assert v["letters", f"{module}broken", names.RANGE].estimate is None
    assert v["letters", "length", names.RANGE].estimate is not None
    notes = "\n".join(found.data["notes"])
    assert "texts have no value: its value is nan" in notes


def test_own_pairs_stand_in_for_items_and_are_called_so(lab, tmp_path):
    (tmp_path / "bare.toml").write_text(BARE)
    plan = replace(PLAN, suites=("bare.toml",), seeds=1)
    v = by_name(evaluate(lab, "love", plan, keep=False).values)
    assert v[names.OWN_PAIRS, names.PROPENSITY, names.RANGE].n == 4
    assert v[names.OWN_TEXTS, names.PERPLEXITY, names.TOWARD].n == 4
    (tmp_path / "items.jsonl").write_text('{"prompt": "a", "positive": "b", "negative": "c"}')
    v = by_name(evaluate(lab, "love", replace(plan, items="items.jsonl"), keep=False).values)
    assert v[names.ITEMS, names.PROPENSITY, names.RANGE].n == 1
    assert (names.OWN_PAIRS, names.PROPENSITY, names.RANGE) not in v


def test_a_calibration_says_where_and_how_strongly(lab):
    vector = lab.store.load("love")
    c = vector[1].coefficient(0.2)
    lab.store.results.save_calibration(
        Calibration(vector.digest, True, 1, 0.2, c, (-0.2, 0.2), data={})
    )
    open_plan = replace(PLAN, layers=None, dose=None)
    data = evaluate(lab, "love", open_plan, keep=False).data
    assert (data["layers"], data["calibrated"]) == ([1], True)
    assert data["dose"] == pytest.approx(0.2)
    data = evaluate(lab, "love", replace(PLAN, layers=None), keep=False).data
    assert (data["layers"], data["calibrated"]) == ([1], False)  # the dose is the plan's own
    data = evaluate(lab, "love", replace(PLAN, layers=(1, 2)), keep=False).data
    assert (data["layers"], data["calibrated"]) == ([1, 2], False)


def test_vectors_of_all_kinds_are_measured(lab, tmp_path):
    lab.extract("front", [("Love", "Hate")], layers=1, method="actadd")
    lab.store.save("found", random_like(lab.store.load("love"), 0))
    lab.store.save("mixed", lab.evaluate("love + found"))
    (tmp_path / "bare.toml").write_text(BARE)
    plan = replace(PLAN, suites=("bare.toml",), layers=None, seeds=1)
    for name, why in (("front", "one pair"), ("mixed", "found.v1: it has no contrast pairs")):
        found = evaluate(lab, name, plan, keep=False)
        v = by_name(found.values)
        assert ("x", "length", names.RANGE) in v
        assert ("x", "length", names.SHUFFLED) not in v
        assert any(why in note for note in found.data["notes"])


def test_the_pairs_of_a_compositions_operands_are_shuffled(lab, tmp_path):
    calm = [(f"calm {x}", f"wild {x}") for x in ("sea", "day", "dog", "sky")]
    lab.extract("calm", calm, layers=[2])
    (tmp_path / "bare.toml").write_text(BARE)
    both = lab.evaluate("love[2] - 0.5 * calm")
    controls = shuffled_controls(source_in(lab, both, [2]), both, 5)
    assert len(set(controls)) == 5

    def turned(pairs, draw):
        """The mean difference at layer 2, as long as that of the pairs as they are."""
        swapped = [(n, p) if s else (p, n) for s, (p, n) in zip(draw, pairs, strict=True)]
        made, whole = (lab.model.extract(some, layers=[2]) for some in (swapped, pairs))
        return made.directions[2][0] * whole.norm / made.norm

    for draw, control in zip(swaps(4, range(6)), controls, strict=False):
        expected = turned(PAIRS, draw) - 0.5 * turned(calm, draw)
        found = control.directions[2][0]
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1, abs=1e-4)
        assert control.norm == pytest.approx(both.norm)
    plan = replace(PLAN, suites=("bare.toml",), layers=None, seeds=1)
    v = by_name(evaluate(lab, both, plan, keep=False).values)
    assert v["x", "length", names.SHUFFLED].n == v["x", "length", names.Z_SHUFFLED].n == 5


def test_a_model_without_a_chat_template_leaves_the_dialogue_out(lab):
    lab.model.tokenizer.chat_template = None
    found = evaluate(lab, "love", PLAN, keep=False)
    assert {v.style for v in found.values} & {"letters", "talk"} == {"letters"}
    assert "talk was left out: the model has no chat template" in found.data["notes"]


def test_progress_runs_to_its_end_and_cancelling_keeps_nothing(lab):
    heard = []
    evaluate(lab, "love", PLAN, keep=False, progress=lambda *x: heard.append(x))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] > 900
    assert {total for _, total in heard} == {1000}
    with pytest.raises(Cancelled):
        evaluate(lab, "love", PLAN, should_stop=lambda: len(heard) > 0)
    assert not lab.store.results.evaluations()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"dose": -0.1}, "above 0"),
        ({"dose": float("nan")}, "above 0"),
        ({"coefficient": 1.0}, "not both"),
        ({"controls": 4}, "5 random directions"),
        ({"metrics": ()}, "needs a suite, a metric"),
        ({"temperature": 0.0}, "greedy text is the same"),
    ],
)
def test_a_plan_that_can_not_be(changed, says):
    with pytest.raises(BadOption, match=says):
        replace(PLAN, **changed)


def test_what_is_missing_is_said_before_anything_is_written(lab):
    for changed, error, says in (
        ({"suites": ("own.toml", "none.toml")}, NotFound, "no suite file"),
        ({"metrics": ("vadre",)}, BadOption, "no metric 'vadre'"),
        ({"items": "own.toml"}, BadPrompts, "holds no item"),
        ({"layers": (9,)}, NotFound, "has no layer 9"),
    ):
        with pytest.raises(error, match=says):
            evaluate(lab, "love", replace(PLAN, **changed))


@pytest.mark.parametrize("strength", [{"dose": 0.2}, {"dose": None, "coefficient": 1.0}])
def test_a_vector_that_is_zero_is_not_measured(lab, strength):
    with pytest.raises(Incompatible, match=r"is zero: there is nothing"):
        evaluate(lab, "love - love", replace(PLAN, **strength))


# check


def test_nothing_moves_on_the_same_model(lab):
    then = evaluate(lab, "love", PLAN)
    evaluate(lab, "love", replace(PLAN, dose=0.1))
    assert len(stored(lab)) == len(stored(lab, ["love"])) == 2
    again = evaluate(lab, "love", PLAN)
    assert next(iter(stored(lab))).id == again.id
    assert len(stored(lab)) == 2  # the newest of each
    found = check(lab, then)
    assert not found.problem
    assert not found.moved
    assert found.changed == {}
    assert all(change.then == change.now for change in found.changes)
    assert len(lab.store.results.evaluations()) == 3  # a check stores nothing


def perturbed(model, directory, scale):
    lm = LanguageModel.load(str(model))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in lm.model.parameters():
            weight.add_(scale * weight.std() * torch.randn_like(weight))
    lm.model.save_pretrained(directory)
    lm.tokenizer.save_pretrained(directory)
    return LanguageModel.load(str(directory))


def test_other_weights_move_what_is_measured_on_them(lab, model, tmp_path):
    then = evaluate(lab, "love", replace(PLAN, metrics=("length", "distinct-1")))
    other = Lab(lab.store, perturbed(model, tmp_path / "other", 1.0))
    with pytest.raises(ModelMismatch):
        evaluate(other, "love", PLAN)
    found = check(other, then)
    assert not found.problem
    assert set(found.changed) == {"weights"}
    assert found.moved
    style, metric, setting = found.moved[0].name
    assert (style, metric, setting) in by_name(then.values)
    data = found.to_json()
    assert data["moved"] == len(found.moved)
    assert any(value["moved"] for value in data["values"])


def test_what_can_not_be_run_again_says_why(lab, tmp_path):
    then = evaluate(lab, "love", PLAN)
    assert "record has no" in check(lab, replace(then, data={"vector": "love.v1"})).problem
    assert "no vector called" in check(lab, replace(then, data={"vector": "none"})).problem
    assert "different vector" in check(lab, replace(then, digest="0" * 64)).problem
    (tmp_path / "own.toml").write_text(SUITE.replace("Hello", "Hi"))
    assert "has changed" in check(lab, then).problem
    (tmp_path / "own.toml").unlink()
    assert "no suite file" in check(lab, then).problem


def value(estimate, low=None, high=None):
    return Measured("s", "m", "x", estimate, low, high, 4)


@pytest.mark.parametrize(
    ("then", "now", "moved"),
    [
        ((0.5, 0.4, 0.6), (0.55, 0.45, 0.65), False),
        ((0.5, 0.4, 0.6), (0.7, 0.62, 0.78), True),
        ((0.5, 0.4, 0.6), (0.7, 0.45, 0.95), False),  # now so wide that then is within
        ((0.0, 0.0, 0.0), (-0.1, -0.3, 0.1), False),
        ((0.0, 0.0, 0.0), (1e-9, 1e-9, 1e-9), False),
        ((3.0,), (9.0,), False),  # without intervals nothing can be said
        ((None,), (None,), False),
        ((None,), (0.5, 0.4, 0.6), True),
    ],
)
def test_a_value_has_moved_if_both_lie_outside(then, now, moved):
    before = stub(value(*then))
    after = stub(value(*now))
    (change,) = compared(before, after)
    assert change.moved is moved
    (gone,) = compared(before, stub())
    assert gone.moved


def stub(*values):
    return Evaluation("0" * 64, "s", "0" * 64, "tiny", "k", {}, values)
