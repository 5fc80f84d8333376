"""Inspection: what a direction means, from the store and, if asked for, from its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

from steerlab.core import above
from steerlab.core.arguments import checks_names
from steerlab.core.notation import span
from steerlab.core.recipe import Contrast, Expression, Recipe, kind_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, BadPrompts, SteerlabError
from steerlab.evaluation.inspection.agreement import agreement, check_pairs, midpoint
from steerlab.evaluation.inspection.logit_lens import Lens, logit_lens
from steerlab.evaluation.inspection.projection import Projections, check_projectable, projections
from steerlab.progress import ShouldStop, Watch, with_bar

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel
    from steerlab.registry.neighbours import Neighbour

Figures = Mapping[int, Mapping[str, float]]
"""Layer -> figures by name."""


@dataclass(frozen=True, repr=False)
class Inspection(above.Drawn):
    """What is known about a direction; parts that were not asked for are empty.

    name: of the vector at its own layers. vector: at the layers inspected.
    operands: ref -> layer -> cosine with an operand of the expression.
    agreement: name -> layer -> figures of the pairs of the vector, or of the vectors that an
        expression was made from. notes: what is unknown, and why.
    """

    name: str
    recipe: Recipe
    vector: SteeringVector
    operands: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()
    agreement: Mapping[str, Figures] = field(default_factory=dict)
    lens: tuple[Lens, ...] = ()
    projections: Projections | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Inspection of {self.name}: layers {span(self.vector.layers)}>"

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        vector, doses = self.vector, self.vector.doses()
        layers = [
            {"layer": b, "norm": n, "residual": vector.residual_norms.get(b), "dose": doses[b]}
            for b, n in vector.norms().items()
        ]
        return {
            "vector": self.name,
            "digest": vector.digest,
            "model": vector.model.source,
            "scope": vector.scope,
            "recipe": {"kind": kind_of(self.recipe), "text": str(self.recipe)},
            "layers": layers,
            "operands": {ref: _keyed(cosines) for ref, cosines in self.operands.items()},
            "neighbours": [asdict(neighbour) for neighbour in self.neighbours],
            "agreement": {ref: _keyed(figures) for ref, figures in self.agreement.items()},
            "tokens": [asdict(lens) for lens in self.lens],
            "projections": self.projections.to_json() if self.projections is not None else None,
            "notes": list(self.notes),
        }


@checks_names(Watch)
@with_bar("inspecting")
def inspect(
    lab: Lab,
    of: str | SteeringVector,
    *,
    layers: LayerChoice = None,
    tokens: int = 10,
    neighbours: int = 8,
    prompt: str | None = None,
    chat: bool = False,
    pairs: bool = False,
    allow_other_weights: bool = False,
    **watch: Unpack[Watch],
) -> Inspection:
    """Inspect a stored vector or an expression.

    layers: None for the vector's own; layers it lacks are made from its recipe. tokens: number
        of promoted and of suppressed tokens; 0 for none. prompt: text whose tokens are
        projected. pairs: read the contrast pairs again; else the figures of the extraction are
        given. The model is loaded only for these four.
    neighbours: the largest number of them.
    watch: progress, called with (pairs read, all pairs); should_stop ends early, and earlier
        parts stay.
    Raises BadOption for negative numbers, and the errors of evaluating, loading and reading.
    """
    if tokens < 0 or neighbours < 0:
        raise BadOption("the numbers of tokens and neighbours can't be negative")
    made = lab.evaluate(of) if isinstance(of, str) else of
    if prompt is not None:
        check_projectable(made)
    vector = made if layers is None else lab.at_layers(made, layers)
    lm = None
    if tokens or pairs or prompt is not None:
        lm = _fitting(lab, vector, allow_other_weights)
    notes: list[str] = []
    should_stop = watch.get("should_stop")
    sources = dict(_sources(lab, made, vector, notes))
    measured = _agreement(lm if pairs else None, vector.layers, sources, notes, **watch)
    lens = projected = None
    if lm is not None and tokens:
        lens = logit_lens(lm, vector, top=tokens, should_stop=should_stop)
        notes += illegible(lab, made, lens)
    if lm is not None and prompt is not None:
        recipes = [recipe for recipe, _ in sources.values()]
        middle = midpoint(lm, recipes, vector.layers, should_stop=should_stop)
        projected = projections(lm, vector, prompt, chat=chat, midpoint=middle)
    return Inspection(
        str(made),
        made.recipe,
        vector,
        operands=_operands(lab, made, vector),
        neighbours=_neighbours(lab, made, vector, neighbours, should_stop),
        agreement=measured,
        lens=tuple(lens or ()),
        projections=projected,
        notes=tuple(notes),
    )


def _fitting(lab: Lab, vector: SteeringVector, allow_other_weights: bool) -> LanguageModel:
    from steerlab.interventions.hooks import check_fits

    lm = lab.load(vector)
    check_fits(vector, lm.identity, allow_other_weights)
    return lm


def illegible(lab: Lab, made: SteeringVector, lens: Sequence[Lens]) -> Iterator[str]:
    """A note if only early layers are read and no token stands out from random directions."""
    n = made.model.n_layers
    late = n - max(1, n // 5)
    ends = [abs(side[0].logit) for x in lens for side in (x.promoted, x.suppressed) if side]
    if not ends or max(ends) > lens[0].chance or any(x.layer >= late for x in lens):
        return
    where = f" (--layers {late}:{n} makes them)" if lab.extends(made) else ""
    yield (
        "no token stands out from those of random directions, as is usual before the last "
        f"layers, where the logit lens is clearest{where}"
    )


def _neighbours(
    lab: Lab,
    made: SteeringVector,
    vector: SteeringVector,
    limit: int,
    should_stop: ShouldStop | None,
) -> tuple[Neighbour, ...]:
    """The nearest stored vectors, without the vector itself."""
    if not limit:
        return ()
    itself = lab.store.qualified(made.ref, made.model) if made.ref is not None else None
    found = lab.store.similar(vector, limit=limit + 1, should_stop=should_stop)
    return tuple([n for n in found if n.ref != itself][:limit])


def _operands(
    lab: Lab, made: SteeringVector, vector: SteeringVector
) -> dict[str, dict[int, float]]:
    """Cosines with the operands of an expression that are still stored."""
    if not isinstance(made.recipe, Expression):
        return {}
    found = {}
    for operand in made.recipe.operands:
        try:
            found[operand.ref] = vector.cosines(lab.store.load(operand.ref, made.model))
        except SteerlabError:
            continue  # `_sources` notes it
    return {ref: cosines for ref, cosines in found.items() if cosines}


def _sources(
    lab: Lab, made: SteeringVector, vector: SteeringVector, notes: list[str]
) -> Iterator[tuple[str, tuple[Contrast, Figures]]]:
    """The recipes of pairs that a vector was made from, with the figures of their extraction.

    vector: what was made, at the layers inspected.
    """
    recipe, name = made.recipe, str(made)
    if isinstance(recipe, Contrast):
        yield name, (recipe, {**made.diagnostics, **vector.diagnostics})
    elif isinstance(recipe, Expression):
        for operand in recipe.operands:
            try:
                stored = lab.store.load(operand.ref, made.model)
            except SteerlabError as error:
                notes.append(f"the pairs of {operand.ref} are unknown: {error}")
                continue
            yield from _sources(lab, stored, stored, notes)
    else:
        notes.append(f"{name} was imported: its pairs are unknown")


def _agreement(
    lm: LanguageModel | None,
    layers: Sequence[int],
    sources: Mapping[str, tuple[Contrast, Figures]],
    notes: list[str],
    **watch: Unpack[Watch],
) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for name, (recipe, known) in sources.items():
        try:
            check_pairs(recipe)
        except BadPrompts as error:
            notes.append(f"{name}: {error}")
            continue
        if lm is not None:
            found[name] = agreement(lm, recipe, layers, **watch)
        elif stored := {b: known[b] for b in layers if b in known}:
            found[name] = stored
    return found


def _keyed(by_layer: Mapping[int, Any]) -> dict[str, Any]:
    return {str(b): dict(v) if isinstance(v, Mapping) else v for b, v in by_layer.items()}
