"""Steering in training steps: gradients are those of the steered pass, or it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerlab import steering
from steerlab.errors import SteeringError
from steerlab.interventions.in_graph import compilable
from tests.tiny import tiny_lm
from tests.watching import planted

IDS = torch.arange(3, 9)[None]


def gradient(lm, vector, positions, inside):
    """Of a weight in the steered block; the backward pass runs inside the steering or after it."""
    lm.model.zero_grad()
    with steering(lm, vector, 2.0, positions):
        loss = lm.model(input_ids=IDS, labels=IDS).loss
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return lm.model.model.layers[2].mlp.up_proj.weight.grad.clone()


@pytest.mark.parametrize("in_graph", [False, True], ids=["hooks", "buffers"])
@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.filterwarnings("ignore")  # transformers' own, about checkpoints
def test_gradient_checkpointing_is_right_or_refused(positions, inside, in_graph):
    lm = tiny_lm()
    v = planted(lm)
    if in_graph:
        compilable(lm)
    lm.model.train()
    plain = gradient(lm, v, positions, inside)
    lm.model.gradient_checkpointing_enable()
    block = lm.blocks[2]
    if type(block).__call__ is nn.Module.__call__:  # the checkpoint is behind the hooks
        assert torch.equal(gradient(lm, v, positions, inside), plain)
    else:
        with pytest.raises(SteeringError, match="gradient checkpointing"):
            gradient(lm, v, positions, inside)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_around_the_hooks_is_refused():
    lm = tiny_lm()
    v = planted(lm)
    lm.model.train().gradient_checkpointing_enable()
    for block in lm.blocks:
        call = {"__call__": lambda self, *args, **kwargs: nn.Module.__call__(self, *args, **kwargs)}
        block.__class__ = type("Around", (type(block),), call)
    with pytest.raises(SteeringError, match="gradient checkpointing"):
        gradient(lm, v, "all", True)
    with torch.no_grad(), steering(lm, v):
        lm.model(input_ids=IDS)  # nothing is recomputed
