"""Vectors at layers at which they are not stored: made from their recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from steerlab.core.expression import evaluate
from steerlab.core.notation import layer_numbers, layers_text, runs, selects_layers, span
from steerlab.core.recipe import Contrast, Expression, Imported, Operand
from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible, ModelMismatch, NotFound

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.models.language_model import LanguageModel
    from steerlab.registry import Store


class _Bench(Protocol):
    """What making layers needs of a lab; `Lab` itself imports this file."""

    @property
    def store(self) -> Store: ...
    @property
    def model(self) -> LanguageModel: ...
    def load(self, vector: SteeringVector) -> LanguageModel: ...
    def reextracted(self, recipe: Contrast, layers: Sequence[int]) -> SteeringVector: ...


def at_layers(
    lab: _Bench,
    vector: SteeringVector,
    layers: LayerChoice,
    known: dict[Operand, SteeringVector] | None = None,
) -> SteeringVector:
    """See `Lab.at_layers`; loads the model only to make what is not stored.

    known: the operands that were made at these layers so far.
    """
    wanted = layer_numbers(layers, vector.model.n_layers, vector.model.source)
    missing = [b for b in wanted if b not in vector.directions]
    if tuple(wanted) == vector.layers:
        return vector
    if not missing:
        first, *others = [vector[run] for run in runs(wanted)]  # its recipe says which
        return sum(others, start=first)
    lab.load(vector)
    recipe = vector.recipe
    if isinstance(recipe, Imported):
        raise Incompatible(
            f"{vector} was imported at layers {span(vector.layers)} and has no recipe that "
            f"could make layer {missing[0]}"
        )
    if not vector.model.has_weights_of(lab.model.identity):
        raise ModelMismatch(
            f"{vector} was made on {vector.model.source}, and layer {missing[0]} can't be made "
            f"on {lab.model.source}: name its own model"
        )
    if isinstance(recipe, Contrast):
        made = _extended(lab, vector, recipe, missing, wanted)
    else:
        made = _reevaluated(lab, vector, recipe, wanted, {} if known is None else known)
    return made.noted(called=f"{vector} at {layers_text(wanted)}")


def extends(lab: _Bench, vector: SteeringVector) -> bool:
    """See `Lab.extends`."""
    left, seen = [(vector.recipe, vector.model)], set[Operand]()
    while left:
        recipe, model = left.pop()
        if isinstance(recipe, Contrast):
            continue
        if isinstance(recipe, Imported) or selects_layers(recipe.text):
            return False
        for one in {*recipe.operands} - seen:
            try:
                record = lab.store.record(one.ref, model)
            except NotFound:
                return False
            left.append((record.recipe, record.model))
        seen |= {*recipe.operands}
    return True


def operand(lab: _Bench, vector: SteeringVector, ref: str) -> SteeringVector:
    """The operand of a composition by its ref; Incompatible if the ref means another vector."""
    assert isinstance(vector.recipe, Expression)
    digests = {operand.ref: operand.digest for operand in vector.recipe.operands}
    stored = lab.store.load(ref, vector.model)
    if stored.digest != digests[ref]:
        raise Incompatible(
            f"{ref} is no longer the vector that {vector} was made from: compose it anew"
        )
    return stored


def _extended(
    lab: _Bench, vector: SteeringVector, recipe: Contrast, missing: list[int], wanted: list[int]
) -> SteeringVector:
    made = lab.reextracted(recipe, missing)
    directions = {**vector.directions, **made.directions}
    return SteeringVector(
        {b: directions[b] for b in wanted},
        model=vector.model,
        recipe=recipe,
        scope=vector.scope,
        residual_norms={**vector.residual_norms, **made.residual_norms},
        diagnostics={**vector.diagnostics, **made.diagnostics},
    )


def _reevaluated(
    lab: _Bench,
    vector: SteeringVector,
    recipe: Expression,
    layers: list[int],
    known: dict[Operand, SteeringVector],
) -> SteeringVector:
    if selects_layers(recipe.text):
        missing = next(b for b in layers if b not in vector.directions)
        raise Incompatible(
            f"{vector} selects its layers itself ({recipe.text}), so layer {missing} "
            "can't be made of it"
        )
    operands = {one.ref: one for one in recipe.operands}

    def made(ref: str) -> SteeringVector:
        one = operands[ref]
        if one not in known:
            known[one] = at_layers(lab, operand(lab, vector, ref), layers, known)
        return known[one]

    return evaluate(recipe.text, made)
