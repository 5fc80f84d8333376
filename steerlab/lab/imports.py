"""Foreign vector files into a store: their models are found, and they are stored as one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.core.recipe import Imported, ModelIdentity, check_name
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, NotFound, StoreError
from steerlab.interop import recognise
from steerlab.interop.foreign import Asserted, Foreign, UnknownFile, bind, model_of

if TYPE_CHECKING:
    from steerlab.registry import Store


@dataclass(frozen=True)
class Arrival:
    """A vector of a foreign file as it is stored. already: it was stored before."""

    vector: SteeringVector
    already: bool

    @property
    def recipe(self) -> Imported:
        """Where it came from."""
        assert isinstance(self.vector.recipe, Imported)
        return self.vector.recipe


def files_in(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, and the files of the directories, in order; hidden ones are left out."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        try:
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
        except OSError as error:
            raise StoreError(f"can't read {path}: {error.strerror or error}") from None
        if not inside:
            raise NotFound(f"{path} has no files in it")
        yield from inside


def foreign_in(
    files: Sequence[Path], named: Sequence[Path], format: str | None
) -> tuple[list[tuple[Path, Foreign]], list[Path]]:
    """The vectors of foreign files, and the files that are none.

    named: files that the user named, which have to be vectors. format: what they have to be.
    """
    found: list[tuple[Path, Foreign]] = []
    others = []
    for path in files:
        try:
            vectors = recognise.read(path)
        except UnknownFile:
            if path in named:
                raise
            others.append(path)
            continue
        if wrong := [one for one in vectors if format not in (None, one.format)]:
            raise BadOption(f"{path} is {wrong[0].format}, not {format}: leave --format out")
        found += [(path, one) for one in vectors]
    return found, others


def bound(
    store: Store,
    found: Sequence[tuple[Path, Foreign]],
    said: Asserted,
    model: ModelIdentity | None = None,
    name: str | None = None,
) -> list[tuple[str, SteeringVector]]:
    """Foreign vectors with their names and models.

    model: theirs; None looks for it among those that have vectors in the store. name: of the one
    vector that there is.
    """
    if name is not None and len(found) != 1:
        raise BadOption(f"--as names one vector, and there are {len(found)}: leave it out")
    known = [] if model is not None else [stored.identity for stored in store.models()]
    items = []
    for path, one in found:
        fitting = model if model is not None else model_of(one, known, str(path))
        vector = bind(one, fitting, str(path), said, model_named=model is not None)
        items.append((check_name(one.name if name is None else name), vector))
    return items


def stored(store: Store, items: Sequence[tuple[str, SteeringVector]]) -> list[Arrival]:
    """Store vectors in one transaction, but for those that are the newest of their names."""
    before = [_newest(store, name, vector) for name, vector in items]
    pairs = zip(items, before, strict=True)
    new = {(name, vector.digest): vector for (name, vector), old in pairs if old is None}
    saved = store.save_many([(n, v) for (n, _), v in new.items()])
    made = dict(zip(new, saved, strict=True))
    return [
        Arrival(made[name, vector.digest], False) if old is None else Arrival(old, True)
        for (name, vector), old in zip(items, before, strict=True)
    ]


def _newest(store: Store, name: str, vector: SteeringVector) -> SteeringVector | None:
    """The stored vector, if it is the newest of this name."""
    try:
        newest = store.load(name, vector.model)
    except NotFound:
        return None
    return newest if newest == vector and isinstance(newest.recipe, Imported) else None


def identity_of(store: Store, source: str) -> ModelIdentity:
    """The identity of a model: one that has vectors in the store, else it is loaded."""
    for name, identity, _ in store.models():
        if source in (name, identity.source):
            return identity
    from steerlab.lab.lab import Lab

    return Lab(store, source=source).model.identity
