"""Difference: two vectors side by side, their directions and how they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from steerlab.core import above
from steerlab.core.direction import dot, norm_of, padded
from steerlab.core.notation import span
from steerlab.core.prompts import describe_read
from steerlab.core.recipe import Contrast, Expression, Imported, Recipe, kind_of
from steerlab.core.vector import SteeringVector

Sign = Literal[" ", "-", "+"]


@dataclass(frozen=True)
class LayerDifference:
    """Two directions at one layer; figures that need both are None if one is missing or zero.

    norm_a, norm_b: None for a vector without a direction here.
    b_in_a: the multiple of b that is the projection of a on b; a_in_b: vice versa.
    sum_keeps, difference_keeps: ‖a + b‖ and ‖a - b‖ over ‖a‖ + ‖b‖: 1 if nothing cancels, 0 if
        all does; about 0.71 for orthogonal directions of equal norm.
    """

    layer: int
    norm_a: float | None
    norm_b: float | None
    cosine: float | None = None
    b_in_a: float | None = None
    a_in_b: float | None = None
    sum_keeps: float | None = None
    difference_keeps: float | None = None


@dataclass(frozen=True)
class RecipeLine:
    """A fact about how the vectors were made: both (" "), only a ("-") or only b ("+")."""

    sign: Sign
    label: str
    text: str


@dataclass(frozen=True, repr=False)
class Difference(above.Drawn):
    """Two vectors of one model and scope: their directions by layer, and how they were made."""

    a: str
    b: str
    layers: tuple[LayerDifference, ...]
    recipe: tuple[RecipeLine, ...]

    def __repr__(self) -> str:
        cosines = [x.cosine for x in self.layers if x.cosine is not None]
        ends = dict.fromkeys(f"{end(cosines):+.2f}" for end in (min, max) if cosines)
        shown = f"cosine {' to '.join(ends)}" if ends else "no common layer"
        return f"<Difference of {self.a} and {self.b}: {shown}>"

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        owners = {" ": "both", "-": "a", "+": "b"}
        lines = [{"in": owners[x.sign], "label": x.label, "text": x.text} for x in self.recipe]
        layers = [asdict(layer) for layer in self.layers]
        return {"a": self.a, "b": self.b, "layers": layers, "recipe": lines}


def difference(a: SteeringVector, b: SteeringVector) -> Difference:
    """Compare two vectors at every layer that either has, and how they were made.

    Front tensors are compared over all rows, the shorter one padded with zeros.
    Raises Incompatible for vectors of different models or scopes.
    """
    a.cosines(b)  # raises Incompatible
    layers = sorted({*a.layers, *b.layers})
    return Difference(
        str(a), str(b), tuple(_at(a, b, layer) for layer in layers), tuple(_recipes(a, b))
    )


def _at(a: SteeringVector, b: SteeringVector, layer: int) -> LayerDifference:
    if layer not in a.directions or layer not in b.directions:
        norms = [norm_of(v.directions[layer]) if layer in v.directions else None for v in (a, b)]
        return LayerDifference(layer, norms[0], norms[1])
    x, y = padded(a.directions[layer], b.directions[layer])
    norm_x, norm_y, product = norm_of(x), norm_of(y), dot(x, y)
    total = norm_x + norm_y
    return LayerDifference(
        layer,
        norm_x,
        norm_y,
        cosine=_over(product, norm_x * norm_y),
        b_in_a=_over(product, norm_y**2),
        a_in_b=_over(product, norm_x**2),
        sum_keeps=_over(norm_of(x + y), total),
        difference_keeps=_over(norm_of(x - y), total),
    )


def _over(value: float, by: float) -> float | None:
    return value / by if by else None


def _recipes(a: SteeringVector, b: SteeringVector) -> Iterator[RecipeLine]:
    """Facts, then pairs, prompts and operands: of both, only of a, only of b."""
    ours, theirs = (
        {**{label: [text] for label, text in _facts(v)}, **_lists(v.recipe)} for v in (a, b)
    )
    for label in dict.fromkeys([*ours, *theirs]):
        x, y = ours.get(label, []), theirs.get(label, [])
        yield from (RecipeLine(" ", label, text) for text in x if text in y)
        yield from (RecipeLine("-", label, text) for text in x if text not in y)
        yield from (RecipeLine("+", label, text) for text in y if text not in x)


def _facts(vector: SteeringVector) -> Iterator[tuple[str, str]]:
    """Single facts by label."""
    model, recipe = vector.model, vector.recipe
    yield "model", model.source
    if model.revision:
        yield "revision", model.revision
    if model.dtype:
        yield "precision", model.dtype
    yield "scope", vector.scope
    yield "layers", span(vector.layers)
    yield "made by", kind_of(recipe)
    if isinstance(recipe, Contrast):
        yield "method", recipe.method
        yield "read", describe_read(recipe.read)
        yield "chat template", "yes" if recipe.chat else "no"
        if recipe.seed is not None:
            yield "seed", str(recipe.seed)
    elif isinstance(recipe, Expression):
        yield "expression", recipe.text
    else:
        yield "source", f"{recipe.source} ({recipe.format}, {recipe.quantity})"


def _lists(recipe: Recipe) -> dict[str, list[str]]:
    """Lists by label: pairs, prompts or operands."""
    if isinstance(recipe, Imported):
        return {"fact": list(recipe.facts), "asserted": list(recipe.asserted)}
    if isinstance(recipe, Expression):
        return {"operand": [f"{o.ref} ({o.digest[:12]})" for o in recipe.operands]}
    positive, negative, baseline = (list(map(str, side)) for side in recipe.sides)
    named = recipe.prompt_set
    if named is not None:
        return {"prompts of": [f"{named.path} ({named.digest[:12]})"]}
    if recipe.is_paired:
        prompts = {"pair": [f"{one} | {two}" for one, two in recipe.pairs]}
    else:
        prompts = {"prompt": positive, "negative prompt": negative}
    return prompts | {"baseline": baseline}
