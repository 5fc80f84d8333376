"""The last step of a restore: the old store goes aside, and the new one comes."""

from __future__ import annotations

import os

import pytest

from steerlab.errors import StoreError
from steerlab.registry import Store, discover
from tests.registry.samples import vector
from tests.registry.test_backup import left, records


def between_the_moves(monkeypatch, action):
    """What another process does once the old store was moved aside, before the new one comes."""
    rename = os.rename

    def late(old, new):
        rename(old, new)
        if ".before-restore-" in str(new):
            monkeypatch.setattr(os, "rename", rename)
            action()

    monkeypatch.setattr(os, "rename", late)


def a_lock(store):
    store.path.mkdir()
    (store.path / ".lock").touch()


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.list(),
        a_lock,
        lambda store: (a_lock(store), store.save("early", vector(40))),
    ],
    ids=["reads", "makes a lock", "saves"],
)
def test_a_restore_succeeds_whatever_another_process_does_meanwhile(
    family, tmp_path, monkeypatch, action
):
    made = family.transfer.backup(tmp_path / "b.tar")
    before = records(family)
    family.remove("deep")
    between_the_moves(monkeypatch, lambda: action(Store(family.path)))
    aside = family.transfer.restore(made.path, force=True)
    assert records(family) == before
    assert len(Store(aside).list()) == 3
    assert left(tmp_path) == []


def test_a_store_that_can_not_be_moved_aside_stays(family, tmp_path, monkeypatch):
    made = family.transfer.backup(tmp_path / "b.tar")
    family.remove("deep")
    rename = os.rename

    def busy(old, new):
        if ".before-restore-" in str(new):
            raise OSError(16, "Device or resource busy")
        rename(old, new)

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(StoreError, match="busy"):
        family.transfer.restore(made.path, force=True)
    assert len(family.list()) == 3
    assert left(tmp_path) == []


def test_a_restore_that_can_not_end_names_both_stores(family, tmp_path, monkeypatch):
    made = family.transfer.backup(tmp_path / "b.tar")
    rename = os.rename

    def stuck(old, new):
        if str(old).endswith(".restored"):
            raise OSError(13, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(os, "rename", stuck)
    with pytest.raises(StoreError, match="move it there yourself") as error:
        family.transfer.restore(made.path, force=True)
    (aside,) = tmp_path.glob("store.before-restore-*")
    assert f"{tmp_path}/.tmp-store.restored to {family.path}" in str(error.value)
    assert str(aside) in str(error.value)
    for place in (aside, tmp_path / ".tmp-store.restored"):
        assert len(Store(place).list()) == 4


@pytest.mark.parametrize(
    "look",
    [
        lambda store: store.list(),
        lambda store: store.upkeep.rebuild(),
        lambda store: store.transfer.backup(store.path.with_name("b.tar")),
        lambda store: store.upkeep.diagnose(),
        lambda store: discover(),
        lambda store: store.transfer.restore(store.path.with_name("a.tar"), force=True),
    ],
    ids=["list", "rebuild", "backup", "doctor", "discover", "restore"],
)
def test_whoever_looks_finishes_the_move_of_a_restore_that_was_killed(
    family, tmp_path, monkeypatch, look
):
    monkeypatch.delenv("STEERLAB_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    family.transfer.backup(tmp_path / "a.tar")
    family.path.rename(tmp_path / ".tmp-store.restored")
    look(Store(family.path))
    assert (family.path / "registry.db").exists()
    assert left(tmp_path) == []
    assert len(family.list()) == 4


@pytest.mark.parametrize("force", [False, True])
def test_a_link_to_a_directory_stays_one(family, tmp_path, force):
    made = family.transfer.backup(tmp_path / "b.tar")
    real = tmp_path / "disk" / "real"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    linked = Store(tmp_path / "link")
    if force:
        linked.save("x", vector(9))
    aside = linked.transfer.restore(made.path, force=force)
    assert (aside is not None) == force
    assert (tmp_path / "link").is_symlink()
    assert records(Store(real)) == records(linked) == records(family)
