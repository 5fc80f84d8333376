"""Arguments as people give them: unknown names, one value in place of a list, wrong kinds."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import Parameter, signature
from numbers import Real
from typing import Any, ParamSpec, TypeVar

from steerlab.errors import BadOption

P = ParamSpec("P")
R = TypeVar("R")


class UnknownArgument(BadOption, TypeError):
    """A call with an argument that the function does not take."""


def checks_names(
    *options: type | Callable[..., object],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that an unknown named argument raises UnknownArgument.

    options: dataclasses, typed dictionaries and functions whose names it takes too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = list(dict.fromkeys(name for one in (function, *options) for name in _names(one)))

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    raise UnknownArgument(_message(function.__qualname__, name, known))
            return function(*args, **kwargs)

        return checked

    return decorate


def several(given: Any, one: Any, name: str) -> list[Any]:
    """Values that were given as an iterable, or one alone; BadOption for what is neither."""
    if isinstance(given, one):
        return [given]
    try:
        return list(given)
    except TypeError:
        raise BadOption(f"{name}: give one or a list of them, not {given!r:.60}") from None


def numbers(given: float | Iterable[float], name: str) -> list[float]:
    """Real numbers, given as one or as an iterable of them, an array too."""
    found = several(given, Real, name)
    for value in found:
        if not isinstance(value, Real):
            raise BadOption(f"{name} are numbers, not {value!r:.60}")
    return [float(value) for value in found]


def _names(function: type | Callable[..., object]) -> list[str]:
    if isinstance(function, type):
        return [*function.__annotations__]
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    found = signature(function).parameters.values()
    return [p.name for p in found if p.kind in named and p.name not in ("self", "cls")]


def _message(function: str, name: str, known: list[str]) -> str:
    shown = function.removesuffix(".__init__")
    close = difflib.get_close_matches(name, known, 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"{shown} has no argument {name!r}{meant}: it takes {', '.join(known)}"
