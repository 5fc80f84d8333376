"""Export and import, backup and restore of one store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.files.location import expanded
from steerlab.progress import Progress
from steerlab.registry import files
from steerlab.registry.database import Database
from steerlab.registry.queries import Model, Summary
from steerlab.registry.rows import read
from steerlab.registry.sqlite_errors import one_line_errors

if TYPE_CHECKING:
    from steerlab.registry.transfer.backup import Backup
    from steerlab.registry.transfer.import_plan import Import


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
        from steerlab.registry.transfer import archive, exchange

        wanted = [refs] if isinstance(refs, str | Summary) else refs
        target = expanded(path)
        with self._database.reading() as connection:
            rows = exchange.rows_of(connection, wanted, model)
            if target.is_dir():
                target /= f"{read(connection, rows[:1])[rows[0]].record.name}{files.SUFFIX}"
            if parents:
                rows = exchange.with_ancestors(connection, rows)
            if target.suffix == archive.SUFFIX:
                return exchange.to_archive(
                    connection, self._database.directory, rows, target, force, progress
                )
            return exchange.to_payload(connection, self._database.directory, rows, target, force)

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
        from steerlab.registry.transfer.exchange import take_in

        return take_in(self._database, expanded(path), progress)

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
