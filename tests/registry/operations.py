"""Every operation that writes to a store, with the store that it starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from steerlab.core.cell import Cell, MetricValue
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.core.run import Generation, Run
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE
from steerlab.core.sweep import Sweep
from steerlab.files import durable, payload
from steerlab.lab.recipes import rederive
from steerlab.registry import Store
from steerlab.registry.keep import keep
from tests.registry.samples import OTHER, TINY, swept_setting, vector

STORE, BACKUP, EXPORT, EARLIER = "store", "copy.tar", "from-afar.safetensors", "earlier.tar"

Step = Callable[[Store], object]


@dataclass(frozen=True)
class Operation:
    """What is done to the store of a directory, step by step; each step is acknowledged."""

    name: str
    seed: Callable[[Path], object]
    steps: Sequence[Step]


# where operations start


def family(root: Path) -> Store:
    """Vectors of two models, alone and together in a file, a composition of a composition, and
    what was written and measured with them.
    """
    store = Store(root / STORE)
    love = store.save("love", vector(1), tags=["feeling"], note="the first")
    store.save("love", vector(11))
    anger = store.save("anger", vector(2))
    warm = store.save("warm", love - 0.5 * anger)
    store.save("deep", 2 * warm)
    store.save_many([(f"n{i}", vector(20 + i)) for i in range(3)])
    store.save("alone", vector(3, model=OTHER))
    store.runs.save(RUN)
    sweep = store.sweeps.begin(PLAN)
    store.sweeps.add(sweep, CELLS[:1])
    store.results.save_calibration(_calibration(store))
    return store


def empty(root: Path) -> None:
    """No store: its directory is not there."""


def with_garbage(root: Path) -> None:
    """Payloads that no row points at, and temporary files."""
    store = family(root)
    place = store.path / "payloads" / "zz"
    durable.write(place / f"{'z' * 64}.safetensors", payload.encode([_entry(store, "n1")]))
    (place / f"{durable.TEMPORARY_PREFIX}x").write_bytes(b"half")


def earlier(root: Path) -> None:
    """A store as an earlier version of the program left it."""
    shutil.copytree(Path(__file__).parents[1] / "stores" / "0006", root / STORE)


def cloned(root: Path) -> None:
    """A store that came without its registry."""
    for file in family(root).path.glob("registry.db*"):
        file.unlink()


def with_export(root: Path) -> None:
    """A store, and a file that another one sent: a composition and all it was made from."""
    other = Store(root / "other")
    joy = other.save("joy", vector(30), tags=["from afar"])
    other.save("twice", 2 * joy)
    other.transfer.export("twice", root / EXPORT, parents=True)
    shutil.rmtree(other.path)
    family(root)


def with_removed(root: Path) -> None:
    """A store that lost a vector, and a file of it."""
    store = family(root)
    store.transfer.export("n1", root / EXPORT)
    store.save("n1", vector(29))
    store.remove("n1.v1")


def with_changes(root: Path) -> None:
    """A store whose last changes were a rename and the removal of two vectors."""
    store = family(root)
    store.rename("love", "amour")
    store.remove(["n1", "alone"])


def with_backup(root: Path) -> None:
    """A store, and a backup of what it was before."""
    store = family(root)
    store.transfer.backup(root / EARLIER)
    store.save("later", vector(40))
    store.remove("deep")


def rederivable(root: Path) -> None:
    """A composition whose operand got a newer version."""
    family(root).save("anger", vector(41))


# what is done


def keep_again(store: Store) -> None:
    keep(store, "anger", vector(2), tags=["kept"])


def save_many(store: Store) -> None:
    """Into two files, as they are of two models, with an operand that comes along."""
    first = vector(50)
    store.save_many([("a", first), ("b", vector(51)), ("c", vector(52, model=OTHER))], tags=["t"])


def sweep(store: Store) -> None:
    store.sweeps.begin(replace(PLAN, plan_digest="c" * 64, expression="love"))


def cells(store: Store) -> None:
    store.sweeps.add(store.sweeps.get(1), CELLS[1:])


def measures(store: Store) -> None:
    store.sweeps.measure(store.sweeps.get(1), "length", {CELLS[0].key: MetricValue(2.0)})


def evaluation(store: Store) -> None:
    values = (Measured("statements", "vader", "dose +0.15", 0.5, 0.2, 0.7, 40),)
    digest = store.record("love").digest
    made = Evaluation(digest, "styles", "e" * 64, "tiny", "llama/6/8/f1", {"steerlab": "0"}, values)
    store.results.save_evaluation(made)


def compose(store: Store) -> None:
    store.save("calm", store.load("love.v1") - 2 * store.load("anger"))


def backup(store: Store) -> None:
    store.transfer.backup(store.path.parent / BACKUP)


def restore(store: Store) -> None:
    store.transfer.restore(store.path.parent / EARLIER, force=True)


NOTHING = timedelta(0)
OPERATIONS = (
    Operation("save", family, [lambda s: s.save("love", vector(60))]),
    Operation("save an expression", family, [compose]),
    Operation("save many", family, [save_many]),
    Operation("keep", family, [lambda s: keep(s, "anger", vector(61)), keep_again]),
    Operation("tag", family, [lambda s: s.tag("love.v1", add=["x"], remove=["feeling"])]),
    Operation("note", family, [lambda s: s.note("n1", "one of a file of three")]),
    Operation("rename", family, [lambda s: s.rename("love", "amour")]),
    Operation("rename in a shared file", family, [lambda s: s.rename("n1", "m1")]),
    Operation("remove", family, [lambda s: s.remove("alone")]),
    Operation("remove from a shared file", family, [lambda s: s.remove("n1")]),
    Operation("undo", with_changes, [lambda s: s.changes.undo(), lambda s: s.changes.undo()]),
    Operation("rederive", rederivable, [lambda s: rederive(s, "warm")]),
    Operation("gc", with_garbage, [lambda s: s.upkeep.gc(dry_run=False, grace=NOTHING)]),
    Operation("rebuild", family, [lambda s: s.upkeep.rebuild()]),
    Operation("import", with_export, [lambda s: s.transfer.import_(s.path.parent / EXPORT)]),
    Operation("bring back", with_removed, [lambda s: s.transfer.import_(s.path.parent / EXPORT)]),
    Operation("backup", family, [backup]),
    Operation("restore", with_backup, [restore]),
    Operation("bring over", earlier, [lambda s: s.list()]),
    Operation("bring over and save", earlier, [lambda s: s.save("new", vector(62))]),
    Operation("create", empty, [lambda s: s.save("first", vector(63))]),
    Operation("open a clone", cloned, [lambda s: s.list()]),
    Operation("save a run", family, [lambda s: s.runs.save(replace(RUN, prompt="again"))]),
    Operation("sweep", family, [sweep, cells, measures]),
    Operation(
        "measure",
        family,
        [lambda s: s.results.save_calibration(_calibration(s, dose=0.1)), evaluation],
    ),
)

RUN = Run("love - 0.5*anger", "I think", TINY.source, (Generation(0.0, 0.0, " a text", "stop", 4),))
PLAN = Sweep(
    plan_digest="a" * 64,
    expression="love - 0.5*anger",
    digest="b" * 64,
    model=TINY.source,
    model_key="llama/6/8/f1",
    strength="dose",
    settings=(BASELINE, swept_setting(2, 0.2, 2.0, None)),
    prompts=("I think",),
    seeds=(7,),
    sampling=Sampling(temperature=0.7),
)
CELLS = [Cell(*key, f" text {key[0].layer}", "stop", 3) for key in PLAN.planned()]


def _calibration(store: Store, dose: float = 0.2) -> Calibration:
    works = Calibration("d" * 64, True, 2, dose, 1.5, (-0.1, 0.25), {"curve": [[0.1, 2.0]]})
    return replace(works, digest=store.record("love").digest)


def _entry(store: Store, ref: str):
    return store.record(ref), store.load(ref)
