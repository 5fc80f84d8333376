"""Arguments by name: an unknown one is an error that names those there are."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar

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
