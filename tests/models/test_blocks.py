"""Walking over the parts of a model: what torch's own walks find, in their order."""

import pytest
from torch import nn

from steerlab.models.blocks import modules_in, parameters_in
from tests.models.architectures import tiny


def shared_parts() -> nn.Module:
    """A module that holds one part twice, a tied weight, an empty slot and a part by itself."""
    twice = nn.Linear(3, 3)
    model = nn.ModuleList(
        [twice, nn.Sequential(twice, nn.LayerNorm(3)), nn.Linear(3, 3, bias=False)]
    )
    model[2].weight = twice.weight
    model.register_module("empty", None)
    return model


@pytest.mark.parametrize(
    "make",
    [shared_parts, nn.Identity, *(lambda t=t: tiny(t) for t in ("llama", "gpt2", "mixtral"))],
)
def test_modules_and_parameters_are_those_of_torch_each_once(make):
    model = make()
    assert list(map(id, modules_in(model))) == list(map(id, model.modules()))
    assert list(map(id, parameters_in(modules_in(model)))) == list(map(id, model.parameters()))
