"""Linear layers of a model on the CPU, computed by the product that is fastest there.

Only the class of a layer changes: its weights are ordinary parameters, read, saved, moved and
trained as before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from steerlab.models.products import Choice, chosen

_SMALLEST = 2**16  # entries of a weight: below, calls cost more than products
_MEASURED = 2**23  # entries of the weights of one shape that are measured
_DTYPES = (torch.float32, torch.bfloat16)
_log = logging.getLogger("steerlab.models")


class FastLinear(nn.Linear):
    """An nn.Linear that takes the fastest product; the plain one under autograd and elsewhere."""

    choice: Choice

    def forward(self, input: Tensor) -> Tensor:
        """input: (..., in_features). Returns (..., out_features)."""
        weight = self.weight
        if not _is_usual(input, weight, self.choice):
            return linear(input, weight, self.bias)
        return _product(input, weight, self.bias, self.choice)


@cache
def _fast_classes() -> dict[type[nn.Module], type[nn.Module]]:
    """The class of a layer -> that of the same layer with the fastest product."""
    from transformers.pytorch_utils import Conv1D

    class FastConv1D(Conv1D):  # type: ignore[misc]  # transformers' classes are untyped here
        """A Conv1D (GPT-2's linear layer, its weight transposed) likewise."""

        __qualname__ = "FastConv1D"
        choice: Choice

        def forward(self, x: Tensor) -> Tensor:
            """x: (..., nx). Returns (..., nf)."""
            weight = self.weight
            if not _is_usual(x, weight, self.choice):
                return super().forward(x)  # type: ignore[no-any-return]
            return _product(x, weight.t(), self.bias, self.choice)

    return {nn.Linear: FastLinear, Conv1D: FastConv1D}


def __getattr__(name: str) -> type[nn.Module]:
    """FastConv1D by its name, as pickle asks for it."""
    found = {made.__name__: made for made in _fast_classes().values()}.get(name)
    if found is None or name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def _is_usual(x: Tensor, weight: Tensor, choice: Choice) -> bool:
    """Whether this is what was measured: inference with plain weights on the CPU."""
    return (
        not torch.is_grad_enabled()
        and type(weight) is nn.Parameter
        and weight.is_cpu
        and x.is_cpu
        and x.dtype is weight.dtype is choice.dtype
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, choice: Choice) -> Tensor:
    width = x.shape[-1]
    product = choice.at(x.numel() // width)
    if product is linear:
        return linear(x, weight, bias)
    rows = x.contiguous().view(-1, width)  # oneDNN is a thousand times slower with gaps between
    return product(rows, weight, bias).view(*x.shape[:-1], -1)


def use_fast_products(model: nn.Module) -> None:
    """Give the linear layers of a model on the CPU the products that are fastest there.

    A layer stays as it is where nothing is faster, and where it is no plain linear layer
    (quantized, offloaded, of a class of its own).
    """
    groups: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        if _is_plain(module):
            groups.setdefault(_shape(module), []).append(module)
    choices = chosen({name: _measured(modules) for name, modules in groups.items()})
    if groups and all(choice.is_plain for choice in choices.values()):
        _log.info("torch's own linear layers are the fastest on this machine: they are used")
    for name, modules in groups.items():
        for module in () if choices[name].is_plain else modules:
            module.__class__ = _fast_classes()[type(module)]
            module.choice = choices[name]  # type: ignore[assignment]


def _is_plain(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None) if type(module) in _fast_classes() else None
    return (
        type(weight) is nn.Parameter
        and weight.is_cpu
        and weight.dtype in _DTYPES
        and weight.numel() >= _SMALLEST
        and not hasattr(module, "_hf_hook")
        and "forward" not in module.__dict__
    )


def _shape(module: nn.Module) -> str:
    weight: Tensor = module.weight  # type: ignore[assignment]
    sizes = "x".join(map(str, weight.shape))
    return f"{type(module).__name__} {sizes} {str(weight.dtype).removeprefix('torch.')}"


def _measured(modules: Sequence[nn.Module]) -> list[Tensor]:
    """Weights to measure, (d_out, d_in) each: enough of them not to stay in a core's cache."""
    found: list[Tensor] = []
    room = _MEASURED
    for module in modules:
        weight = module.weight.detach()  # type: ignore[operator]
        weight = weight if isinstance(module, nn.Linear) else weight.t()
        rows = max(1, room // weight.shape[1])
        found.append(weight[:rows])
        room -= found[-1].numel()
        if room <= 0:
            break
    return [w for w in found if len(w) == len(found[0])]
