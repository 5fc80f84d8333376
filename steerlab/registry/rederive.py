"""Making a composition again once its operands got newer versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from steerlab.core.expression import evaluate
from steerlab.core.recipe import Expression
from steerlab.core.vector import SteeringVector, replace_refs
from steerlab.errors import Incompatible, NotFound
from steerlab.registry import saving
from steerlab.registry.rows import Stored, find_model, read
from steerlab.registry.tables import OPERAND, VECTOR

Load = Callable[[Stored], SteeringVector]


@dataclass(frozen=True)
class Rederived:
    """A composition beside what its recipe gives with the newest versions of its operands.

    before: the version that was made again; after: its next one. ref of `after`: what it is
    stored as, or will be.
    operands: the ref in the old recipe -> the newer version that took its place.
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


class Rederivation:
    """What has to be made again, parents first, for one vector to be up to date.

    deep: operands that are compositions are themselves made again beforehand.
    """

    def __init__(self, connection: Connection, load: Load, deep: bool) -> None:
        self.connection, self.load, self.deep = connection, load, deep
        self.steps: list[tuple[Stored, Rederived]] = []
        self.made: dict[tuple[int, str], SteeringVector] = {}
        self.pending: set[tuple[int, str]] = set()

    def of(self, row: int) -> None:
        """Plan a vector's next version; none where no operand is newer.

        Raises Incompatible for a vector that is no composition, NotFound for an operand that
        is gone.
        """
        stored = read(self.connection, [row])[row]
        recipe = stored.record.recipe
        if not isinstance(recipe, Expression):
            raise Incompatible(
                f"{stored.record.ref} is no composition, so no operand of it can be newer: "
                "extract it again, or `steerlab port` it"
            )
        key = self._key(stored)
        self.pending.add(key)
        parents = {ref: read(self.connection, [i])[i] for ref, i in self._operands(stored)}
        names = Counter(map(self._key, parents.values()))
        newest = {
            ref: self._newest(stored, ref, parent)
            if names[self._key(parent)] == 1
            else saving.rounded(self.load(parent), ref)  # it compares versions of one name
            for ref, parent in parents.items()
        }
        self.pending.discard(key)
        old = {operand.ref: operand.digest for operand in recipe.operands}
        changed = {ref: v for ref, v in newest.items() if v.digest != old[ref]}
        if changed:
            self._step(stored, recipe, newest, {ref: str(v.ref) for ref, v in changed.items()})

    def _step(
        self,
        stored: Stored,
        recipe: Expression,
        newest: dict[str, SteeringVector],
        changed: dict[str, str],
    ) -> None:
        """Newer operands under their own refs; the others as the recipe calls them."""
        operands = {changed.get(ref, ref): vector for ref, vector in newest.items()}
        made = evaluate(replace_refs(recipe.text, changed), lambda ref: operands[ref])
        record = stored.record
        version = saving.latest(self.connection, self._key(stored)[0], record.name) + 1
        after = saving.rounded(made, f"{record.name}.v{version}")
        self.steps.append((stored, Rederived(self.load(stored), after, changed)))
        self.made[self._key(stored)] = after

    def _key(self, stored: Stored) -> tuple[int, str]:
        model = find_model(self.connection, stored.record.model)
        assert model is not None
        return model, stored.record.name

    def _operands(self, stored: Stored) -> list[tuple[str, int]]:
        edges = select(OPERAND.c.ref, OPERAND.c.parent_id).where(OPERAND.c.child_id == stored.id)
        found = list(self.connection.execute(edges.order_by(OPERAND.c.ordinal)))
        gone = next((ref for ref, parent in found if parent is None), None)
        if gone is not None:
            raise NotFound(
                f"{stored.record.ref} can't be made again: its operand {gone} is not in this store"
            )
        return [(ref, parent) for ref, parent in found]

    def _newest(self, child: Stored, ref: str, parent: Stored) -> SteeringVector:
        """What takes an operand's place.

        An operand stays as it is if its newest version was made from the child's own name:
        otherwise each would make the other old for ever.
        """
        as_it_is = saving.rounded(self.load(parent), ref)
        key = self._key(parent)
        newest = self._newest_row(key)
        if key in self.pending or self._descends(newest, self.pending):
            return as_it_is
        latest = read(self.connection, [newest])[newest]
        if self.deep and key not in self.made and isinstance(latest.record.recipe, Expression):
            self.of(newest)
        if key in self.made:
            return self.made[key]
        return as_it_is if newest == parent.id else self._named(latest, child)

    def _named(self, stored: Stored, child: Stored) -> SteeringVector:
        """A parent that is of another model row keeps the model's name in front."""
        same = self._key(stored)[0] == self._key(child)[0]
        return saving.rounded(self.load(stored), stored.record.ref if same else stored.qualified)

    def _newest_row(self, key: tuple[int, str]) -> int:
        query = select(VECTOR.c.id).where(VECTOR.c.model_id == key[0], VECTOR.c.name == key[1])
        newest = query.order_by(VECTOR.c.version.desc()).limit(1)
        return int(self.connection.execute(newest).scalar_one())

    def _descends(self, row: int, names: set[tuple[int, str]]) -> bool:
        """Whether any ancestor of a row has one of these names."""
        seen, level = {row}, [row]
        while level:
            edges = select(OPERAND.c.parent_id, VECTOR.c.model_id, VECTOR.c.name)
            edges = edges.join(VECTOR, VECTOR.c.id == OPERAND.c.parent_id)
            found = list(self.connection.execute(edges.where(OPERAND.c.child_id.in_(level))))
            if any((model, name) in names for _, model, name in found):
                return True
            level = [parent for parent, _, _ in found if parent not in seen]
            seen.update(level)
        return False
