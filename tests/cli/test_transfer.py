"""export, import, backup and restore."""

from __future__ import annotations

import json
import shutil
import tarfile

import pytest

from steerlab.cli import ExitCode
from steerlab.files import payload
from steerlab.registry import Store
from steerlab.registry.transfer import archive
from tests.cli.conftest import contents
from tests.cli.test_upkeep import payload_of

# one vector, one payload file


def test_export_and_import_carry_a_vector_over(cli, store, tmp_path):
    assert cli("export", "love", "love.st").out == "love.st\n"
    new = ["--store", tmp_path / "new"]
    assert cli("import", "love.st", *new).out == "love.v1  imported from love.v1\n"
    assert cli("import", "love.st", *new).out == "love.v1  already here\n"
    assert Store(tmp_path / "new").load("love") == store.load("love")


def test_export_with_parents_can_be_recomputed(cli, tmp_path):
    cli("export", "warm", "warm.st", "--parents")
    new = ["--store", tmp_path / "new"]
    assert len(cli("import", "warm.st", *new).out.splitlines()) == 3
    assert cli("verify", *new).code == ExitCode.OK


def test_export_of_one_of_two_models(cli, refused, both_models):
    assert "several models" in refused(ExitCode.BAD_INPUT, "export", "love", "x.st")
    assert cli("export", "love", "x.st", "--model", "other").code == ExitCode.OK


@pytest.mark.parametrize("name", ["x.st", "x.tar"])
def test_export_overwrites_only_by_force(cli, refused, tmp_path, name):
    (tmp_path / name).write_text("precious")
    assert "--force" in refused(ExitCode.USAGE, "export", "love", name)
    assert (tmp_path / name).read_text() == "precious"
    assert cli("export", "love", name, "--force").code == ExitCode.OK
    assert cli("import", name).out == "love.v1  already here\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_export_to_where_it_cant_be(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("x.st", "x.tar"):
        refused(ExitCode.STORE, "export", "love", tmp_path / "file" / name)


@pytest.mark.parametrize("name", ["x.st", "x.tar"])
@pytest.mark.parametrize("keep", [0, 4, 200, 700, -1500])
def test_import_of_a_file_cut_short(cli, refused, tmp_path, name, keep):
    cli("export", "love", name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    assert name in refused(ExitCode.STORE, "import", name)


@pytest.mark.parametrize("name", ["x.st", "x.tar"])
def test_import_of_an_altered_file(cli, refused, tmp_path, name):
    cli("export", "love", name)
    file = tmp_path / name
    with tarfile.open(file) if name == "x.tar" else open(file, "rb") as opened:
        first = opened.next() if isinstance(opened, tarfile.TarFile) else None
    end = len(file.read_bytes()) if first is None else first.offset_data + first.size
    data = bytearray(file.read_bytes())
    data[end - 1] ^= 0x10
    file.write_bytes(data)
    assert name in refused(ExitCode.STORE, "import", name)


def test_import_of_what_is_not_there(refused):
    assert "no file none.st" in refused(ExitCode.NOT_FOUND, "import", "none.st")


def test_a_payload_is_told_by_what_is_in_it(cli, store, tmp_path):
    cli("export", "love", "x.tar")
    (tmp_path / "x.tar").rename(tmp_path / "x.safetensors")
    cli("export", "warm", "y.st")
    (tmp_path / "y.st").rename(tmp_path / "y.tar")
    assert cli("import", "x.safetensors", "y.tar").out.count("already here") == 2


# many, as an archive


@pytest.mark.parametrize(
    ("select", "names"),
    [
        (["love", "front"], "front love"),
        (["warm", "--parents"], "anger love warm"),
        (["--all"], "anger front love warm"),
        (["--tag", "feeling"], "anger love"),
        (["--kind", "expression"], "warm"),
        (["--kind", "expression", "--parents"], "anger love warm"),
        (["--layer", "2"], "anger love warm"),
        (["--text", "I hate"], "love"),
        (["--model", "tiny", "--layer", "1", "--tag", "feeling"], "anger love"),
    ],
)
def test_a_selection_goes_into_an_archive(cli, tmp_path, select, names):
    assert cli("export", *select, "x.tar").out == "x.tar\n"
    new = Store(tmp_path / "new")
    cli("import", "x.tar", "--store", new.path)
    assert " ".join(new.names()) == names


def test_older_versions_only_when_told(cli, store, tmp_path):
    store.save("love", 2 * store.load("love"))
    for number, (select, versions) in enumerate(
        [(["--tag", "feeling"], 1), (["--tag", "feeling", "--all-versions"], 2), (["--all"], 5)]
    ):
        cli("export", *select, f"{number}.tar")
        entries = cli("import", f"{number}.tar", "--json").data
        assert all(entry["already"] for entry in entries)
        assert len(entries) == {1: 1, 2: 2, 5: 5}[versions]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["x.tar"], "name vectors, or select them"),
        (["love", "--all", "x.tar"], "not both"),
        (["love", "--tag", "feeling", "x.tar"], "not both"),
        (["love", "--all-versions", "x.tar"], "not both"),
        ([], "Missing argument"),
    ],
)
def test_what_can_not_be_meant(refused, arguments, why):
    assert why in refused(ExitCode.USAGE, "export", *arguments)


def test_a_selection_of_nothing(refused, tmp_path):
    assert "no vectors match" in refused(ExitCode.FAILED, "export", "--tag", "none", "x.tar")
    assert not (tmp_path / "x.tar").exists()


def test_an_import_as_json(cli, tmp_path):
    cli("export", "love", "anger", "x.tar")
    again = cli("import", "x.tar", "--json").data
    assert again == [
        {"ref": ref, "was": ref, "already": True} for ref in sorted(("anger.v1", "love.v1"))[::-1]
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["export", "--all", "new.tar"],
        ["import", "x.tar", "--store", "new"],
        ["backup", "new.tar"],
        ["restore", "x.tar", "--store", "new"],
    ],
)
def test_ctrl_c_leaves_nothing(cli, store, tmp_path, monkeypatch, command):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    cli("backup", "x.tar")
    before = contents(store)
    monkeypatch.setattr(archive, "_copy", pressed)
    monkeypatch.setattr(archive.Writer, "finish", pressed)
    result = cli(*command)
    assert (result.code, result.out, result.err.strip()) == (130, "", "steerlab: cancelled")
    assert contents(store) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vectors", "x.tar"]
    assert not list(store.path.rglob(".tmp-*"))


# backup and restore


def test_a_backup_comes_back(cli, store, tmp_path):
    before = contents(store)
    assert cli("backup", tmp_path / "b.tar").out == f"{tmp_path / 'b.tar'}\n"
    shutil.rmtree(store.path)
    result = cli("restore", tmp_path / "b.tar")
    assert result.code == ExitCode.OK, result
    assert result.out == f"4 vectors restored to {store.path}\n"
    assert contents(Store(store.path)) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "vectors"]


def test_a_backup_replaces_no_file_unless_told(cli, refused):
    cli("backup", "b.tar")
    assert "exists" in refused(ExitCode.STORE, "backup", "b.tar")
    assert cli("backup", "b.tar", "--force").code == ExitCode.OK


def test_a_backup_of_something_damaged_says_so(cli, store, tmp_path):
    payload_of(store, "love").write_bytes(b"x")
    result = cli("backup", "b.tar")
    assert (result.code, result.out) == (ExitCode.FAILED, "b.tar\n")
    first, second = result.err.splitlines()
    assert first.startswith("warning: damaged: payloads/")
    assert second == "warning: everything else is in the backup; `steerlab doctor` explains"
    result = cli("restore", "b.tar", "--store", tmp_path / "new")
    assert result.code == ExitCode.FAILED
    assert "`steerlab doctor` explains" in result.err
    assert Store(tmp_path / "new").load("anger") == store.load("anger")


def test_a_store_is_replaced_only_by_force_and_then_moved_aside(cli, refused, store, tmp_path):
    cli("backup", "b.tar")
    store.remove("warm")
    assert "has vectors already" in refused(ExitCode.STORE, "restore", "b.tar")
    result = cli("restore", "b.tar", "--force")
    assert result.code == ExitCode.OK, result
    (aside,) = tmp_path.glob("vectors.before-restore-*")
    assert str(aside) in result.err
    assert len(Store(aside).list()) == 3
    assert len(Store(store.path).list()) == 4
    assert cli("verify").code == ExitCode.OK


def test_what_is_no_backup(cli, refused, store, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is no backup" in refused(ExitCode.STORE, "restore", tmp_path / "empty", "--force")
    cli("export", "love", "love.st")
    assert "`steerlab import`" in refused(ExitCode.STORE, "restore", "love.st", "--force")
    assert "is the store itself" in refused(ExitCode.STORE, "restore", store.path, "--force")
    refused(ExitCode.USAGE, "restore", tmp_path / "none")


def test_the_store_of_the_current_directory(cli, store, tmp_path, monkeypatch):
    cli("backup", "b.tar")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = cli("restore", "../b.tar", "--store", ".")
    assert result.code == ExitCode.OK, result
    assert cli("verify", "--store", tmp_path / "here").code == ExitCode.OK


def test_a_directory_that_an_earlier_backup_made(cli, store, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy")
    payload_of(Store(tmp_path / "copy"), "love").write_bytes(b"x")
    result = cli("restore", tmp_path / "copy", "--store", tmp_path / "new")
    assert result.code == ExitCode.FAILED
    assert "`steerlab doctor` explains" in result.err
    assert json.loads(cli("list", "--json", "--store", tmp_path / "new").out)


def test_a_payload_file_holds_what_was_named(cli, tmp_path):
    cli("export", "love", "anger", "x.st")
    assert [record.name for record, _ in payload.read_all(tmp_path / "x.st")] == ["love", "anger"]
