"""Recipes run again: with newer operands, as they are, and (in `port`) on another model.

All go through what a vector was made from, parents first, make each again, and put the result
where the next recipe names its operand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from steerlab.core.expression import evaluate
from steerlab.core.notation import replace_refs
from steerlab.core.recipe import Contrast, Expression
from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible, ModelError, ModelMismatch, NotFound, SteerlabError
from steerlab.progress import Progress, followed
from steerlab.registry.saving import rounded

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store

ALIKE = 0.999
"""The least cosine, at every layer, of a stored vector and its recipe's result on the same model.

Other kernels and precisions change the direction by far less.
"""


# the walk


def operands_of(store: Store, record: Record) -> dict[str, Record]:
    """Ref in the recipe -> the record that it names; empty for a recipe without operands.

    Raises NotFound or Incompatible for an operand that is gone or has been replaced.
    """
    if not isinstance(record.recipe, Expression):
        return {}
    found = {}
    for operand in record.recipe.operands:
        try:
            parent = store.record(operand.ref, record.model)
        except NotFound:
            raise NotFound(
                f"{record.ref} can't be made again: its operand {operand.ref} is not in this store"
            ) from None
        if parent.digest != operand.digest:
            raise Incompatible(
                f"{operand.ref} is no longer the vector that {record.ref} was made from: "
                "compose it anew"
            )
        found[operand.ref] = parent
    return found


def ancestry(store: Store, record: Record) -> list[Record]:
    """The records of a vector and of all that it was made from, each once, parents first."""
    found: dict[str, Record] = {}

    def visit(one: Record) -> None:
        if one.digest not in found:
            for parent in operands_of(store, one).values():
                visit(parent)
            found[one.digest] = one

    visit(record)
    return list(found.values())


def reevaluated(text: str, operands: Mapping[str, SteeringVector]) -> SteeringVector:
    """An expression with other vectors in place of its operands; operands: by ref in the text."""
    renamed = {ref: str(vector.ref) for ref, vector in operands.items()}
    known = {vector.ref: vector for vector in operands.values()}
    return evaluate(replace_refs(text, renamed), known.__getitem__)


# newer operands


@dataclass(frozen=True)
class Rederived:
    """A composition, and the result of its recipe with the newest versions of its operands.

    before: the version that was made again. after: its next version, as it is or would be stored.
    operands: ref in the old recipe -> ref of the newer version.
    """

    before: SteeringVector
    after: SteeringVector
    operands: dict[str, str]

    @property
    def cosines(self) -> dict[int, float]:
        """Layer -> cosine of old and new, where both have a direction."""
        return self.before.cosines(self.after)

    def to_json(self) -> dict[str, Any]:
        """What changed, as JSON values."""
        return {
            "before": self.before.ref,
            "after": self.after.ref,
            "recipe": str(self.after.recipe),
            "operands": self.operands,
            "cosines": self.cosines,
            "norms": [self.before.norm, self.after.norm],
            "digest": self.after.digest,
        }


def rederive(
    store: Store, ref: str, *, deep: bool = False, dry_run: bool = False, model: str | None = None
) -> list[Rederived]:
    """Store the next version of a composition, made with the newest versions of its operands.

    Tags and notes are copied. Returns what was made, parents first; empty where no operand is
    newer. All or none is stored.
    deep: make operands that are compositions again first, where they have newer operands.
    Raises Incompatible for a vector that is no composition, NotFound for an operand that is not
    in the store any more.
    """
    renewal = _Renewal(store, deep)
    renewal.of(store.record(ref, model))
    steps = renewal.steps
    if dry_run or not steps:
        return [step for _, step in steps]
    stored = store.save_next([(record, step.after) for record, step in steps])
    return [replace(step, after=after) for (_, step), after in zip(steps, stored, strict=True)]


_Name = tuple[Any, str]
"""The key of a model, and a name of one of its vectors."""


class _Renewal:
    """The next versions of compositions, parents first; nothing is stored yet."""

    def __init__(self, store: Store, deep: bool) -> None:
        self.store, self.deep = store, deep
        self.steps: list[tuple[Record, Rederived]] = []
        self.made: dict[_Name, SteeringVector] = {}
        self.pending: set[_Name] = set()

    def of(self, record: Record) -> None:
        """Make the next version of a composition, if an operand of it is newer."""
        if not isinstance(record.recipe, Expression):
            raise Incompatible(
                f"{record.ref} is no composition, so no operand of it can be newer: "
                "extract it again, or `steerlab port` it"
            )
        self.pending.add(_name(record))
        parents = operands_of(self.store, record)
        names = Counter(map(_name, parents.values()))
        newest = {
            ref: self.newest(record, parent)
            for ref, parent in parents.items()
            if names[_name(parent)] == 1  # a recipe that compares versions keeps them
        }
        self.pending.discard(_name(record))
        operands = {
            ref: vector
            for ref, vector in newest.items()
            if vector is not None and vector.digest != parents[ref].digest
        }
        if not operands:
            return
        refs = {ref: str(vector.ref) for ref, vector in operands.items()}
        for ref in parents.keys() - refs.keys():
            operands[ref] = rounded(self.store.load(parents[ref].ref, parents[ref].model), ref)
        after = rounded(reevaluated(record.recipe.text, operands), self.next_ref(record))
        before = self.store.load(record.ref, record.model)
        self.steps.append((record, Rederived(before, after, refs)))
        self.made[_name(record)] = after

    def newest(self, child: Record, parent: Record) -> SteeringVector | None:
        """The vector that takes an operand's place; None where it stays.

        An operand stays where its newest version was made from the child's own name: otherwise
        each would make the other old for ever.
        """
        newest = self.store.record(parent.name, parent.model)
        if self.lineage(newest) & self.pending:
            return None
        name = _name(parent)
        if self.deep and name not in self.made and isinstance(newest.recipe, Expression):
            self.of(newest)
        if name in self.made:
            return self.made[name]
        same_model = parent.model.key == child.model.key
        ref = newest.ref if same_model else self.store.qualified(newest.ref, newest.model)
        return rounded(self.store.load(newest.ref, newest.model), ref)

    def lineage(self, record: Record) -> set[_Name]:
        """The names of a record and of its ancestors, as far as they are stored."""
        found: set[tuple[_Name, int]] = set()
        left = [record]
        while left:
            one = left.pop()
            if (version := (_name(one), one.version)) in found:
                continue
            found.add(version)
            if isinstance(one.recipe, Expression):
                for operand in one.recipe.operands:
                    with suppress(NotFound):
                        left.append(self.store.record(operand.ref, one.model))
        return {name for name, _ in found}

    def next_ref(self, record: Record) -> str:
        """The ref of a name's next version; numbers of removed versions are not given again."""
        events = self.store.log(record.name, record.model)
        refs = [event.ref for event in events if event.what in ("version", "removed")]
        return f"{record.name}.v{1 + max(int(ref.rpartition('.v')[2]) for ref in refs)}"


def _name(record: Record) -> _Name:
    return record.model.key, record.name


# as they are


@dataclass(frozen=True)
class Rerun:
    """The result of a stored contrast vector's recipe today.

    cosine: the lowest over layers; None where the recipe could not be run.
    problem: in words; empty where the result is the stored vector.
    """

    ref: str
    cosine: float | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def rerun(lab: Lab, progress: Progress | None = None) -> list[Rerun]:
    """Extract every contrast vector of the store again on its own model, and compare.

    Each model is loaded once. One that can't be loaded, or has other weights by now, is a
    problem of its vectors.
    lab: one that names no model. progress: called with (vectors done, vectors).
    """
    vectors = lab.store.list(kind="contrast", every_version=True, sort="model")
    broken: dict[tuple[str, str | None], str] = {}
    found = []
    for summary in followed(vectors, progress):
        cosine, problem = None, ""
        try:
            vector = lab.store.load(summary.qualified)
            _load(lab, vector, broken)
            cosine = _cosine_today(lab, vector)
            problem = "" if cosine >= ALIKE else "its recipe gives another vector today"
        except SteerlabError as error:
            problem = str(error)
        found.append(Rerun(summary.qualified, cosine, problem))
    return found


def _load(lab: Lab, vector: SteeringVector, broken: dict[tuple[str, str | None], str]) -> None:
    """Load a vector's model, unless that has failed before."""
    source = (vector.model.source, vector.model.revision)
    try:
        if source not in broken:
            lab.load(vector)
    except SteerlabError as error:
        broken[source] = f"its model can't be loaded: {error}"
    if source in broken:
        raise ModelError(broken[source])


def _cosine_today(lab: Lab, vector: SteeringVector) -> float:
    lm = lab.load(vector)
    if not vector.model.has_weights_of(lm.identity):
        raise ModelMismatch(f"{lm.source} has other weights today than it was made on")
    assert isinstance(vector.recipe, Contrast)
    made = lm.reextract(vector.recipe, vector.layers)
    return 1.0 if made == vector else min(vector.cosines(made).values())
