"""Directories that only look like a store: one line, at once, and nothing that is there is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steerlab.cli import ExitCode, run
from steerlab.registry import Store
from tests.fuzz.campaign import patience
from tests.registry.test_read_only import thaw
from tests.stores.test_earlier_store import EARLIER

READING = (["list"], ["show", "love"], ["verify"], ["search", "love"], ["du"], ["doctor"])
WRITING = (["note", "love", "x"], ["compose", "love - anger"], ["gc", "--delete"])


def replaced(file: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(store: Path) -> None:
        path = store / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return spoil


REGISTRIES = {
    "a directory": replaced("registry.db", Path.mkdir),
    "a pipe": replaced("registry.db", os.mkfifo),
    "a link to a device": replaced("registry.db", lambda p: p.symlink_to("/dev/zero")),
    "empty": replaced("registry.db", Path.touch),
    "a text": replaced("registry.db", lambda p: p.write_text("hello " * 1000)),
    "another database": replaced("registry.db", lambda p: shutil.copy(_foreign(p), p)),
}


def _foreign(path: Path) -> Path:
    import sqlite3
    from contextlib import closing

    file = path.with_name("foreign")
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("CREATE TABLE vector (id INTEGER)")
    return file


@pytest.fixture
def store(tmp_path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "store"))


@pytest.fixture
def say(store, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a verb on the store, for no longer than a few seconds."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with patience():
            code = run([*arguments, "--store", str(store)])
        out, err = capsys.readouterr()
        assert code != ExitCode.INTERNAL, err
        return code, out, err

    return call


def refused(answer: tuple[int, str, str], words: str) -> None:
    code, out, err = answer
    assert code == ExitCode.STORE
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_registry_that_is_none_is_said_and_made_anew(store, say, kind):
    REGISTRIES[kind](store)
    for verb in (*READING[:-1], *WRITING):
        refused(say(*verb), "run `steerlab rebuild`")
    code, out, _ = say("doctor")
    assert code == ExitCode.FAILED
    assert "steerlab rebuild" in out
    assert say("rebuild")[0] == ExitCode.OK
    assert Store(store).verify() == []
    assert len(Store(store).list()) == 8


def test_a_link_that_leads_to_itself_is_no_registry(store, say):
    replaced("registry.db", lambda p: p.symlink_to(p))(store)
    assert say("verify") == (0, "", f"note: {store} had no registry.db: restored 9 vectors from "
        "their payloads\n9 vectors verified, no problems found\n")  # fmt: skip


@pytest.mark.parametrize("registry", [True, False], ids=["registry", "no registry"])
@pytest.mark.parametrize("name", ["payloads", "labels"])
def test_payloads_or_labels_that_are_a_file_are_left_alone(store, say, registry, name):
    (store / name).mkdir(exist_ok=True)
    replaced(name, lambda p: p.write_text("mine"))(store)
    if not registry:
        (store / "registry.db").unlink()
    for verb in (*READING[:-1], *WRITING, ["rebuild"]):
        refused(say(*verb), f"{name} is a file")
    assert f"{name} is a file" in say("doctor")[1]
    assert (store / name).read_text() == "mine"
    assert (store / "registry.db").exists() == registry


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")])
def test_a_payload_that_is_no_file_is_found(store, say, make):
    Store(store).list()  # bring it over: what can't be read then is left out
    file = next((store / "payloads").rglob("*.safetensors"))
    file.unlink()
    make(file)
    assert say("verify")[0] == ExitCode.FAILED
    assert say("rebuild")[0] == ExitCode.OK
    assert say("list")[0] == ExitCode.OK


@pytest.mark.parametrize("path", ["registry.db", ".", "payloads"])
def test_what_nobody_may_read_is_said(store, say, path):
    """Root, whom permissions do not bind, becomes nobody for it."""
    for parent in (*store.parents,):
        if str(parent).startswith(("/tmp/", "/dev/shm/")):
            parent.chmod(0o755)
    (store / path).chmod(0)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        if path != "payloads":
            for verb in READING[:-1]:
                code, _, err = say(*verb)
                assert code in (ExitCode.STORE, ExitCode.USAGE)
                assert err.count("\n") == 1
        else:
            assert say("verify")[0] != ExitCode.OK
        assert say("note", "love", "x")[2].count("\n") == 1
    finally:
        thaw(store.parent)


def test_a_store_that_is_a_pipe_or_a_device(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with patience():
            assert run(["list", "--store", str(path)]) == ExitCode.STORE
        assert capsys.readouterr().err.count("\n") == 1
