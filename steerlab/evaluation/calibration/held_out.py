"""Directions that have not seen an item: vectors made again without some of their pairs.

What a vector does to the prompts it was made from says little. Each contrast pair becomes an
item, and is only ever scored under a vector that was extracted without it; prompts are read
once, and leaving pairs out costs no pass of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from steerlab.core.expression import evaluate, parse
from steerlab.core.notation import selects_layers
from steerlab.core.recipe import Contrast, Expression, Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts

if TYPE_CHECKING:
    from steerlab.extraction.readings import Readings
    from steerlab.models.language_model import LanguageModel

Pair = tuple[str, str]
Reader = Callable[[Contrast, Sequence[int]], "Readings"]
_PRESENT = 0.1  # cosine from which on an operand is part of a composition


class Source(Protocol):
    """Where directions come from, with or without some of the contrast pairs behind them."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that can be left out, in the direction in which the vector points."""

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """One layer of the vector, made without these pairs (whichever way round)."""

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """AUC of telling positive from negative prompts, each by the other pairs."""


class Fixed:
    """A vector as it stands: nothing can be left out of it."""

    pairs: tuple[Pair, ...] = ()

    def __init__(self, vector: SteeringVector) -> None:
        self.vector = vector
        self._layers: dict[int, SteeringVector] = {}

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """The stored direction; raises NotFound for a layer without one."""
        if layer not in self._layers:
            self._layers[layer] = self.vector[layer]
        return self._layers[layer]

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """As it was measured at extraction, if it was."""
        return self.vector.diagnostics.get(layer, {}).get("separability")


class Paired:
    """A vector of contrast pairs, whose activations at all `layers` are read at once."""

    def __init__(self, vector: SteeringVector, layers: Sequence[int], read: Reader) -> None:
        assert isinstance(vector.recipe, Contrast)
        self.vector, self.recipe, self.layers = vector, vector.recipe, layers
        self._read = read
        self._made: dict[tuple[int, frozenset[int]], SteeringVector] = {}

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The recipe's own."""
        return tuple(zip(self.recipe.positive, self.recipe.negative, strict=True))

    @cached_property
    def _found(self) -> Readings:
        return self._read(self.recipe, self.layers)

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """Extracted by the recipe's method of the pairs that are left; BadPrompts if none is."""
        from steerlab.extraction import runner

        kept = self._kept(without)
        if (layer, kept) not in self._made:
            rows = sorted(kept)
            positive, negative, baseline = runner.split(self.recipe, self._found.values[layer])
            made = runner.direction(self.recipe, positive[rows], negative[rows], baseline, layer)
            known = self.vector.residual_norms.get(layer, self._found.residual_norms.get(layer))
            self._made[layer, kept] = SteeringVector(
                {layer: made},
                model=self.vector.model,
                recipe=Imported(f"{self.vector} without some of its pairs", "held out"),
                residual_norms={} if known is None else {layer: known},
            )
        return self._made[layer, kept]

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """Of the pairs that are left; None where there are too few."""
        from steerlab.extraction import methods, runner

        rows = sorted(self._kept(without))
        positive, negative, _ = runner.split(self.recipe, self._found.values[layer])
        return methods.diagnose(positive[rows], negative[rows]).get("separability")

    def _kept(self, without: Collection[Pair]) -> frozenset[int]:
        out = {frozenset(pair) for pair in without}
        kept = frozenset(i for i, pair in enumerate(self.pairs) if frozenset(pair) not in out)
        if not kept:
            raise BadPrompts(
                f"no held-out items: without them nothing is left of {self.vector}, which has "
                f"{len(self.pairs)} contrast pairs: give a file of items (--items)"
            )
        return kept


class Composed:
    """An expression over sources: each operand is made without the pairs, and it is evaluated."""

    def __init__(self, vector: SteeringVector, operands: dict[str, Source]) -> None:
        assert isinstance(vector.recipe, Expression)
        self.vector, self.text, self.operands = vector, vector.recipe.text, operands
        self.own_layers = selects_layers(self.text)
        self._made: dict[tuple[int, frozenset[frozenset[str]]], SteeringVector] = {}

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Those of the operands, turned round where an operand counts negatively."""
        found: dict[frozenset[str], Pair] = {}
        for ref, sign in _signs(self.vector, self.text, list(self.operands)).items():
            for above, below in self.operands[ref].pairs if sign else ():
                pair = (above, below) if sign > 0 else (below, above)
                found.setdefault(frozenset(pair), pair)
        return tuple(found.values())

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """The expression over operands without these pairs."""
        key = (layer, frozenset(map(frozenset, without)))
        if key not in self._made:
            layers = self.vector.layers if self.own_layers else (layer,)
            made = evaluate(self.text, lambda ref: _whole(self.operands[ref], layers, without))
            self._made[key] = made[layer] if made.layers != (layer,) else made
        return self._made[key]

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """None: pairs of several operands have no direction in common."""
        return None


def _whole(source: Source, layers: Iterable[int], without: Collection[Pair]) -> SteeringVector:
    parts = [source.at(layer, without) for layer in layers]
    return SteeringVector(
        {b: part.directions[b] for part in parts for b in part.layers},
        model=parts[0].model,
        scope=parts[0].scope,
        recipe=parts[0].recipe if len(parts) == 1 else Imported("held out"),
        residual_norms={b: norm for part in parts for b, norm in part.residual_norms.items()},
    )


def _signs(vector: SteeringVector, text: str, refs: Sequence[str]) -> dict[str, int]:
    """How each operand enters: +1, -1, or 0 where it leaves no trace along itself.

    Read from the expression's value over random directions, one an operand.
    """
    rng = np.random.default_rng(0)
    probes = {ref: rng.standard_normal(vector.model.d_model) for ref in refs}
    everywhere = range(vector.model.n_layers)
    operands = {
        ref: SteeringVector(dict.fromkeys(everywhere, probe), model=vector.model)
        for ref, probe in probes.items()
    }
    made = evaluate(text, lambda ref: operands[ref])
    cosines = {ref: next(iter(made.cosines(operands[ref]).values()), 0.0) for ref in refs}
    return {ref: int(np.sign(c)) if abs(c) > _PRESENT else 0 for ref, c in cosines.items()}


def source_of(
    lm: LanguageModel,
    vector: SteeringVector,
    layers: Sequence[int],
    lookup: Callable[[str], SteeringVector],
    read: Reader,
) -> Source:
    """How to make a vector's directions at these layers without some of its pairs.

    lookup: gives an operand by its ref. A vector of another model than `lm`, or without a
    recipe that can be run, is taken as it stands.
    """
    recipe = vector.recipe
    if isinstance(recipe, Imported) or vector.model.key != lm.identity.key:
        return Fixed(vector)
    if isinstance(recipe, Contrast):
        crossed = vector.scope == "broadcast" and bool(recipe.negative)
        return Paired(vector, layers, read) if crossed else Fixed(vector)
    refs = parse(recipe.text).refs
    inner = vector.layers if selects_layers(recipe.text) else layers
    return Composed(vector, {ref: source_of(lm, lookup(ref), inner, lookup, read) for ref in refs})
