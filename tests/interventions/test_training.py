"""Steering in training steps: gradients are those of the steered pass, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from steerlab import SteeringVector, steering
from steerlab.errors import SteeringError
from steerlab.interventions.in_graph import compilable
from steerlab.models.blocks import find_blocks
from steerlab.models.identity import identify
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


def load(lm):
    lm.model.load_state_dict(tiny_lm(seed=1).model.state_dict())


@torch.no_grad()
def add(lm):
    lm.model.model.layers[0].mlp.up_proj.weight.add_(0.01)


def train(lm):
    lm.model(input_ids=IDS, labels=IDS).loss.backward()
    torch.optim.SGD(lm.model.parameters(), lr=0.1).step()


def replace(lm):
    lm.model.load_state_dict(tiny_lm(seed=1).model.state_dict(), assign=True)


def write_past_autograd(lm):
    lm.model.model.layers[0].mlp.up_proj.weight.data.mul_(1.5)


def put_other_data(lm):
    weight = lm.model.model.layers[0].mlp.up_proj.weight
    weight.data = -weight.data


@pytest.mark.parametrize("in_graph", [False, True], ids=["hooks", "buffers"])
@pytest.mark.parametrize("change", [load, add, train, replace, write_past_autograd, put_other_data])
def test_other_weights_inside_the_block_are_refused_unless_allowed(change, in_graph):
    lm = tiny_lm()
    v = planted(lm)
    if in_graph:
        compilable(lm)

    def work(**options):
        with steering(lm, v, 1.0, **options):
            lm.model(IDS)
            change(lm)
            lm.model(IDS)

    with pytest.raises(SteeringError, match="weights were changed inside"):
        work()
    work(allow_other_weights=True)
    with steering(lm, v, allow_other_weights=True):  # changed before
        lm.model(IDS)


def test_weights_may_change_after_the_last_pass():
    lm = tiny_lm()
    with steering(lm, planted(lm)):
        lm.model(IDS)
        add(lm)


def test_weights_may_move_inside_the_block():
    lm = tiny_lm()
    with steering(lm, planted(lm)):
        lm.model(IDS)
        lm.model.to("cpu", torch.float64)
        lm.model(IDS)


BIDIRECTIONAL = [
    (transformers.BertConfig, transformers.BertLMHeadModel),
    (transformers.MegatronBertConfig, transformers.MegatronBertForCausalLM),
]


@pytest.mark.parametrize(("config", "kind"), BIDIRECTIONAL)
def test_a_bidirectional_model_is_steered_at_all_positions_only(config, kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    made = config(vocab_size=300, intermediate_size=48, **sizes)
    model = kind(made).eval()
    v = SteeringVector({2: np.ones(32)}, model=identify(model, *find_blocks(model)))
    with steering(model, v):
        model(IDS)
    for positions in ("prompt", "generated", "continuation"):
        with pytest.raises(SteeringError, match="both directions"):
            steering(model, v, 1.0, positions).__enter__()
    made.is_decoder = True
    decoder = kind(made).eval()
    with steering(decoder, v, 1.0, "generated", allow_other_weights=True):
        decoder(IDS)
