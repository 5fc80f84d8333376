"""Which model it is: read at each use, and another after every change that matters."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from steerlab import LanguageModel, SteeringVector, steering
from steerlab.core.recipe import ModelIdentity, Verdict
from steerlab.errors import (
    Incompatible,
    ModelError,
    ModelMismatch,
    SteeringError,
    SteerlabWarning,
)
from steerlab.models.identity import fingerprint, state_of
from tests.tiny import tiny_lm, tiny_model, tiny_tokenizer
from tests.watching import amount, shared

PAIRS = [("a good day", "a bad day"), ("so nice", "so awful")]


def fresh(**changes):
    return tiny_lm(**changes)


def first_matrix(lm):
    return lm.model.model.layers[1].mlp.up_proj.weight


@torch.no_grad()
def train_a_step(lm):
    with torch.enable_grad():
        lm.model(
            input_ids=torch.arange(3, 9)[None], labels=torch.arange(3, 9)[None]
        ).loss.backward()
    torch.optim.AdamW(lm.model.parameters(), lr=1e-2).step()


def load_others(lm):
    lm.model.load_state_dict(tiny_model(seed=5).state_dict())


def replace_data(lm):
    first_matrix(lm).data = torch.randn_like(first_matrix(lm))


def change_data_in_place(lm):
    first_matrix(lm).data.mul_(-1)


def replace_a_parameter(lm):
    layer = lm.model.model.layers[1].mlp.up_proj
    layer.weight = nn.Parameter(torch.randn_like(layer.weight))


CHANGES = [train_a_step, load_others, replace_data, change_data_in_place, replace_a_parameter]


class TestWeightsThatChange:
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_vector_of_before_is_refused(self, change):
        lm = fresh()
        vector = lm.extract(PAIRS, layers=2)
        change(lm)
        with pytest.raises(ModelMismatch, match="other weights now"), steering(lm, vector):
            pass

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_vector_of_after_has_its_own_identity(self, change):
        lm = fresh()
        before = lm.extract(PAIRS, layers=2)
        change(lm)
        after = lm.extract(PAIRS, layers=2)
        assert after.model.fingerprint != before.model.fingerprint
        with pytest.raises(Incompatible):
            before + after
        with steering(lm, after):
            lm.generate("now", max_new_tokens=2)

    def test_a_plain_module_is_read_at_each_use_too(self):
        lm = fresh()
        vector = lm.extract(PAIRS, layers=2)
        with steering(lm.model, vector):
            lm.model(input_ids=torch.arange(4)[None])
        load_others(lm)
        with pytest.raises(ModelMismatch), steering(lm.model, vector):
            pass

    def test_what_does_not_change_is_not_read_again(self, monkeypatch):
        lm = fresh()
        first = lm.identity
        monkeypatch.setattr("steerlab.models.identity.fingerprint", None)
        lm.generate("the same", max_new_tokens=2)
        assert lm.identity == first

    def test_the_old_weights_are_the_old_model(self):
        lm = fresh()
        kept, first = copy.deepcopy(lm.model.state_dict()), lm.identity
        load_others(lm)
        assert lm.identity != first
        lm.model.load_state_dict(kept)
        assert lm.identity == first

    def test_the_precision_is_read_at_use(self):
        lm = fresh()
        assert lm.identity.dtype == "float32"
        lm.model.to(torch.bfloat16)
        assert lm.identity.dtype == "bfloat16"
        assert lm.extract(PAIRS, layers=2).model.dtype == "bfloat16"


def scaled(part):
    """A tiny model in which one parameter is scaled by -1.5."""
    lm = fresh(tie_word_embeddings=False)
    with torch.no_grad():
        lm.model.get_parameter(part).mul_(-1.5)
    return lm


class TestEveryPartOfTheModel:
    @pytest.mark.parametrize(
        "part",
        [
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
            "model.layers.3.input_layernorm.weight",
        ],
    )
    def test_a_fine_tune_of_it_alone_is_seen(self, part):
        one, tuned = fresh(tie_word_embeddings=False), scaled(part)
        assert one.identity.verdict(tuned.identity) is Verdict.OTHER_WEIGHTS

    @pytest.mark.parametrize("part", ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
    def test_a_matrix_of_another_size_is_seen(self, part):
        one, tuned = fresh(tie_word_embeddings=False), fresh(tie_word_embeddings=False)
        tuned.model.get_parameter(part).data.mul_(3)
        assert one.identity.verdict(tuned.identity) is Verdict.OTHER_WEIGHTS

    def test_weights_made_in_inference_mode(self):
        with torch.inference_mode():
            lm = tiny_lm()
        assert lm.identity.fingerprint == shared().identity.fingerprint

    def test_a_fine_tune_of_one_token_is_seen(self):
        one, tuned = fresh(), fresh()
        with torch.no_grad():
            tuned.model.get_input_embeddings().weight[77].mul_(-1)
        assert one.identity.verdict(tuned.identity) is Verdict.OTHER_WEIGHTS

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_norms_of_float32_in_another_precision_are_the_same_weights(self, dtype):
        one, half = fresh(), fresh()
        for lm in (one, half):
            generator = torch.Generator().manual_seed(1)
            for name, parameter in lm.model.named_parameters():
                if "norm" in name:
                    parameter.data.uniform_(0.2, 3, generator=generator)
        half.model.to(dtype)
        assert one.identity.verdict(half.identity) is Verdict.OTHER_PRECISION

    def test_a_fingerprint_of_before_is_recognised(self):
        lm = fresh()
        blocks_only = fingerprint(lm.blocks)
        now = lm.identity
        then = replace(now, fingerprint=blocks_only)
        assert now.fingerprint.startswith(f"{blocks_only}.")
        assert then.verdict(now) is now.verdict(then) is Verdict.SAME
        assert then.verdict(fresh(seed=1).identity) is Verdict.OTHER_WEIGHTS


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT reads it
class TestAdapters:
    def adapted(self, *names):
        peft = pytest.importorskip("peft")
        torch.manual_seed(3)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        model = peft.get_peft_model(tiny_model(), config, adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config)
        return LanguageModel(model.eval(), tiny_tokenizer(), source="tiny")

    def test_on_and_off_are_two_models(self):
        lm = self.adapted("one")
        on = lm.identity
        with lm.model.disable_adapter():
            off = lm.identity
        assert on.verdict(off) is Verdict.OTHER_WEIGHTS
        assert lm.identity == on

    def test_off_is_the_model_without(self):
        lm = self.adapted("one")
        with lm.model.disable_adapter():
            assert lm.identity.fingerprint == shared().identity.fingerprint

    def test_two_adapters_are_two_models(self):
        lm = self.adapted("one", "two")
        one = lm.identity
        lm.model.set_adapter("two")
        assert lm.identity.verdict(one) is Verdict.OTHER_WEIGHTS
        lm.model.set_adapter("one")
        assert lm.identity == one

    def test_merging_is_seen(self):
        lm = self.adapted("one")
        with lm.model.disable_adapter():
            off = lm.identity
        lm.model.merge_adapter()
        assert lm.identity.verdict(off) is Verdict.OTHER_WEIGHTS

    def test_a_vector_is_refused_under_another_adapter(self):
        lm = self.adapted("one", "two")
        vector = lm.extract(PAIRS, layers=2)
        lm.model.set_adapter("two")
        with pytest.raises(ModelMismatch, match="other adapters"), steering(lm, vector):
            pass

    def test_switching_inside_the_block_is_refused(self):
        lm = self.adapted("one", "two")
        vector = lm.extract(PAIRS, layers=2)

        def switching():
            with steering(lm, vector):
                lm.generate("first", max_new_tokens=2)
                with lm.model.disable_adapter():
                    lm.generate("then", max_new_tokens=2)

        with pytest.raises(SteeringError, match="adapters were switched"):
            switching()

    def test_another_scale_is_another_model(self):
        lm = self.adapted("one")
        on = lm.identity
        for layer in lm.model.modules():
            if hasattr(layer, "scale_layer"):
                layer.scale_layer(3.0)
        assert lm.identity.verdict(on) is Verdict.OTHER_WEIGHTS

    def test_one_layer_without_its_adapter_is_another_model(self):
        lm = self.adapted("one")
        on = lm.identity
        next(m for m in lm.model.modules() if hasattr(m, "scale_layer")).enable_adapters(False)
        assert lm.identity.verdict(on) is Verdict.OTHER_WEIGHTS

    def test_adapters_of_positive_numbers_are_told_apart(self):
        peft = pytest.importorskip("peft")
        found = []
        for seed in (0, 1):
            config = peft.IA3Config(
                target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
            )
            model = peft.get_peft_model(tiny_model(), config)
            generator = torch.Generator().manual_seed(seed)
            for name, parameter in model.named_parameters():
                if "ia3" in name:
                    parameter.data.uniform_(0.5, 2, generator=generator)
            found.append(LanguageModel(model.eval(), tiny_tokenizer(), source="tiny"))
        one, two = found
        assert one.identity.verdict(two.identity) is Verdict.OTHER_WEIGHTS
        merged = LanguageModel(one.model.merge_and_unload(), tiny_tokenizer(), source="tiny")
        assert merged.identity.verdict(shared().identity) is Verdict.OTHER_WEIGHTS

    @pytest.mark.parametrize("saved", ["lm_head", "embed_tokens", "input_layernorm"])
    def test_copies_that_training_keeps_are_off_with_the_adapter(self, saved):
        peft = pytest.importorskip("peft")
        torch.manual_seed(3)
        config = peft.LoraConfig(
            r=2, target_modules=["q_proj"], modules_to_save=[saved], init_lora_weights=False
        )
        model = peft.get_peft_model(tiny_model(tie_word_embeddings=False), config).eval()
        lm = LanguageModel(model, tiny_tokenizer(), source="tiny")
        plain = tiny_lm(tie_word_embeddings=False).identity
        assert lm.identity.verdict(plain) is Verdict.OTHER_WEIGHTS
        with lm.model.disable_adapter():
            assert lm.identity.fingerprint == plain.fingerprint

    def test_a_pass_that_changes_the_order_of_parameters_changes_nothing(self):
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(
            r=2,
            target_modules=[],
            target_parameters=["mlp.experts.gate_up_proj"],
            init_lora_weights=False,
        )
        model = peft.get_peft_model(tiny_model("qwen3_moe"), config).eval()
        lm = LanguageModel(model, tiny_tokenizer(), source="tiny")
        names = [name for name, _ in model.named_parameters()]
        on = lm.identity  # it runs the model
        lm.generate("a", max_new_tokens=2)
        assert [name for name, _ in model.named_parameters()] != names
        assert lm.identity == on
        with model.disable_adapter():
            assert lm.identity.fingerprint == shared("qwen3_moe").identity.fingerprint

    @pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
    def test_virtual_tokens_are_refused(self, kind):
        peft = pytest.importorskip("peft")
        config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = peft.get_peft_model(tiny_model(), config)
        with pytest.raises(ModelError, match="virtual tokens"):
            LanguageModel(model, tiny_tokenizer(), source="tiny")


class WithBytes(nn.Module):
    """A layer as quantisers leave it."""

    def __init__(self, weight, **buffers):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        for name, value in buffers.items():
            self.register_buffer(name, value)


class Int8Linear(nn.Module):
    """A linear layer as LLM.int8() computes it (arXiv 2208.07339): whole numbers by the row.

    Columns in which any token has an outlier are left exact, so a token depends on its neighbours
    by rounding.
    """

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight / scale).round().char(), requires_grad=False)
        self.weight.SCB = scale[:, 0].detach() * 127

    def forward(self, hidden):
        weight = self.weight * (self.weight.SCB / 127).unsqueeze(1)
        outliers = (hidden.abs() > 1.5).flatten(0, -2).any(dim=0)
        scale = (
            hidden.masked_fill(outliers, 0).abs().amax(dim=-1, keepdim=True).clamp(min=1e-6) / 127
        )
        rounded = (hidden / scale).round() * scale
        return torch.where(outliers, hidden, rounded) @ weight.T


class TestInt8:
    def packed(self):
        model = tiny_model()
        for block in model.model.layers:
            for part in (block.self_attn, block.mlp):
                for name, linear in list(part.named_children()):
                    if isinstance(linear, nn.Linear):
                        setattr(part, name, Int8Linear(linear))
        return LanguageModel(model, tiny_tokenizer(), source="tiny")

    def test_rounding_by_the_neighbours_is_taken_for_causal(self):
        lm = self.packed()
        assert lm.identity.dtype == "int8"
        assert lm.identity.verdict(shared().identity) is Verdict.OTHER_QUANTIZATION

    def test_rows_give_in_a_batch_what_they_give_alone(self):
        lm = self.packed()
        texts = ["some words", "a", "quite a few more"]
        together = lm.generate(texts, max_new_tokens=6)
        assert together == [lm.generate(text, max_new_tokens=6) for text in texts]

    def test_it_is_steered(self):
        lm = self.packed()
        vector = lm.extract(PAIRS, layers=2)
        assert vector.model.dtype == "int8"
        plain = lm.record("a text", 2)[2]
        with steering(lm, vector, 2.0):
            seen = lm.record("a text", 2)[2]
        assert torch.equal(seen, plain + amount(vector, 2.0, torch.float32))


class TestQuantised:
    def blocks(self, seed, dtype):
        torch.manual_seed(seed)
        if dtype.is_floating_point:
            return [WithBytes(torch.randn(16, 16).to(dtype))]
        return [WithBytes(torch.randint(0, 100, (16, 16), dtype=dtype))]

    @pytest.mark.parametrize(
        "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32]
    )
    def test_two_models_never_look_alike(self, dtype):
        one, two, again = (fingerprint(self.blocks(seed, dtype)) for seed in (0, 1, 0))
        assert one == again != two

    def test_whole_numbers_in_buffers_count(self):
        one, two = (
            fingerprint([WithBytes(torch.ones(4), qweight=torch.full((4, 4), n))]) for n in (1, 2)
        )
        assert one is not None
        assert one != two

    def test_wrapped_tensors(self):
        pytest.importorskip("torchao")
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        identities = []
        for seed in (0, 1, 0):
            lm = tiny_lm(seed=seed)
            quantize_(lm.model, Int8WeightOnlyConfig())
            identities.append(lm.identity)
        one, two, again = identities
        assert one == again
        assert one.verdict(two) is Verdict.OTHER_WEIGHTS
        assert one.verdict(tiny_lm().identity) is Verdict.OTHER_QUANTIZATION

    @pytest.mark.parametrize("dtype", ["int8", "nf4", "float8_e4m3fn", "Int8Tensor"])
    @pytest.mark.parametrize("fingerprint", [None, "b" * 64])
    def test_a_verdict_of_its_own(self, dtype, fingerprint):
        plain = ModelIdentity("org/m", "llama", 4, 32, "a" * 64, dtype="bfloat16")
        packed = ModelIdentity("org/m", "llama", 4, 32, fingerprint, dtype=dtype)
        assert plain.verdict(packed) is packed.verdict(plain) is Verdict.OTHER_QUANTIZATION
        assert packed.verdict(packed) is Verdict.SAME
        other = ModelIdentity("org/other", "llama", 4, 32, "c" * 64, dtype="bfloat16")
        assert packed.verdict(other) is Verdict.OTHER_WEIGHTS

    def test_steering_says_so(self):
        lm = fresh()
        vector = lm.extract(PAIRS, layers=2)
        packed = SteeringVector(
            vector.directions,
            model=replace(vector.model, dtype="nf4"),
            recipe=vector.recipe,
            residual_norms=vector.residual_norms,
        )
        with pytest.warns(SteerlabWarning, match=r"nf4.*float32"), steering(lm, packed):
            lm.generate("now", max_new_tokens=2)


def test_weights_that_are_not_there_are_refused():
    with torch.device("meta"):
        model = tiny_model()
    with pytest.raises(ModelError, match="not loaded"):
        LanguageModel(model, tiny_tokenizer())


def test_the_state_is_cheap_and_complete():
    lm = fresh()
    before = state_of(lm.model)
    assert state_of(lm.model) == before
    lm.model.to(torch.bfloat16)
    assert state_of(lm.model) != before
