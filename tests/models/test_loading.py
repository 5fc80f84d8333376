"""Loading: a local checkpoint comes back as it was, and what can't be loaded says why in a line."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from steerlab import LanguageModel
from steerlab.errors import BadOption, ModelError, SteerlabError
from tests.tiny import tiny_model, tiny_tokenizer
from tests.watching import shared


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """As if the environment had said HF_HUB_OFFLINE=1 before huggingface_hub was imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def saved(tmp_path):
    """A tiny checkpoint with its tokenizer."""
    path = tmp_path / "tiny-llama"
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def refusal(source, error=ModelError, **options):
    """The one line with which a load is refused."""
    with pytest.raises(error) as caught:
        LanguageModel.load(str(source), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


class TestRoundTrip:
    def test_the_same_model_comes_back(self, saved):
        lm = LanguageModel.load(str(saved))
        assert lm.identity.fingerprint == shared().identity.fingerprint
        assert lm.identity.tokenizer == shared().identity.tokenizer
        assert lm.identity.source == str(saved)
        assert lm.identity.name == "tiny_llama"
        assert lm.model.dtype == torch.float32
        assert not lm.model.training
        assert lm.generate("back", max_new_tokens=5) == shared().generate("back", max_new_tokens=5)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_in_another_precision(self, saved, dtype):
        lm = LanguageModel.load(str(saved), dtype=dtype)
        assert lm.model.dtype == getattr(torch, dtype)
        assert lm.identity.dtype == dtype
        assert lm.identity.has_weights_of(shared().identity)
        assert lm.identity.key == shared().identity.key

    def test_float32_on_a_cpu_whatever_the_checkpoint_says(self, tmp_path):
        tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        assert LanguageModel.load(str(tmp_path), device="cpu").model.dtype == torch.float32

    def test_the_tokenizer_is_loaded_when_it_is_needed(self, saved):
        (saved / "tokenizer.json").unlink()
        lm = LanguageModel.load(str(saved))
        assert lm.n_layers == 4
        with pytest.raises(ModelError) as caught:
            lm.generate("now")
        assert "\n" not in str(caught.value)

    def test_a_device_map(self, saved):
        lm = LanguageModel.load(str(saved), device="cpu", device_map={"": "cpu"})
        assert lm.generate("map", max_new_tokens=4) == shared().generate("map", max_new_tokens=4)

    def test_offloaded_to_disk(self, saved, tmp_path):
        around = ("model.embed_tokens", "model.norm", "lm_head", "model.rotary_emb")
        device_map = dict.fromkeys(around, "cpu")
        device_map |= {f"model.layers.{i}": "cpu" if i < 2 else "disk" for i in range(4)}
        lm = LanguageModel.load(str(saved), device="cpu", device_map=device_map)
        assert lm.identity.fingerprint == shared().identity.fingerprint
        assert lm.generate("disk", max_new_tokens=4) == shared().generate("disk", max_new_tokens=4)


class TestRefusals:
    def test_no_such_path(self, tmp_path):
        assert "there is no model directory" in refusal(tmp_path / "gone")
        assert "there is no model directory" in refusal("./gone")

    def test_a_directory_without_a_model(self, tmp_path):
        assert "holds no transformers model" in refusal(tmp_path)

    def test_a_directory_with_another_config(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        assert str(tmp_path) in refusal(tmp_path)

    def test_a_config_that_is_not_json(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        assert str(tmp_path) in refusal(tmp_path)

    def test_a_model_type_nobody_knows(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "from_the_future"}')
        assert str(tmp_path) in refusal(tmp_path)

    def test_a_config_without_weights(self, tmp_path):
        tiny_model().config.save_pretrained(tmp_path)
        assert str(tmp_path) in refusal(tmp_path)

    def test_a_file(self, tmp_path):
        path = tmp_path / "model.bin"
        path.write_bytes(b"weights")
        assert str(path) in refusal(path)

    @pytest.mark.parametrize(
        "source", ["nobody/has-such-a-model", "gpt3", "", "a b", "x/y/z", "..."]
    )
    def test_an_unknown_hub_id_offline(self, source):
        message = refusal(source)
        assert "there is no model" in message
        assert repr(source) in message or source == "..."

    def test_an_encoder(self, tmp_path):
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        transformers.ViTModel(config).save_pretrained(tmp_path)
        assert "no causal head" in refusal(tmp_path)

    def test_a_sequence_to_sequence_model(self, tmp_path):
        config = transformers.T5Config(
            d_model=32, d_ff=32, num_layers=2, num_heads=2, d_kv=16, vocab_size=50
        )
        transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
        assert "no causal head" in refusal(tmp_path)

    def test_a_masked_language_model_is_not_taken_for_a_causal_one(self, tmp_path):
        config = transformers.BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=50,
        )
        transformers.BertModel(config).save_pretrained(tmp_path)
        assert "not a complete causal language model" in refusal(tmp_path)

    def test_a_checkpoint_that_lacks_weights(self, saved):
        weights = load_file(saved / "model.safetensors")
        for name in ("model.layers.1.mlp.up_proj.weight", "model.layers.3.self_attn.q_proj.weight"):
            del weights[name]
        save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
        message = refusal(saved)
        assert (
            "its checkpoint lacks model.layers.1.mlp.up_proj.weight and 1 more weights" in message
        )

    def test_weights_of_another_shape(self, saved):
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
        assert str(saved) in refusal(saved)

    def test_a_cut_off_checkpoint(self, saved):
        weights = saved / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        assert str(saved) in refusal(saved)

    def test_its_own_code_is_not_run_unasked(self, saved):
        config = json.loads((saved / "config.json").read_text())
        config |= {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
        }
        (saved / "config.json").write_text(json.dumps(config))
        (saved / "own.py").write_text("raise SystemExit('was run')")
        assert "--trust-remote-code" in refusal(saved)

    @pytest.mark.parametrize("device", ["toaster", "cuda:99x", "1 2"])
    def test_no_such_device(self, saved, device):
        assert f"no device {device!r}" in refusal(saved, BadOption, device=device)

    @pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
    def test_a_device_this_machine_lacks(self, saved, device, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
        assert "use cpu" in refusal(saved, BadOption, device=device)

    @pytest.mark.parametrize("dtype", ["float8", "int4", "double"])
    def test_no_such_dtype(self, saved, dtype):
        message = refusal(saved, BadOption, dtype=dtype)
        assert message == f"no dtype {dtype!r}: there are float32, bfloat16, float16"


def test_a_model_of_unknown_blocks_says_how_to_name_them(saved):
    with pytest.raises(SteerlabError, match=r"model\.layers \(4\)"):
        LanguageModel.load(str(saved), blocks="transformer.h")
    assert LanguageModel.load(str(saved), blocks="model.layers").n_layers == 4


@pytest.mark.parametrize("downloads", [True, False])
def test_reading_weights_draws_no_bar_and_leaves_bars_as_they_were(saved, capfd, downloads):
    from huggingface_hub import utils as hub
    from transformers.utils import logging as transformers_logging

    was = transformers_logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    try:
        transformers_logging.enable_progress_bar()
        if not downloads:
            hub.disable_progress_bars()
        LanguageModel.load(str(saved))
        assert "Loading weights" not in capfd.readouterr().err
        assert transformers_logging.is_progress_bar_enabled()
        assert hub.are_progress_bars_disabled() is not downloads
    finally:
        if not was[0]:
            transformers_logging.disable_progress_bar()
        (hub.disable_progress_bars if was[1] else hub.enable_progress_bars)()
