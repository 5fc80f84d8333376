"""Upkeep: checks, rebuilds, garbage collection, disk usage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from steerlab.errors import StoreError
from steerlab.files.location import finish_move
from steerlab.progress import Progress
from steerlab.registry import labels, registry_only, result_files, results
from steerlab.registry.database import Database
from steerlab.registry.rebuild import Rebuilt, Trusted, rebuild, trusted_rows
from steerlab.registry.sqlite_errors import one_line_errors
from steerlab.registry.tables import REGISTRY_ONLY

if TYPE_CHECKING:
    from steerlab.registry.result_files import Result
    from steerlab.registry.upkeep.doctor import Problem
    from steerlab.registry.upkeep.gc import Garbage
    from steerlab.registry.upkeep.usage import Usage
    from steerlab.registry.upkeep.verify import Finding

_log = logging.getLogger("steerlab.registry")


class Upkeep:
    """Checks and repairs of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.directory

    def verify(
        self,
        progress: Progress | None = None,
        on_finding: Callable[[Finding], object] | None = None,
    ) -> Sequence[Finding]:
        """Check everything: payloads, rows against them, and every expression bit for bit.

        progress: called with (vectors checked, all); an exception cancels. on_finding: called with
        each problem when it is found; while others write, some may be gone in the end.
        """
        from steerlab.registry.upkeep.verify import REGISTRY, Damage, Finding, still_wrong, verify

        found: list[Finding] = []

        def tell(finding: Finding) -> None:
            found.append(finding)
            if on_finding is not None:
                on_finding(finding)

        self._database.settle()
        before = self._database.stamp()
        with self._database.reading() as connection:
            for finding in verify(connection, self.path, progress or (lambda done, total: None)):
                tell(finding)
        changing = self._database.stamp() != before or any(f.damage is Damage.LABEL for f in found)
        if found and changing and self._database.writable:
            with self._database.writing() as work:
                found[:] = still_wrong(work.connection, self.path, found)
        readable = all(finding.damage is not Damage.REGISTRY for finding in found)
        if readable and not self._database.has_sound_index():
            what = "the text index is damaged: run `steerlab rebuild`"
            tell(Finding(REGISTRY, what, Damage.REGISTRY))
        return found

    def rebuild(self) -> int:
        """Rebuild the registry from payloads and labels; returns the number of vectors.

        Labels come from sound rows of the old registry, else from label files, and results from
        both; missing or wrong files of these are rewritten. The old registry is kept as
        registry.db.before-rebuild-….
        """
        finish_move(self.path)
        if not self.path.is_dir():
            raise StoreError(f"there is no store at {self.path}")
        with one_line_errors(self.path), self._database.locked():
            trusted = self._database.salvaged(trusted_rows) or {}
            salvaged = {t.name: self._database.salvage(select(t)) for t in REGISTRY_ONLY}
            done: list[Rebuilt] = []

            def fill(new: Connection) -> None:
                done.append(self._refill(new, trusted))
                registry_only.bring_back(new, salvaged)
                self._restore_results(new)

            self._database.refill(fill)
        return done[0].count

    def gc(
        self,
        dry_run: bool = True,
        grace: timedelta = timedelta(hours=1),
        progress: Progress | None = None,
        only: Collection[str] | None = None,
    ) -> Sequence[Garbage]:
        """Find files that no row needs, and temporary files; deleted unless `dry_run`.

        grace: younger files are left alone. progress: called with (files checked, all); an
        exception cancels. only: the paths to consider, as a dry run gave them.
        """
        from steerlab.registry.upkeep.gc import collect

        if dry_run:
            with self._database.reading() as connection:
                return collect(connection, self.path, True, grace, progress, only)
        with self._database.writing() as work:
            return collect(work.connection, self.path, False, grace, progress, only)

    def usage(self) -> Usage:
        """The disk usage of each vector and of everything else."""
        from steerlab.registry.upkeep.usage import usage

        with self._database.reading() as connection:
            return usage(connection, self.path)

    def unlisted_results(self) -> Sequence[Result]:
        """Results of files that the registry does not know; `rebuild` takes them in."""
        found = [*result_files.read_all(self.path, [])]  # first: others may save some meanwhile
        with self._database.reading() as connection:
            return results.unlisted(connection, found)

    @property
    def writable(self) -> bool:
        """Whether the store can be written to."""
        return self._database.writable

    def diagnose(
        self,
        progress: Progress | None = None,
        on_finding: Callable[[Finding], object] | None = None,
        *,
        quick: bool = False,
    ) -> Sequence[Problem]:
        """The problems of the store and how to fix them, the most urgent first.

        progress, on_finding: as for `verify`. quick: verify nothing, so no payload is read and
        damaged vectors go unnoticed.
        """
        from steerlab.registry.upkeep.doctor import diagnose

        def verify() -> Sequence[Finding]:
            return () if quick else self.verify(progress, on_finding)

        return diagnose(self.path, self.writable, verify, self.gc, self.unlisted_results)

    def fill(self, connection: Connection) -> None:
        """Restore the rows of a missing registry from payloads and labels."""
        done = self._refill(connection, {})
        self._restore_results(connection)
        if done.count and self._database.writable:
            _log.warning(
                "%s had no registry.db: restored %d vectors from their payloads",
                self.path,
                done.count,
            )

    def _refill(self, connection: Connection, trusted: Trusted) -> Rebuilt:
        done = rebuild(connection, self.path, trusted)
        for skipped in done.skipped:
            _log.warning("left out: %s", skipped)
        if self._database.writable:
            labels.mend(self.path, done.wanted, done.initial)
        return done

    def _restore_results(self, connection: Connection) -> None:
        """Insert the results that only files hold, and write the files that are missing."""
        skipped: list[str] = []
        found = list(result_files.read_all(self.path, skipped))
        results.take_in(connection, found, skipped.append)
        for line in skipped:
            _log.warning("left out: %s", line)
        if self._database.writable:
            result_files.mend(self.path, results.every(connection))
