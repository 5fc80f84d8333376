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
    from steerlab.registry.transfer.exchange import Import


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

        A path that ends in .tar becomes an archive of any number of vectors, any other a payload
        file; in a directory, a payload file called after the first. It is there whole or not at
        all: a vector that is damaged is an error.

        refs: one or several refs, or what `list` gave. parents: put everything they were made
        from into the file too, so that they can be re-evaluated there. force: replace a file.
        progress: called with (vectors, all), for an archive.
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

        A taken name gets its next version, and what was removed from here its own number back; a
        vector that is already here is left alone, so a second import changes nothing. All or
        nothing: vectors of one file are made from each other, and half of them could not be re-
        evaluated. So a file that is damaged, cut short or holds what has no place in a store is
        refused (CorruptPayload), and the store stays as it was; nothing is ever written outside it.
        What is whole in a damaged archive can be imported payload by payload, once `tar` has
        unpacked it.

        Memory: a payload file at a time. Other writers wait. progress: called with (bytes,
        all); what it raises cancels, as Ctrl-C does, and leaves nothing behind.
        """
        from steerlab.registry.transfer.exchange import take_in

        return take_in(self._database, expanded(path), progress)

    def backup(
        self, path: str | Path, *, force: bool = False, progress: Progress | None = None
    ) -> Backup:
        """Write the whole store to one archive, as it is at one moment, while it is in use.

        With runs, sweeps and measurements. Each payload is checked as it is copied; what is
        damaged is copied as it is and named in the result. Writers wait only while files are
        linked and the registry is copied. The archive is there whole or not at all.

        force: replace a file. progress: called with (files, all); what it raises cancels.
        """
        from steerlab.registry.transfer.backup import backup

        return backup(self._database, expanded(path), force, progress)

    def restore(
        self, path: str | Path, *, force: bool = False, progress: Progress | None = None
    ) -> Path | None:
        """Put a backup into this store's place, which has to be empty.

        path: an archive, or a directory that is a store, such as an unpacked archive. It stays
        as it is. One that is not whole is refused (CorruptPayload) before anything changes.
        force: a store that is here is moved aside; returns where to. progress: called with
        (bytes, all) of an archive; what it raises cancels.
        """
        from steerlab.registry.transfer.restore import restore

        with one_line_errors(self._database.directory):
            return restore(expanded(path), self._database, force, progress)
