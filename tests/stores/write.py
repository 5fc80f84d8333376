"""Write a store as a version of the program writes it, and what that version says of it.

    git worktree add /tmp/old <commit> && cd /tmp/old
    PYTHONPATH=/tmp/old python <here>/tests/stores/write.py 0003 <here>/tests/stores

makes `0003/`, whose schema has to be 0003, and `0003.json`. It runs under every version since the
first, so it asks what the store at hand can keep.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from steerlab.core.recipe import Contrast, Imported, ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store

TINY = ModelIdentity("tests/Tiny-1", "llama", 6, 8, "f1", "main", "float32", "t1", "c1")
OTHER = ModelIdentity("tests/other", "gpt2", 6, 8, "f2")
PAIRS = Contrast(
    positive=("I love you", "So much [b]love[/b] \x1b[31m"),
    negative=("I hate you", "naïve 愛 👍"),
    method="mean_centred",
    read=-2,
    chat=True,
    seed=7,
    baseline=("The sky", "A table"),
    positive_ids=((1, 2), (3,)),
    negative_ids=((4,), ()),
)


def fill(store: Store) -> None:
    """Every kind of recipe, versions, tags, notes; and runs and results where they are kept."""
    love = store.save("love", _vector(1), tags=["feeling", "[b]old[/b]"], note="the first\nof all")
    anger = store.save("anger", _vector(2), tags=["feeling"])
    warm = store.save("warm", love - 0.5 * anger, note="a composition")
    store.save("deep", 2 * warm[2])
    store.save("love", _vector(3))
    store.save_many([("one", _vector(4)), ("two", _vector(5, model=OTHER))])
    rows = np.arange(24.0).reshape(3, 8)
    store.save("front", _vector(0, directions={1: rows}, scope="front", residual_norms={}))
    store.save("array", _vector(6, recipe=Imported("old.pt", "pt", "mean")))
    if hasattr(store, "save_run"):
        _add_runs(store)
    if hasattr(store, "begin_sweep"):
        _add_results(store, love.digest)


def told(store: Store) -> dict[str, Any]:
    """Everything that the store says of what it holds, as JSON values."""
    found: dict[str, Any] = {
        "records": {
            s.qualified: store.record(s.qualified).to_json()
            for s in store.list(every_version=True, sort="name")
        },
        "lineage": {s.qualified: asdict(store.lineage(s.qualified)) for s in store.list()},
    }
    found["runs"] = [asdict(run) for run in store.runs.list()]
    found["sweeps"] = [asdict(store.sweeps.get(sweep.id)) for sweep in store.sweeps.list()]
    found["calibrations"] = [asdict(made) for made in store.results.calibrations()]
    found["evaluations"] = [asdict(made) for made in store.results.evaluations()]
    return json.loads(json.dumps(found))


def _vector(seed: int, directions: Any = None, **more: Any) -> SteeringVector:
    rng = np.random.default_rng(seed)
    directions = directions or {2: rng.normal(size=8), 3: rng.normal(size=8)}
    known = {
        "model": TINY,
        "recipe": PAIRS,
        "residual_norms": dict.fromkeys(directions, 4.0),
        "diagnostics": {b: {"agreement": 0.5, "separability": 0.9} for b in directions},
    }
    return SteeringVector(directions, **(known | more))


def _add_runs(store: Store) -> None:
    from steerlab.core.run import Generation, Run
    from steerlab.core.sampling import Sampling

    texts = (Generation(0.0, 0.0, " plain", "stop", 4), Generation(2.0, 0.4, " [b]warm[/b]\x1b"))
    first = store.runs.save(Run("love.v1 - 0.5*anger", "I think", TINY.source, texts, layers="2"))
    store.runs.rate(first.id, 1)
    store.runs.save(
        Run("love", "I\nfeel 👍", TINY.source, texts, seed=7, sampling=Sampling(temperature=0.7))
    )


def _add_results(store: Store, digest: str) -> None:
    from steerlab.core.cell import Cell, MetricValue
    from steerlab.core.results import Calibration, Evaluation, Measured
    from steerlab.core.setting import BASELINE
    from steerlab.core.sweep import StoredSweep
    from tests.registry.samples import swept_setting

    strengths = [swept_setting(b, d, 10 * d, None) for b in (2, 3) for d in (-0.2, 0.2)]
    sweep = store.sweeps.begin(
        StoredSweep(
            plan_digest="a" * 64,
            expression="love.v1",
            digest=digest,
            model=TINY.source,
            model_key="llama/6/8/f1",
            strength="dose",
            settings=(BASELINE, *strengths),
            prompts=("I think", "I feel 👍"),
            seeds=(7, 8),
        )
    )
    cells = [Cell(*key, " a text", "stop", 3) for key in sweep.planned()]
    cells[0] = Cell(*cells[0].key, " other", "stop", 3, metrics={"vader": MetricValue(0.5)})
    store.sweeps.add(sweep, cells[::2])
    store.results.save_calibration(
        Calibration(digest, False, data={"reason": "nothing beats its control"})
    )
    values = (Measured("statements", "vader", "baseline", 0.3, 0.2, 0.4, n=8),)
    made = {"suite": "standard", "suite_digest": "5" * 64, "model": "tiny", "model_key": "k"}
    versions = {"torch": "2"}
    store.results.save_evaluation(Evaluation(digest, **made, versions=versions, values=values))


def main(schema: str, directory: Path) -> None:
    """Write the store of a schema and what is said of it; as one small file, without its log."""
    store = Store(directory / schema)
    fill(store)
    said = json.dumps(told(store), indent=1, sort_keys=True)
    (directory / f"{schema}.json").write_text(f"{said}\n", encoding="utf-8")
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (schema,)
        raw.execute("PRAGMA journal_mode = DELETE")  # which VACUUM needs to change the page size
        raw.execute("PRAGMA page_size = 512")
        raw.execute("VACUUM")
        raw.execute("PRAGMA journal_mode = WAL")
    (store.path / ".lock").unlink()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
