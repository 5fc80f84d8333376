"""Every text and every row is changed by itself, as it would be alone."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from steerlab import Injection, compilable, steering
from steerlab.errors import SteeringError
from steerlab.models.cache import cache_argument
from steerlab.models.interventions import begin_prompt
from tests.tiny import tiny_lm
from tests.watching import planted, shared

IDS = torch.arange(10, 26).reshape(2, 8)


@torch.no_grad()
def staggered(lm):
    """Two rows, token by token after the third."""
    cache = DynamicCache(config=lm.model.config)
    known = {cache_argument(lm.model): cache}
    lm.model(IDS[:, :3], **known)
    for i in range(3, 8):
        lm.model(IDS[:, i : i + 1], **known)


def run_texts(lm, *texts):
    """Embeddings of texts, one after the other."""
    for text in texts:
        begin_prompt(lm.model)
        lm.model(inputs_embeds=text)


def small_and_large():
    """Embeddings of two texts: bfloat16 keeps 1e-4 beside the first, and not beside the second."""
    noise = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    return (noise * torch.tensor([1e-3, 1e3]).reshape(2, 1, 1)).to(torch.bfloat16)


class TestLostInRounding:
    @pytest.mark.parametrize("positions", ["all", "prompt"])
    @pytest.mark.parametrize("prepared", [False, True])
    @torch.no_grad()
    def test_a_later_text_is_checked_by_itself(self, positions, prepared):
        lm = tiny_lm()
        lm.model.to(torch.bfloat16)
        if prepared:
            compilable(lm)
        small, large = small_and_large().split(1)
        for texts in ([small, large], [large]):
            with (
                pytest.raises(SteeringError, match="changed nothing"),
                steering(lm, planted(lm, 0), 1e-4, positions),
            ):
                run_texts(lm, *texts)
        with steering(lm, planted(lm, 0), 1e-4, positions):
            lm.model(inputs_embeds=small)

    @torch.no_grad()
    def test_a_later_pass_without_earlier_tokens_is_a_text_of_its_own(self):
        lm = shared("llama", torch.bfloat16)
        with pytest.raises(SteeringError, match="nothing"), steering(lm, planted(lm, 0), 1e-4):
            assert [lm.model(inputs_embeds=text) for text in small_and_large().split(1)]

    @torch.no_grad()
    def test_a_row_in_a_graph_is_checked_by_itself(self):
        lm = tiny_lm()
        lm.model.to(torch.bfloat16)
        compilable(lm)
        with pytest.raises(SteeringError, match="nothing"), steering(lm, planted(lm, 0), 1e-4):
            lm.model(inputs_embeds=small_and_large())

    def test_a_row_whose_answer_begins_later_is_checked_there(self):
        lm = shared("llama", torch.bfloat16)
        v = planted(lm)
        both = [
            Injection(v, 3.0, "continuation", rows=(0,)),
            Injection(v, 1e-5, "continuation", rows=(1,)),
        ]
        for injections in (both, both[1]):
            with (
                pytest.raises(SteeringError, match="changed nothing"),
                steering(lm, injections, prompt_length=[3, 6]),
            ):
                staggered(lm)

    def test_it_is_checked_once_for_each_text(self, monkeypatch):
        lm = shared()
        checked = []
        monkeypatch.setattr(
            "steerlab.interventions.adding.check_lost", lambda *args: checked.append(args)
        )
        for positions in ("all", "generated", "continuation"):
            checked.clear()
            with steering(lm, planted(lm), 1.0, positions):
                lm.generate(["ab", "abcd"], max_new_tokens=6)
                lm.generate("ab", max_new_tokens=6)
            assert len(checked) == 1 + 2 * (1 + (positions == "continuation"))  # one is of c * v


def test_a_row_in_which_no_position_was_due():
    lm = shared()
    v = planted(lm)
    with steering(lm, v, 1.0, "continuation", prompt_length=[3, 7]):
        staggered(lm)
    with (
        pytest.raises(SteeringError, match=r"never applied to row 1 .*no position"),
        steering(lm, v, 1.0, "continuation", prompt_length=[3, 8]),
    ):
        staggered(lm)
