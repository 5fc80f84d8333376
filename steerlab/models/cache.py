"""Caches: what a forward pass is given of the tokens before its own, under whatever name.

A cache is known by what it is. Its name depends on the model and the version of transformers:
`past_key_values` up to 5.23, `cache` from 5.24 on, `cache_params` in older recurrent models.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_STATES = {"cache", "past_key_values", "layer_past", "cache_params", "state", "mems"}
"""Arguments that hold earlier tokens even where they are no cache that tells its length."""

_DEPTH = 3  # how deep inside other objects a cache is looked for
_SCALARS = (Tensor, nn.Module, str, bytes, bool, int, float, type)


@dataclass(frozen=True)
class Past:
    """The tokens before a pass's own.

    length: how many are cached, padding included; 0 without a cache, and where it is unknown.
    unknown: the argument that does not tell the length; "" where it is known.
    cached: whether there is a cache at all, empty or not.
    caches: those that tell their length.
    """

    length: int = 0
    unknown: str = ""
    cached: bool = False
    caches: tuple[Any, ...] = ()


def past_of(arguments: Mapping[str, Any]) -> Past:
    """Read the tokens before a pass off the arguments of its forward."""
    lengths: dict[str, int | None] = {}
    caches: list[Any] = []
    for name, value in arguments.items():
        here = caches_in(value)
        caches += here
        found = {_length(cache) for cache in here}
        if found:
            lengths[name] = found.pop() if len(found) == 1 else None
        elif name in _STATES and _holds_something(value):
            lengths[name] = None
    if not lengths:
        return Past()
    for name, length in lengths.items():
        if length is None:
            return Past(unknown=name, cached=True)
    if len(set(lengths.values())) > 1:
        return Past(unknown=" and ".join(lengths), cached=True)
    return Past(next(iter(lengths.values())) or 0, cached=True, caches=tuple(caches))


def caches_in(value: Any) -> list[Any]:
    """The caches that a value, such as an argument or an output of a forward, is or holds."""
    return list(_caches(value))


def cache_argument(model: nn.Module) -> str | None:
    """The argument by which this model, as installed, takes a DynamicCache; None if it takes none.

    Read off the annotations of its forward, or where that only passes arguments on (as PEFT's
    does), of the first module inside that has one.
    """
    outer = _parameters(model.forward)
    passed_on = any(p.kind is p.VAR_KEYWORD for p in outer.values())
    names = (_annotated(module.forward) for module in model.modules())
    name = next(filter(None, names), None)
    return name if name in outer or passed_on else None


def named_arguments(
    forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of one call by the names that the forward gives them."""
    if not args:
        return dict(kwargs)
    names = [
        p.name
        for p in _parameters(forward).values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    rest = [f"argument {i}" for i in range(len(names), len(args))]
    return {**dict(zip([*names, *rest], args, strict=False)), **kwargs}


def _annotated(forward: Callable[..., Any]) -> str | None:
    for name, parameter in _parameters(forward).items():
        if re.search(r"\b(Dynamic)?Cache\b", str(parameter.annotation)):
            return name
    return None


def _parameters(forward: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(forward).parameters
    except (TypeError, ValueError):  # not written in Python
        return {}


def _caches(value: Any, depth: int = _DEPTH) -> Iterator[Any]:
    if value is None or isinstance(value, _SCALARS):
        return
    if _tells_length(value):
        yield value
    elif depth:
        for part in _parts(value):
            yield from _caches(part, depth - 1)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return list(getattr(value, "__dict__", {}).values())


def _tells_length(value: Any) -> bool:
    return callable(getattr(value, "get_seq_length", None))


def _length(cache: Any) -> int | None:
    """How many tokens a cache holds; None if it can't tell."""
    try:
        length = cache.get_seq_length()
    except (ValueError, NotImplementedError):  # it has no attention layer
        return None
    if length is None or length:  # Reformer's says None
        return length if length is None else int(length)
    # 0 for good from a cache whose first layer keeps its state elsewhere
    layers = filter(_tells_length, getattr(cache, "layers", ()))
    return max((int(layer.get_seq_length()) for layer in layers), default=0)


def _holds_something(value: Any) -> bool:
    empty = isinstance(value, list | tuple | Mapping) and not value
    return value is not None and not isinstance(value, bool) and not empty
