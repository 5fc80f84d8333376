"""Calibrations and evaluations, by the digest of the vector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from steerlab.core.record import canonical_json, now
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model, resolve
from steerlab.registry.registry_only import operation_of, operation_row, vector_of
from steerlab.registry.rows import read
from steerlab.registry.tables import CALIBRATION, EVALUATION, EVALUATION_VALUE


class Results:
    """Stored calibrations and evaluations; no payload holds them, and they survive a rebuild."""

    def __init__(self, database: Catalog) -> None:
        self._database = database

    def save_calibration(self, made: Calibration) -> Calibration:
        """Store a calibration; returns it with its number and time."""
        with self._database.writing() as work:
            return _save_calibration(work.connection, made)

    def calibration(self, ref: str, model: Model = None) -> Calibration | None:
        """The newest calibration of a vector; None if there is none."""
        return next(iter(self.calibrations(ref, model=model, limit=1)), None)

    def calibration_of(self, digest: str) -> Calibration | None:
        """The newest calibration of a digest, whose vector need not be stored; None without one."""
        with self._database.reading() as connection:
            return next(iter(_calibrations(connection, digest, 1)), None)

    def calibrations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Calibration]:
        """The calibrations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            return _calibrations(connection, _digest(connection, ref, model), limit)

    def save_evaluation(self, made: Evaluation) -> Evaluation:
        """Store an evaluation; returns it with its number and time."""
        with self._database.writing() as work:
            return _save_evaluation(work.connection, made)

    def evaluations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Evaluation]:
        """The evaluations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            return _evaluations(connection, _digest(connection, ref, model), limit)


def _save_calibration(connection: Connection, made: Calibration) -> Calibration:
    """Insert a calibration."""
    created = now()
    low, high = made.safe or (None, None)
    values = {
        "digest": made.digest,
        "vector_id": vector_of(connection, made.digest),
        "created": created,
        "works": made.works,
        "layer": made.layer,
        "dose": made.dose,
        "coefficient": made.coefficient,
        "safe_low": low,
        "safe_high": high,
        "data": canonical_json(made.data),
        **operation_row(made.operation),
    }
    query = insert(CALIBRATION).values(values).returning(CALIBRATION.c.id)
    return replace(made, id=connection.execute(query).scalar_one(), created=created)


def _calibrations(
    connection: Connection, digest: str | None, limit: int | None
) -> list[Calibration]:
    """Newest first: all, or those of the vector with a digest."""
    query = _newest(CALIBRATION.c, digest, limit)
    return [_calibration(dict(row)) for row in connection.execute(query).mappings()]


def _calibration(row: dict[str, Any]) -> Calibration:
    safe = (row.pop("safe_low"), row.pop("safe_high"))
    del row["vector_id"]
    row["data"] = json.loads(row["data"])
    operation = operation_of(row)
    return Calibration(**row, operation=operation, safe=None if safe[0] is None else safe)


def _save_evaluation(connection: Connection, made: Evaluation) -> Evaluation:
    """Insert an evaluation."""
    created = now()
    values = {
        "digest": made.digest,
        "vector_id": vector_of(connection, made.digest),
        "created": created,
        "suite": made.suite,
        "suite_digest": made.suite_digest,
        "model": made.model,
        "model_key": made.model_key,
        "versions": canonical_json(made.versions),
        "data": None if made.data is None else canonical_json(made.data),
        **operation_row(made.operation),
    }
    query = insert(EVALUATION).values(values).returning(EVALUATION.c.id)
    number = connection.execute(query).scalar_one()
    rows = [{"evaluation_id": number, "ordinal": i, **vars(v)} for i, v in enumerate(made.values)]
    if rows:
        connection.execute(insert(EVALUATION_VALUE), rows)
    return replace(made, id=number, created=created)


def _evaluations(connection: Connection, digest: str | None, limit: int | None) -> list[Evaluation]:
    """Newest first: all, or those of the vector with a digest."""
    rows = connection.execute(_newest(EVALUATION.c, digest, limit)).mappings().all()
    return [_evaluation(connection, dict(row)) for row in rows]


def _evaluation(connection: Connection, row: dict[str, Any]) -> Evaluation:
    v = EVALUATION_VALUE.c
    query = select(v.style, v.metric, v.setting, v.estimate, v.low, v.high, v.n)
    query = query.where(v.evaluation_id == row["id"]).order_by(v.ordinal)
    del row["vector_id"]
    row["versions"] = json.loads(row["versions"])
    row["data"] = None if row["data"] is None else json.loads(row["data"])
    values = tuple(Measured(*found) for found in connection.execute(query))
    operation = operation_of(row)
    return Evaluation(**row, operation=operation, values=values)


def _newest(columns: Any, digest: str | None, limit: int | None) -> Select[Any]:
    query = select(*columns).order_by(columns.created.desc(), columns.id.desc()).limit(limit)
    return query if digest is None else query.where(columns.digest == digest)


def _digest(connection: Connection, ref: str | None, model: Model) -> str | None:
    if ref is None:
        return None
    row = resolve(connection, ref, model)
    return read(connection, [row])[row].record.digest
