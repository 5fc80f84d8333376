"""What people type in a notebook works: stores as collections, raw arrays, expressions."""

from __future__ import annotations

import re
from inspect import signature

import numpy as np
import pytest
import torch

import steerlab
from steerlab import Injection, Lab, SteeringVector, Store, steering
from steerlab.errors import BadOption, BadPrompts, NotFound
from tests.registry.samples import OTHER, vector
from tests.saved import ANGER, LOVE
from tests.tiny import tiny_lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def store(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    bench = Lab(Store(), lm)
    bench.extract("love", LOVE, layers=1)
    bench.extract("anger", ANGER, layers=1)
    return bench.store


def test_a_store_is_a_collection_of_records(store, lm):
    assert len(store) == 2
    assert [record.ref for record in store] == ["anger.v1", "love.v1"]
    assert "love" in store
    assert "love.v1" in store
    assert "lvoe" not in store
    assert 3 not in store
    assert store["love"] == store.load("love")
    with pytest.raises(NotFound, match="love"):
        store["lvoe"]
    store.save("love", 2 * store["love"])
    assert [found.ref for found in store.list("love")] == ["love.v2"]
    assert len(store.list("love", every_version=True)) == 2
    assert len(store) == 2


def test_an_empty_store_is_true_and_a_name_of_two_models_is_there(tmp_path):
    store = Store(tmp_path / "new")
    assert store
    assert len(store) == 0
    store.save("love", vector())
    store.save("love", vector(model=OTHER))
    assert "love" in store
    assert len(store) == 2


def test_an_expression_steers_wherever_a_vector_does(store, lm):
    made = store.evaluate("love - anger")

    def text(model, what, **how):
        with steering(model, what, **how):
            return lm.generate("Hello").text

    for model in (lm, lm.model):
        assert text(model, "love - anger", dose=1.0) == text(lm, made, dose=1.0)
    both = text(lm, ["love", Injection(made, 0.5)], coefficient=2.0)
    assert both == text(lm, [store["love"], Injection(made, 0.5)], coefficient=2.0)
    with pytest.raises(NotFound, match="lvoe"):
        text(lm, "lvoe")


def test_what_can_not_steer_is_named(store, lm):
    with pytest.raises(BadOption, match=r"steering\(model, vector"):
        steering("love", lm).__enter__()
    with pytest.raises(BadOption, match="not 3"):
        steering(lm, [3]).__enter__()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_raw_tensor_becomes_a_vector_with_a_dose(lm, dtype):
    raw = torch.ones(32, dtype=dtype, requires_grad=True)
    norms = lm.residual_norms(["Hello there", "Ho"], [1])
    made = SteeringVector({1: raw}, model=lm, residual_norms=norms)
    assert made.dose(1.0) == pytest.approx(32**0.5 / norms[1])
    assert made.model == lm.identity
    with steering(lm, made, dose=0.5):
        assert lm.generate("Hello", max_new_tokens=2).text
    same = SteeringVector({1: np.ones(32)}, model=lm.model)
    assert same.model.has_weights_of(lm.identity)
    with steering(lm.model, same):
        lm.generate("Hello", max_new_tokens=1)


def test_residual_norms_are_those_of_extraction(lm):
    sides = [text for pair in LOVE for text in pair]
    found = lm.residual_norms(sides, "all")
    assert found == pytest.approx(lm.extract(LOVE, layers="all").residual_norms)
    with pytest.raises(BadPrompts, match="two tokens"):
        lm.residual_norms([])


def test_a_vector_of_no_model_is_refused():
    with pytest.raises(BadOption, match="a LanguageModel, a transformers model"):
        SteeringVector({1: [1.0]}, model="smollm2")


def test_a_sweep_takes_an_expression_and_shows_itself(store, lm):
    found = Lab(store, lm).sweep("love - anger", [1, 2], "Hi", doses=[0, 0.2], max_new_tokens=2)
    assert len(found) == 3
    assert repr(found) == "<Sweep of love - anger: 2 layers x 2 doses, 3 texts>"
    assert "love - anger" in found._repr_html_()
    assert found.plot().axes


def test_completion_of_names_offers_the_public_ones():
    assert dir(steerlab) == steerlab.__all__


def test_the_options_of_public_functions_are_public():
    plain = {"Any", "Callable", "Lab", "LayerChoice", "None", "OnText", "Path", "Progress"}
    plain |= {"Sequence", "ShouldStop", "Unpack", "Watch"}
    for function in (steerlab.calibrate, steerlab.evaluate, steerlab.inspect, steerlab.difference):
        takes = [str(p.annotation) for p in signature(function).parameters.values()]
        assert set(re.findall(r"[A-Z]\w+", " ".join(takes))) - plain <= set(steerlab.__all__)


def test_wrong_kinds_of_arguments_are_named(store, lm):
    with pytest.raises(BadOption, match="a vector is named by a text, not 3"):
        store[3]
    with pytest.raises(BadOption, match="prompts: give one or a list of them, not 3"):
        lm.generate(3)
    with pytest.raises(BadOption, match=r"it takes layer, strength, prompt, seed"):
        Lab(store, lm).sweep("love", 1, "Hi", doses=0.1, max_new_tokens=1).texts(dose=0.1)


async def test_a_stream_is_of_one_text(lm):
    with pytest.raises(BadPrompts, match="one prompt"):
        _ = [piece async for piece in lm.stream(["Hi", "Ho"])]
    with pytest.raises(BadOption, match="on_text"):
        _ = [piece async for piece in lm.stream("Hi", on_text=print)]
