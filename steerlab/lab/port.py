"""Port: a vector's recipe, with all that it was made from, run on another model."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.core.expression import Lookup, evaluate
from steerlab.core.notation import runs, selects_layers, subscript, syntax_tree
from steerlab.core.recipe import Contrast, Expression, Recipe
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible
from steerlab.lab.recipes import ancestry, reevaluated
from steerlab.progress import Progress, followed

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.core.record import Record
    from steerlab.lab.lab import Lab
    from steerlab.registry.queries import Summary

POOR_AGREEMENT = 0.75
"""The share of pairs below which a vector is doubtful; of pairs without meaning, half agree."""


@dataclass(frozen=True)
class Ported:
    """A vector of one model, and the result of its recipe on another.

    before: the qualified ref that was ported. after: the stored vector of the other model.
    layers: old layer -> new layer; empty where the layers were chosen.
    new: False where the other model already had it.
    """

    before: str
    after: SteeringVector
    layers: Mapping[int, int]
    new: bool

    @property
    def poor_layers(self) -> list[int]:
        """Layers where fewer pairs than `POOR_AGREEMENT` point along the mean of the others."""
        known = self.after.diagnostics
        return [
            b for b in self.after.layers if known.get(b, {}).get("agreement", 1.0) < POOR_AGREEMENT
        ]

    def to_json(self) -> dict[str, Any]:
        """The port as JSON values."""
        return {
            "before": self.before,
            "after": f"{self.after.model.name}.{self.after.ref}",
            "recipe": str(self.after.recipe),
            "layers": {str(a): b for a, b in self.layers.items()},
            "at": list(self.after.layers),
            "norm": self.after.norm,
            "digest": self.after.digest,
            "new": self.new,
            "poor_layers": self.poor_layers,
        }


def layer_at_same_depth(layer: int, n_layers: int, other: int) -> int:
    """The layer of a model with `other` blocks that is as deep as `layer` of `n_layers`.

    Depth is the share of blocks that have run, layer / n_layers; halves round up.
    """
    return min(other - 1, (2 * layer * other + n_layers) // (2 * n_layers))


def port(
    lab: Lab,
    ref: str,
    *,
    layers: LayerChoice = None,
    progress: Progress | None = None,
) -> list[Ported]:
    """Run a vector's recipe on the lab's model, and store the result there under the same name.

    The ancestors of a composition are ported first; vectors that the model already has by the
    same recipe are reused. Tags and notes are copied.
    layers: None takes those at the same relative depth.
    progress: called with (vectors done, vectors to do).
    Returns what was ported, parents first. Raises Incompatible for an imported vector, which
    has no recipe to run, and for `layers` where a composition selects its layers itself.
    """
    records = portable(lab, ref, layers=layers)
    lm = lab.model
    if records[-1].model.has_weights_of(lm.identity):
        raise BadOption(f"{records[-1].ref} is of {lm.source} already: name another model")
    porting = _Porting(lab, layers)
    return [porting.of(record) for record in followed(records, progress)]


def portable(lab: Lab, ref: str, *, layers: LayerChoice = None) -> list[Record]:
    """The records that `port` will run, parents first; raises its errors, but loads no model."""
    found = ancestry(lab.store, _resolved(lab, ref))
    for record in found:
        if isinstance(record.recipe, Contrast):
            continue
        if not isinstance(record.recipe, Expression):
            raise Incompatible(
                f"{record.ref} was imported and has no recipe that another model could run: "
                "import or extract one there"
            )
        if layers is not None and selects_layers(record.recipe.text):
            raise Incompatible(
                f"{record.ref} selects its layers itself ({record.recipe.text}): "
                "port it without choosing layers"
            )
    return found


def _resolved(lab: Lab, ref: str) -> Record:
    """The record of a ref; a name that only one other model has needs no qualifying."""
    try:
        return lab.store.record(ref)
    except Incompatible:
        ours, name = lab.stored_model(), ref.split(".")[0]
        owners = {summary.model for summary in lab.store.list(name=name)} - {ours}
        if len(owners) != 1:
            raise
        return lab.store.record(ref, owners.pop())


class _Porting:
    """Records run on one model, parents first."""

    def __init__(self, lab: Lab, layers: LayerChoice) -> None:
        self.store, self.lm, self.layers = lab.store, lab.model, layers
        self.done: dict[str, SteeringVector] = {}  # by the digest of what was ported

    def of(self, record: Record) -> Ported:
        mapped = {facts.layer: self.mapped(facts.layer, record) for facts in record.layers}
        recipe = record.recipe
        if isinstance(recipe, Contrast):
            depth = sorted({*mapped.values()})
            chosen = self.lm.layers(depth if self.layers is None else self.layers)
            made = self.extracted(record, chosen) or self.lm.reextract(_bare(recipe), chosen)
        else:
            assert isinstance(recipe, Expression)
            made = self.evaluated(record, recipe)
        stored = made
        if made.ref is None:
            stored = self.store.save(record.name, made, tags=record.tags, note=record.note)
        self.done[record.digest] = stored
        before = f"{record.model.name}.{record.ref}"
        return Ported(before, stored, {} if self.layers is not None else mapped, stored is not made)

    def mapped(self, layer: int, record: Record) -> int:
        return layer_at_same_depth(layer, record.model.n_layers, self.lm.n_layers)

    def extracted(self, record: Record, layers: Sequence[int]) -> SteeringVector | None:
        """The model's vector of that name with the same recipe at the same layers."""
        bare = _bare(record.recipe)

        def fits(version: Summary) -> bool:
            recipe = self.store.record(version.qualified).recipe
            return version.layers == tuple(layers) and _bare(recipe) == bare

        return self.there(record, fits)

    def evaluated(self, record: Record, recipe: Expression) -> SteeringVector:
        made = {o.ref: self.done[o.digest] for o in recipe.operands}
        text = recipe.text
        if selects_layers(text):
            text = self.with_mapped_layers(record, text)
        vector = reevaluated(text, made)
        return self.there(record, lambda version: version.digest == vector.digest) or vector

    def there(self, record: Record, fits: Callable[[Summary], bool]) -> SteeringVector | None:
        """The model's first version of that name that fits."""
        versions = self.store.list(
            name=record.name, model=self.lm.identity, every_version=True, sort="version"
        )
        found = next(filter(fits, versions), None)
        return None if found is None else self.store.load(found.qualified)

    def with_mapped_layers(self, record: Record, text: str) -> str:
        """The text with the layers that it selects mapped."""
        layers = _SelectedLayers(
            lambda ref: self.store.load(ref, record.model),
            lambda layer: self.mapped(layer, record),
        )
        return ast.unparse(layers.visit(syntax_tree(text)))


class _SelectedLayers(ast.NodeTransformer):
    """love[10:12] becomes love[4:6], or love[20] + love[22] where the new layers have gaps."""

    def __init__(self, load: Lookup, mapped: Callable[[int], int]) -> None:
        self.load, self.mapped = load, mapped

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        taken = evaluate(ast.unparse(node), self.load).layers
        base = ast.unparse(self.visit(node.value))
        chosen = runs(sorted({self.mapped(b) for b in taken}))
        text = " + ".join(f"({base})[{subscript(run)}]" for run in chosen)
        return syntax_tree(f"({text})")


def _bare(recipe: Recipe) -> Any:
    """A contrast recipe without the token ids, which are one tokenizer's."""
    if isinstance(recipe, Contrast):
        return recipe.without_ids()
    return recipe
