"""Calibrations and evaluations, by the digest of the vector."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, insert, select

from steerlab.core.recipe import kind_of
from steerlab.core.record import Record, canonical_json, now
from steerlab.core.results import (
    Calibration,
    Evaluation,
    Measured,
    beside,
    by_layer,
    in_force,
    in_use,
    keeps_layers,
)
from steerlab.core.vector import SteeringVector
from steerlab.registry import result_files
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model, Summary, page
from steerlab.registry.refs import digest_of
from steerlab.registry.registry_only import operation_of, operation_row, vector_of
from steerlab.registry.result_files import Result
from steerlab.registry.schema import GIVEN, accepted, given
from steerlab.registry.tables import CALIBRATION, EVALUATION, EVALUATION_VALUE

R = TypeVar("R", Calibration, Evaluation)


class Results:
    """Stored calibrations and evaluations: rows, and files that a lost registry comes back from."""

    def __init__(self, database: Catalog, directory: Path) -> None:
        self._database, self._directory = database, directory

    def save_calibration(self, made: Calibration) -> Calibration:
        """Store a calibration; returns it with its number and time."""
        return self._save(made)

    def calibration(self, ref: str, model: Model = None) -> Calibration | None:
        """The calibration of a vector that counts, see `in_force`; None if there is none."""
        return in_force(reversed(self.calibrations(ref, model=model)))

    def calibration_of(self, digest: str, *layers: int) -> Calibration | None:
        """The calibration by which a vector of this digest, stored or not, is used.

        layers: the only ones at which it is to act; without any, wherever it works.
        """
        return in_use(self._of(digest), layers or None)

    def in_use(self, record: Record) -> tuple[Calibration | None, list[Calibration]]:
        """The calibration by which a stored vector is used, and those of other layers beside it."""
        found, layers = self._of(record.digest), [facts.layer for facts in record.layers]
        only = layers if keeps_layers(record.kind, str(record.recipe)) else None
        return in_use(found, only), beside(found, only)

    def calibrated(self, vectors: Sequence[Summary]) -> dict[int, Calibration]:
        """Row id -> the calibration by which each vector of a list is used, if it has any."""
        known: dict[str, list[Calibration]] = defaultdict(list)
        with self._database.reading() as connection:
            digests = {vector.digest for vector in vectors}
            for row in reversed(_rows(connection, CALIBRATION, digests, None)):
                known[row["digest"]].append(_calibration(row))
        used = {
            v.id: in_use(known[v.digest], v.layers if keeps_layers(v.kind, v.recipe) else None)
            for v in vectors
        }
        return {row: made for row, made in used.items() if made is not None}

    def noted(self, vector: SteeringVector) -> SteeringVector:
        """A stored vector with `works_at`, if it works at a layer that could be made of it."""
        if vector.ref is None or keeps_layers(kind_of(vector.recipe), str(vector.recipe)):
            return vector
        found = self.calibration_of(vector.digest)
        if found is None or not found.works or found.layer in vector.layers:
            return vector
        return vector.noted(works_at=found.layer)

    def by_layer(self, digest: str) -> dict[int, Calibration]:
        """See `steerlab.core.results.by_layer`; of a digest, whose vector need not be stored."""
        return by_layer(self._of(digest))

    def _of(self, digest: str) -> list[Calibration]:
        """The calibrations of a digest, the oldest first."""
        with self._database.reading() as connection:
            rows = _rows(connection, CALIBRATION, [digest], None)
        return [_calibration(row) for row in reversed(rows)]

    def calibrations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Calibration]:
        """The calibrations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            digests = None if ref is None else [digest_of(connection, ref, model)]
            rows = _rows(connection, CALIBRATION, digests, limit)
            return list(map(_calibration, rows))

    def save_evaluation(self, made: Evaluation) -> Evaluation:
        """Store an evaluation; returns it with its number and time."""
        return self._save(made)

    def evaluations(
        self, ref: str | None = None, *, model: Model = None, limit: int | None = None
    ) -> Sequence[Evaluation]:
        """The evaluations, newest first; with a ref, those of that vector."""
        with self._database.reading() as connection:
            digests = None if ref is None else [digest_of(connection, ref, model)]
            rows = _rows(connection, EVALUATION, digests, limit)
            return [_evaluation(connection, row) for row in rows]

    def _save(self, made: R) -> R:
        with self._database.writing() as work:
            timed = replace(made, created=now())
            result_files.write(self._directory, timed, work)
            return replace(timed, id=_insert(work.connection, timed))


def every(connection: Connection, digests: Collection[str] | None = None) -> Iterable[Result]:
    """All stored results, or those of vectors with these digests; the newest first."""
    for row in _rows(connection, CALIBRATION, None, None):
        if digests is None or row["digest"] in digests:
            yield _calibration(row)
    for row in _rows(connection, EVALUATION, None, None):
        if digests is None or row["digest"] in digests:
            yield _evaluation(connection, row)


def unlisted(connection: Connection, found: Iterable[Result]) -> list[Result]:
    """The results of files that have no row, as `git pull` brings them."""
    known = {result_files.key(made) for made in every(connection)}
    by_key = {result_files.key(made): made for made in found}
    return [made for key, made in by_key.items() if key not in known]


def take_in(
    connection: Connection, found: Iterable[Result], refuse: Callable[[str], object]
) -> list[Result]:
    """Insert results that the registry lacks, the oldest first; returns those.

    refuse: called with the reason for each that the schema does not take.
    """
    return accepted(
        connection,
        sorted(unlisted(connection, found), key=lambda made: made.created),
        lambda part: [_insert(connection, made) for made in part],
        lambda made, why: refuse(f"a result of {made.digest[:12]}: {why}"),
    )


def _insert(connection: Connection, made: Result) -> int:
    """Insert the rows of a result; returns its number."""
    if isinstance(made, Calibration):
        values = {n: getattr(made, n) for n in ("works", "layer", "dose", "coefficient")}
        values["safe_low"], values["safe_high"] = made.safe or (None, None)
        return _row(connection, CALIBRATION, made, values)
    values = {name: getattr(made, name) for name in ("suite", "suite_digest", "model")}
    values |= {"model_key": made.model_key, "versions": canonical_json(made.versions)}
    number = _row(connection, EVALUATION, made, values)
    rows = [{"evaluation_id": number, "ordinal": i, **vars(v)} for i, v in enumerate(made.values)]
    if rows:
        connection.execute(insert(EVALUATION_VALUE), rows)
    return number


def _row(connection: Connection, table: Table, made: Result, values: dict[str, Any]) -> int:
    known = made.data is not None or not table.c.data.nullable
    row = {
        "digest": made.digest,
        "vector_id": vector_of(connection, made.digest),
        "created": made.created,
        "data": canonical_json(made.data) if known else None,
        **values,
        **operation_row(made.operation),
    }
    return int(connection.execute(insert(table).values(row).returning(table.c.id)).scalar_one())


def _rows(
    connection: Connection, table: Table, digests: Collection[str] | None, limit: int | None
) -> list[dict[str, Any]]:
    """Newest first: all, or those of some digests."""
    query = page(table, limit)
    if digests is not None:
        query = query.where(table.c.digest.in_(GIVEN))
    rows = [dict(row) for row in connection.execute(query, given(digests or ())).mappings()]
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
