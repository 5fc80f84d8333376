"""Stored vectors as importable names.

    from steerlab.vectors import love
    from steerlab.vectors.smollm2 import love, anger

Each import reads the newest version from the store that the command line would use
(STEERLAB_STORE, ./store, your data directory). Tab completion knows what is stored.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from steerlab.errors import NotFound
from steerlab.registry import Store

__path__: list[str] = []  # a package, so that models can be modules in it


class MissingVector(NotFound, AttributeError):
    """No vector of that name is stored; the message offers the closest ones."""


class MissingVectorImport(NotFound, ImportError):
    """The same, where the name stands in an import."""


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    store = Store()
    if name not in store.names() and name in _models(store):
        return import_module(f"{__name__}.{name}")
    return _load(store, name)


def __dir__() -> list[str]:
    store = Store()
    return sorted({*store.names(), *_models(store)})


def _models(store: Store) -> list[str]:
    return [model.name for model in store.models()]


def _load(store: Store, ref: str) -> Any:
    try:
        return store.load(ref)
    except NotFound as error:
        raise MissingVector(str(error)) from None


class _ModelVectors(ModuleType):
    """The vectors of one model, as a module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _load(Store(), f"{self.__name__.rpartition('.')[2]}.{name}")

    def __dir__(self) -> list[str]:
        return sorted(Store().names(self.__name__.rpartition(".")[2]))


class _Finder(MetaPathFinder, Loader):
    """Finds `steerlab.vectors.<model>` for every model in the store.

    For `from steerlab.vectors import lvoe` Python asks here last: the place to say what was
    perhaps meant.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        ref = fullname.removeprefix(f"{__name__}.")
        if ref.startswith("_"):
            return None
        store = Store()
        if ref in _models(store):
            return ModuleSpec(fullname, self, is_package=True)  # so that we are asked again
        try:
            store.record(ref)
        except NotFound as error:
            raise MissingVectorImport(str(error), name=fullname) from None
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _ModelVectors(spec.name, f"The stored vectors of {spec.name.rpartition('.')[2]}.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing runs: names are looked up when they are asked for."""


if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
