"""A baked checkpoint gives the log-probabilities of steering, or is refused."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlab import LanguageModel, SteeringVector, steering
from steerlab.errors import Incompatible, StoreError
from steerlab.interventions import bake as baking
from steerlab.interventions.bake import bake
from tests.saved import save_model

EXACT = ("llama", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "gptj")


def loaded(path, architecture="llama", **changes):
    save_model(path, architecture, **changes)
    return LanguageModel.load(str(path), layout="plain", device="cpu")


def vector(lm, *layers):
    rows = {b: torch.randn(32, generator=torch.Generator().manual_seed(b)) for b in layers}
    return SteeringVector(rows, model=lm.identity)


def log_probs(model):
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits.log_softmax(-1)


@pytest.mark.parametrize("architecture", EXACT)
def test_the_logits_are_those_of_our_hooks(tmp_path, architecture):
    lm = loaded(tmp_path / "m", architecture)
    made = vector(lm, 1, 3)
    bake(lm, made, 2.0, tmp_path / "out")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with steering(lm, made, 2.0):
        ours = log_probs(lm.model)
    assert (ours - log_probs(baked)).abs().max() < 1e-4
    assert (ours - log_probs(lm.model)).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "mixtral", "gptj"])
def test_layer_0_is_a_part_of_the_embeddings(tmp_path, architecture):
    lm = loaded(tmp_path / "m", architecture)
    assert bake(lm, vector(lm, 0), 1.0, tmp_path / "out") < 1e-4


@pytest.mark.parametrize("architecture", ["mistral", "qwen2"])
def test_models_without_biases_are_written_as_llama_on_request(tmp_path, architecture):
    lm = loaded(tmp_path / "m", architecture)
    with pytest.raises(Incompatible, match="--as-llama"):
        bake(lm, vector(lm, 0, 2), 1.0, tmp_path / "out")
    assert bake(lm, vector(lm, 0, 2), 1.0, tmp_path / "out", as_llama=True) < 1e-4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("architecture", ["olmo2", "gemma2", "gemma3", "mixtral", "phi3", "qwen3"])
def test_where_no_bias_is_exact_it_is_refused(tmp_path, architecture):
    lm = loaded(tmp_path / "m", architecture)
    with pytest.raises(Incompatible, match="can't have biases"):
        bake(lm, vector(lm, 2), 1.0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("architecture", "changes", "why"),
    [
        ("opt", {"word_embed_proj_dim": 16}, "16 wide here and its stream 32"),
        ("gemma2", {"tie_word_embeddings": True}, "caps its logits"),
        ("bloom", {}, "with what its embeddings or blocks write"),
    ],
)
def test_where_embeddings_are_not_the_stream_layer_0_is_refused(
    tmp_path, architecture, changes, why
):
    lm = loaded(tmp_path / "m", architecture, **changes)
    with pytest.raises(Incompatible, match=why):
        bake(lm, vector(lm, 0), 1.0, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_sliding_windows_are_not_written_as_llama(tmp_path):
    lm = loaded(tmp_path / "m", "mistral_sliding")
    with pytest.raises(Incompatible, match="windows of 8 tokens"):
        bake(lm, vector(lm, 2), 1.0, tmp_path / "out", as_llama=True)


def test_post_norm_opt_is_refused(tmp_path):
    lm = loaded(tmp_path / "m", "opt", do_layer_norm_before=False)
    with pytest.raises(Incompatible, match="normalizes"):
        bake(lm, vector(lm, 2), 1.0, tmp_path / "out")


@pytest.mark.parametrize("error", ["sign", "layer"])
def test_a_checkpoint_that_steers_otherwise_is_not_kept(tmp_path, monkeypatch, error):
    lm = loaded(tmp_path / "m")
    add = baking._add
    wrong = {"sign": lambda m, b, row: add(m, b, -row), "layer": lambda m, b, r: add(m, b + 1, r)}
    monkeypatch.setattr(baking, "_add", wrong[error])
    with pytest.raises(Incompatible, match="differs from the steered one"):
        bake(lm, vector(lm, 2), 1.0, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_existing_directory_is_left_alone(tmp_path):
    lm = loaded(tmp_path / "m")
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="exists"):
        bake(lm, vector(lm, 2), 1.0, tmp_path / "out")


def test_a_bfloat16_checkpoint_stays_one(tmp_path):
    lm = loaded(tmp_path / "m")
    lm.model.bfloat16().save_pretrained(tmp_path / "m")
    lm = LanguageModel.load(str(tmp_path / "m"), layout="plain", device="cpu")
    bake(lm, vector(lm, 2), 1.0, tmp_path / "out")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert baked.dtype == torch.bfloat16


def test_the_card_says_what_is_inside(tmp_path):
    lm = loaded(tmp_path / "m")
    made = vector(lm, 0, 2)
    bake(lm, made, 2.0, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (made.digest, "coefficient 2", "mlp.down_proj.bias` (layer 2)", "base_model: "):
        assert text in card
    assert "embeddings (layer 0)" in card
    modes = {path.stat().st_mode & 0o444 for path in (tmp_path / "out").iterdir()}
    assert modes == {0o444}
    assert LanguageModel.load(str(tmp_path / "out")).tokens("hi") == lm.tokens("hi")
