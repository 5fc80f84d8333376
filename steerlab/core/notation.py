"""How refs, layers and weights are written, in expressions and in options."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from steerlab.errors import BadExpression, BadOption, NotFound

Layers = int | slice

LONGEST = 100_000
"""Characters that an expression may have."""

DEEPEST = 100
"""Levels that an expression may nest, so that what was made can be parsed on any call stack."""

_REF = re.compile(r"(?<![\w.])[^\W\d]\w*+(?:\.[^\W\d]\w*+)*+(?!\()")  # of no function

_TOO_DEEP = (
    "the expression is nested too deeply: save a part of it under a name first, "
    "or add many vectors with mean(...)"
)


LayerChoice = int | slice | Iterable[int] | str | None
"""Layers as a caller names them: 15, slice(10, 20), [10, 15], "all", or None for the middle one."""


def syntax_tree(text: str) -> ast.expr:
    """The tree of one expression; raises SyntaxError, or BadExpression if it is too large."""
    if len(text) > LONGEST:
        raise BadExpression(
            f"the expression has {len(text)} characters: {LONGEST} at most", text=text
        )
    try:
        tree = ast.parse(text, mode="eval").body
    except (RecursionError, MemoryError):
        raise BadExpression(_TOO_DEEP, text=text) from None
    level: Sequence[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise BadExpression(_TOO_DEEP, text=text)


def canonical(text: str) -> str:
    """The canonical text of an expression, with Python's own parentheses and spaces.

    Raises BadExpression if it is too long or too deep to be parsed again.
    """
    try:
        return ast.unparse(syntax_tree(text))
    except SyntaxError:  # the parser has its own limit for parentheses
        raise BadExpression(_TOO_DEEP, text=text) from None


def selects_layers(text: str) -> bool:
    """Whether an expression selects layers itself: love[10:20]."""
    return any(isinstance(node, ast.Subscript) for node in ast.walk(syntax_tree(text)))


def refs_in(text: str) -> tuple[str, ...]:
    """The refs in a canonical text, each once, in order."""
    return tuple(dict.fromkeys(_REF.findall(text)))


def replace_refs(text: str, renamed: Mapping[str, str]) -> str:
    """A canonical text with each operand's ref replaced; only the refs change."""
    return _REF.sub(lambda found: renamed.get(found[0], found[0]), text)


def is_ref(text: str) -> bool:
    """Whether `text` has the form of a ref: name, name.v2, model.name or model.name.v2."""
    parts = text.split(".")
    return len(parts) <= 3 and all(part.isidentifier() for part in parts)


def placeholder_of(digest: str) -> str:
    """The name that stands for an unstored operand in an expression's text."""
    return f"unsaved_{digest[:12]}"


def weight_of(value: object) -> float | None:
    """A weight as a float, None if it is no real number; raises BadExpression for inf and NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        weight = float(value)
    except OverflowError:
        weight = math.inf
    if not math.isfinite(weight):
        raise BadExpression(f"a weight has to be a finite number, not {weight}")
    return weight


def number(value: float) -> str:
    """A weight as text that parses to the same float; negative ones in parentheses."""
    text = repr(int(value) if value.is_integer() and abs(value) < 2**53 else value)
    return f"({text})" if value < 0 else text


def whole(layers: Layers) -> Layers:
    """`layers` with plain ints in it (numpy's are welcome); TypeError for anything else."""
    if isinstance(layers, slice):
        bounds = (layers.start, layers.stop, layers.step)
        return slice(*(None if x is None else whole(x) for x in bounds))
    if isinstance(layers, bool) or not isinstance(layers, Integral):
        raise TypeError(f"layers are selected by int or slice, not {layers!r}")
    return int(layers)


def subscript(layers: Layers) -> str:
    """The text between the brackets: "15", "10:20", ":"."""
    if isinstance(layers, slice):
        bounds = [layers.start, layers.stop, layers.step]
        text = ":".join("" if x is None else str(x) for x in bounds)
        return text.removesuffix(":")
    return str(layers)


def runs(layers: Sequence[int]) -> list[int | slice]:
    """Layers in order, with neighbours together: 1, 2, 5 gives slice(1, 3) and 5."""
    starts = [b for b in layers if b - 1 not in layers]
    stops = [b + 1 for b in layers if b + 1 not in layers]
    pairs = zip(starts, stops, strict=True)
    return [a if b == a + 1 else slice(a, b) for a, b in pairs]


def span(layers: Sequence[int]) -> str:
    """Layers in few characters: "15", "10-14", "5, 10-12"."""
    found = runs(layers)
    return ", ".join(f"{r.start}-{r.stop - 1}" if isinstance(r, slice) else str(r) for r in found)


def layers_text(layers: Sequence[int]) -> str:
    """Layers with their noun: "layer 15", "layers 10-20"."""
    return f"layer{'s' * (len(layers) != 1)} {span(layers)}"


def layer_numbers(choice: LayerChoice, n: int, source: str) -> list[int]:
    """The layers that are meant, of `n`; BadOption for no choice, NotFound for none of these.

    choice: 15, [10, 15], slice(10, 20), "all" or None (the middle one). source: of the model.
    """
    if choice is None:
        return [n // 2]
    if isinstance(choice, str):
        if choice != "all":
            raise BadOption(f"layers are numbers, a range or 'all', not {choice!r}")
        return list(range(n))
    if isinstance(choice, slice):
        start, stop = choice.start or 0, n if choice.stop is None else choice.stop
        wanted: Sequence[Any] = range(start, stop, choice.step or 1)  # may be of any length
    else:
        wanted = list(choice) if isinstance(choice, Iterable) else [choice]
    if not wanted:
        raise BadOption("no layers are chosen")
    for layer in wanted:
        whole = isinstance(layer, Integral) and not isinstance(layer, bool)
        if not whole or not 0 <= layer < n:
            raise NotFound(f"{source} has no layer {layer}: its layers are 0 to {n - 1}")
    return sorted({int(layer) for layer in wanted})


def layers_of(text: str) -> list[int] | slice | str:
    """Layers for `LanguageModel.layers`, from 15, 10,15,20, 10:20 or all; raises BadOption."""
    stripped = text.strip()
    try:
        if stripped == "all":
            return "all"
        return _range(stripped) if ":" in stripped else [int(part) for part in stripped.split(",")]
    except ValueError:
        raise BadOption(
            f"can't read {text!r} as layers: write 15, 10,15,20, 10:20 or all"
        ) from None


def _range(text: str) -> slice:
    bounds = [int(part) if part.strip() else None for part in text.split(":")]
    if len(bounds) > 3 or any(b is not None and b < 0 for b in bounds) or bounds[2:] == [0]:
        raise ValueError
    start, stop = bounds[0], bounds[1]
    if stop is not None and stop <= (start or 0):
        raise ValueError
    return slice(*bounds)


def spelled(layers: list[int] | slice | str | None) -> str:
    """The inverse of `layers_of`; empty for None."""
    if layers is None or isinstance(layers, str):
        return layers or ""
    return subscript(layers) if isinstance(layers, slice) else ",".join(map(str, layers))


def derived_name(expression: str) -> str:
    """A name made from an expression: "love - 0.5 * anger" gives "love_minus_0_5_anger"."""
    words = {"+": "plus", "-": "minus", "*": "", "/": "over", "[": "at", ":": "to"}
    pieces = re.findall(r"[A-Za-z_][\w.]*|[\d.]+|\S", expression)
    spelled = [words.get(piece, piece) for piece in pieces if piece not in "(),]"]
    text = re.sub(r"\W+", "_", "_".join(word for word in spelled if word))
    text = re.sub(r"_+", "_", text).strip("_")
    return (text if text[:1].isalpha() else f"x_{text}")[:60].rstrip("_")
