"""What is remembered between two sessions, and that nothing fails for want of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.tui.memory import STORES, Memory, memory_path

VALUES = {"expression": "love - anger", "prompt": "I am", "dose": 0.2, "seed": 3, "chat": False}
SHOP = Path("/data/store")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEERLAB_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_without_a_file_there_are_defaults_and_reading_makes_none(config: Path) -> None:
    assert Memory.load() == Memory("", {})
    assert Memory.load().of_store(SHOP) == {}
    assert not config.exists()


def test_what_is_saved_comes_back(config: Path) -> None:
    memory = Memory.load()
    memory.theme = "nord"
    memory.keep(SHOP, VALUES)
    memory.save()
    again = Memory.load()
    assert (again.theme, again.of_store(SHOP)) == (
        "nord",
        VALUES,
    )
    assert [path.name for path in config.iterdir()] == ["tui.json"]
    assert stat.S_IMODE(memory_path().stat().st_mode) == 0o600


def test_each_store_has_its_own_and_a_path_means_the_same_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    memory = Memory()
    memory.keep(Path("store"), VALUES)
    memory.keep(Path("other"), {"expression": "joy"})
    memory.save()
    again = Memory.load()
    assert again.of_store(tmp_path / "store") == VALUES
    assert again.of_store(tmp_path / "other") == {"expression": "joy"}


def test_what_is_handed_out_is_a_copy() -> None:
    memory = Memory()
    memory.keep(SHOP, VALUES)
    memory.of_store(SHOP)["expression"] = "anger"
    assert memory.of_store(SHOP) == VALUES


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"theme": 3, "stores": "no"}',
        b'{"theme": null, "stores": {"/data/store": [1]}, "of": "another program"}',
        b'{"stores": {"/data/store": {"dose": NaN, "prompt": {"a": 1}, "seed": 1e999}}}',
        b'{"theme": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_a_damaged_or_foreign_file_gives_defaults_and_can_be_replaced(
    config: Path, text: bytes
) -> None:
    config.mkdir()
    memory_path().write_bytes(text)
    memory = Memory.load()
    assert (memory.theme, memory.of_store(SHOP)) == ("", {})
    memory.keep(SHOP, VALUES)
    memory.save()
    assert Memory.load().of_store(SHOP) == VALUES


def test_a_huge_file_is_not_read(config: Path) -> None:
    config.mkdir()
    memory_path().write_text(json.dumps({"theme": "nord", "x": "y" * 5_000_000}))
    assert Memory.load() == Memory()


def test_unknown_keys_are_ignored(config: Path) -> None:
    config.mkdir()
    memory_path().write_text('{"theme": "nord", "from": "the future"}')
    assert Memory.load() == Memory(theme="nord")


@pytest.mark.parametrize("kind", ["file in the way", "directory in its place"])
def test_a_place_that_cant_be_written_is_let_go(config: Path, kind: str) -> None:
    if kind == "file in the way":
        config.write_text("")
    else:
        memory_path().mkdir(parents=True)
    memory = Memory(theme="nord")
    memory.keep(SHOP, VALUES)
    memory.save()
    assert Memory.load() == Memory()
    assert not config.is_dir() or [path.name for path in config.iterdir()] == ["tui.json"]


def test_values_that_are_not_plain_or_too_long_are_left_out() -> None:
    memory = Memory()
    memory.keep(SHOP, {**VALUES, "path": SHOP, "list": [1], "book": "x" * 10_001, "big": 10**30})
    assert memory.of_store(SHOP) == VALUES


def test_the_least_recently_used_stores_go_first() -> None:
    memory = Memory()
    for i in range(STORES):
        memory.keep(Path(f"/{i}"), {"seed": i})
        memory.save()
    later = Memory.load()
    later.keep(Path("/0"), {"seed": 0})
    later.keep(Path("/new"), {"seed": 1})
    later.save()
    assert len(Memory.load().stores) == STORES
    assert Memory.load().of_store(Path("/0")) == {"seed": 0}
    assert Memory.load().of_store(Path("/1")) == {}


def test_two_sessions_on_two_stores_keep_both() -> None:
    one, two = Memory.load(), Memory.load()
    one.keep(Path("/one"), {"seed": 1})
    two.keep(Path("/two"), {"seed": 2})
    one.save()
    two.save()
    assert Memory.load().stores == {"/one": {"seed": 1}, "/two": {"seed": 2}}


plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=30)


@given(st.dictionaries(st.text(max_size=10), plain | st.floats(allow_nan=False), max_size=5))
def test_any_plain_values_come_back(values: dict[str, object]) -> None:
    memory = Memory()
    memory.keep(SHOP, values)
    memory.save()
    assert Memory.load().of_store(SHOP) == memory.of_store(SHOP)


def test_without_the_variable_it_is_the_users_config_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STEERLAB_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert memory_path().name == "tui.json"
    assert memory_path().parent.name == "steerlab"
