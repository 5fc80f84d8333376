"""Porting: a vector's recipe, with all that it was made from, run on another model."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from steerlab.core.expression import Lookup, evaluate
from steerlab.core.notation import replace_refs, selects_layers, subscript, syntax_tree
from steerlab.core.recipe import Contrast, Expression, ModelIdentity, Recipe
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible
from steerlab.progress import Progress

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.core.record import Record
    from steerlab.lab.lab import Lab


@dataclass(frozen=True)
class Ported:
    """A vector of one model and what its recipe gives on another.

    before: the qualified ref that was ported. after: the stored vector of the other model.
    layers: which layer became which; empty where the layers were chosen.
    new: False where the other model had it already.
    """

    before: str
    after: SteeringVector
    layers: Mapping[int, int]
    new: bool

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
        }


def layer_at_same_depth(layer: int, n_layers: int, other: int) -> int:
    """The layer of a model with `other` blocks that stands as deep as `layer` of `n_layers`.

    Depth is the share of blocks that have run, layer / n_layers; halves go up.
    """
    return min(other - 1, (2 * layer * other + n_layers) // (2 * n_layers))


def port(
    lab: Lab,
    ref: str,
    *,
    layers: LayerChoice = None,
    model: str | None = None,
    progress: Progress | None = None,
) -> list[Ported]:
    """Run a vector's recipe on the lab's model, and store it there under the same name.

    For a composition, everything it was made from is ported first; what the model already has
    by the same recipe is used as it is. Tags and notes go along.
    layers: None takes those at the same relative depth.
    model: whose vector is meant, where several models have one of that name.
    progress: called with (vectors done, vectors to do).
    Returns what was ported, parents first. Raises Incompatible for an imported vector, which
    has no recipe to run, and for `layers` where a composition selects its layers itself.
    """
    ancestry = portable(lab, ref, layers=layers, model=model)
    lm = lab.model
    if ancestry[-1].model.key == lm.identity.key:
        raise BadOption(f"{ancestry[-1].ref} is of {lm.source} already: name another model")
    porting = _Porting(lab, layers)
    done: list[Ported] = []
    for record in ancestry:
        done.append(porting.of(record))
        if progress is not None:
            progress(len(done), len(ancestry))
    return done


def portable(
    lab: Lab, ref: str, *, layers: LayerChoice = None, model: str | None = None
) -> list[Record]:
    """What `port` will run, parents first; raises what can be known before a model is loaded."""
    found = _ancestry(lab, _meant(lab, ref, model))
    for record in found:
        _check_portable(record, layers is not None)
    return found


def _meant(lab: Lab, ref: str, model: str | None) -> Record:
    """The record of a ref; a name that only one other model has needs no qualifying."""
    try:
        return lab.store.record(ref, model)
    except Incompatible:
        ours, name = lab.stored_model(), ref.split(".")[0]
        owners = {summary.model for summary in lab.store.list(name=name)} - {ours}
        if len(owners) != 1:
            raise
        return lab.store.record(ref, owners.pop())


def _ancestry(lab: Lab, record: Record) -> list[Record]:
    """The vector's record and those of all that it was made from, parents first."""
    found: dict[str, Record] = {}

    def visit(one: Record) -> None:
        if one.digest in found:
            return
        if isinstance(one.recipe, Expression):
            for operand in one.recipe.operands:
                parent = lab.store.record(operand.ref, one.model)
                if parent.digest != operand.digest:
                    raise Incompatible(
                        f"{operand.ref} is not the vector any more that {one.ref} was made "
                        "from: compose it anew"
                    )
                visit(parent)
        found[one.digest] = one

    visit(record)
    return list(found.values())


def _check_portable(record: Record, layers_chosen: bool) -> None:
    if isinstance(record.recipe, Contrast):
        return
    if not isinstance(record.recipe, Expression):
        raise Incompatible(
            f"{record.ref} was imported and has no recipe that another model could run: "
            "import or extract one there"
        )
    if layers_chosen and selects_layers(record.recipe.text):
        raise Incompatible(
            f"{record.ref} selects its layers itself ({record.recipe.text}): "
            "port it without choosing layers"
        )


class _Porting:
    """Several recipes on one model; operands find what became of them by digest."""

    def __init__(self, lab: Lab, layers: LayerChoice) -> None:
        self.lab, self.lm, self.layers = lab, lab.model, layers
        self.done: dict[str, SteeringVector] = {}

    def of(self, record: Record) -> Ported:
        mapped = {f.layer: self.mapped(f.layer, record.model) for f in record.layers}
        recipe = record.recipe
        if isinstance(recipe, Contrast):
            depth = sorted({*mapped.values()})
            chosen = self.lm.layers(depth if self.layers is None else self.layers)
            made = self.there(record, chosen) or self.lm.reextract(_bare(recipe), chosen)
        else:
            assert isinstance(recipe, Expression)
            made = self.evaluated(record, recipe)
        stored = made if made.ref is not None else self.kept(record, made)
        self.done[record.digest] = stored
        names = f"{record.model.name}.{record.ref}"
        return Ported(names, stored, {} if self.layers is not None else mapped, stored is not made)

    def mapped(self, layer: int, model: ModelIdentity) -> int:
        return layer_at_same_depth(layer, model.n_layers, self.lm.n_layers)

    def there(self, record: Record, layers: Sequence[int]) -> SteeringVector | None:
        """What the model has under that name by the same recipe at the same layers."""
        store, recipe = self.lab.store, _bare(record.recipe)
        for summary in store.list(
            name=record.name, model=self.lm.identity, every_version=True, sort="version"
        ):
            if summary.layers != tuple(layers):
                continue
            if _bare(store.record(summary.qualified).recipe) == recipe:
                return store.load(summary.qualified)
        return None

    def evaluated(self, record: Record, recipe: Expression) -> SteeringVector:
        operands = {o.ref: self.done[o.digest] for o in recipe.operands}
        text = recipe.text
        if selects_layers(text):
            text = self.selected(record, text)
        renamed = {ref: str(vector.ref) for ref, vector in operands.items()}
        by_ref = {str(vector.ref): vector for vector in operands.values()}
        made = evaluate(replace_refs(text, renamed), lambda ref: by_ref[ref])
        store = self.lab.store
        for summary in store.list(name=record.name, model=self.lm.identity, every_version=True):
            if summary.digest == made.digest:
                return store.load(summary.qualified)
        return made

    def selected(self, record: Record, text: str) -> str:
        """The text with the layers that it selects mapped."""
        layers = _SelectedLayers(
            lambda ref: self.lab.store.load(ref, record.model),
            lambda layer: self.mapped(layer, record.model),
        )
        return ast.unparse(layers.visit(syntax_tree(text)))

    def kept(self, record: Record, made: SteeringVector) -> SteeringVector:
        return self.lab.store.save(record.name, made, tags=record.tags, note=record.note)


class _SelectedLayers(ast.NodeTransformer):
    """love[10:12] becomes love[4:6], or love[20] + love[22] where the new layers have gaps."""

    def __init__(self, load: Lookup, mapped: Callable[[int], int]) -> None:
        self.load, self.mapped = load, mapped

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        taken = evaluate(ast.unparse(node), self.load).layers
        base = ast.unparse(self.visit(node.value))
        runs = _runs(sorted({self.mapped(b) for b in taken}))
        text = " + ".join(f"({base})[{subscript(run)}]" for run in runs)
        return syntax_tree(f"({text})")


def _bare(recipe: Recipe) -> Any:
    """A contrast recipe without what one tokenizer made of it."""
    if isinstance(recipe, Contrast):
        return replace(recipe, positive_ids=(), negative_ids=())
    return recipe


def _runs(layers: Sequence[int]) -> list[int | slice]:
    starts = [b for b in layers if b - 1 not in layers]
    ends = [b + 1 for b in layers if b + 1 not in layers]
    pairs = zip(starts, ends, strict=True)
    return [a if b == a + 1 else slice(a, b) for a, b in pairs]
