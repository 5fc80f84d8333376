from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steerlab.cli import ExitCode, run
from steerlab.registry import Store
from tests.saved import fill_store, save_model


@dataclass(frozen=True)
class Result:
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        assert self.code == ExitCode.OK, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_dir(tmp_path_factory) -> Path:
    """The same shape, other weights."""
    return save_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def _filled(tmp_path_factory, model_dir) -> Path:
    return fill_store(tmp_path_factory.mktemp("stores") / "store", model_dir)


@pytest.fixture
def store(_filled, tmp_path, monkeypatch) -> Store:
    """A filled store, the one that commands find."""
    shutil.copytree(_filled, tmp_path / "vectors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "vectors"))
    return Store(tmp_path / "vectors")


@pytest.fixture
def both_models(store, other_dir, capsys) -> None:
    """The store has the same names on a second model."""
    fill_store(store.path, other_dir)
    capsys.readouterr()


@pytest.fixture
def cli(store, capsys) -> Callable[..., Result]:
    """Run one command in this process."""

    def call(*arguments: object) -> Result:
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli, store) -> Callable[..., str]:
    """Run a command that has to fail: one line on stderr, nothing on stdout or in the store."""

    def call(code: ExitCode, *arguments: object) -> str:
        before = contents(store)
        result = cli(*arguments)
        assert result.code == code, result
        assert result.out == ""
        assert result.err.startswith("steerlab: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        assert "Traceback" not in result.err
        assert contents(store) == before
        return result.err

    return call


def contents(store: Store) -> object:
    """Everything a command could have changed."""
    files = {p: p.read_bytes() for p in (store.path / "payloads").rglob("*") if p.is_file()}
    records = [store.record(s.qualified) for s in store.list(every_version=True, sort="name")]
    return files, records
