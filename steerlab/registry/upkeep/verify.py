"""Verifying a store by computing everything again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, func, or_, select
from sqlalchemy.exc import DBAPIError

from steerlab.core.recipe import Expression
from steerlab.core.record import Record
from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible, NotFound, SteerlabError
from steerlab.files import payload
from steerlab.files.header import FileTooLarge
from steerlab.progress import Progress
from steerlab.registry import files, labels, result_files, results, text_index
from steerlab.registry.files import payload_files
from steerlab.registry.operands import with_ancestors
from steerlab.registry.rebuild import usable
from steerlab.registry.refs import resolve
from steerlab.registry.rows import IS_NEWEST, Stored, checked, identity_of, identity_text, read
from steerlab.registry.schema import chunks
from steerlab.registry.schema_check import problems
from steerlab.registry.sqlite_errors import Damaged, tells_damage
from steerlab.registry.tables import DIRECTION, MODEL, OPERAND, VECTOR

REGISTRY, RESULTS = "registry.db", "results"
"""The refs of findings about the registry as a whole, and about result files."""

_GIVE_UP = (
    "bring the file back from a backup (`steerlab restore` restores a whole store), or remove the "
    "vector: steerlab remove REF (--force if others were made from it)"
)


class Damage(Enum):
    """What happened to a vector, or to the registry as a whole; the most urgent to fix first."""

    REGISTRY = ("the registry file is damaged", "steerlab rebuild")
    ROW = ("the registry and the payload file disagree", "steerlab rebuild")
    MOVED = ("the vector is in another file than the registry says", "steerlab rebuild")
    MISSING = ("the payload file is missing; the registry still describes the vector", _GIVE_UP)
    ALTERED = ("the payload file was altered or cut short", _GIVE_UP)
    LARGE = (
        "the payload file is larger than this steerlab reads; it may be intact",
        "keep the file: upgrade steerlab, or read it with the version that wrote it",
    )
    OPERAND = (
        "an operand is missing or was replaced; the vector itself is intact",
        "undo its removal (steerlab undo), import it again, or make a new vector: "
        "steerlab compose … --as NAME",
    )
    RECIPE = (
        "the recipe gives another vector than is stored: one of the two was altered",
        "make it anew from its operands: steerlab compose … --as NAME",
    )
    LABEL = (
        "the label file is missing, or says something else than the registry",
        "steerlab rebuild",
    )
    RESULT = (
        "the file of a calibration or an evaluation is missing or was altered",
        "steerlab rebuild",
    )

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Finding:
    """A problem with a stored vector; ref: the vector's, or "registry.db"."""

    ref: str
    problem: str
    damage: Damage

    def to_json(self) -> dict[str, str]:
        """The problem as JSON values."""
        return {"ref": self.ref, "problem": self.problem, "fix": self.damage.fix}


def verify(connection: Connection, directory: Path, progress: Progress) -> Iterator[Finding]:
    """All problems of the store, as they are found; progress is called with (checked, all)."""
    broken = False
    for what in problems(connection):
        broken = True
        yield Finding(REGISTRY, what, Damage.REGISTRY)
    try:
        odd = (*_odd_models(connection), *_unlisted(connection), *text_index.problems(connection))
        query = select(VECTOR.c.id).order_by(VECTOR.c.path, VECTOR.c.id)
        ids = list(connection.execute(query).scalars())
    except DBAPIError as error:
        if not (broken and tells_damage(error)):
            raise
        odd, ids = (), []  # what is found is why they can't be read
    yield from (Finding(REGISTRY, what, Damage.ROW) for what in odd)
    if not broken:
        yield from _of_results(connection, directory)
    yield from _of_rows(connection, directory, ids, progress)


def still_wrong(connection: Connection, directory: Path, found: Sequence[Finding]) -> list[Finding]:
    """The findings that still hold; the caller holds the lock.

    While others write, a verification sees rows and files of different moments.
    """
    rows = []
    for ref in dict.fromkeys(f.ref for f in found if f.ref not in (REGISTRY, RESULTS)):
        with contextlib.suppress(NotFound):  # removed meanwhile
            rows.append(resolve(connection, ref, None))
    own = [f for f in found if f.ref in (REGISTRY, RESULTS)]
    return [*own, *_of_rows(connection, directory, rows, lambda done, total: None)]


def _of_results(connection: Connection, directory: Path) -> Iterator[Finding]:
    """Damaged result files, and results without one."""
    altered: list[str] = []
    known = {result_files.key(made) for made in result_files.read_all(directory, altered)}
    yield from (Finding(RESULTS, what, Damage.RESULT) for what in altered)
    for made in results.every(connection):
        if result_files.key(made) not in known:
            what = f"the {type(made).__name__.lower()} {made.id} has no sound file"
            yield Finding(RESULTS, what, Damage.RESULT)


def _of_rows(
    connection: Connection, directory: Path, ids: Sequence[int], progress: Progress
) -> Iterator[Finding]:
    """The problems of vectors and their operands."""
    audit = _Audit(connection, directory)
    for done, row in enumerate(_each(connection, ids), 1):
        yield from [row] if isinstance(row, Finding) else audit.findings(row)
        progress(done, len(ids))


def _each(connection: Connection, ids: Sequence[int]) -> Iterator[Stored | Finding]:
    """Each row, or a Finding if it can't be read."""
    for part in chunks(ids):
        try:
            yield from checked(connection, part).values()
        except Damaged:
            yield from (_one(connection, row) for row in part)


def _one(connection: Connection, row: int) -> Stored | Finding:
    try:
        return checked(connection, [row])[row]
    except Damaged as error:
        return Finding(_called(connection, row), str(error), Damage.ROW)


def _called(connection: Connection, row: int) -> str:
    """The ref of a vector, as far as its row can be read."""
    name = select(MODEL.c.name, VECTOR.c.name, VECTOR.c.version).join(MODEL)
    try:
        model, vector, version = connection.execute(name.where(VECTOR.c.id == row)).one()
    except DBAPIError as error:
        if not tells_damage(error):
            raise
        return REGISTRY
    return f"{model}.{vector}.v{version}"


def _odd_models(connection: Connection) -> Iterator[str]:
    """Models whose key or name contradicts their other columns."""
    for row in connection.execute(select(MODEL)).mappings():
        with contextlib.suppress(SteerlabError, TypeError):
            model = identity_of(row)
            named = re.fullmatch(rf"{model.name}(_\d+)?", row["name"])
            if named and identity_text(model) == row["identity"]:
                continue
        yield f"the registry's row of the model {row['name']} can't be right"


def _unlisted(connection: Connection) -> Iterator[str]:
    """Vectors whose columns for lists are wrong."""
    least = select(func.min(DIRECTION.c.layer)).where(DIRECTION.c.vector_id == VECTOR.c.id)
    wrong = or_(VECTOR.c.newest != IS_NEWEST, VECTOR.c.first_layer != least.scalar_subquery())
    if found := connection.execute(select(func.count(VECTOR.c.id)).where(wrong)).scalar():
        yield f"{found} vectors are not listed as they are: run `steerlab rebuild`"


def untrue_facts(record: Record, vector: SteeringVector) -> list[str]:
    """Facts of a record that its arrays contradict."""
    found = []
    if record.norm != vector.norm:
        found.append(f"the record says norm {record.norm:.9g}, the arrays {vector.norm:.9g}")
    said = {f.layer: (f.positions, f.norm) for f in record.layers}
    norms = vector.norms()
    true = {b: (len(d), norms[b]) for b, d in vector.directions.items()}
    wrong = [b for b in sorted({*said, *true}) if said.get(b) != true.get(b)]
    if wrong:
        found.append(f"the record's shape or norm of layer {wrong[0]} is not that of its array")
    reaches = vector.reaches() if len(norms) > 1 else {}
    false = [f.layer for f in record.layers if f.reach not in (None, reaches.get(f.layer))]
    if false:
        found.append(f"the record's sum of directions up to layer {false[0]} is not that of them")
    return found


class _Audit:
    """One pass over a store, which parses each payload file once."""

    def __init__(self, connection: Connection, directory: Path) -> None:
        self.connection, self.directory = connection, directory
        self.labels = labels.read_all(directory)
        self.path, self.records = "", dict[str, Record]()

    def findings(self, stored: Stored) -> list[Finding]:
        """The problems of one vector."""
        try:
            if self.path != stored.path:
                self.records = payload.read_records(self.directory / stored.path)
                self.path = stored.path
        except NotFound:
            return [self.lost(stored, Damage.MISSING, f"its payload {stored.path} is missing")]
        except FileTooLarge as error:
            return [self.lost(stored, Damage.LARGE, str(error))]
        except SteerlabError as error:
            return [self.lost(stored, Damage.ALTERED, str(error))]
        same = [r for r in self.records.values() if r.digest == stored.record.digest]
        written = self.records.get(stored.key) or (same[0] if same else None)
        if written is None:
            what = f"its payload {stored.path} holds other vectors"
            return [self.lost(stored, Damage.MISSING, what)]
        with contextlib.suppress(SteerlabError):
            written = usable(written, self.path)
        if wrong := self.row(stored, written):
            return [Finding(stored.qualified, wrong, Damage.ROW)]
        return [*self.label(stored, written), *self.numbers(stored)]

    def row(self, stored: Stored, written: Record) -> str:
        """The problem of a row whose payload was found; empty if there is none."""
        parts = (*stored.record.differs_from(written), *stored.altered)
        if differing := ", ".join(p for p in dict.fromkeys(parts) if p not in ("labels", "story")):
            return f"registry and payload differ in its {differing}"
        if stored.key not in self.records:
            return f"its payload does not call it {stored.key}: run `steerlab rebuild`"
        if stored.altered:
            return "its row was altered: run `steerlab rebuild`"
        return ""

    def label(self, stored: Stored, written: Record) -> list[Finding]:
        """A Finding if the label file contradicts the row."""
        said = self.labels.of(stored.story, written.labels if written.name else None)
        if said == stored.record.labels:
            return []
        what = "its label file is missing: run `steerlab rebuild`"
        if isinstance(said, labels.Removed):
            what = "its label file says that it was removed: run `steerlab rebuild`"
        elif said is not None and stored.story in self.labels:
            mine = vars(stored.record.labels)
            differing = ", ".join(k for k, v in vars(said).items() if v != mine[k])
            what = f"registry and label file differ in its {differing}: run `steerlab rebuild`"
        return [Finding(stored.qualified, what, Damage.LABEL)]

    def numbers(self, stored: Stored) -> list[Finding]:
        """Findings about the arrays: digest, norms, recipe."""
        try:
            vector = files.load(self.directory, stored)
        except FileTooLarge as error:
            return [self.lost(stored, Damage.LARGE, str(error))]
        except SteerlabError as error:
            return [self.lost(stored, Damage.ALTERED, str(error))]
        untrue = untrue_facts(stored.record, vector)
        found = [Finding(stored.qualified, what, Damage.ALTERED) for what in untrue]
        if isinstance(stored.record.recipe, Expression):
            found += self.recomputed(stored, stored.record.recipe)
        return found

    def lost(self, stored: Stored, damage: Damage, what: str) -> Finding:
        """A Finding for a vector that is not at its path; it may be in another file."""
        place, _ = self.whole.get(stored.record.story, (None, None))
        if place is not None:
            what, damage = f"it lies in {place}, not in {stored.path}", Damage.MOVED
        return Finding(stored.qualified, what, damage)

    @cached_property
    def whole(self) -> dict[str, tuple[str, str]]:
        """Story -> file and digest of every intact vector in payload files."""
        found = {}
        for file in payload_files(self.directory):
            path = file.relative_to(self.directory).as_posix()
            with contextlib.suppress(SteerlabError):
                for record, _ in payload.read_all(file):
                    with contextlib.suppress(SteerlabError):
                        found[usable(record, path).story] = path, record.digest
        return found

    def recomputed(self, stored: Stored, recipe: Expression) -> list[Finding]:
        """A Finding if the expression does not give the stored bytes."""
        from steerlab.core.expression import evaluate

        edges = select(OPERAND.c.parent_id).where(OPERAND.c.child_id == stored.id)
        rows = self.connection.execute(edges.order_by(OPERAND.c.ordinal)).scalars()
        parents = {o.ref: (row, o.digest) for o, row in zip(recipe.operands, rows, strict=True)}
        failing = []

        def lookup(ref: str) -> SteeringVector:
            try:
                return self.operand(ref, *parents[ref], stored.id)
            except SteerlabError:
                failing.append(parents[ref][1])
                raise

        try:
            result = evaluate(recipe.text, lookup)
        except SteerlabError as error:
            removed = {s for s, said in self.labels.own.items() if isinstance(said, labels.Removed)}
            whole = self.whole.items() if failing else ()
            here = {digest for story, (_, digest) in whole if story not in removed}
            damage = Damage.ROW if failing and here.issuperset(failing) else Damage.OPERAND
            if isinstance(error, Incompatible):
                damage = Damage.RECIPE
            return [Finding(stored.qualified, f"it can't be re-evaluated: {error}", damage)]
        if result.digest == stored.record.digest:
            return []
        what = f"its recipe {recipe} gives other bytes than are stored"
        return [Finding(stored.qualified, what, Damage.RECIPE)]

    def operand(self, ref: str, row: int | None, digest: str, child: int) -> SteeringVector:
        """The parent that an operand is linked to."""
        if row is None:
            same = select(VECTOR.c.id).where(VECTOR.c.digest == digest)
            if child in with_ancestors(self.connection, self.connection.execute(same).scalars()):
                raise Incompatible(f"its operand {ref} was itself made from it: a recipe is forged")
            raise NotFound(f"its operand {ref} is not in this store")
        parent = read(self.connection, [row])[row]
        if parent.record.digest != digest:
            raise NotFound(f"its operand {ref} is another vector than it was made from")
        return files.numbers(self.directory, parent)
