"""Vectors and the whole store as files: export, import, backup and restore."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import Labels, Record
from steerlab.errors import BadOption, CorruptPayload, NotFound, StoreError
from steerlab.files import durable, header, payload
from steerlab.files.location import expanded
from steerlab.progress import Progress
from steerlab.registry import files, labels, result_files, results, saving
from steerlab.registry.database import Database
from steerlab.registry.files import Entry, batches
from steerlab.registry.labels import Removed
from steerlab.registry.operands import with_ancestors
from steerlab.registry.ports import Writing
from steerlab.registry.queries import Model, Summary
from steerlab.registry.rebuild import unnamed, usable
from steerlab.registry.refs import resolve
from steerlab.registry.result_files import Result
from steerlab.registry.rows import mark_newest, read
from steerlab.registry.schema import GIVEN, chunks, given
from steerlab.registry.sqlite_errors import one_line_errors
from steerlab.registry.tables import VECTOR
from steerlab.registry.transfer import archive
from steerlab.registry.transfer.import_plan import Import, plan
from steerlab.registry.upkeep.verify import untrue_facts

if TYPE_CHECKING:
    from steerlab.registry.transfer.backup import Backup


class Transfer:
    """Vectors and the whole store as files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def export(
        self,
        refs: str | Summary | Iterable[str | Summary],
        path: str | Path,
        *,
        parents: bool = False,
        model: Model = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write vectors to one file that `import_` reads anywhere; returns its path.

        A path ending in .tar makes an archive of any number of vectors with their calibrations and
        evaluations, any other path a payload file, which holds vectors alone; in a directory, the
        payload file is named after the first vector. The file is written completely or not at
        all: a damaged vector is an error.

        refs: refs or summaries. parents: include all ancestors, so that compositions can be
        re-evaluated. force: replace a file. progress: called with (vectors, all), for an archive.
        """
        target = expanded(path)
        with self._database.reading() as connection:
            rows = _rows(connection, [refs] if isinstance(refs, str | Summary) else refs, model)
            if target.is_dir():
                target /= f"{read(connection, rows[:1])[rows[0]].record.name}{files.SUFFIX}"
            files.check_target(self._database.directory, target)
            wanted = with_ancestors(connection, rows) if parents else {*rows}
            entries = _entries(connection, self._database.directory, wanted)
            if target.suffix == archive.SUFFIX:
                with archive.create(target, force=force) as writer:
                    _write(connection, entries, writer, progress, len(wanted))
                return target
            payload.check_suffix(target)
            if len(wanted) > files.MOST_VECTORS:
                raise BadOption(
                    f"{len(wanted)} vectors are too many for one payload file: call it NAME.tar, "
                    "and it is an archive"
                )
            if target.exists() and not force:
                raise StoreError(f"{target} exists: export to another name, or delete it first")
            durable.write(target, payload.encode(list(entries)))
        return target

    def import_(self, path: str | Path, *, progress: Progress | None = None) -> Sequence[Import]:
        """Store the vectors of a payload file or an archive, each checked against its digest.

        A name in use gets its next version; a removed version gets its own number back. A stored
        vector is left alone, so a second import changes nothing. Calibrations and evaluations of
        the vectors of an archive come along. Imports everything or nothing: a file that is
        damaged, cut short or holds foreign files raises CorruptPayload and leaves the store
        unchanged. Intact payloads of a damaged archive can be imported one by one after unpacking
        it with `tar`.

        Holds one payload file in memory; other writers wait. progress: called with (bytes, all);
        an exception from it cancels and leaves nothing behind.
        """
        path, directory = expanded(path), self._database.directory
        with (
            one_line_errors(directory),
            tempfile.TemporaryDirectory(prefix="steerlab-") as scratch,
        ):
            # twice: without arrays, to plan names and to see that all is there; then to store
            reader = _Reader(path, Path(scratch), progress)
            imports = list(reader.survey())
            with self._database.writing() as work:
                back = plan(work.connection, imports)
                for batch in batches(_new(work.connection, reader, imports)):
                    saving.store(work, directory, batch)
                _take_results(work, directory, reader, {one.digest for one in imports})
                mark_newest(work.connection, VECTOR.c.name.in_(GIVEN), given(back))
        return sorted(imports, key=lambda one: one.created)

    def backup(
        self, path: str | Path, *, force: bool = False, progress: Progress | None = None
    ) -> Backup:
        """Write a snapshot of the whole store to one archive, while it is in use.

        Includes runs, sweeps and measurements. Each payload is checked; damaged files are copied
        unchanged and listed in the result. Writers wait only while files are linked and the
        registry is copied. The archive is written completely or not at all.

        force: replace a file. progress: called with (files, all); an exception cancels.
        """
        from steerlab.registry.transfer.backup import backup

        return backup(self._database, expanded(path), force, progress)

    def restore(
        self, path: str | Path, *, force: bool = False, progress: Progress | None = None
    ) -> Path | None:
        """Restore a backup to this store's path, which has to be empty.

        path: an archive, or a directory that is a store, such as an unpacked archive; it is not
        changed. An incomplete one raises CorruptPayload before anything changes. force: move an
        existing store aside; returns its new path. progress: called with (bytes, all) of an
        archive; an exception cancels.
        """
        from steerlab.registry.transfer.restore import restore

        with one_line_errors(self._database.directory):
            return restore(expanded(path), self._database, force, progress)


def _rows(connection: Connection, refs: Iterable[str | Summary], model: Model) -> list[int]:
    """The row ids of refs and summaries; raises NotFound for outdated summaries."""
    wanted = list(refs)
    if not wanted:
        raise BadOption("there is nothing to export: no vector was named")
    query = select(VECTOR.c.id, VECTOR.c.digest).where(VECTOR.c.id.in_(GIVEN))
    listed = given([ref.id for ref in wanted if isinstance(ref, Summary)])
    known = {row.id: row.digest for row in connection.execute(query, listed)}
    rows = []
    for ref in wanted:
        if isinstance(ref, str):
            rows.append(resolve(connection, ref, model))
        elif known.get(ref.id) != ref.digest:
            raise NotFound(f"{ref.qualified} is not in this store any more")
        else:
            rows.append(ref.id)
    return rows


def _entries(connection: Connection, directory: Path, rows: Collection[int]) -> Iterator[Entry]:
    """The vectors to write, by model, oldest first."""
    query = select(VECTOR.c.id).where(VECTOR.c.id.in_(GIVEN))
    query = query.order_by(VECTOR.c.model_id, VECTOR.c.created, VECTOR.c.id)
    for part in chunks(connection.execute(query, given(rows)).scalars().all()):
        stored = list(read(connection, part).values())
        yield from zip((s.record for s in stored), files.load_all(directory, stored), strict=True)


def _write(
    connection: Connection,
    entries: Iterable[Entry],
    writer: archive.Writer,
    progress: Progress | None,
    total: int,
) -> None:
    """Add vectors and their results to an archive, one payload file in memory at a time."""
    done, digests = 0, set[str]()
    for batch in batches(entries):
        name = files.free_path(batch[0][0].digest, writer.__contains__)
        writer.add(name, payload.encode(batch))
        digests.update(record.digest for record, _ in batch)
        done += len(batch)
        if progress is not None:
            progress(done, total)
    measured = results.every(connection, digests)
    for data in sorted({result_files.encoded(made) for made in measured}):
        writer.add(result_files.path_of(data), data)


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
            with archive.called(file, what):
                for record in payload.read_records(file).values():
                    model = models.setdefault(record.model, record.model)
                    yield Import.of(self._labelled(usable(record, what)), model)

    def entries(self) -> Iterator[Entry]:
        """The vectors, checked, in the order of `survey`."""
        for file, what in self._payloads(self.size):
            with archive.called(file, what):
                for record, vector in payload.read_all(file):
                    entry = self._labelled(usable(record, what)), vector
                    if wrong := untrue_facts(record, vector):
                        raise CorruptPayload(f"{what}: {record.ref}: {wrong[0]}")
                    saving.check(vector)
                    yield entry

    def results(self) -> Iterator[Result]:
        """The results in an archive, found by `survey`."""
        for what, file in self._results:
            with archive.called(file, what):
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
