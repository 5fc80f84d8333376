"""Texts that end at their first token: they are kept, and it is said that nothing was due."""

from __future__ import annotations

import warnings

import pytest

from steerlab import Injection, steering
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.errors import SteeringError, SteerlabWarning
from steerlab.interventions.runtime import TransformersRuntime
from tests.tiny import tiny_lm
from tests.watching import planted, shared


class TestTextsThatEndAtOnce:
    """Their token was chosen and never read: at "continuation", nothing is due in them."""

    PROMPTS = ("ab", "Hello")

    def lm(self):
        lm = tiny_lm()
        first = [lm.generate(prompt, max_new_tokens=1).token_ids[0] for prompt in self.PROMPTS]
        assert first[0] != first[1]
        lm.model.generation_config.eos_token_id = first[0]
        return lm

    def cells(self, lm, prompts, new=4, **how):
        settings = (Setting(), Setting(planted(lm), 1.0, "v"))
        rows = [(setting, prompt, 0) for prompt in prompts for setting in settings]
        runtime, sampling = TransformersRuntime(lm), Sampling(max_new_tokens=new)
        return runtime.generate(rows, sampling, positions="continuation", audit=True, **how)

    @pytest.mark.parametrize("prompts", [("ab",), ("ab", "Hello")])
    def test_the_text_is_kept_alone_and_beside_another(self, prompts):
        with pytest.warns(SteerlabWarning, match="1 text ended at the first token"):
            cells = self.cells(self.lm(), prompts)
        assert [len(cell.token_ids) for cell in cells[:2]] == [1, 1]
        assert cells[1].audit.summary() == "unsteered: no token was changed"
        for cell in cells[3:]:
            assert cell.audit.audit.positions() == (5, 6, 7)

    def test_so_are_those_that_are_stopped_there(self):
        with pytest.warns(SteerlabWarning, match="1 text ended"):
            cells = self.cells(shared(), ["Hello"], should_stop=lambda: True)
        assert [cell.finish for cell in cells] == ["cancelled"] * 2
        assert len(cells[1].token_ids) == 1

    def test_a_plain_steering_says_so_too(self):
        lm = self.lm()
        with steering(lm, planted(lm), 1.0, "continuation"):
            with pytest.warns(SteerlabWarning, match="2 texts ended"):
                lm.generate(["ab", "ab"])
            lm.generate("Hello", max_new_tokens=2)

    @pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
    def test_other_positions_were_due(self, positions):
        lm = self.lm()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with steering(lm, planted(lm), 1.0, positions):
                lm.generate("ab")

    def test_rows_that_are_not_steered_are_not_meant(self):
        lm = self.lm()
        with steering(lm, Injection(planted(lm), 1.0, "continuation", rows=(1,))):
            lm.generate(["ab", "Hello"], max_new_tokens=3)

    def test_one_token_is_too_few_after_another_text_as_well(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="no position was 'continuation'"),
            steering(lm, planted(lm), 1.0, "continuation"),
        ):
            assert [lm.generate("Hello", max_new_tokens=new) for new in (3, 1)]
