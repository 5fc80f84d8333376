"""Payload files of a store: where they lie, and the vectors in them."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray
from sqlalchemy import Connection, select

from steerlab.core.recipe import Contrast, Expression, Recipe
from steerlab.core.record import Record
from steerlab.core.vector import SteeringVector, placeholder_of, replace_refs
from steerlab.errors import CorruptPayload, NotFound, SteerlabError
from steerlab.files import durable, payload
from steerlab.registry.rows import Stored, read
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.tables import VECTOR

if TYPE_CHECKING:
    from filelock import BaseFileLock

SUFFIX = ".safetensors"
LINKS = f"{durable.TEMPORARY_PREFIX}backup-"
"""How the directory begins in which a backup holds on to the files that it copies."""
MOST_VECTORS = 500
MOST_BYTES = 32_000_000
"""Bounds of a file with many vectors: a tag or a new name rewrites the file it lies in."""

_PER_TEXT = 8  # records may take an eighth of that: a file's header is read as a whole

Entry = tuple[Record, SteeringVector]


def free_path(directory: Path, digest: str) -> str:
    """The first of a digest's paths that no file has."""
    paths = (path_of(digest, number) for number in count(1))
    return next(path for path in paths if not os.path.exists(os.path.join(directory, path)))


def path_of(digest: str, number: int = 1) -> str:
    """payloads/ab/<digest>.safetensors, then <digest>.2.safetensors and so on."""
    counted = f".{number}" if number > 1 else ""
    return f"payloads/{digest[:2]}/{digest}{counted}{SUFFIX}"


def holder(links: Path) -> BaseFileLock:
    """A lock on the links of a backup, which is held for as long as its process lives."""
    from filelock import FileLock

    return FileLock(links / ".lock", timeout=0, fallback_to_soft=False)


def is_held(links: Path) -> bool:
    """Whether a backup still reads these links."""
    from filelock import Timeout

    if not (links / ".lock").exists():  # it died before it held them; to look makes no file
        return False

    try:
        with holder(links):
            return False
    except Timeout:
        return True
    except OSError:  # nobody may write there: whoever made them is another user
        return True


def payload_files(directory: Path) -> Iterator[Path]:
    """Every payload file of the store, in a fixed order.

    Hidden ones are not payloads: they are temporary, or what a system keeps beside its files.
    """
    payloads = directory / "payloads"
    if payloads.is_dir():
        os.scandir(payloads).close()  # to look through passes over what nobody may read
    yield from sorted(
        path
        for path in payloads.glob(f"**/*{SUFFIX}")
        if not any(part.startswith(".") for part in path.relative_to(payloads).parts)
    )


def batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries that go into one file together: of one model, and not too many."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        weight = 4 * sum(d.size for d in entry[1].directions.values())
        weight += _PER_TEXT * _text_size(entry[0])
        full = len(batch) >= MOST_VECTORS or size + weight > MOST_BYTES
        if batch and (full or batch[0][0].model != entry[0].model):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += weight
    if batch:
        yield batch


def _text_size(record: Record) -> int:
    """About how many bytes of a file's header a record takes."""
    recipe, size = record.recipe, 1000 + 300 * len(record.layers)
    texts = [record.note, *record.tags]
    if isinstance(recipe, Contrast):
        texts += (*recipe.positive, *recipe.negative, *recipe.baseline)
        size += 8 * sum(map(len, (*recipe.positive_ids, *recipe.negative_ids)))
    elif isinstance(recipe, Expression):
        texts.append(recipe.text)
        size += sum(200 + len(operand.ref) for operand in recipe.operands)
    return size + sum(10 + (len(text) if text.isascii() else 7 * len(text)) for text in texts)


def load(directory: Path, stored: Stored) -> SteeringVector:
    """The vector of a row, checked against the row's digest; its record is the row's.

    A crash between a payload's rewrite and its COMMIT leaves other names in the file than in
    the rows; the digest finds the vector all the same. Only then are the file's own records
    read, which take their time where there are hundreds.
    """
    known = payload.read_known(directory / stored.path, stored.key, stored.record)
    if known is not None:
        return known
    record, vector = _written(directory / stored.path, stored)
    check_agreement(stored, record)
    return described(vector, stored.record)


def _written(path: Path, stored: Stored) -> Entry:
    """What the file of a row holds under its digest."""
    try:
        record, vector = payload.read(path, stored.key)
    except NotFound:
        return payload.read(path, _key_of(path, stored))
    if record.digest != stored.record.digest:
        return payload.read(path, _key_of(path, stored))
    return record, vector


def check_agreement(stored: Stored, written: Record) -> None:
    """Refuse a row that contradicts its payload in what never changes.

    Names, tags, notes and the names of operands may: a crash can leave the newer ones in the
    file.
    """
    row = stored.record
    fixed = ("version", "digest", "model", "scope", "layers", "norm", "software")
    differing = [name for name in fixed if getattr(row, name) != getattr(written, name)]
    if _moment(row.created) != _moment(written.created):
        differing.append("created")
    if _nameless(row.recipe) != _nameless(written.recipe):
        differing.append("recipe")
    if differing:
        raise Damaged(
            f"the registry and the payload of {stored.qualified} do not tell the same "
            f"{' and '.join(differing)}: run `steerlab rebuild`"
        )


def _distance(written: Record, row: Record) -> tuple[bool, bool]:
    """How unlike two records of the same numbers are: names may change, moments do not."""
    return (written.ref != row.ref, written.created != row.created)


def _moment(created: str) -> datetime | str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _nameless(recipe: Recipe) -> Recipe | str:
    """A recipe whatever its operands are called."""
    if isinstance(recipe, Expression):
        names = {o.ref: placeholder_of(o.digest) for o in recipe.operands}
        with contextlib.suppress(SyntaxError):  # what its row says may be anything
            return replace_refs(recipe.text, names)
    return recipe


def _key_of(path: Path, stored: Stored) -> str:
    found = [
        (_distance(record, stored.record), key)
        for key, record in payload.read_records(path).items()
        if record.digest == stored.record.digest
    ]
    if found:
        return min(found)[1]
    raise CorruptPayload(
        f"{path} no longer holds {stored.qualified}: restore the file from a copy, "
        "or remove the vector"
    )


class Shelf:
    """Payloads for checks that read many vectors: the last few files stay in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, dict[str, list[Entry]]] = {}

    def load(self, stored: Stored, *, agreeing: bool = True) -> SteeringVector:
        """As `load`; a file with a damaged vector is read one vector at a time.

        agreeing: False takes the numbers of a row that contradicts its payload in other things.
        """
        if stored.path not in self._files:
            while len(self._files) >= 4:
                self._files.pop(next(iter(self._files)))
            self._files[stored.path] = self._contents(stored.path)
        same = self._files[stored.path].get(stored.record.digest)
        written, vector = (
            min(same, key=lambda entry: _distance(entry[0], stored.record))
            if same
            else _written(self.directory / stored.path, stored)
        )
        if agreeing:
            check_agreement(stored, written)
        return described(vector, stored.record)

    def _contents(self, path: str) -> dict[str, list[Entry]]:
        try:
            entries = payload.read_all(self.directory / path)
        except SteerlabError:
            return {}
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            found[entry[0].digest].append(entry)
        return found


def described(vector: SteeringVector, record: Record) -> SteeringVector:
    """The float32 form of a vector with the recipe, model and ref of a record."""
    return from_arrays(vector.float32(), record)


def from_arrays(arrays: Mapping[int, ArrayLike], record: Record) -> SteeringVector:
    """The vector of a record, of its arrays."""
    return SteeringVector(
        arrays,
        model=record.model,
        recipe=record.recipe,
        scope=record.scope,
        residual_norms={f.layer: f.residual_norm for f in record.layers if f.residual_norm},
        diagnostics={f.layer: dict(f.diagnostics) for f in record.layers},
        ref=record.ref,
    )


def arrays_of(
    directory: Path, rows: Iterable[Any], layers: Callable[[Any], Sequence[int]]
) -> Iterator[tuple[Any, Mapping[int, NDArray[Any]] | None]]:
    """Rows of vectors, file by file, with the arrays that lie in it under their key, unchecked.

    rows: with `path` and `key`. layers: those of a row. None for what can't be read, or not there.
    """
    by_path = defaultdict(list)
    for row in rows:
        by_path[row.path].append(row)
    for path, together in by_path.items():
        found: dict[str, dict[int, NDArray[Any]]] = {}
        with contextlib.suppress(SteerlabError):
            found |= payload.read_arrays(directory / path, {r.key: layers(r) for r in together})
        yield from ((row, found.get(row.key)) for row in together)


def at_path(connection: Connection, path: str) -> Mapping[int, Stored]:
    """The rows whose vectors lie in a file."""
    ids = connection.execute(select(VECTOR.c.id).where(VECTOR.c.path == path)).scalars().all()
    return read(connection, ids)
