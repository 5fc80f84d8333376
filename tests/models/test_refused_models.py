"""Models that can't be steered rightly are refused at the door, in one line with the reason."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from steerlab import LanguageModel, SteeringVector, steering
from steerlab.core.run import POSITIONS
from steerlab.errors import ModelError, SteerlabError
from steerlab.models.blocks import find_blocks
from steerlab.models.identity import identify
from tests.models.architectures import causal_types, tiny
from tests.tiny import tiny_lm, tiny_model, tiny_tokenizer
from tests.watching import shared

SMALL = {"num_hidden_layers": 2, "vocab_size": 300}
BOTH_SIDES = {
    "d_model": 32,
    "vocab_size": 300,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
MIXED = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 4,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STREAMS = {
    "DeepseekV4Config": {
        "num_key_value_heads": 1,
        "head_dim": 16,
        "o_groups": 2,
        "o_lora_rank": 8,
        "sliding_window": 16,
        "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"] * 2,
        "mlp_layer_types": ["moe"] * 4,
    },
    "HYV4Config": {
        "intermediate_size": 48,
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "head_dim": 8,
        "layer_types": ["indexed_attention"] * 4,
        "mlp_layer_types": ["dense"] * 4,
        "indexer_types": ["full"] * 4,
    },
}


def refused(model, match):
    """The one line with which a model is refused as a LanguageModel, and as a plain module."""
    with pytest.raises(SteerlabError, match=match) as caught:
        LanguageModel(model, tiny_tokenizer(), source="tiny").identity  # noqa: B018
    assert "\n" not in str(caught.value)


class TestOtherArchitectures:
    def test_t5(self):
        config = transformers.T5Config(
            d_model=32, d_ff=32, num_layers=2, num_heads=2, d_kv=16, vocab_size=300
        )
        refused(transformers.T5ForConditionalGeneration(config), "encoder")

    @pytest.mark.parametrize("name", ["Bart", "Whisper"])
    def test_bart_and_whisper(self, name):
        config = getattr(transformers, f"{name}Config")(**BOTH_SIDES)
        refused(getattr(transformers, f"{name}ForConditionalGeneration")(config), "encoder")

    def test_bert_as_a_language_model(self):
        config = transformers.BertConfig(
            hidden_size=32, num_attention_heads=2, intermediate_size=32, **SMALL
        )
        refused(transformers.BertForMaskedLM(config), "both directions|causal head")

    @pytest.mark.parametrize("config", STREAMS)
    def test_several_residual_streams(self, config):
        if not hasattr(transformers, config):
            pytest.skip(f"this transformers has no {config}")
        made = getattr(transformers, config)(**MIXED, **STREAMS[config])
        refused(AutoModelForCausalLM.from_config(made).eval(), "several residual streams")

    @pytest.mark.parametrize(
        ("model_type", "why"),
        [
            ("xlnet", r"\(2, 1, 32\) for 1 rows of 2 tokens: models that put positions first"),
            ("cpmant", r"tokens of their own before the prompt"),
        ],
    )
    def test_other_ways_to_run_blocks(self, model_type, why):
        refused(tiny(model_type), why)

    @pytest.mark.parametrize("model_type", ["gemma4", "git"])
    def test_towers_as_deep_as_the_language_model_are_told_apart(self, model_type):
        if model_type not in causal_types():
            pytest.skip(f"this transformers has no {model_type}")
        blocks = find_blocks(tiny(model_type))[1]
        assert type(blocks[0]).__name__ in {"Gemma4TextDecoderLayer", "GitLayer"}

    def test_a_config_that_does_not_count_blocks(self):
        model = tiny_model()
        model.config = SimpleNamespace(get_text_config=lambda **_: SimpleNamespace())
        with pytest.raises(ModelError, match=r"its blocks \(.*name one with blocks='…'"):
            find_blocks(model)

    def test_a_model_that_needs_an_image(self):
        class Needs(type(tiny_model())):
            def forward(self, pixel_values, input_ids=None):
                return super().forward(input_ids)

        model = tiny_model()
        model.__class__ = Needs
        refused(model, "can't read a text alone: it needs pixel_values")

    def test_blocks_that_a_text_does_not_run_through(self):
        lm = LanguageModel(tiny("mllama"), tiny_tokenizer(), source="tiny")
        assert lm.extract([("so good", "so bad")], layers=2).layers == (2,)
        with pytest.raises(ModelError, match="block 3: it can't be read; leave out"):
            lm.extract([("so good", "so bad")], layers="all")


class PositionsFirst(nn.Module):
    """A block that takes (positions, batch, d_model)."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, **kwargs):
        return self.block(hidden_states.transpose(0, 1), **kwargs).transpose(0, 1)


class OtherKeyword(PositionsFirst):
    """A block that calls its input x."""

    def forward(self, x, **kwargs):
        return self.block(x, **kwargs)


class Turned(nn.Module):
    """Blocks as their model calls them, with another convention around each."""

    def __init__(self, block, convention):
        super().__init__()
        self.inner = convention(block)
        self.convention = convention

    def forward(self, hidden_states, **kwargs):
        if self.convention is OtherKeyword:
            return self.inner(x=hidden_states, **kwargs)
        return self.inner(hidden_states.transpose(0, 1), **kwargs).transpose(0, 1)


def with_convention(convention):
    """A llama whose block list holds blocks of another calling convention."""
    model = tiny_model()
    turned = [Turned(block, convention) for block in model.model.layers]
    model.model.layers = nn.ModuleList(turned)
    inner = nn.ModuleList([one.inner for one in turned])
    model.model.odd = inner
    return model


def steered_pass(model, vector, positions="all"):
    with torch.no_grad(), steering(model, vector, 1.0, positions):
        model(input_ids=torch.arange(3, 7)[None])


class TestCallingConventions:
    @pytest.mark.parametrize(
        ("convention", "why"),
        [(PositionsFirst, "positions first"), (OtherKeyword, "no hidden_states")],
    )
    def test_it_is_refused(self, convention, why):
        model = with_convention(convention)
        with pytest.raises(ModelError, match=why) as caught:
            LanguageModel(model, tiny_tokenizer(), blocks="model.odd").identity  # noqa: B018
        assert "\n" not in str(caught.value)

    def test_a_block_that_stands_twice(self):
        model = tiny_model()
        model.model.layers[3] = model.model.layers[1]
        refused(model, "layers 1 and 3")
        with pytest.raises(ModelError, match="layers 1 and 3"):
            steering(model, shared().extract([("a b", "c d")], layers=1)).__enter__()

    @pytest.mark.parametrize("part", ["all", "one layer"])
    def test_weights_that_are_not_loaded(self, part):
        model = tiny_model()
        (model if part == "all" else model.model.layers[2]).to("meta")
        refused(model, "not loaded")


class TestPlainModules:
    """What LanguageModel finds at the door, steering a plain module finds at its first pass."""

    @pytest.mark.parametrize("config", STREAMS)
    def test_several_residual_streams(self, config):
        if not hasattr(transformers, config):
            pytest.skip(f"this transformers has no {config}")
        made = getattr(transformers, config)(**MIXED, **STREAMS[config])
        model = AutoModelForCausalLM.from_config(made).eval()
        parent, blocks = find_blocks(model)
        vector = SteeringVector({2: np.ones(32)}, model=identify(model, parent, blocks))
        with pytest.raises(ModelError, match="several residual streams"), steering(model, vector):
            model(input_ids=torch.arange(3, 7)[None])

    def test_another_keyword(self):
        model = with_convention(OtherKeyword)
        parent, blocks = find_blocks(model, "model.odd")
        vector = SteeringVector({2: np.ones(32)}, model=identify(model, parent, blocks))
        steered = steering(model, vector, blocks="model.odd")
        with pytest.raises(ModelError, match="no hidden_states"), steered:
            model(input_ids=torch.arange(3, 7)[None])

    @pytest.mark.parametrize("model_type", ["xlnet", "cpmant"])
    def test_blocks_that_get_something_else_than_the_tokens(self, model_type):
        model = tiny(model_type)
        parent, blocks = find_blocks(model)
        vector = SteeringVector({2: np.ones(32)}, model=identify(model, parent, blocks))
        for positions in POSITIONS:
            with pytest.raises(ModelError, match="for 1 rows of"):
                steered_pass(model, vector, positions)

    def test_a_block_that_runs_several_times_in_a_pass(self):
        model = tiny_model()
        vector = shared().extract([("a b", "c d")], layers=2)
        layer = model.model.layers[2]
        model.model.layers[3].register_forward_pre_hook(
            lambda _, args, kwargs: ((layer(*args, **kwargs), *args[1:]), kwargs), with_kwargs=True
        )
        with pytest.raises(ModelError, match=r"block 2 runs several times.*can't be steered"):
            steered_pass(model, vector)

    def test_blocks_that_all_run_several_times_in_a_pass(self):
        model = tiny_model()
        vector = shared().extract([("a b", "c d")], layers=2)
        inner = model.model
        model.forward = lambda input_ids: inner(inputs_embeds=inner(input_ids).last_hidden_state)
        with pytest.raises(ModelError, match="several times in one pass"):
            steered_pass(model, vector)


class TestTrainMode:
    def trained(self):
        return tiny_lm(attention_dropout=0.5)

    def test_texts_and_activations_are_those_of_eval_mode(self):
        lm = self.trained()
        before = (
            lm.generate("a text", max_new_tokens=8),
            lm.extract([("so good", "so bad")], layers=[1, 3]),
            lm.next_log_probs(["a text"]).tolist(),
            lm.record("a text", 3)[3].tolist(),
        )
        lm.model.train()
        after = (
            lm.generate("a text", max_new_tokens=8),
            lm.extract([("so good", "so bad")], layers=[1, 3]),
            lm.next_log_probs(["a text"]).tolist(),
            lm.record("a text", 3)[3].tolist(),
        )
        assert before == after

    def test_the_mode_of_each_module_is_put_back(self):
        lm = self.trained()
        lm.model.model.layers[1].train()
        modes = [module.training for module in lm.model.modules()]
        lm.generate("a text", max_new_tokens=2)
        lm.final_norm  # noqa: B018  # it runs the model
        assert [module.training for module in lm.model.modules()] == modes
        assert True in modes

    def test_a_model_in_train_mode_is_known_to_be_causal(self):
        lm = self.trained()
        lm.model.train()
        assert lm.identity.fingerprint == self.trained().identity.fingerprint
