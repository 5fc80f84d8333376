"""Calibrations and evaluations, by the digest of the vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, insert, select

from steerlab.core.record import canonical_json, now
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.registry.pages import page
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model
from steerlab.registry.refs import resolve
from steerlab.registry.registry_only import operation_of, operation_row, vector_of
from steerlab.registry.tables import CALIBRATION, EVALUATION, EVALUATION_VALUE, VECTOR

R = TypeVar("R", Calibration, Evaluation)


class Results:
    """Stored calibrations and evaluations; no payload holds them, and they survive a rebuild."""

    def __init__(self, database: Catalog) -> None:
        self._database = database

    def save_calibration(self, made: Calibration) -> Calibration:
        """Store a calibration; returns it with its number and time."""
        values = {name: getattr(made, name) for name in ("works", "layer", "dose", "coefficient")}
        values |= dict(zip(("safe_low", "safe_high"), made.safe or (None, None), strict=True))
        with self._database.writing() as work:
            return _insert(work.connection, CALIBRATION, made, values)

    def calibration(self, ref: str, model: Model = None) -> Calibration | None:
        """The newest calibration of a vector; None if there is none."""
        return next(iter(self.calibrations(ref, model=model, limit=1)), None)

    def calibration_of(self, digest: str) -> Calibration | None:
        """The newest calibration of a digest, whose vector need not be stored; None without one."""
        with self._database.reading() as connection:
            rows = _rows(connection, CALIBRATION, digest, 1)
        return next(map(_calibration, rows), None)

    def calibrations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Calibration]:
        """The calibrations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            rows = _rows(connection, CALIBRATION, _digest(connection, ref, model), limit)
            return list(map(_calibration, rows))

    def save_evaluation(self, made: Evaluation) -> Evaluation:
        """Store an evaluation; returns it with its number and time."""
        values = {name: getattr(made, name) for name in ("suite", "suite_digest", "model")}
        values |= {"model_key": made.model_key, "versions": canonical_json(made.versions)}
        with self._database.writing() as work:
            stored = _insert(work.connection, EVALUATION, made, values)
            own = {"evaluation_id": stored.id}
            rows = [{**own, "ordinal": i, **vars(v)} for i, v in enumerate(made.values)]
            if rows:
                work.connection.execute(insert(EVALUATION_VALUE), rows)
        return stored

    def evaluations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Evaluation]:
        """The evaluations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            rows = _rows(connection, EVALUATION, _digest(connection, ref, model), limit)
            return [_evaluation(connection, row) for row in rows]


def _insert(connection: Connection, table: Table, made: R, values: Mapping[str, Any]) -> R:
    created, known = now(), made.data is not None or not table.c.data.nullable
    row = {
        "digest": made.digest,
        "vector_id": vector_of(connection, made.digest),
        "created": created,
        "data": canonical_json(made.data) if known else None,
        **values,
        **operation_row(made.operation),
    }
    number = connection.execute(insert(table).values(row).returning(table.c.id)).scalar_one()
    return replace(made, id=number, created=created)


def _rows(
    connection: Connection, table: Table, digest: str | None, limit: int | None
) -> list[dict[str, Any]]:
    """Newest first: all, or those of the vector with a digest."""
    query = page(table, limit)
    if digest is not None:
        query = query.where(table.c.digest == digest)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        del row["vector_id"]
        row["data"] = None if row["data"] is None else json.loads(row["data"])
        row["operation"] = operation_of(row)
    return rows


def _calibration(row: dict[str, Any]) -> Calibration:
    low, high = row.pop("safe_low"), row.pop("safe_high")
    return Calibration(**row, safe=None if low is None else (low, high))


def _evaluation(connection: Connection, row: dict[str, Any]) -> Evaluation:
    v = EVALUATION_VALUE.c
    query = select(v.style, v.metric, v.setting, v.estimate, v.low, v.high, v.n)
    query = query.where(v.evaluation_id == row["id"]).order_by(v.ordinal)
    row["versions"] = json.loads(row["versions"])
    return Evaluation(**row, values=tuple(Measured(*found) for found in connection.execute(query)))


def _digest(connection: Connection, ref: str | None, model: Model) -> str | None:
    if ref is None:
        return None
    own = VECTOR.c.id == resolve(connection, ref, model)
    return str(connection.execute(select(VECTOR.c.digest).where(own)).scalar_one())
