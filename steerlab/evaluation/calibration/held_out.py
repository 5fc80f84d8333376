"""Held-out directions: vectors made again without some of their contrast pairs.

A vector's effect on the prompts it was made from says little. So each contrast pair becomes an
item that is scored only under vectors made without it. Prompts are read once; leaving pairs out
takes no further pass of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Unpack

import numpy as np

from steerlab.core.expression import evaluate
from steerlab.core.notation import selects_layers
from steerlab.core.prompts import Prompt
from steerlab.core.recipe import Contrast, Expression, Imported
from steerlab.core.syntax import parse
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts
from steerlab.evaluation.controls import Swaps, halvings, swaps, unshuffled
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.extraction.readings import Readings
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel

Pair = tuple[Prompt, Prompt]
_PRESENT = 0.1  # the smallest cosine of an operand that is part of a composition


class Source:
    """A vector's directions, with or without some of its contrast pairs; here it has no pairs.

    made: makes the vector at all layers that are asked for; None where it has them.
    """

    def __init__(
        self, vector: SteeringVector, made: Callable[[], SteeringVector] | None = None
    ) -> None:
        self.vector, self._make = vector, made or (lambda: vector)

    @cached_property
    def _made(self) -> SteeringVector:
        return self._make()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that can be left out, each ordered as the vector points."""
        return ()

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """One layer of the vector, made without these pairs, in either order."""
        return self._made[layer]

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """AUC of telling positive from negative prompts, each pair by the others, if known."""
        return self._made.diagnostics.get(layer, {}).get("separability")

    @property
    def unshuffled(self) -> str:
        """Why it makes no vectors of shuffled labels; empty if it does."""
        recipe = self.vector.recipe
        why = unshuffled(recipe) if isinstance(recipe, Contrast) else ""
        return why or "it has no contrast pairs that this model could read"

    @property
    def shuffles(self) -> int:
        """How many vectors of shuffled labels it can make."""
        return 0

    def shuffled(self, layer: int, number: int) -> SteeringVector:
        """One layer of the vector with half of its pairs swapped, as long as the vector."""
        made = self._shuffled(layer, number)
        return made * (self.at(layer).norm / made.norm) if made.norm else made

    def _shuffled(self, layer: int, number: int) -> SteeringVector:
        raise BadPrompts(f"{self.vector} has no contrast pairs whose labels could be shuffled")


class Paired(Source):
    """A vector of contrast pairs; read: reads their activations at all layers at once."""

    def __init__(
        self, vector: SteeringVector, recipe: Contrast, read: Callable[[], Readings]
    ) -> None:
        super().__init__(vector)
        self.recipe, self._read = recipe, read
        self._known: dict[tuple[int, frozenset[int]], SteeringVector] = {}

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the recipe."""
        return self.recipe.pairs

    @cached_property
    def _found(self) -> Readings:
        return self._read()

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """Extract the remaining pairs by the recipe's method; BadPrompts if none remain."""
        kept = self._kept(without)
        if (layer, kept) not in self._known:
            rows = sorted(kept)
            self._known[layer, kept] = self._extracted(layer, rows, np.zeros(len(rows), dtype=bool))
        return self._known[layer, kept]

    @property
    def unshuffled(self) -> str:
        """What the recipe lacks."""
        return unshuffled(self.recipe)

    @property
    def shuffles(self) -> int:
        """As many halves of the pairs as there are, up to `SHUFFLES`."""
        return 0 if self.unshuffled else halvings(len(self.pairs))

    def _shuffled(self, layer: int, number: int) -> SteeringVector:
        draws = swaps(len(self.pairs), range(self.shuffles))
        return self._extracted(layer, list(range(len(self.pairs))), draws[number])

    def _extracted(self, layer: int, rows: list[int], swapped: Swaps) -> SteeringVector:
        from steerlab.extraction import runner

        positive, negative, baseline = runner.split(self.recipe, self._found.values[layer])
        one, two, turned = positive[rows], negative[rows], swapped[:, None]
        up, down = np.where(turned, two, one), np.where(turned, one, two)
        known = self.vector.residual_norms.get(layer, self._found.residual_norms.get(layer))
        return SteeringVector(
            {layer: runner.direction(self.recipe, up, down, baseline, layer)},
            model=self.vector.model,
            recipe=Imported(f"{self.vector} without some of its pairs", "held out"),
            residual_norms={} if known is None else {layer: known},
        )

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """The AUC of the remaining pairs; None if there are too few."""
        from steerlab.extraction import methods, runner

        rows = sorted(self._kept(without))
        positive, negative, _ = runner.split(self.recipe, self._found.values[layer])
        return methods.diagnose(positive[rows], negative[rows]).get("separability")

    def _kept(self, without: Collection[Pair]) -> frozenset[int]:
        out = {frozenset(pair) for pair in without}
        kept = frozenset(i for i, pair in enumerate(self.pairs) if frozenset(pair) not in out)
        if not kept:
            raise BadPrompts(
                f"no held-out items: {self.vector} has only {len(self.pairs)} contrast pairs, and "
                "none would be left: give a file of items (--items)"
            )
        return kept


class Composed(Source):
    """An expression, evaluated over operands that are made without the pairs."""

    def __init__(self, vector: SteeringVector, text: str, operands: dict[str, Source]) -> None:
        super().__init__(vector)
        self.text, self.operands = text, operands
        self.own_layers = selects_layers(self.text)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the operands, swapped if an operand counts negatively."""
        found: dict[frozenset[Prompt], Pair] = {}
        for ref, sign in _signs(self.vector, self.text, list(self.operands)).items():
            for one, two in self.operands[ref].pairs if sign else ():
                found.setdefault(frozenset((one, two)), (one, two) if sign > 0 else (two, one))
        return tuple(found.values())

    def at(self, layer: int, without: Collection[Pair] = ()) -> SteeringVector:
        """Evaluate the expression over operands without these pairs."""
        return self._evaluated(layer, lambda source, b: source.at(b, without))

    @property
    def unshuffled(self) -> str:
        """What the first operand without shuffled labels lacks."""
        why = ((ref, source.unshuffled) for ref, source in self.operands.items())
        return next((f"{ref}: {reason}" for ref, reason in why if reason), "")

    @property
    def shuffles(self) -> int:
        """As many as all operands have; 0 if one has none."""
        return min((source.shuffles for source in self.operands.values()), default=0)

    def _shuffled(self, layer: int, number: int) -> SteeringVector:
        return self._evaluated(layer, lambda source, b: source.shuffled(b, number))

    def _evaluated(self, layer: int, at: Callable[[Source, int], SteeringVector]) -> SteeringVector:
        layers = self.vector.layers if self.own_layers else (layer,)
        made = evaluate(self.text, lambda ref: _whole([at(self.operands[ref], b) for b in layers]))
        return made[layer] if made.layers != (layer,) else made

    def separability(self, layer: int, without: Collection[Pair] = ()) -> float | None:
        """None: pairs of several operands have no direction in common."""
        return None


def _whole(parts: Sequence[SteeringVector]) -> SteeringVector:
    return SteeringVector(
        {b: part.directions[b] for part in parts for b in part.layers},
        model=parts[0].model,
        scope=parts[0].scope,
        recipe=parts[0].recipe if len(parts) == 1 else Imported("held out"),
        residual_norms={b: norm for part in parts for b, norm in part.residual_norms.items()},
    )


def _signs(vector: SteeringVector, text: str, refs: Sequence[str]) -> dict[str, int]:
    """The sign of each operand in an expression; 0 for one that leaves no trace.

    Found by evaluating the expression with a random direction for each operand.
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


def shuffled_controls(source: Source, vector: SteeringVector, count: int) -> list[SteeringVector]:
    """Up to `count` vectors of shuffled labels, with the norm of `vector` at each of its layers.

    They keep what the prompts share and lose what tells positive from negative. They differ from
    one another, but one may be the negative of another. A composition's come from its operands'.
    """
    made = []
    for number in range(min(count, source.shuffles)):
        parts = {b: source.shuffled(b, number) for b in vector.layers}
        sizes = {b: norm / (parts[b].norm or 1.0) for b, norm in vector.norms().items()}
        made.append(
            SteeringVector(
                {b: sizes[b] * part.directions[b] for b, part in parts.items()},
                model=vector.model,
                recipe=Imported(f"shuffled labels of {vector}, number {number}", "shuffled"),
                residual_norms=vector.residual_norms or _whole([*parts.values()]).residual_norms,
            )
        )
    return made


def source_in(
    lab: Lab,
    vector: SteeringVector,
    layers: Sequence[int],
    watch: Callable[[], Watch] = Watch,
) -> Source:
    """The source of a vector's directions at these layers, on a lab's model.

    Nothing can be left out of a front vector, of a vector of another model, or of one without
    pairs. watch: asked for the progress and the stop of each reading.
    """
    lm, recipe = lab.model, vector.recipe
    if not vector.model.has_weights_of(lm.identity):
        return Source(vector)
    if vector.scope == "broadcast" and isinstance(recipe, Contrast) and recipe.pairs:
        return Paired(vector, recipe, lambda: _read(lm, recipe, layers, **watch()))
    if vector.scope == "broadcast" and isinstance(recipe, Expression):
        inner = vector.layers if selects_layers(recipe.text) else layers
        operands = {ref: lab.operand(vector, ref) for ref in parse(recipe.text).refs}
        sources = {ref: source_in(lab, one, inner, watch) for ref, one in operands.items()}
        return Composed(vector, recipe.text, sources)
    lacks = set(layers) - set(vector.layers)
    return Source(vector, (lambda: lab.at_layers(vector, layers)) if lacks else None)


def _read(
    lm: LanguageModel, recipe: Contrast, layers: Sequence[int], **watch: Unpack[Watch]
) -> Readings:
    from steerlab.extraction import runner

    with lm.lock:
        return runner.read(lm, recipe, layers, **watch)
