"""kill -9 at chosen points: before and after system calls, and between SQL statements."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from steerlab.registry import Store
from tests.registry.samples import vector

ACTIONS: dict[str, Callable[[Store], object]] = {
    "save": lambda store: store.save("new", vector(50)),
    "tag": lambda store: store.tag("n1", add=["x"]),
    "rename": lambda store: store.rename("love", "amour"),
    "remove": lambda store: store.remove("n2"),
    "rebuild": lambda store: store.rebuild(),
}
CALLS = ("fsync", "replace", "rename", "link", "unlink", "open")
EVERY = 9  # every step was tried once; these are enough to notice a change


@pytest.fixture
def seed(store: Store) -> Path:
    love = store.save("love", vector(1))
    store.save("twice", 2 * love)
    store.save_many([(f"n{i}", vector(10 + i)) for i in range(3)])
    return store.path


def die_after(steps: int, path: Path, action: Callable[[Store], object]) -> None:
    """Run in a child process: kill it at the given step, or end with 0 if there are fewer."""
    left = [steps]

    def tick(*arguments: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            tick()
            result = real(*arguments, **options)
            tick()
            return result

        return call

    for name in CALLS:
        setattr(os, name, ticking(getattr(os, name)))
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(tick)
        return connection

    sqlite3.connect = traced
    action(Store(path))
    os._exit(0)


def survived(path: Path, kept: list[str]) -> None:
    store = Store(path)
    for name in kept:
        assert store.load(name).digest == store.record(name).digest
    assert len({"love", "amour"} & set(store.names())) == 1
    store.rebuild()
    assert store.verify() == []
    assert set(kept) - {"love"} <= set(store.names())
    store.gc(dry_run=False, grace=timedelta(0))
    assert store.verify() == []
    assert store.save("later", vector(60)) == vector(60)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ACTIONS)
def test_a_store_outlives_its_writer_at_any_point(seed, tmp_path, name):
    kept = ["twice", "n0", "n1"] + ["love"] * (name != "rename") + ["n2"] * (name != "remove")
    for step in range(0, 1000, EVERY):
        path = tmp_path / f"{name}{step}"
        shutil.copytree(seed, path)
        child = os.fork()
        if child == 0:
            try:
                die_after(step, path, ACTIONS[name])
            finally:
                os._exit(7)
        status = os.waitpid(child, 0)[1]
        survived(path, kept)
        if status == 0:
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("the action never ended")
