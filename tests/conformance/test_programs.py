"""lm-eval and llama.cpp themselves, where they are installed: `.ci/run` does that."""

from __future__ import annotations

import pytest

from steerlab import LanguageModel, SteeringVector
from steerlab.conformance import conform as comparing
from steerlab.conformance import gguf_model
from steerlab.conformance.conform import conform
from steerlab.conformance.targets import TARGETS, missing
from steerlab.errors import Incompatible
from tests.conformance.test_conform import shifted, vector
from tests.saved import save_model
from tests.tiny import tiny_model

pytestmark = pytest.mark.conformance
THERE = ("lm-eval", "llama.cpp")


def installed(*names):
    for name in names:
        if why := missing(name):
            pytest.skip(f"{name} is {why}")


@pytest.fixture(scope="module")
def lms(tmp_path_factory):
    """Tiny models by architecture, in directories."""
    found = {}

    def lm(architecture, **changes):
        if architecture not in found:
            path = save_model(tmp_path_factory.mktemp("models") / "tiny", architecture, **changes)
            found[architecture] = LanguageModel.load(str(path), layout="plain", device="cpu")
        return found[architecture]

    return lm


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("target", THERE)
def test_they_agree_on_tiny_models(lms, target, architecture):
    installed(target)
    lm = lms(architecture)
    (outcome,) = conform(lm, vector(lm, 2, 3), 2.0, [target], new_tokens=4).outcomes
    assert outcome.verdict == "agrees", outcome


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "opt", "falcon"])
def test_lm_eval_finds_the_blocks_of_other_architectures(lms, architecture):
    installed("lm-eval")
    lm = lms(architecture)
    (outcome,) = conform(lm, vector(lm, 2, 3), 2.0, ["lm-eval"], new_tokens=3).outcomes
    assert outcome.verdict == "agrees", outcome


@pytest.mark.parametrize("target", THERE)
@pytest.mark.parametrize(
    "change",
    [
        lambda v: -v,
        lambda v: SteeringVector({b + 1: d for b, d in v.directions.items()}, model=v.model),
    ],
    ids=["sign", "layer"],
)
def test_an_error_is_noticed(lms, monkeypatch, target, change):
    installed(target)
    monkeypatch.setattr(comparing, "Case", shifted(change))
    lm = lms("llama")
    (outcome,) = conform(lm, vector(lm, 2), 2.0, [target], new_tokens=2).outcomes
    assert outcome.verdict == "differs"
    assert outcome.steered > 1e-3
    assert outcome.unsteered <= 1e-4


def test_llama_cpp_refuses_what_it_can_not_hold(lms):
    installed("llama.cpp")
    lm = lms("llama")
    (outcome,) = conform(lm, vector(lm, 1), 2.0, ["llama.cpp"], new_tokens=2).outcomes
    assert (outcome.verdict, "layers from 2 on" in outcome.why) == ("refused", True)


@pytest.mark.parametrize(
    ("architecture", "changes"), [("gpt2", {}), ("qwen3", {}), ("mistral_sliding", {})]
)
def test_a_model_that_llama_cpp_would_run_otherwise_is_not_converted(
    tmp_path, architecture, changes
):
    with pytest.raises(Incompatible, match="a GGUF file is made here of"):
        gguf_model.write(tiny_model(architecture, **changes), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.fixture(scope="module")
def embedded():
    """The embedded model in torch's own linear layers, and a vector of it."""
    lm = LanguageModel.load("smollm2", layout="plain", device="cpu")
    return lm, lm.extract([("I love you so", "I hate you so")], layers=15)


@pytest.mark.smollm2
@pytest.mark.parametrize("target", TARGETS)
def test_the_embedded_model_agrees(request, target):
    installed(target)
    lm, made = request.getfixturevalue("embedded")
    (outcome,) = conform(lm, made, made.coefficient(0.15), [target]).outcomes
    if target == "vllm":  # its arithmetic alone may be as far off as float32 is of float64
        assert outcome.steered_likeliest <= 1e-4, outcome
        assert outcome.steered <= 2e-4, outcome
        assert outcome.equal == outcome.texts, outcome
    else:
        assert outcome.verdict == "agrees", outcome
