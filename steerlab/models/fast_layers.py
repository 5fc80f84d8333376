"""Linear layers of a model on the CPU, computed by the product that is fastest there.

Only the class of a layer changes: its weights are ordinary parameters, read, saved, moved and
trained as before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from steerlab.models.interrupts import attached
from steerlab.models.packing import Packing, has_room, is_packed, packed
from steerlab.models.products import (
    PLAIN,
    PRODUCTS,
    ROWS,
    Choice,
    Product,
    chosen,
    fastest_batch,
    packed_gains,
    place,
)

_SMALLEST = 2**16  # entries of a weight: below, calls cost more than products
_PARTS = 64  # rows of a weight: a multiple of it is measured
_MEASURED = 2**22  # entries of a weight that are measured; a fourth of it hid what heads gain
_PASSES = 32
"""Passes from which on packing pays: it takes what 6 to 20 save (SmolLM2, 4 to 52 rows)."""
_ROWS = 5  # below, two threads gain nothing
_DTYPES = (torch.float32, torch.bfloat16)
_known_gains: dict[tuple[str, Choice], tuple[bool, ...]] = {}
_log = logging.getLogger("steerlab.models")


class FastLinear(nn.Linear):
    """An nn.Linear that takes the fastest product; the plain one under autograd and elsewhere."""

    choice: Choice

    def forward(self, input: Tensor) -> Tensor:
        """input: (..., in_features). Returns (..., out_features)."""
        weight = self.weight
        if not _is_usual(input, weight, self.choice):
            return linear(input, weight, self.bias)
        return _product(self, input, weight, self.bias)


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
            return _product(self, x, weight.t(), self.bias)

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


def _product(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight: of the layer, (d_out, d_in)."""
    width = x.shape[-1]
    rows = x.numel() // width
    product: Product = layer.choice.at(rows)
    copy = packed(layer, layer.weight)
    if copy is not None and copy.gains[place(rows)]:
        product, weight = PRODUCTS["onednn"], copy.copy
    elif product is linear:
        return linear(x, weight, bias)
    flat = x.contiguous().view(-1, width)  # oneDNN is a thousand times slower with gaps between
    return product(flat, weight, bias).view(*x.shape[:-1], -1)


def packing(
    model: nn.Module, rows: int = ROWS[-1], passes: int = _PASSES
) -> AbstractContextManager[None]:
    """Hold the weights of fast layers in oneDNN's order too, where work is faster by it.

    Inside the `with` block and its context only, and if memory has room. rows, passes: of what
    runs there; by default, of work that scores and writes many texts.
    """
    is_worth = rows >= _ROWS and passes >= _PASSES and not is_packed()
    layers = _gaining(model, rows) if is_worth else []
    if not layers or not has_room(sum(plain.nbytes for _, plain, _ in layers)):
        return nullcontext()
    return attached(partial(_packed_if_possible, layers))


def _packed_if_possible(layers: Sequence[tuple[nn.Module, Tensor, tuple[bool, ...]]]) -> Packing:
    """The copies, or none where memory is limited in a way that does not show beforehand."""
    try:
        return Packing(layers)
    except (RuntimeError, MemoryError) as error:
        _log.info("weights are not copied: %s", error)
        return Packing([])


def _gaining(model: nn.Module, rows: int) -> list[tuple[nn.Module, Tensor, tuple[bool, ...]]]:
    """The layers in which so many rows are faster when packed, with their weights and gains."""
    return [
        (module, _weight(module), gains)
        for name, modules in _groups(model).items()
        if (gains := _packed_gains(name, modules))[place(rows)]
        for module in modules
    ]


def _packed_gains(name: str, modules: Sequence[nn.Module]) -> tuple[bool, ...]:
    """See `packed_gains`; beside other work it is measured once a process."""
    choice = getattr(modules[0], "choice", None)
    if not isinstance(choice, Choice) or choice.dtype is not _weight(modules[0]).dtype:
        return (False,) * len(ROWS)
    if (name, choice) not in _known_gains:
        _known_gains[name, choice] = packed_gains(name, _measured(modules), choice)
    return _known_gains[name, choice]


def use_fast_products(model: nn.Module) -> None:
    """Give the linear layers of a model on the CPU the products that are fastest there.

    A layer stays as it is where nothing is faster, and where it is no plain linear layer
    (quantized, offloaded, of a class of its own).
    """
    named = _groups(model)
    choices = chosen({name: _measured(modules) for name, modules in named.items()})
    if named and all(choice.is_plain for choice in choices.values()):
        _log.info("torch's own linear layers are the fastest on this machine: they are used")
    for name, modules in named.items():
        for module in () if choices[name].is_plain else modules:
            module.__class__ = _fast_classes()[_kind(module)]
            module.choice = choices[name]  # type: ignore[assignment]


def fastest_rows(model: nn.Module) -> int | None:
    """How many rows to write at once on the CPU; None for a model without measurable layers."""
    groups = _groups(model)
    if not groups:
        return None
    name, modules = max(groups.items(), key=lambda group: len(group[1]))
    weights = _measured(modules)
    plain = Choice((PLAIN,) * len(ROWS), weights[0][0].dtype)
    return fastest_batch(name, weights, getattr(modules[0], "choice", plain))


def _groups(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Layers of one class and dtype, by names that tell their shapes too; the head by itself.

    A head of 49,152 x 576 takes 0.6 of the time by oneDNN at 60 rows, where the blocks take 1.0.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    groups: dict[tuple[bool, type[nn.Module], torch.dtype], list[nn.Module]] = {}
    for module in model.modules():
        if _is_plain(module):
            key = (module is head, _kind(module), module.weight.dtype)
            groups.setdefault(key, []).append(module)  # type: ignore[arg-type]
    return {_name(modules): modules for modules in groups.values()}


def _kind(module: nn.Module) -> type[nn.Module]:
    """The class of a layer without its fast products."""
    of = {fast: plain for plain, fast in _fast_classes().items()}
    return of.get(type(module), type(module))


def _is_plain(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None) if _kind(module) in _fast_classes() else None
    return (
        type(weight) is nn.Parameter
        and weight.is_cpu
        and weight.dtype in _DTYPES
        and weight.numel() >= _SMALLEST
        and not hasattr(module, "_hf_hook")
        and "forward" not in module.__dict__
    )


def _name(modules: Sequence[nn.Module]) -> str:
    """Class, dtype and shapes of layers of one class and dtype."""
    sizes = sorted({"x".join(map(str, _weight(module).shape)) for module in modules})
    dtype = str(modules[0].weight.dtype).removeprefix("torch.")
    return f"{_kind(modules[0]).__name__} {dtype} {' '.join(sizes)}"


def _weight(module: nn.Module) -> Tensor:
    """A layer's weight: (d_out, d_in)."""
    weight: Tensor = module.weight.detach()  # type: ignore[operator]
    return weight if isinstance(module, nn.Linear) else weight.t()


def _measured(modules: Sequence[nn.Module]) -> list[list[Tensor]]:
    """Sets of one weight of each shape, or some rows of it: see `products.measure`."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for module in modules:
        shapes.setdefault(_weight(module).shape, []).extend(_pieces(_weight(module)))
    most = max(map(len, shapes.values()))
    return [[of[i % len(of)] for of in shapes.values()] for i in range(most)]


def _pieces(weight: Tensor) -> list[Tensor]:
    """A weight in parts of equal size, without what is left; a small one is whole."""
    rows = max(_MEASURED // weight.shape[1] // _PARTS * _PARTS, _PARTS)
    return [weight[at : at + rows] for at in range(0, max(len(weight) - rows, 0) + 1, rows)]
