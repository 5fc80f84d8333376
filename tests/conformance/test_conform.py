"""Other programs compute what steering computes, and an error of sign or layer is noticed."""

from __future__ import annotations

import pytest
import torch

from steerlab import LanguageModel, SteeringVector
from steerlab.conformance import conform as comparing
from steerlab.conformance import targets
from steerlab.conformance.conform import Case, conform
from steerlab.errors import BadOption, Incompatible, ModelError
from tests.saved import save_model
from tests.tiny import tiny_lm

HERE = ("hook", "peft", "bake")
INF = float("inf")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = save_model(tmp_path_factory.mktemp("models") / "tiny")
    return LanguageModel.load(str(path), layout="plain", device="cpu")


def vector(lm, *layers):
    rows = {b: torch.randn(32, generator=torch.Generator().manual_seed(b)) for b in layers}
    return SteeringVector(rows, model=lm.identity)


def test_every_program_agrees(lm):
    seen = []
    found = conform(
        lm,
        vector(lm, 1, 3),
        2.0,
        HERE,
        prompts=["I think", "x"],
        new_tokens=5,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.agrees
    assert [outcome.target for outcome in found.outcomes] == [*HERE]
    for outcome in found.outcomes:
        assert (outcome.verdict, outcome.equal, outcome.texts) == ("agrees", 4, 4)
        assert max(outcome.steered, outcome.unsteered) <= 1e-4
    assert found.effect > 0.1
    assert seen == [(0, 3), (1, 3), (2, 3)]


def shifted(change):
    """Cases whose vector is another one than ours."""

    def case(vector, *rest):
        return Case(change(vector), *rest)

    return case


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(
    "change",
    [
        lambda v: -v,
        lambda v: SteeringVector({b + 1: d for b, d in v.directions.items()}, model=v.model),
        lambda v: SteeringVector({b - 1: d for b, d in v.directions.items()}, model=v.model),
        lambda v: 1.01 * v,
    ],
    ids=["sign", "layer above", "layer below", "strength"],
)
def test_an_error_is_noticed(lm, monkeypatch, target, change):
    monkeypatch.setattr(comparing, "Case", shifted(change))
    (outcome,) = conform(lm, vector(lm, 2), 2.0, [target], new_tokens=3).outcomes
    assert outcome.verdict == "differs"
    assert outcome.steered > 1e-3
    assert outcome.unsteered <= 1e-4
    assert not outcome.why


def test_what_a_program_can_not_hold_is_refused_by_it_alone(lm):
    found = conform(lm, vector(lm, 0), 2.0, HERE, new_tokens=2)
    assert [outcome.verdict for outcome in found.outcomes] == ["agrees", "refused", "agrees"]
    assert "layer 0" in found.outcomes[1].why


def test_what_is_not_installed_is_named_with_its_command(lm, monkeypatch):
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    found = conform(lm, vector(lm, 2), 2.0, ["peft"], new_tokens=2)
    assert not found.agrees
    (outcome,) = found.outcomes
    assert (outcome.verdict, outcome.why) == ("missing", "not installed: pip install peft")


def test_other_weights_are_told_from_other_steering(lm, tmp_path, monkeypatch):
    other = save_model(tmp_path / "other", seed=1)
    monkeypatch.setattr(comparing, "location_of", lambda source: str(other))
    (outcome,) = conform(lm, vector(lm, 2), 2.0, ["hook"], new_tokens=2).outcomes
    assert outcome.verdict == "differs"
    assert "without steering too" in outcome.why


def test_a_vector_that_changes_nothing_proves_nothing(lm):
    with pytest.raises(BadOption, match="larger --dose"):
        conform(lm, vector(lm, 2), 1e-6, ["hook"])


def test_front_vectors_are_refused(lm):
    made = lm.extract([("Love", "Hate")], layers=1, method="actadd")
    with pytest.raises(Incompatible, match="first tokens"):
        conform(lm, made, 1.0, ["hook"])


def test_numbers_that_are_none_are_infinitely_far_off():
    nan = torch.tensor([[float("nan"), 0.0]])
    assert comparing.difference(nan, torch.zeros(1, 2)).whole == INF


def test_all_tokens_are_compared_and_the_likeliest_beside_them():
    ours = torch.arange(1200.0)[None]
    for place, found in ((1199, 5.0), (200, 5.0), (199, 0.0)):
        theirs = ours.clone()
        theirs[0, place] += 5
        assert comparing.difference(theirs, ours) == (5.0, found)


@pytest.mark.parametrize(("rows", "columns", "found"), [(2, 6, 0.0), (2, 4, INF), (1, 5, INF)])
def test_tables_may_be_wider_than_ours_but_lack_nothing(rows, columns, found):
    assert comparing.difference(torch.zeros(rows, columns), torch.zeros(2, 5)).whole == found


def test_a_difference_at_unlikely_tokens_differs_and_is_explained(lm, monkeypatch):
    def unlikely(theirs, ours):
        steered = not torch.equal(theirs, ours)
        return comparing.Difference(1.2e-4, 5e-5) if steered else comparing.Difference()

    monkeypatch.setattr(comparing, "difference", unlikely)
    monkeypatch.setattr(comparing, "_effect", lambda *_: [1.0])
    found = conform(lm, vector(lm, 2), 2.0, ["bake"], new_tokens=2)
    (outcome,) = found.outcomes
    assert (outcome.verdict, outcome.steered, outcome.steered_likeliest) == (
        "differs",
        1.2e-4,
        5e-5,
    )
    assert "float32 itself" in outcome.why
    assert not found.agrees


def test_a_program_that_breaks_leaves_the_others_their_results(lm, monkeypatch):
    def broken(name):
        raise KeyError("it broke")

    monkeypatch.setattr("steerlab.conformance.transformers_model.hook", broken)
    found = conform(lm, vector(lm, 2), 2.0, ["hook", "bake"], new_tokens=2)
    assert [outcome.verdict for outcome in found.outcomes] == ["failed", "agrees"]
    assert not found.agrees
    assert found.outcomes[0].why == "KeyError: 'it broke'"


def test_a_model_without_files_is_refused():
    lm = tiny_lm()
    with pytest.raises(ModelError, match="in memory alone"):
        conform(lm, vector(lm, 2), 2.0, ["hook"])
