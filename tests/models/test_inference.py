"""Models that ignore the mask: their rows never share a batch with rows of another length."""

from __future__ import annotations

import pytest
import torch

from steerlab import Lab, Store, steering
from steerlab.core.setting import Setting
from steerlab.errors import SteeringError
from steerlab.interventions.injection import Injection
from tests.tiny import tiny_lm
from tests.watching import planted

PROMPTS = ["a", "some words", "bb", "quite a few more words", "c"]


@pytest.fixture(params=["rwkv", "mamba", "minimax", "llama"])
def lm(request):
    return tiny_lm(request.param)


def test_a_row_is_what_it_is_alone(lm):
    together = lm.generate(PROMPTS, max_new_tokens=6)
    assert together == [lm.generate(prompt, max_new_tokens=6) for prompt in PROMPTS]
    alone = torch.cat([lm.next_log_probs([prompt]) for prompt in PROMPTS])
    assert torch.allclose(lm.next_log_probs(PROMPTS), alone, atol=1e-4)


def test_sampled_and_streamed_rows_keep_their_numbers(lm):
    heard = dict.fromkeys(range(len(PROMPTS)), "")

    def on_text(row, piece):
        heard[row] += piece

    how = {"max_new_tokens": 6, "temperature": 1.0}
    seeds = [5, 6, 7, 8, 9]
    together = lm.generate(PROMPTS, seed=seeds, on_text=on_text, **how)
    alone = [lm.generate(p, seed=s, **how) for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together == alone
    assert list(heard.values()) == [made.text for made in together]


def test_the_lab_compares_settings_on_prompts_of_any_length(lm, tmp_path):
    v = planted(lm)
    lab = Lab(Store(tmp_path), lm)
    settings = [Setting(), Setting(v, 2.0)]
    cells = lab.compare(PROMPTS, settings, max_new_tokens=5)
    for cell in cells:
        if cell.setting.vector is None:
            alone = lm.generate(cell.prompt, max_new_tokens=5)
        else:
            with steering(lm, v, 2.0):
                alone = lm.generate(cell.prompt, max_new_tokens=5)
        assert cell.text == alone.text


def test_rows_that_are_steered_apart_are_refused_where_they_would_be_renumbered():
    lm = tiny_lm("rwkv")
    injection = Injection(planted(lm), rows=(1,))
    with pytest.raises(SteeringError, match="several batches"), steering(lm, injection):
        lm.generate(PROMPTS, max_new_tokens=2)


def test_cancelling_leaves_later_batches_empty():
    lm, asked = tiny_lm("rwkv"), iter([False, False, True, True, True, True, True])
    made = lm.generate(PROMPTS, max_new_tokens=6, should_stop=lambda: next(asked, True))
    assert [len(one.token_ids) for one in made] == [3, 0, 0, 0, 0]
    assert {one.finish for one in made} == {"cancelled"}
    assert [one.prompt for one in made] == PROMPTS


def test_the_trial_is_not_steered():
    lm = tiny_lm("llama")
    v = planted(lm)
    with steering(lm, v, 1000.0):
        steered = lm.generate(PROMPTS[:2], max_new_tokens=3)
    with steering(lm, v, 1000.0):
        assert steered == [lm.generate(prompt, max_new_tokens=3) for prompt in PROMPTS[:2]]
