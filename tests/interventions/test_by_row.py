"""Rows of a batch that come and go: each has its own vectors, and its own errors."""

from __future__ import annotations

import pytest
import torch

from steerlab.interventions.by_row import RowHooks, RowSteering
from steerlab.interventions.injection import Injection
from tests.watching import planted, shared

IDS = torch.tensor([[1, 5, 6, 7], [1, 5, 6, 7]])
WHERE = torch.arange(4).expand(2, 4)


@pytest.mark.parametrize(
    ("coefficient", "dtype"), [(1e-60, torch.float32), (1e-7, torch.float32), (1e-3, torch.float16)]
)
@pytest.mark.parametrize("decoding", [False, True])
@torch.no_grad()
def test_steering_that_is_lost_in_rounding_fails_its_row_alone(coefficient, dtype, decoding):
    lm = shared(dtype=dtype)
    alone = lm.model(input_ids=IDS[1:], use_cache=False).logits[0]
    large, lost = planted(lm, 1) * 1e4, planted(lm, 2)
    rows = [
        RowSteering([Injection(large), Injection(lost, coefficient)], 2),
        RowSteering(),
    ]
    with RowHooks(lm) as hooks:
        found = hooks.run(rows, WHERE, decoding=decoding, input_ids=IDS, use_cache=False).logits
    assert "lost in the rounding" in str(rows[0].problem)
    assert rows[1].problem is None
    torch.testing.assert_close(found[1], alone)
