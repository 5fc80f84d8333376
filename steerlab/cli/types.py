"""Types of arguments and options: what a word on the command line is read as."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.errors import BadOption, SteerlabError

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType


class Parsed(ParamType):
    """A value that a function reads from text; it raises SteerlabError for what is none."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self.parse = name, parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse, or fail with the reason."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except SteerlabError as error:
            self.fail(str(error), param, ctx)


def _number(text: str) -> float:
    (found,) = finite(text, [text], "a number")
    return found


def _numbers(text: str) -> tuple[float, ...]:
    return finite(text, text.split(","), "a list of numbers such as -0.2,0,0.2")


def finite(text: str, parts: Sequence[str], what: str) -> tuple[float, ...]:
    """The parts of a text as finite numbers; raises BadOption. what: "a dose"."""
    try:
        found = tuple(map(float, parts))
    except ValueError:
        raise BadOption(f"{text!r} is not {what}") from None
    if not all(map(math.isfinite, found)):
        raise BadOption(f"{text!r} holds a number that is not finite")
    return found


def _layers(text: str) -> Any:
    from steerlab.core.notation import layers_of

    return layers_of(text)


def _metric(text: str) -> Any:
    from steerlab.evaluation.metrics.scorers import scorer

    return scorer(text)


def _file_of(suffixes: Sequence[str]) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        from steerlab.plots.drawing import SUFFIXES, check_file

        check_file(path := Path(text), suffixes or SUFFIXES)
        return path

    return parse


class _Path(click.Path):
    """A path; an empty text, which pathlib takes for the working directory, is none."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Check, or fail with the reason."""
        if value == "":
            self.fail(_EMPTY, param, ctx)
        return super().convert(value, param, ctx)


_EMPTY = "it is empty: write . for this directory"


def _hours(text: str) -> timedelta:
    (hours,) = finite(text, [text], "a number of hours")
    if not 0 <= hours <= _MOST_HOURS:
        raise BadOption(f"{text} hours: from 0 to {_MOST_HOURS} are meant")
    return timedelta(hours=hours)


_MOST_HOURS = 1_000_000


def _directory(text: str) -> Path:
    if not text:
        raise BadOption(_EMPTY)
    if (path := Path(text)).is_file():
        raise BadOption(f"{text!r} is a file")
    return path


DIRECTORY = Parsed("directory", _directory)
PATH = _Path(path_type=Path)
EXISTING = _Path(exists=True, path_type=Path)
FILE = _Path(dir_okay=False, path_type=Path)
HOURS = Parsed("float", _hours)
NUMBER = Parsed("number", _number)
NUMBERS = Parsed("numbers", _numbers)
LAYERS = Parsed("layers", _layers)
METRIC = Parsed("spec", _metric)
PLOT = Parsed("file", _file_of(()))
PAGE = Parsed("file", _file_of((".html", ".htm")))
