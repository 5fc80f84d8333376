"""One prompt after the other inside one `steering(...)`, and what can't be steered at all."""

import numpy as np
import pytest
import torch
import transformers

from steerlab import LanguageModel, SteeringVector, steering
from steerlab.errors import BadPrompts, ModelError, SteeringError
from tests.tiny import tiny_lm, tiny_tokenizer


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def v(lm):
    direction = np.random.default_rng(5).normal(size=lm.d_model)
    return SteeringVector({2: direction}, model=lm.identity)


@pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
def test_a_prompt_that_begins_like_the_last_one_is_still_a_new_prompt(lm, v, positions):
    with steering(lm, v, 3.0, positions):
        fresh = lm.generate("abcde", use_cache=False, max_new_tokens=6)
    with steering(lm, v, 3.0, positions):
        lm.generate("abc", use_cache=False, max_new_tokens=2)
        assert lm.generate("abcde", use_cache=False, max_new_tokens=6) == fresh


def test_a_longer_recording_is_steered_as_if_it_were_the_first(lm, v):
    with steering(lm, v, 3.0, "generated"):
        fresh = lm.record("abcde", 2)[2]
    with steering(lm, v, 3.0, "generated"):
        lm.record("abc", 2)
        assert torch.equal(lm.record("abcde", 2)[2], fresh)


def test_only_rows_with_a_front_vector_begin_with_bos(lm, v):
    from steerlab import Injection

    front = lm.extract([("Love", "Hate")], layers=1, method="actadd")
    prompts = ["Hello there", "Hello there"]
    with steering(lm, [Injection(front, 1.0, rows=(0,)), Injection(v, 1.0, rows=(1,))]):
        together = lm.generate(prompts)
    with steering(lm, front, 1.0):
        assert together[0] == lm.generate("Hello there")
    with steering(lm, v, 1.0):
        assert together[1] == lm.generate("Hello there")


def test_next_log_probs_are_the_models_own(lm, v):
    ids = torch.tensor([lm.tokens("Hello there")])
    with torch.no_grad():
        expected = torch.log_softmax(lm.model(ids).logits[:, -1], dim=-1)
    padded = lm.next_log_probs(["Hello there", "Hello there, how are you"])
    assert torch.allclose(padded[:1], expected, atol=1e-5)
    with steering(lm, v, 3.0):
        assert not torch.allclose(lm.next_log_probs(["Hello there"]), expected, atol=1e-2)


def test_next_log_probs_refuse_what_generate_refuses(lm, v):
    with pytest.raises(SteeringError, match="NaN"), steering(lm, v, 1e30):
        lm.next_log_probs(["Hello"])
    with pytest.raises(BadPrompts, match="do not fit"):
        lm.next_log_probs(["a" * 500])
    for wrong in ("abc", []):
        with pytest.raises(BadPrompts, match="list of prompts"):
            lm.next_log_probs(wrong)


def test_a_vector_lost_in_float32_is_no_baseline_with_a_dose(lm, v):
    tiny = v * 1e-48
    with pytest.raises(SteeringError, match="so small"), steering(lm, tiny, 1e48):
        lm.generate("Hello")


def test_prompts_that_are_too_long_or_no_text_are_refused_before_the_model_runs(lm):
    with pytest.raises(BadPrompts, match="does not fit"):
        lm.extract([("a" * 500, "b")], layers=1)
    with pytest.raises(BadPrompts, match="does not fit"):
        lm.record("a" * 500, 1)
    with pytest.raises(BadPrompts, match="not Unicode"):
        lm.generate("bad \udcff")


def test_a_model_that_reads_both_ways_is_refused():
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
    )
    torch.manual_seed(0)
    model = transformers.BertLMHeadModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    lm = LanguageModel(model, tiny_tokenizer(), source="bert")
    with pytest.raises(ModelError, match="both directions"):
        lm.extract([("a nice day", "a bad day")], layers=2)


def test_a_model_with_another_kind_of_state_is_steered_everywhere_or_not_at_all():
    config = transformers.MambaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=4, state_size=8, pad_token_id=2
    )
    torch.manual_seed(0)
    lm = LanguageModel(
        transformers.MambaForCausalLM(config).eval(), tiny_tokenizer(), source="mamba"
    )
    v = SteeringVector({2: np.ones(32)}, model=lm.identity)
    plain = lm.generate("Hello", max_new_tokens=4)
    with steering(lm, v, 5.0):
        assert lm.generate("Hello", max_new_tokens=4) != plain
    with pytest.raises(SteeringError, match="positions='all'"), steering(lm, v, 5.0, "prompt"):
        lm.generate("Hello", max_new_tokens=4)


def test_coefficients_may_be_an_array(lm, v):
    with steering(lm, [v, v], np.array([1.0, 2.0])):
        several = lm.generate("Hello")
    with steering(lm, v, 3.0):
        assert lm.generate("Hello") == several


def test_a_dose_may_stand_in_for_the_coefficient(lm):
    love = lm.extract([("I love you so", "I hate you so")], layers=2)
    with steering(lm, love, coefficient=love.coefficient(0.3)):
        by_coefficient = lm.generate("Hello")
    with steering(lm, love, dose=0.3):
        assert lm.generate("Hello") == by_coefficient
