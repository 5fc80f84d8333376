"""What must be true of a store whatever befell the process that wrote to it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

import steerlab.registry
from steerlab.errors import NotFound, SteerlabError
from steerlab.files import payload
from steerlab.registry import Store, files
from steerlab.registry.rows import Stored, read
from steerlab.registry.tables import REMOVAL
from tests.registry.operations import BACKUP, STORE
from tests.registry.samples import vector

State = dict[str, Any]

LOST, DANGLING, REPAIR, HALF = "lost", "dangling", "repair", "half file"


@dataclass(frozen=True)
class Harm:
    """Something that a user would have lost, or would have to mend: kind is one of the above."""

    kind: str
    what: str


def state(store: Store) -> State:
    """Everything that a store knows, but for times and row numbers."""
    found: State = vectors(store)
    with store._database.reading() as connection:
        removed = select(REMOVAL.c.model, REMOVAL.c.name, REMOVAL.c.version, REMOVAL.c.digest)
        found["removed"] = sorted(map(tuple, connection.execute(removed)))
    found["runs"] = [(r.expression, r.prompt, r.generations) for r in store.runs.list()]
    sweeps = [store.sweeps.get(s.id) for s in store.sweeps.list() if s.id is not None]
    found["sweeps"] = [(s.plan_digest, s.expression, s.cells) for s in sweeps]
    found["calibrations"] = [(c.digest, c.dose, c.safe) for c in store.results.calibrations()]
    found["evaluations"] = [(e.digest, e.suite, e.values) for e in store.results.evaluations()]
    return found


def vectors(store: Store) -> State:
    """What payloads hold: every version's record."""
    found: State = {}
    for one in _stored(store):
        record = one.record
        found[one.qualified] = (record.digest, record.recipe, record.tags, record.note)
    return found


def _stored(store: Store) -> list[Stored]:
    ids = [summary.id for summary in store.list(every_version=True, sort="name")]
    with store._database.reading() as connection:
        return list(read(connection, ids).values())


def harms(
    root: Path, allowed: Sequence[State], backed_up: Sequence[State] | None = None
) -> list[Harm]:
    """All that is wrong with the store of a directory, in the order in which a user would meet it.

    allowed: the states it may be in; backed_up: those a backup may hold, None for the same ones.
    The store is used and cleaned up on the way.
    """
    store = Store(root / STORE)
    found: list[Harm] = []
    try:
        now = state(store)
        if now not in allowed:
            found.append(Harm(LOST, _difference(now, allowed)))
        found += _unloadable(store)
        found += [_harm(f.ref, f.problem) for f in store.verify()]
        found += _half_files(store)
        store.upkeep.gc(dry_run=False, grace=timedelta(0))
        found += _leftovers(store)
        found += _next_version(store, now)
        found += _without_registry(store)
        found += _backup(root, backed_up or allowed)
    except SteerlabError as error:
        found.append(Harm(REPAIR, str(error)))
    return found


def _harm(ref: str, problem: str) -> Harm:
    return Harm(DANGLING if "is missing" in problem else REPAIR, f"{ref}: {problem}")


def _unloadable(store: Store) -> list[Harm]:
    found = []
    for stored in _stored(store):
        try:
            if files.load(store.path, stored).digest != stored.record.digest:
                found.append(Harm(LOST, f"{stored.qualified} is another vector"))
        except NotFound as error:
            found.append(Harm(DANGLING, str(error)))
        except SteerlabError as error:
            found.append(Harm(LOST, str(error)))
    return found


def _half_files(store: Store) -> list[Harm]:
    found = []
    for file in files.payload_files(store.path):
        try:
            payload.read_all(file)
        except SteerlabError as error:
            found.append(Harm(HALF, str(error)))
    return found


def _leftovers(store: Store) -> list[Harm]:
    """After a garbage collection there is nothing that no row needs."""
    left = [
        *store.path.glob("payloads/**/.tmp-*"),
        *store.path.glob("labels/**/.tmp-*"),
        *store.path.glob("labels/new/*"),
        *store.path.glob(".tmp-*"),
    ]
    left += [store.path / garbage.path for garbage in store.upkeep.gc(grace=timedelta(0))]
    return [Harm(REPAIR, f"{file} stays") for file in left]


def _next_version(store: Store, now: State) -> list[Harm]:
    newest = max((int(ref.rpartition(".v")[2]) for ref in now if ".love.v" in ref), default=0)
    saved = store.save("love", vector(99))
    right = saved.ref == f"love.v{newest + 1}" and store.load("love") == saved
    return [] if right else [Harm(LOST, f"the next version is {saved.ref}, not {newest + 1}")]


def _without_registry(store: Store) -> list[Harm]:
    before, measured = vectors(store), state(store)
    for file in store.path.glob("registry.db*"):
        file.unlink()
    again = Store(store.path)
    found = vectors(again), state(again)
    kinds = ("calibrations", "evaluations")  # a killed writer may leave one more than it said
    lost = [kind for kind in kinds for one in measured[kind] if one not in found[1][kind]]
    if found[0] != before:
        return [Harm(LOST, _difference(found[0], [before]))]
    return [Harm(LOST, f"{kind} without a registry") for kind in lost]


def _backup(root: Path, allowed: Sequence[State]) -> list[Harm]:
    """A backup is whole or not there."""
    if not (root / BACKUP).exists():
        return []
    copy = Store(root / "copied")
    copy.transfer.restore(root / BACKUP)
    return [] if state(copy) in allowed else [Harm(LOST, "the backup holds something else")]


def _difference(now: State, allowed: Sequence[State]) -> str:
    closest = min(allowed, key=lambda one: len(_differing(now, one)))
    keys = _differing(now, closest)
    return "; ".join(f"{k}: {now.get(k)}, not {closest.get(k)}" for k in keys)[:500]


def _differing(one: State, other: State) -> list[str]:
    return [k for k in sorted({*one, *other}) if one.get(k) != other.get(k)]


def warm_up() -> None:
    """Import what operations import when they need it, so that every fork has it."""
    import alembic.autogenerate
    import alembic.script  # noqa: F401

    for module in pkgutil.iter_modules(steerlab.registry.__path__, "steerlab.registry."):
        importlib.import_module(module.name)
