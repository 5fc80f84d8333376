"""Archives: what is written, what is taken in, and what strangers may not smuggle in."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from dataclasses import replace
from hashlib import sha256

import pytest

from steerlab.errors import BadOption, CorruptPayload, NotFound, SteerlabError, StoreError
from steerlab.files import payload
from steerlab.registry import Store, files
from steerlab.registry.transfer import archive
from tests.registry.samples import OTHER, vector


@pytest.fixture
def colleague(tmp_path):
    return Store(tmp_path / "colleague")


@pytest.fixture
def whole(family, tmp_path):
    """Everything of the family, in an archive."""
    return family.transfer.export(family.list(every_version=True), tmp_path / "family.tar")


def contents(store):
    """Every file below the directory of a store, and beside it."""
    found = [p for p in store.path.parent.rglob("*") if not p.name.startswith("registry.db")]
    return {p: p.read_bytes() for p in found if p.is_file()}


def pack(path, *members, sums=True):
    """An archive of (name, bytes), with true checksums."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        lines = ""
        for name, data in members:
            add(name, data)
            lines += f"{sha256(data).hexdigest()}  {name}\n"
        if sums:
            add("SHA256SUMS", lines.encode("utf-8", "surrogateescape"))
    return path


def alone(store, ref):
    return payload.encode([(store.record(ref), store.load(ref))])


# what is written


def test_all_of_a_store_arrives_as_it_left(family, colleague, whole):
    results = colleague.transfer.import_(whole)
    assert [(r.ref, r.was, r.already) for r in results] == [
        (ref, ref, False) for ref in ("love.v1", "anger.v1", "warm.v1", "deep.v1")
    ]
    for summary in family.list():
        assert colleague.record(summary.ref) == family.record(summary.ref)
    assert colleague.lineage("warm") == family.lineage("warm")
    assert colleague.verify() == []


def test_a_second_import_changes_nothing(colleague, whole):
    colleague.transfer.import_(whole)
    before = contents(colleague)
    assert all(r.already for r in colleague.transfer.import_(whole))
    assert contents(colleague) == before


def test_the_same_vectors_give_the_same_bytes(family, whole, tmp_path):
    again = family.transfer.export(["deep", "warm", "anger", "love"], tmp_path / "again.tar")
    assert again.read_bytes() == whole.read_bytes()


def test_tar_and_sha256sum_can_read_it(family, whole, tmp_path):
    place = tmp_path / "unpacked"
    place.mkdir()
    subprocess.run(["tar", "xf", whole, "-C", place], check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], check=True, cwd=place)
    assert Store(place).verify() == []
    assert len(Store(place).list()) == 4
    with tarfile.open(whole) as tar:
        assert {(m.mode, m.uid, m.uname, m.mtime) for m in tar} == {(0o644, 0, "", 0)}


def test_a_selection_with_its_parents(family, colleague, tmp_path):
    chosen = family.list(name="warm")
    colleague.transfer.import_(family.transfer.export(chosen, tmp_path / "warm.tar", parents=True))
    assert colleague.names() == ["anger", "love", "warm"]
    assert colleague.verify() == []


def test_a_payload_file_holds_a_few(family, colleague, tmp_path, monkeypatch):
    colleague.transfer.import_(
        family.transfer.export(["love", "anger"], tmp_path / "two.safetensors")
    )
    assert colleague.names() == ["anger", "love"]
    monkeypatch.setattr(files, "MOST_VECTORS", 1)
    with pytest.raises(BadOption, match=r"2 vectors are too many.*call it NAME\.tar"):
        family.transfer.export(["love", "anger"], tmp_path / "too many")


def test_what_can_not_be_exported(family, whole, tmp_path):
    before = whole.read_bytes()
    with pytest.raises(StoreError, match="exists"):
        family.transfer.export("love", whole)
    (gone,) = family.list(name="deep")
    family.remove("deep")
    for refs, error in ((["love", gone], NotFound), ([], BadOption), ("nobody", NotFound)):
        with pytest.raises(error):
            family.transfer.export(refs, tmp_path / "new.tar")
    next((family.path / "payloads").rglob(f"{family.record('love').digest}*")).write_bytes(b"x")
    with pytest.raises(CorruptPayload):
        family.transfer.export(["anger", "love"], whole, force=True)
    assert whole.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".tmp")] == []
    family.transfer.export("anger", whole, force=True)
    assert whole.read_bytes() != before


def test_an_export_that_fails_or_is_cancelled_leaves_nothing(family, tmp_path, monkeypatch):
    def pressed(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        family.transfer.export("love", tmp_path / "love.tar", progress=pressed)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"can't write .*No space left"):
        family.transfer.export("love", tmp_path / "love.tar")
    assert [p.name for p in tmp_path.iterdir() if p.is_file() or "tmp" in p.name] == []


# names


def test_children_may_come_before_their_parents(family, colleague, tmp_path):
    """The oldest vector is in the last member, and love.v1 is another one here."""
    colleague.save("love", vector(30))
    names = ("deep", "warm", "anger", "love")
    members = [(f"payloads/{name}.safetensors", alone(family, name)) for name in names]
    colleague.transfer.import_(pack(tmp_path / "x.tar", *members))
    assert colleague.record("warm").recipe.text == "love.v2 - 0.5 * anger.v1"
    assert {node.ref for node in colleague.lineage("warm").parents} == {
        "tiny_1.love.v2",
        "tiny_1.anger.v1",
    }
    assert colleague.verify() == []


def test_versions_keep_their_order(family, colleague, tmp_path):
    second = family.save("love", vector(9))
    colleague.save("love", vector(30))
    colleague.transfer.import_(family.transfer.export(["love.v2", "love.v1"], tmp_path / "x.tar"))
    assert colleague.load("love.v2") == vector(1)
    assert colleague.load("love.v3") == second


def test_models_of_one_name_are_told_apart(store, colleague, tmp_path):
    third = replace(OTHER, fingerprint="f3", source="elsewhere/other")
    for model in (OTHER, third):
        base = store.save("x", vector(1, model=model))
        store.save("y", 2 * base)
    colleague.transfer.import_(store.transfer.export(store.list(), tmp_path / "x.tar"))
    assert [m.name for m in colleague.models()] == ["other", "other_2"]
    assert colleague.verify() == []


def test_an_import_in_many_batches(store, colleague, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_VECTORS", 7)
    base = store.save("base", vector(0))
    store.save_many([(f"n{i}", i * base) for i in range(1, 40)])
    seen = []
    file = store.transfer.export(
        store.list(), tmp_path / "x.tar", progress=lambda *a: seen.append(a)
    )
    assert seen[-1] == (40, 40)
    told = []
    assert len(colleague.transfer.import_(file, progress=lambda *a: told.append(a))) == 40
    assert told == sorted(told)
    assert told[-1][0] < told[-1][1]  # the checksums and the end mark are no vectors
    assert colleague.verify() == []
    assert max(map(len, map(payload.read_records, files.payload_files(colleague.path)))) == 7


# what is refused


def nothing_changes(store, path, match):
    before = contents(store)
    with pytest.raises(SteerlabError, match=match) as caught:
        store.transfer.import_(path)
    assert str(caught.value).isprintable()
    assert contents(store) == before


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "/payloads/a.safetensors",
        "../payloads/a.safetensors",
        "payloads/../../a.safetensors",
        "payloads/./a.safetensors",
        "payloads//a.safetensors",
        "payloads/a\\..\\b.safetensors",
        "payloads/.tmp-a.safetensors",
        "payloads/\x1b[31mred.safetensors",
        "payloads/\udcff.safetensors",
        "payloads/new\nline.safetensors",
        "payloads/a.pt",
        "registry.db-wal",
        ".lock",
        "a",
    ],
)
def test_a_name_that_leads_elsewhere(family, tmp_path, name):
    members = [("payloads/l.safetensors", alone(family, "love")), (name, b"evil")]
    file = pack(tmp_path / "x.tar", *members)
    nothing_changes(family, file, "has no place in a store")
    with pytest.raises(CorruptPayload):
        Store(tmp_path / "new").transfer.restore(file)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
        *(tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"?"),
    ],
)
def test_what_is_no_plain_file(family, tmp_path, kind):
    info = tarfile.TarInfo("payloads/a.safetensors")
    info.type, info.linkname = kind, "/etc/passwd"
    file = tmp_path / "x.tar"
    file.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    nothing_changes(family, file, r"holds payloads/a\.safetensors, which is not a plain file")


@pytest.mark.parametrize("claimed", [10_000, 2**33, 2**60, 2**87, -1, -(2**60)])
def test_a_size_that_the_file_can_not_have(family, tmp_path, claimed):
    info = tarfile.TarInfo("payloads/a.safetensors")
    info.size = claimed
    file = tmp_path / "x.tar"
    file.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    nothing_changes(family, file, r"is cut short or damaged: payloads/a\.safetensors should have")


def test_a_name_twice(family, tmp_path):
    twice = [("payloads/l.safetensors", alone(family, "love"))] * 2
    nothing_changes(family, pack(tmp_path / "x.tar", *twice), r"holds payloads/.* twice")


def test_another_tar(family, tmp_path):
    members = [("payloads/l.safetensors", alone(family, "love"))]
    file = pack(tmp_path / "x.tar", *members, sums=False)
    nothing_changes(family, file, "the checksums at its end are missing")
    with tarfile.open(file, "w:gz"):
        pass
    nothing_changes(family, file, "is not a whole safetensors file")


def test_checksums_of_other_files(family, tmp_path):
    love = ("payloads/l.safetensors", alone(family, "love"))
    true = f"{sha256(love[1]).hexdigest()}  {love[0]}\n".encode()
    more, line = true + b"0" * 64 + b"  payloads/m.safetensors\n", "does not match its checksum"
    for said, why in ((b"", "other files"), (more, "other files"), (true[:-1], line)):
        file = pack(tmp_path / "x.tar", love, ("SHA256SUMS", said), sums=False)
        nothing_changes(family, file, why)
    assert family.transfer.import_(pack(tmp_path / "x.tar", love, ("SHA256SUMS", true), sums=False))


def test_a_payload_that_is_none(family, tmp_path):
    file = pack(tmp_path / "x.tar", ("payloads/a.safetensors", b"junk" * 100))
    nothing_changes(family, file, r"x\.tar: payloads/a\.safetensors is not a whole safetensors")


def test_what_is_no_file(family, tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    for path, why in (("x.tar", "no plain file"), (".", "no plain file"), ("none", "no file")):
        with pytest.raises(SteerlabError, match=why):
            family.transfer.import_(tmp_path / path)


def test_a_bad_vector_refuses_all_the_others(family, colleague, tmp_path, monkeypatch):
    """It comes last, when the others have been stored already."""
    monkeypatch.setattr(files, "MOST_VECTORS", 1)
    lying = replace(family.record("love"), name="zz", norm=1e9, created="2090-01-01")
    members = [
        ("payloads/good.safetensors", alone(family, "love")),
        ("payloads/zz.safetensors", payload.encode([(lying, family.load("love"))])),
    ]
    colleague.save("own", vector(50))
    nothing_changes(colleague, pack(tmp_path / "x.tar", *members), r"zz\.v1: the record says norm")
    assert colleague.names() == ["own"]


@pytest.mark.parametrize("after", range(1, 9, 2))
def test_a_cancelled_import_leaves_nothing(family, tmp_path, monkeypatch, after):
    monkeypatch.setattr(files, "MOST_VECTORS", 1)
    file = family.transfer.export(family.list(), tmp_path / "x.tar")
    new = Store(tmp_path / "new")
    calls = []

    def pressed(done, of):
        calls.append(done)
        if len(calls) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new.transfer.import_(file, progress=pressed)
    assert list(files.payload_files(new.path)) == []
    assert new.list() == []


def read(file, place):
    """Read an archive to its end."""
    for _, one in archive.unpack(file, lambda name: place / "one"):
        one.unlink()


def test_any_cut_is_refused(family, colleague, whole, tmp_path):
    data = whole.read_bytes()
    end = data.rindex(b"\n") + 1  # what fills the last block, and the end mark, may be lost
    cut = tmp_path / "cut.tar"
    for length in sorted({*range(0, end, 499), 1, 511, 512, 513, end - 64, end - 1}):
        cut.write_bytes(data[:length])
        (tmp_path / "one").unlink(missing_ok=True)
        with pytest.raises(CorruptPayload):
            read(cut, tmp_path)
    with pytest.raises(CorruptPayload):
        colleague.transfer.import_(cut)
    assert not colleague.path.exists()


def test_any_flipped_byte_is_refused_or_harmless(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    harmless, said = [], set()
    for at in range(0, len(data) - 1024, 131):
        data[at] ^= 0x41
        (tmp_path / "x.tar").write_bytes(data)
        data[at] ^= 0x41
        (tmp_path / "one").unlink(missing_ok=True)
        try:
            read(tmp_path / "x.tar", tmp_path)
            harmless.append(data[at])
        except CorruptPayload as error:
            said.update(re.findall("damaged|altered|cut short|no place|plain file", str(error)))
    assert set(harmless) == {0}  # what fills the last block of a file
    assert {"damaged", "altered"} <= said
