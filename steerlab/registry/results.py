"""What a store keeps of texts and measurements: runs, sweeps, calibrations, evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from steerlab.core.results import Calibration, Evaluation
from steerlab.core.run import Run
from steerlab.core.sweep import Key, MetricValue, StoredSweep, SweepCell
from steerlab.registry import evaluations, queries, runs, sweeps
from steerlab.registry.queries import Model
from steerlab.registry.rows import read

if TYPE_CHECKING:
    from steerlab.registry.database import Database


class Results:
    """The part of `Store` whose rows no payload holds; they survive a rebuild all the same."""

    _database: Database

    @property
    def writable(self) -> bool:
        """Whether anything can be kept here."""
        return self._database.writable

    # runs

    def save_run(self, run: Run) -> Run:
        """Keep what was written; returns the run with its number and time.

        It is found by the vectors that its expression names; what names none stays a name.
        """
        with self._database.writing() as work:
            return runs.save(work.connection, run)

    def runs(
        self,
        ref: str | None = None,
        *,
        model: Model = None,
        limit: int | None = None,
        before: Run | None = None,
    ) -> Sequence[Run]:
        """The runs that were kept, the newest first; with a ref, those that name that vector.

        before: the last run of the previous page.
        """
        with self._database.reading() as connection:
            row = None if ref is None else queries.resolve(connection, ref, model)
            return runs.recent(connection, row, limit=limit, before=before)

    def run(self, number: int) -> Run:
        """A kept run by its number; raises NotFound."""
        with self._database.reading() as connection:
            return runs.one(connection, number)

    def rate_run(self, number: int, best: int | None) -> Run:
        """Say which text of a run is best, counted from 0; None takes it back."""
        with self._database.writing() as work:
            return runs.rate(work.connection, number, best)

    def remove_run(self, number: int) -> None:
        """Forget a run; raises NotFound."""
        with self._database.writing() as work:
            runs.remove(work.connection, number)

    # sweeps

    def begin_sweep(self, sweep: StoredSweep) -> StoredSweep:
        """The stored sweep of a plan, with the cells that are there; begun if it is new."""
        with self._database.reading() as connection:  # nearly always enough, and waits for nobody
            found = sweeps.find(connection, sweep.plan_digest)
        if found is not None:
            return found
        with self._database.writing() as work:
            return sweeps.one(work.connection, sweeps.begin(work.connection, sweep))

    def add_cells(self, sweep: StoredSweep, cells: Sequence[SweepCell]) -> int:
        """Store whole texts of a begun sweep, all or none; returns how many were new.

        What another process stored meanwhile stays as it is.
        """
        with self._database.writing() as work:
            return sweeps.add(work.connection, sweep, cells)

    def measure_cells(
        self, sweep: StoredSweep, name: str, values: Mapping[Key, MetricValue]
    ) -> None:
        """Store what a metric says of stored cells, in place of what it said before."""
        with self._database.writing() as work:
            sweeps.measure(work.connection, sweep, name, values)

    def sweeps(
        self,
        ref: str | None = None,
        *,
        model: Model = None,
        limit: int | None = None,
        before: StoredSweep | None = None,
    ) -> Sequence[StoredSweep]:
        """The sweeps, the newest first and without cells; with a ref, those naming that vector.

        before: the last sweep of the previous page.
        """
        with self._database.reading() as connection:
            row = None if ref is None else queries.resolve(connection, ref, model)
            return sweeps.recent(connection, row, limit=limit, before=before)

    def sweep(self, number: int) -> StoredSweep:
        """A sweep with its cells by its number; raises NotFound."""
        with self._database.reading() as connection:
            return sweeps.one(connection, number)

    def remove_sweep(self, number: int) -> None:
        """Forget a sweep with its cells; raises NotFound."""
        with self._database.writing() as work:
            sweeps.remove(work.connection, number)

    # calibrations and evaluations

    def save_calibration(self, made: Calibration) -> Calibration:
        """Keep a calibration; returns it with its number and time."""
        with self._database.writing() as work:
            return evaluations.save_calibration(work.connection, made)

    def calibration(self, ref: str, model: Model = None) -> Calibration | None:
        """The newest calibration of a vector; None if it never was calibrated."""
        return next(iter(self.calibrations(ref, model=model, limit=1)), None)

    def calibration_of(self, digest: str) -> Calibration | None:
        """The newest calibration of the vector with a digest, stored or not; None without one."""
        with self._database.reading() as connection:
            return next(iter(evaluations.calibrations(connection, digest, 1)), None)

    def calibrations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Calibration]:
        """The calibrations, the newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            return evaluations.calibrations(connection, _digest(connection, ref, model), limit)

    def save_evaluation(self, made: Evaluation) -> Evaluation:
        """Keep an evaluation; returns it with its number and time."""
        with self._database.writing() as work:
            return evaluations.save_evaluation(work.connection, made)

    def evaluations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Evaluation]:
        """The evaluations, the newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            return evaluations.evaluations(connection, _digest(connection, ref, model), limit)


def _digest(connection: Connection, ref: str | None, model: Model) -> str | None:
    if ref is None:
        return None
    row = queries.resolve(connection, ref, model)
    return read(connection, [row])[row].record.digest
