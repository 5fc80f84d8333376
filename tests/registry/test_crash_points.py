"""kill -9, failing disks and power cuts at a spread of points of every operation that writes.

The whole campaign is `python -m tests.registry.crashing`.
"""

from __future__ import annotations

import errno
import logging

import pytest

from steerlab.files import durable
from steerlab.registry import Store, labels
from tests.registry import patching, tracing
from tests.registry.crashing import (
    Scene,
    cut_everywhere,
    driver,
    fail_everywhere,
    kill_everywhere,
    table,
)
from tests.registry.operations import OPERATIONS, Operation, family
from tests.registry.samples import vector
from tests.registry.survival import DANGLING, REPAIR

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

NO_PTRACE = "ptrace is not allowed here: kills and errors were injected in Python, power cuts not"
BY_NAME = {operation.name: operation for operation in OPERATIONS}
KILLS, CUTS = 4, 2
"""Points of an operation in one run of the tests; each operation begins at another."""


@pytest.fixture(autouse=True)
def quiet():
    """A registry is taken away after every point, and restored with a warning."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def follow():
    return driver()


def spread(scene, number):
    """Every which point, and the first: so that they are about so many, at other places."""
    every = max(1, len(scene.calls()) // number)
    return every, sum(map(ord, scene.operation.name)) % every


ONE_OF_EACH_KIND = (
    *("save", "tag", "rename", "remove from a shared file", "gc", "import", "backup"),
    *("restore", "bring over", "create"),
)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_kill_loses_nothing_and_needs_nobody(tmp_path, follow, name):
    scene = Scene(BY_NAME[name], tmp_path, follow)
    tally = kill_everywhere(scene, *spread(scene, KILLS))
    assert tally.harms == []
    assert tally.points >= KILLS
    assert tally.killed == tally.points


@pytest.mark.parametrize("name", ["rename", "remove from a shared file", "restore"])
def test_a_kill_around_each_file_that_is_moved(tmp_path, follow, name):
    scene = Scene(BY_NAME[name], tmp_path, follow)
    moves = [i for i, call in enumerate(scene.calls()) if call.name.startswith(("rename", "link"))]
    assert moves
    assert [harm for i in moves[-6:] for harm in scene.killed(i + 1)[2]] == []


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_an_error_of_the_disk_is_one_line_and_the_program_goes_on(tmp_path, follow, name):
    if follow is tracing.follow and not tracing.settable():
        follow = patching.follow
    scene = Scene(BY_NAME[name], tmp_path, follow)
    every, first = spread(scene, 2)
    tally = fail_everywhere(scene, 2 * every, first)
    assert tally.harms == []
    assert tally.points


@pytest.mark.parametrize(
    "name", ["save", "save many", "tag", "rename", "remove", "undo", "restore"]
)
def test_a_power_cut_loses_nothing_and_needs_nobody(tmp_path, follow, name):
    if follow is not tracing.follow:
        pytest.skip(NO_PTRACE)
    scene = Scene(BY_NAME[name], tmp_path, follow)
    tally = cut_everywhere(scene, *spread(scene, CUTS))
    assert tally.harms == []


# a harness that finds nothing in a broken store proves nothing


def test_a_missing_sync_of_a_directory_is_found(tmp_path, follow, monkeypatch):
    if follow is not tracing.follow:
        pytest.skip(NO_PTRACE)
    scene = Scene(BY_NAME["save"], tmp_path, follow)
    monkeypatch.setattr(durable, "sync", lambda path: None)
    harms = [harm for _, found in scene.cuts(every=1000) for harm in found]
    assert DANGLING in {harm.kind for harm in harms}


def test_a_rename_that_nobody_finishes_is_found(tmp_path, follow, monkeypatch):
    scene = Scene(BY_NAME["rename"], tmp_path, follow)
    monkeypatch.setattr(labels, "staged", lambda directory: [])
    names = [call.name for call in scene.calls()]
    last = max(i for i, name in enumerate(names) if name.startswith("rename"))
    assert REPAIR in {harm.kind for harm in scene.killed(last - 1)[2]}


def test_a_row_before_its_file_is_found(tmp_path, follow):
    def row_first(store: Store) -> None:
        store.save("new", vector(70))
        file = next(store.path.glob(f"payloads/**/{store.record('new').digest}*"))
        data = file.read_bytes()
        file.unlink()
        durable.write(file, data)

    scene = Scene(Operation("row first", family, [row_first]), tmp_path, follow)
    names = [call.name for call in scene.calls()]
    last = max(i for i, name in enumerate(names) if name.startswith("rename"))
    assert {DANGLING} <= {harm.kind for harm in scene.killed(last)[2]}


def test_without_ptrace_the_same_is_done_in_python(tmp_path):
    scene = Scene(BY_NAME["tag"], tmp_path, patching.follow)
    every, _ = spread(scene, 4)
    killed = kill_everywhere(scene, every)
    assert killed.harms == []
    assert killed.killed == killed.points >= 4
    refused = fail_everywhere(scene, 9)
    assert refused.harms == []
    assert refused.refused


def test_a_full_disk_is_told_in_one_line_that_says_so(tmp_path, follow):
    scene = Scene(BY_NAME["save"], tmp_path, patching.follow)
    sync = [call.name for call in scene.calls()].index("fsync")
    assert scene.failed(sync, errno.ENOSPC, lasting=True)[1:] == (True, [])


def test_the_table_adds_up(tmp_path, follow):
    scene = Scene(BY_NAME["note"], tmp_path, patching.follow)
    lines = table([kill_everywhere(scene, 20), kill_everywhere(scene, 20)]).splitlines()
    assert lines[0].split("  ")[0] == "operation"
    assert int(lines[-1].split()[1]) == 2 * int(lines[1].split()[1])
    assert lines[-1].split()[3:] == ["0"] * 4
