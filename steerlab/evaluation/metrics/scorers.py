"""Metrics by name: built-in ones, keywords, regular expressions and your own functions."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from steerlab.core.display import printable
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import METRICS, Metric
from steerlab.files.location import expanded
from steerlab.files.prompts import read_text

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_SPECS = "keywords:FILE, regex:PATTERN, package.module:function"


def scorer(spec: str) -> Metric:
    """The metric that a spec names.

    distinct-2, vader, …         a built-in metric (`texts.METRICS`)
    keywords:FILE                words listed in the file / all words, without case and marks
    regex:PATTERN                number of matches that don't overlap
    package.module:function      any function text -> float; package.module.function too

    A function is imported, also from the current directory. If it fails on a text, or returns
    no finite number, that text has no value (`Metric.explained` gives the reason).
    Raises BadOption for a bad spec, with the closest names; NotFound and BadPrompts for a file
    of keywords that can't be read.
    """
    if spec in METRICS:
        return METRICS[spec]
    kind, colon, rest = spec.partition(":")
    if colon and kind in _MADE:
        if not rest:
            raise BadOption(f"{kind}: needs an argument: a metric is {_SPECS}")
        return _MADE[kind](spec, rest)
    module, _, name = spec.partition(":") if colon else spec.rpartition(".")
    if not (module and name) or not all(map(str.isidentifier, f"{module}.{name}".split("."))):
        raise BadOption(_unknown(spec))
    return _function(spec, module, name)


def keyword_rate(text: str, keywords: Iterable[str]) -> float:
    """Keywords of the text / all its words; keywords are in lower case."""
    found = _words(text)
    return sum(word in keywords for word in found) / len(found) if found else math.nan


def matches(text: str, pattern: re.Pattern[str]) -> float:
    """Number of matches that don't overlap."""
    return float(sum(1 for _ in pattern.finditer(text)))


def _words(text: str) -> list[str]:
    """Words in lower case without punctuation."""
    return [word.casefold().replace("’", "'") for word in _WORD.findall(text)]


def _keywords(spec: str, file: str) -> Metric:
    path = expanded(file)
    words = frozenset(_words(read_text(path, "keywords")))
    if not words:
        raise BadOption(f"{printable(file)} contains no words")
    about = f"words listed in {printable(path.name)} / all"
    return Metric(spec, about, partial(keyword_rate, keywords=words), digits=3)


def _regex(spec: str, pattern: str) -> Metric:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadOption(f"{printable(pattern)!r} is not a regular expression: {error}") from None
    about = f"matches of {printable(pattern)}"
    return Metric(spec, about, partial(matches, pattern=compiled), high=None, digits=1)


_MADE: dict[str, Callable[[str, str], Metric]] = {"keywords": _keywords, "regex": _regex}


def _function(spec: str, module: str, name: str) -> Metric:
    with _current_directory():
        try:
            found: Any = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise BadOption(_failed(module, error)) from None  # one of its imports
            raise BadOption(_unknown(spec)) from None
        except (Exception, SystemExit) as error:
            raise BadOption(_failed(module, error)) from None
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], 3)
            raise BadOption(f"{module} has no {part!r}{_hint(close)}")
        found = getattr(found, part)
    if not callable(found):
        raise BadOption(f"{module}:{name} is not a function: {found!r:.60}")
    first, *_ = (getattr(found, "__doc__", None) or f"by {module}:{name}").strip().splitlines()
    return Metric(spec, printable(first)[:80], found, low=-1.0)


@contextmanager
def _current_directory() -> Iterator[None]:
    """Search modules in the current directory too, after the installed ones."""
    before = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _failed(module: str, error: BaseException) -> str:
    return f"importing {module} failed: {type(error).__name__}: {printable(str(error))[:200]}"


def _unknown(spec: str) -> str:
    if spec == "vader":
        return "vader needs the vaderSentiment package: pip install vaderSentiment"
    close = difflib.get_close_matches(spec, [*METRICS, *(f"{kind}:" for kind in _MADE)], 3)
    if ":" in spec and not close and " " not in spec:
        module = spec.partition(":")[0]
        return f"no module {module} is installed or in this directory: a metric is {_SPECS}"
    known = ", ".join(METRICS)
    return f"there is no metric {printable(spec)!r}{_hint(close)} (known: {known}, {_SPECS})"


def _hint(close: list[str]) -> str:
    return f": did you mean {' or '.join(close)}?" if close else ""
