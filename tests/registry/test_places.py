"""Where a store is, whom its files belong to, and how it is handed to other processes."""

from __future__ import annotations

import os
import pickle
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import insert

from steerlab.core.recipe import Expression, Operand
from steerlab.core.record import record_of
from steerlab.files import durable, payload
from steerlab.registry import Store
from steerlab.registry.rows import identity_text
from steerlab.registry.tables import REMOVAL
from steerlab.registry.upkeep.verify import Damage
from tests.registry.samples import TINY, vector


def test_a_relative_store_stays_where_it_was_found(family, monkeypatch, tmp_path):
    monkeypatch.delenv("STEERLAB_STORE", raising=False)
    monkeypatch.chdir(family.path.parent)
    found, named = Store(), Store("store")
    monkeypatch.chdir("/")
    assert found.names() == named.names() == family.names()


def test_a_store_is_pickled_as_its_place(family):
    again = pickle.loads(pickle.dumps(Store(family.path, timeout=3.0)))
    assert (again.path, again._database.timeout) == (family.path, 3.0)
    assert again.load("love") == vector(1)


@pytest.mark.parametrize(("mode", "files"), [(0o2775, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_the_registry_has_the_rights_of_its_directory(store, mode, files):
    store.path.mkdir()
    store.path.chmod(mode)
    before = os.umask(0o002)
    try:
        store.save("love", vector(1))
        with closing(sqlite3.connect(store.path / "registry.db")) as reader:
            reader.execute("SELECT count(*) FROM vector").fetchone()
            found = {p.name: p.stat().st_mode & 0o777 for p in store.path.glob("registry.db*")}
    finally:
        os.umask(before)
    assert found == dict.fromkeys(["registry.db", "registry.db-wal", "registry.db-shm"], files)


def test_versions_of_more_than_nine_digits_are_read(store):
    store.save("love", vector(1))
    row = {"model": identity_text(TINY), "name": "love", "version": 999_999_999}
    what = {"digest": "a" * 64, "summary": "", "created": "2026-01-01T00:00:00.000000+00:00"}
    with store._database.writing() as work:
        work.connection.execute(insert(REMOVAL).values(**row, **what))
    assert store.save("love", vector(2)).ref == "love.v1000000000"
    assert store.load("love.v1000000000") == vector(2)
    made = store.save("twice", 2 * store.load("love"))
    assert str(made.recipe) == "= 2 * love.v1000000000"
    assert store.verify() == []


def test_a_circle_of_forged_recipes_is_told_as_one(store):
    """Honest numbers: a is said to be 2*b, and b half of a."""
    a, b = vector(1) * 2, vector(1)
    for name, made, recipe in (
        ("a", a, Expression("2 * b.v1", (Operand("b.v1", b.digest),))),
        ("b", b, Expression("0.5 * a.v1", (Operand("a.v1", a.digest),))),
    ):
        forged = type(made)(made.float32(), model=made.model, recipe=recipe)
        file = store.path / f"payloads/zz/{name * 64}.safetensors"
        durable.write(file, payload.encode([(record_of(forged, name, 1), forged)]))
    store.upkeep.rebuild()
    (finding,) = [f for f in store.verify() if "re-evaluated" in f.problem]
    assert "was itself made from it: a recipe is forged" in finding.problem
    assert finding.damage is Damage.RECIPE


def test_links_that_lead_nowhere_are_missing_payloads(family):
    file = next(family.path.glob(f"payloads/*/{vector(1).digest}.safetensors"))
    file.unlink()
    file.symlink_to(family.path / "nowhere")
    assert "is missing" in next(f.problem for f in family.verify() if f.ref == "tiny_1.love.v1")
    assert family.upkeep.gc() == []
    family.upkeep.rebuild()
    assert "love" not in family.names()
