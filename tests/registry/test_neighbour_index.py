"""The index of neighbours: it answers as reading every payload does, or is made anew."""

from __future__ import annotations

import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store, direction_cache, neighbours
from tests.registry.samples import TINY, vector


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """A place of its own for the cache."""
    monkeypatch.setattr(direction_cache, "home", lambda: tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def crowd(store):
    """Forty vectors of two layers each, all known to the index."""
    store.save_many([(f"n{i}", vector(i, i % 3, 3 + i % 3)) for i in range(40)])
    store.similar("n0")
    return store


def by_reading(store, of, limit=20):
    """What each payload says."""
    found = []
    for summary in store.list():
        other = store.load(summary.qualified)
        asked = store.load(of, TINY) if isinstance(of, str) else of
        same = isinstance(of, str) and other.ref == asked.ref
        if not same and (other.model.key, other.scope) == (asked.model.key, asked.scope):
            found += neighbours.compared(asked, other.float32(), summary.qualified)
    return sorted(found, key=lambda n: (-abs(n.cosine), n.ref))[:limit]


def agrees(store, of, expected=None, **options):
    """What is found is what payloads say; expected: if that is known."""
    found = list(store.similar(of, **options))
    expected = expected or by_reading(store, of, **options)
    assert [(n.ref, n.layers) for n in found] == [(n.ref, n.layers) for n in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.cosine, *one.cosines) == pytest.approx((other.cosine, *other.cosines), abs=1e-9)
    return found


def reads(store):
    """How many payloads are read for an answer."""
    seen, read = [], neighbours.read_arrays

    def counting(connection, directory, ids, of):
        seen.extend(ids)
        return read(connection, directory, ids, of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "read_arrays", counting)
        store.similar("n0")
    return len(seen)


entry = st.floats(-4, 4, width=16) | st.sampled_from([0.0, 1e-30, 3e38, -3e38])


@st.composite
def vectors(draw):
    scope = draw(st.sampled_from(["broadcast", "front"]))
    rows = st.just(1) if scope == "broadcast" else st.integers(1, 3)
    layers = draw(st.sets(st.integers(0, 2), min_size=1))
    row = st.lists(entry, min_size=8, max_size=8)
    arrays = {}
    for layer in layers:
        count = draw(rows)
        arrays[layer] = np.array(draw(st.lists(row, min_size=count, max_size=count)))
    return SteeringVector(arrays, model=TINY, scope=scope, recipe=Imported("x"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(vectors(), min_size=2, max_size=7), limit=st.integers(1, 7))
def test_it_answers_as_reading_does(tmp_path_factory, made, limit):
    store = Store(tmp_path_factory.mktemp("store") / "store")
    store.save_many([(f"n{i % 5}", v) for i, v in enumerate(made)])
    agrees(store, "n0", limit=limit)
    agrees(store, made[-1], limit=limit)


def test_what_was_saved_removed_and_renamed_since_is_heeded(crowd):
    agrees(crowd, "n0")
    crowd.save("n1", vector(77, 0, 3))
    crowd.remove("n39")
    crowd.save("new", vector(0, 0, 3))  # takes the id of the one that went, and equals n0
    crowd.rename("n2", "other")
    found = agrees(crowd, "n0", limit=60)
    assert (found[0].ref, round(found[0].cosine, 9)) == ("tiny_1.new.v1", 1.0)
    agrees(Store(crowd.path), "n0", limit=60)


def test_a_stop_before_anything_is_indexed_finds_nothing(store):
    store.save_many([(f"n{i}", vector(i)) for i in range(5)])
    assert list(store.similar("n0", should_stop=lambda: True)) == []
    agrees(store, "n0")


def test_payloads_are_read_once_in_all_processes(crowd):
    assert reads(Store(crowd.path)) == 0
    crowd.save("one", vector(99, 1))
    assert reads(Store(crowd.path)) == 1
    assert reads(Store(crowd.path)) == 0


@pytest.mark.parametrize("what", ["*.npy", "[0-7]*.npy", "store"])
@pytest.mark.parametrize("how", ["cut", "turned", "gone", "empty"])
def test_a_damaged_index_is_made_anew(crowd, kept, what, how):
    for path in kept.glob(f"*/{what}"):
        data = bytearray(path.read_bytes())
        if how == "turned":
            data[3::8] = [byte ^ 0x55 for byte in data[3::8]]
        damaged = {"cut": data[:-3], "turned": data, "empty": b""}
        path.unlink() if how == "gone" else path.write_bytes(damaged[how])
    expected = by_reading(crowd, "n0")
    agrees(Store(crowd.path), "n0", expected)
    agrees(Store(crowd.path), "n0", expected)


def test_damage_under_an_open_index_is_noticed(crowd, kept):
    for path in kept.glob("*/*.npy"):
        with open(path, "r+b") as file:
            file.seek(-200, os.SEEK_END)
            file.write(b"\x40" * 200)
    assert reads(crowd) == 40  # no answer comes from rows that lack their digest
    agrees(crowd, "n0")
    assert reads(crowd) == 0


def test_another_stores_index_is_not_taken(crowd, kept, tmp_path):
    other = Store(tmp_path / "other")
    other.save_many([(f"n{i}", vector(i + 100, 1)) for i in range(3)])
    other.similar("n0")
    ours, theirs = sorted(kept.glob("*/store"), key=lambda path: path.read_text())
    for part in ours.parent.glob("*.npy"):
        shutil.copy(part, theirs.parent)
    for store in (crowd, other):
        agrees(Store(store.path), "n0")


def test_a_part_that_a_killed_process_left_does_not_count(crowd, kept):
    (folder,) = kept.glob("*")
    part = next(folder.glob("*.npy"))
    (folder / "0123abcd.tmp").write_bytes(part.read_bytes()[:-3])
    crowd.save("one", vector(99, 1))
    agrees(Store(crowd.path), "one")
    assert reads(Store(crowd.path)) == 0


def test_parts_of_one_shape_are_merged(crowd, kept):
    for i in range(5):
        crowd.save(f"one{i}", vector(99 + i, 1))
        agrees(crowd, "n0")
    assert len(list(kept.glob("*/*.npy"))) == 4  # of n0, n1, n2 and the new ones


def test_it_does_not_outgrow_its_store(crowd, kept, tmp_path):
    for i in range(30):
        crowd.remove(f"n{i + 5}")
    agrees(crowd, "n0")
    crowd.save("one", vector(99, 1))
    agrees(crowd, "n0")
    (file,) = kept.glob("*/store")
    assert sum(len(np.load(part)) for part in kept.glob("*/*.npy")) == 11
    crowd.path.rename(tmp_path / "moved")
    agrees(Store(tmp_path / "moved"), "n0")
    assert not file.exists()


def test_where_no_index_can_be_kept_payloads_are_read(store, kept):
    store.save_many([(f"n{i}", vector(i)) for i in range(5)])
    kept.write_text("a file where the directory would be")
    agrees(store, "n0")


def test_many_at_once(crowd):
    crowd.save_many([(f"m{i}", vector(i + 200, 1)) for i in range(20)])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: list(Store(crowd.path).similar("n1")), range(8)))
    expected = by_reading(crowd, "n1")
    assert all(one in (expected, found[0]) for one in found)
    agrees(crowd, "n1")


def test_a_stop_keeps_what_is_known_so_far(store, monkeypatch):
    monkeypatch.setattr(neighbours, "_BATCH", 2)
    store.save_many([(f"n{i}", vector(i)) for i in range(7)])
    seen: list[tuple[int, int]] = []
    found = store.similar(
        "n0", should_stop=lambda: len(seen) == 2, progress=lambda *done: seen.append(done)
    )
    assert seen == [(2, 7), (4, 7)]
    assert {n.ref for n in found} == {f"tiny_1.n{i}.v1" for i in (1, 2, 3)}
    store.similar("n0", progress=lambda *done: seen.append(done))
    assert seen[2:] == [(6, 7), (7, 7)]


def test_names_of_one_digest_share_an_entry_whatever_batch_they_are_in(store, monkeypatch):
    monkeypatch.setattr(neighbours, "_BATCH", 2)
    store.save_many([(f"n{i}", vector(0 if i == 5 else i)) for i in range(6)])
    assert {n.ref for n in agrees(store, "n1")} >= {"tiny_1.n0.v1", "tiny_1.n5.v1"}


def test_an_index_that_holds_a_digest_twice_is_of_use(crowd, kept):
    parts = [np.load(path) for path in kept.glob("*/*.npy")]
    (folder,) = kept.glob("*")
    for part in parts:
        np.save(folder / "made", part[::-1])
        path = folder / "made.npy"
        path.rename(folder / f"{zlib.crc32(path.read_bytes()):08x}.npy")
    assert reads(Store(crowd.path)) == 0
    agrees(Store(crowd.path), "n3")
