"""Export and import of vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, select

from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import Labels, Record
from steerlab.errors import BadOption, CorruptPayload, NotFound, SteerlabError, StoreError
from steerlab.files import durable, header, payload
from steerlab.progress import Progress
from steerlab.registry import files, labels, result_files, results, saving
from steerlab.registry.database import Database
from steerlab.registry.files import Entry, batches
from steerlab.registry.labels import Removed
from steerlab.registry.ports import Writing
from steerlab.registry.queries import Model, Summary
from steerlab.registry.rebuild import unnamed, usable
from steerlab.registry.refs import resolve
from steerlab.registry.result_files import Result
from steerlab.registry.rows import mark_newest, read
from steerlab.registry.schema import chunks
from steerlab.registry.sqlite_errors import one_line_errors
from steerlab.registry.tables import OPERAND, VECTOR
from steerlab.registry.transfer import archive
from steerlab.registry.transfer.import_plan import Import, plan
from steerlab.registry.upkeep.verify import untrue_facts


def rows_of(connection: Connection, refs: Iterable[str | Summary], model: Model) -> list[int]:
    """The row ids of refs and summaries; raises NotFound for outdated summaries."""
    wanted = list(refs)
    if not wanted:
        raise BadOption("there is nothing to export: no vector was named")
    known: dict[int, str] = {}
    for part in chunks([ref.id for ref in wanted if isinstance(ref, Summary)]):
        query = select(VECTOR.c.id, VECTOR.c.digest).where(VECTOR.c.id.in_(part))
        known |= {row.id: row.digest for row in connection.execute(query)}
    rows = []
    for ref in wanted:
        if isinstance(ref, str):
            rows.append(resolve(connection, ref, model))
        elif known.get(ref.id) != ref.digest:
            raise NotFound(f"{ref.qualified} is not in this store any more")
        else:
            rows.append(ref.id)
    return rows


def with_ancestors(connection: Connection, rows: Sequence[int]) -> list[int]:
    """The rows and their ancestors."""
    found, new = set(rows), list(rows)
    while new:
        parents: set[int] = set()
        for part in chunks(new):
            edges = select(OPERAND.c.parent_id).where(
                OPERAND.c.child_id.in_(part), OPERAND.c.parent_id.is_not(None)
            )
            parents.update(connection.execute(edges).scalars())
        new = list(parents - found)
        found.update(new)
    return list(found)


def to_payload(
    connection: Connection, directory: Path, rows: Sequence[int], target: Path, force: bool
) -> Path:
    """Write a few vectors to one payload file."""
    payload.check_suffix(target)
    if len(set(rows)) > files.MOST_VECTORS:
        raise BadOption(
            f"{len(set(rows))} vectors are too many for one payload file: call it NAME.tar, and "
            "it is an archive"
        )
    if target.exists() and not force:
        raise StoreError(f"{target} exists: export to another name, or delete it first")
    durable.write(target, payload.encode(list(_entries(connection, directory, rows))))
    return target


def to_archive(
    connection: Connection,
    directory: Path,
    rows: Sequence[int],
    target: Path,
    force: bool,
    progress: Progress | None,
) -> Path:
    """Write any number of vectors, and their results, one payload file in memory at a time."""
    done, total, digests = 0, len(set(rows)), set[str]()
    with archive.create(target, force=force) as writer:
        for batch in batches(_entries(connection, directory, rows)):
            name = _free_name(writer, batch[0][0].digest)
            writer.add(name, payload.encode(batch))
            digests.update(record.digest for record, _ in batch)
            done += len(batch)
            if progress is not None:
                progress(done, total)
        measured = results.every(connection, digests)
        for data in sorted({result_files.encoded(made) for made in measured}):
            writer.add(result_files.path_of(data), data)
    return target


def take_in(database: Database, path: Path, progress: Progress | None = None) -> Sequence[Import]:
    """Import a payload file or an archive, all or nothing.

    The file is read twice: first without arrays, to check that an archive is complete and to plan
    names; then to check and store the vectors, a few at a time.
    """
    with (
        one_line_errors(database.directory),
        tempfile.TemporaryDirectory(prefix="steerlab-") as scratch,
    ):
        reader = _Reader(path, Path(scratch), progress)
        imports = list(reader.survey())
        with database.writing() as work:
            back = plan(work.connection, imports)
            for batch in batches(_new(work.connection, reader, imports)):
                saving.store(work, database.directory, batch)
            _take_results(work, database.directory, reader, {one.digest for one in imports})
            for names in chunks(sorted(back)):
                mark_newest(work.connection, VECTOR.c.name.in_(names))
    return sorted(imports, key=lambda one: one.created)


def _take_results(work: Writing, directory: Path, reader: _Reader, digests: set[str]) -> None:
    """Store the results of the imported vectors that this store lacks."""

    def refuse(why: str) -> None:
        raise CorruptPayload(f"{reader.path}: {why}")

    found = (r for r in reader.results() if r.digest in digests)
    for new in results.take_in(work.connection, found, refuse):
        result_files.write(directory, new, work)


class _Reader:
    """Reads a payload file, or the payload files of an archive, twice."""

    def __init__(self, path: Path, scratch: Path, progress: Progress | None) -> None:
        self.path, self.scratch, self.progress = path, scratch, progress
        self.packed = archive.is_archive(path)
        self.labels: dict[str, Labels | Removed] = {}
        self.size = path.stat().st_size
        self._results: list[tuple[str, Path]] = []

    def survey(self) -> Iterator[Import]:
        """The records, without arrays."""
        models: dict[ModelIdentity, ModelIdentity] = {}
        for file, what in self._payloads(0):
            with called(file, what):
                for record in payload.read_records(file).values():
                    model = models.setdefault(record.model, record.model)
                    yield Import.of(self._labelled(usable(record, what)), model)

    def entries(self) -> Iterator[Entry]:
        """The vectors, checked, in the order of `survey`."""
        for file, what in self._payloads(self.size):
            with called(file, what):
                for record, vector in payload.read_all(file):
                    entry = self._labelled(usable(record, what)), vector
                    if wrong := untrue_facts(record, vector):
                        raise CorruptPayload(f"{what}: {record.ref}: {wrong[0]}")
                    saving.check(vector)
                    yield entry

    def results(self) -> Iterator[Result]:
        """The results in an archive, found by `survey`."""
        for what, file in self._results:
            with called(file, what):
                yield result_files.parsed(header.read_plain(file), file)

    def _labelled(self, record: Record) -> Record:
        """The record with its labels: from a label file in the archive, or its own."""
        own = self.labels.get(record.story)
        if isinstance(own, Labels):
            return record.labelled(own)
        return record if record.name else record.labelled(unnamed(record.story))

    def _payloads(self, before: int) -> Iterator[tuple[Path, str]]:
        """Payload files, one after another, with the names to show."""

        def tell(done: int, size: int) -> None:
            if self.progress is not None:
                self.progress(before + done, 2 * size)

        if not self.packed:
            yield self.path, str(self.path)
            tell(self.size, self.size)
            return
        one = self.scratch / "one"
        for name, file in archive.unpack(self.path, lambda name: one, tell):
            if name.startswith(f"{labels.FOLDER}/"):
                self.labels |= labels.parsed(header.read_plain(file), f"{self.path}: {name}")
            elif name.startswith(f"{result_files.FOLDER}/"):
                if not before:
                    kept = self.scratch / str(len(self._results))
                    self._results.append((f"{self.path}: {name}", file.rename(kept)))
                    continue
            elif name != archive.REGISTRY:
                yield file, f"{self.path}: {name}"
            file.unlink()


@contextmanager
def called(file: Path, name: str) -> Iterator[None]:
    """Replace a temporary path in errors by the name that the user knows."""
    try:
        yield
    except SteerlabError as error:
        if str(file) == name:
            raise
        raise type(error)(str(error).replace(str(file), name)) from None


def _new(connection: Connection, reader: _Reader, imports: Sequence[Import]) -> Iterator[Entry]:
    """The vectors that are new to this store, under their names here."""
    expected = iter(imports)
    for record, vector in reader.entries():
        one = next(expected, None)
        if one is None or (one.was, one.story) != (record.ref, record.story):
            raise CorruptPayload(f"{reader.path} changed while it was read: try again")
        if one.already:
            continue
        if one.twin is not None:
            stored = read(connection, [one.twin])[one.twin].record
            one.same_numbers, one.differs = stored.ref, stored.differs_from(record)
        name, version = one.place
        placed = replace(record, name=name, version=version)
        yield placed, payload.from_arrays(vector.float32(), placed)


def _entries(connection: Connection, directory: Path, rows: Sequence[int]) -> Iterator[Entry]:
    """The vectors to write, by model, oldest first."""
    places: list[tuple[int, str, int]] = []
    for part in chunks(list(set(rows))):
        query = select(VECTOR.c.model_id, VECTOR.c.created, VECTOR.c.id)
        places += map(tuple, connection.execute(query.where(VECTOR.c.id.in_(part))))
    for part in chunks([row for _, _, row in sorted(places)]):
        stored = list(read(connection, part).values())
        yield from zip((s.record for s in stored), files.load_all(directory, stored), strict=True)


def _free_name(writer: archive.Writer, digest: str) -> str:
    number, name = 1, files.path_of(digest)
    while name in writer:
        number += 1
        name = files.path_of(digest, number)
    return name
