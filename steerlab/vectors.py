"""Stored vectors as importable names.

    from steerlab.vectors import love
    from steerlab.vectors.smollm2 import love, anger

Each import reads the newest version from the store that the command line would use
(STEERLAB_STORE, ./store, your data directory). Tab completion knows what is stored.
"""

# every name here has an underscore: the others belong to the vectors
import sys as _sys
from collections.abc import Sequence as _Sequence
from importlib import import_module as _import_module
from importlib.abc import Loader as _Loader
from importlib.abc import MetaPathFinder as _MetaPathFinder
from importlib.machinery import ModuleSpec as _ModuleSpec
from types import ModuleType as _ModuleType
from typing import Any as _Any

from steerlab.errors import NotFound as _NotFound
from steerlab.registry import Store as _Store

__path__: list[str] = []  # a package, so that models can be modules in it


class _MissingVector(_NotFound, AttributeError):
    """No vector of that name is stored; the message offers the closest ones."""


class _MissingVectorImport(_NotFound, ImportError):
    """The same, where the name stands in an import."""


def __getattr__(name: str) -> _Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    store = _Store()
    try:
        return store.results.noted(store.load(name))
    except _NotFound as error:
        if name in _models(store) and name not in store.names():
            return _import_module(f"{__name__}.{name}")
        raise _MissingVector(str(error)) from None


def __dir__() -> list[str]:
    store = _Store()
    return sorted({*store.names(), *_models(store)})


def _models(store: _Store) -> list[str]:
    return [model.name for model in store.models()]


def _load(store: _Store, ref: str) -> _Any:
    try:
        return store.results.noted(store.load(ref))
    except _NotFound as error:
        raise _MissingVector(str(error)) from None


class _ModelVectors(_ModuleType):
    """The vectors of one model, as a module."""

    def __getattr__(self, name: str) -> _Any:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _load(_Store(), f"{self.__name__.rpartition('.')[2]}.{name}")

    def __dir__(self) -> list[str]:
        return sorted(_Store().names(self.__name__.rpartition(".")[2]))


class _Finder(_MetaPathFinder, _Loader):
    """Finds `steerlab.vectors.<model>` for every model in the store.

    For `from steerlab.vectors import lvoe` Python asks here last: the place to say what was
    perhaps meant.
    """

    def find_spec(
        self, fullname: str, path: _Sequence[str] | None, target: _ModuleType | None = None
    ) -> _ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        ref = fullname.removeprefix(f"{__name__}.")
        if ref.startswith("_"):
            return None
        store = _Store()
        if ref in _models(store):
            return _ModuleSpec(fullname, self, is_package=True)  # so that we are asked again
        try:
            store.record(ref)
        except _NotFound as error:
            raise _MissingVectorImport(str(error), name=fullname) from None
        return None

    def create_module(self, spec: _ModuleSpec) -> _ModuleType:
        return _ModelVectors(spec.name, f"The stored vectors of {spec.name.rpartition('.')[2]}.")

    def exec_module(self, module: _ModuleType) -> None:
        """Nothing runs: names are looked up when they are asked for."""


if not any(isinstance(finder, _Finder) for finder in _sys.meta_path):
    _sys.meta_path.append(_Finder())
