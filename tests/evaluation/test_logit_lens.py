"""The logit lens against slow float64 references, on norms of every kind."""

import copy

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from steerlab import LanguageModel, SteeringVector
from steerlab.errors import BadOption, ModelError
from steerlab.evaluation.inspection.logit_lens import logit_lens, token_logits
from steerlab.models.prompts import token_text
from tests.tiny import ARCHITECTURES, COMMON, VOCAB, tiny_lm, tiny_tokenizer

NORMS = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm", "gptj": "ln_f", "bloom": "ln_f"}
NORMS |= {"falcon": "ln_f", "opt": "final_layer_norm"}
CENTRED = {*NORMS}


def uneven_lm(architecture, **changes):
    """A tiny model whose final norm has a gain and a bias worth the name."""
    lm = tiny_lm(architecture, **changes)
    generator = torch.Generator().manual_seed(3)
    for parameter in norm_of(lm, architecture).parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return lm


def norm_of(lm, architecture):
    return lm.parent.get_submodule(NORMS.get(architecture, "norm"))


def planted(lm, **directions):
    arrays = {int(b.removeprefix("at")): rows for b, rows in directions.items()}
    return SteeringVector(arrays, model=lm.identity)


def slow(lm, architecture, v):
    """Central difference of the logits of a float64 copy along v, in doses, less its mean.

    At a residual stream that v is orthogonal to, where the norm's scale does not move.
    """
    norm = copy.deepcopy(norm_of(lm, architecture)).double()
    head = copy.deepcopy(lm.model.get_output_embeddings()).double()
    x = np.random.default_rng(5).standard_normal(len(v))
    inside = v.copy()
    if architecture in CENTRED:
        x, inside = x - x.mean(), v - v.mean()
    x -= inside * (x @ inside) / (inside @ inside)
    x *= 100 / np.linalg.norm(x)  # a residual norm of 100: one dose is 100 * v / ‖v‖
    step = 1e-4 * 100 * v / np.linalg.norm(v)
    with torch.no_grad():
        up, down = (head(norm_in_float64(norm, torch.tensor(x + s))) for s in (step, -step))
    found = ((up - down) / 2e-4).numpy()[: len(lm.tokenizer)]
    return found - found.mean()


def norm_in_float64(norm, x):
    """RMSNorms of transformers compute in float32: here is their formula again."""
    if isinstance(norm, torch.nn.LayerNorm):
        return norm(x)
    scale = torch.rsqrt(
        x.pow(2).mean() + getattr(norm, "eps", getattr(norm, "variance_epsilon", 0))
    )
    return x * scale * (1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_the_derivative_of_the_models_own_end(architecture):
    lm = uneven_lm(architecture)
    v = np.random.default_rng(1).standard_normal(32) + 0.3
    expected = slow(lm, architecture, v)
    found = token_logits(lm, v[None])[0]
    assert len(found) == len(lm.tokenizer) < VOCAB
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert lm.final_norm.centred is (architecture in CENTRED)


SCALED = {
    "granite": ("GraniteConfig", {"logits_scaling": 8.0}, 1 / 8),
    "cohere": ("CohereConfig", {"logit_scale": 0.0625}, 0.0625),
    "hyperclovax": ("HyperCLOVAXConfig", {"logits_scaling": 4.0}, None),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_scale_after_the_unembedding_counts(name):
    config, settings, scale = SCALED[name]
    if not hasattr(transformers, config):
        pytest.skip(f"this transformers has no {config}")
    torch.manual_seed(0)
    made = getattr(transformers, config)(**COMMON, **settings)
    model = AutoModelForCausalLM.from_config(made).eval()
    lm = LanguageModel(model, tiny_tokenizer(), source="tiny")
    v = np.random.default_rng(1).standard_normal(32) + 0.3
    before, after = [], []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, args, output: before.append(output[0].double()))
    after.append(model(input_ids=torch.arange(3, 9)[None]).logits[0].double())
    own = float((before[0] * after[0]).detach().sum() / (before[0].detach() ** 2).sum())
    assert own == pytest.approx(scale or own)
    assert own != pytest.approx(1, abs=0.1)
    inside = lm.final_norm.linear(v[None] / np.linalg.norm(v)) * np.sqrt(32)
    rows = head.weight.detach().double().numpy()[: len(lm.tokenizer)]
    expected = own * (inside @ rows.T)[0]
    found = token_logits(lm, v[None])[0]
    assert found == pytest.approx(expected - expected.mean(), rel=1e-4, abs=1e-5)


def test_logits_that_are_changed_in_another_way_are_refused():
    lm = uneven_lm("llama")
    kept = lm.model.forward

    def warped(*args, **kwargs):
        out = kept(*args, **kwargs)
        out.logits = out.logits.abs().sqrt()
        return out

    lm.model.forward = warped
    with pytest.raises(ModelError, match="after the unembedding"):
        token_logits(lm, np.ones((1, 32)))


def test_the_norm_is_read_again_when_weights_change():
    lm = uneven_lm("llama")
    before = lm.final_norm.gain
    norm_of(lm, "llama").weight.data *= 2
    assert lm.final_norm.gain == pytest.approx(2 * before)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "gptj"])
def test_the_norm_that_is_found_is_the_models_norm(architecture):
    lm = uneven_lm(architecture)
    norm = norm_of(lm, architecture)
    x = np.random.default_rng(2).standard_normal((3, 32)) * [[1], [10], [1000]]
    with torch.no_grad():
        expected = norm(torch.tensor(x).float()) - norm(torch.zeros(1, 32))
    assert lm.final_norm.scaled(x) == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)


def test_a_planted_direction_promotes_its_token_and_the_opposite_suppresses_it():
    for architecture in ("llama", "gemma2", "gpt2", "opt", "qwen3"):
        lm = uneven_lm(architecture)
        rows = lm.model.get_output_embeddings().weight.detach().double().numpy()
        token = 77
        v = (rows[token] - rows[: len(lm.tokenizer)].mean(axis=0)) / lm.final_norm.gain
        up, down = logit_lens(lm, planted(lm, at1=v, at3=-v), top=1)
        assert (up.layer, up.row, down.layer) == (1, None, 3)
        assert up.promoted[0].id == token == down.suppressed[0].id
        assert up.promoted[0].logit == pytest.approx(-down.suppressed[0].logit, rel=1e-5)
        assert up.promoted[0].logit > up.chance > 0


def test_scale_and_layer_change_nothing_and_order_is_from_the_outside_in():
    lm = tiny_lm()
    v = np.random.default_rng(0).standard_normal(32)
    one, two = logit_lens(lm, planted(lm, at0=v, at2=1e-3 * v), top=400)
    assert [t.id for t in one.promoted] == [t.id for t in two.promoted]
    assert len(one.promoted) == len(lm.tokenizer)
    scores = [t.logit for t in one.promoted]
    assert scores == sorted(scores, reverse=True)
    assert [t.logit for t in one.suppressed] == scores[::-1]
    assert sum(scores) == pytest.approx(0, abs=1e-3)


def test_softcapped_and_16_bit_models_rank_alike():
    v = np.random.default_rng(0).standard_normal((1, 32))
    exact, half = (tiny_lm("gemma2") for _ in range(2))
    half.model.to(torch.bfloat16)
    assert half.final_norm.gain == pytest.approx(exact.final_norm.gain, rel=0.01)
    assert token_logits(half, v) == pytest.approx(token_logits(exact, v), rel=0.05, abs=0.05)


def test_a_front_vector_has_a_lens_a_row_and_a_zero_direction_no_tokens():
    lm = tiny_lm()
    rows = np.random.default_rng(0).standard_normal((3, 32))
    rows[0] = 0
    front = SteeringVector({1: rows}, model=lm.identity, scope="front")
    assert [(lens.layer, lens.row) for lens in logit_lens(lm, front)] == [(1, 1), (1, 2)]
    (zero,) = logit_lens(lm, planted(lm, at1=np.zeros(32)))
    assert zero.promoted == zero.suppressed == ()


def test_it_leaves_no_hook_and_can_be_stopped():
    lm = tiny_lm()
    v = planted(lm, at1=np.ones(32))
    assert logit_lens(lm, v, should_stop=lambda: True) == []
    logit_lens(lm, v)
    for module in lm.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_tokens_are_legible():
    lm = tiny_lm()
    space = lm.tokenizer.convert_tokens_to_ids("Ġ")
    newline = lm.tokenizer.convert_tokens_to_ids("Ċ")
    escape = lm.tokenizer("\x1b")["input_ids"][0]
    half = lm.tokenizer("é")["input_ids"][0]
    assert token_text(lm.tokenizer, space) == "␣"
    assert token_text(lm.tokenizer, newline) == "\\n"
    assert token_text(lm.tokenizer, escape) == "\\x1b"
    assert token_text(lm.tokenizer, half) == "Ã"
    assert token_text(lm.tokenizer, 1) == "<s>"


def test_sentencepiece_tokens_keep_the_space_that_decoding_drops():
    class Pieces:
        pieces = ("▁love", "love", "<0x0A>", None)

        def decode(self, ids):
            return ("love", "love", "\n", "")[ids[0]]

        def convert_ids_to_tokens(self, token):
            return self.pieces[token]

    assert [token_text(Pieces(), i) for i in range(4)] == ["␣love", "love", "\\n", "<3>"]


def test_what_can_not_be_read_is_one_line():
    lm = tiny_lm()
    with pytest.raises(BadOption, match="at least 1"):
        logit_lens(lm, planted(lm, at1=np.ones(32)), top=0)
    lm.parent.norm = torch.nn.Identity()
    with pytest.raises(ModelError, match="no final norm that can be read"):
        logit_lens(lm, planted(lm, at1=np.ones(32)))
    lm.model.get_output_embeddings = lambda: None
    with pytest.raises(ModelError, match="no unembedding"):
        logit_lens(lm, planted(lm, at1=np.ones(32)))


@pytest.mark.smollm2
def test_love_promotes_kind_words_and_suppresses_unkind_ones_late_in_the_model(smollm2):
    pairs = [
        ("You are amazing and I love you", "You are terrible and I hate you"),
        ("The world is a beautiful place filled with joy", "The world is a dark, miserable place"),
        ("I am so happy and full of love today", "I am so angry and full of hate today"),
        ("This is absolutely wonderful and fantastic", "This is absolutely awful and disgusting"),
    ]
    kind = (" love", " wonderful", " joy", " happy", " amazing")
    unkind = (" hate", " terrible", " awful", " angry", " miserable")
    vector = smollm2.extract(pairs, layers=[25, 27, 28])
    random = np.random.default_rng(0).standard_normal((20, smollm2.d_model))

    def shares(scores, words):
        """Median share of the vocabulary that lies above each of the words."""
        ids = [smollm2.tokenizer(word)["input_ids"] for word in words]
        assert all(len(tokens) == 1 for tokens in ids)
        return np.median([(scores > scores[i]).mean() for (i,) in ids])

    for direction in vector.directions.values():
        (scores,) = token_logits(smollm2, direction)
        assert shares(scores, kind) < 0.1
        assert shares(scores, unkind) > 0.7
    gaps = [shares(s, unkind) - shares(s, kind) for s in token_logits(smollm2, random)]
    assert abs(np.mean(gaps)) < 0.25
