"""Sweeps: each plan is stored once, and each cell of it once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, delete, func, insert, select

from steerlab.core.cell import Cell, Key, MetricValue
from steerlab.core.record import now
from steerlab.core.setting import Setting
from steerlab.core.sweep import Sweep
from steerlab.errors import NotFound
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model, page
from steerlab.registry.refs import digest_of
from steerlab.registry.registry_only import operands, operation_of, operation_row, sampling_of
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import (
    CELL,
    CELL_METRIC,
    SWEEP,
    SWEEP_OPERAND,
    SWEEP_PROMPT,
    SWEEP_SEED,
    SWEEP_SETTING,
)

_Place = tuple[int, int, int]  # setting, prompt, seed
_PLAIN = [column.name for column in SWEEP.c]


class Sweeps:
    """Stored sweeps with their cells; no payload holds them, and they survive a rebuild."""

    def __init__(self, database: Catalog) -> None:
        self._database = database

    def begin(self, sweep: Sweep) -> Sweep:
        """The stored sweep of a plan with its cells; a new plan is stored without cells."""
        with self._database.reading() as connection:  # nearly always enough, and waits for nobody
            number = _number(connection, sweep)
            if number is not None:
                return _one(connection, number)
        with self._database.writing() as work:
            number = _number(work.connection, sweep)
            return _one(work.connection, number or _insert(work.connection, sweep))

    def add(self, sweep: Sweep, cells: Sequence[Cell]) -> int:
        """Store cells of a stored sweep, all or none; returns how many were new.

        Cells that another process has stored meanwhile stay as they are.
        """
        places = _places(sweep, [cell.key for cell in cells])
        with self._database.writing() as work:
            there = _numbers(work.connection, sweep, places.values())
            rows = [
                {
                    **dict(zip(("setting", "prompt", "seed"), places[cell.key], strict=True)),
                    "sweep_id": sweep.id,
                    "text": cell.text,
                    "finish": cell.finish,
                    "tokens": cell.tokens,
                }
                for cell in cells
                if places[cell.key] not in there
            ]
            if rows:
                work.connection.execute(insert(CELL), rows)
        return len(rows)

    def measure(self, sweep: Sweep, name: str, values: Mapping[Key, MetricValue]) -> None:
        """Store the values of a metric for stored cells, replacing earlier values."""
        places, m = _places(sweep, values), CELL_METRIC.c
        with self._database.writing() as work:
            numbers = _numbers(work.connection, sweep, places.values())
            found = {numbers[places[key]]: value for key, value in values.items()}
            earlier = delete(CELL_METRIC).where(m.name == name, m.cell_id.in_(GIVEN))
            work.connection.execute(earlier, given(found))
            rows = [{"cell_id": i, "name": name, **vars(value)} for i, value in found.items()]
            if rows:
                work.connection.execute(insert(CELL_METRIC), rows)

    def list(
        self,
        ref: str | None = None,
        *,
        model: Model = None,
        limit: int | None = None,
        before: Sweep | None = None,
    ) -> Sequence[Sweep]:
        """The sweeps without cells, newest first; with a ref, those that name that vector.

        before: the last sweep of the previous page.
        """
        query = page(SWEEP, limit, before)
        with self._database.reading() as connection:
            if ref is not None:
                own = SWEEP_OPERAND.c.digest == digest_of(connection, ref, model)
                query = query.where(SWEEP.c.id.in_(select(SWEEP_OPERAND.c.sweep_id).where(own)))
            return _read(connection, query)

    def get(self, number: int) -> Sweep:
        """A sweep with its cells by its number; raises NotFound."""
        with self._database.reading() as connection:
            return _one(connection, number)

    def remove(self, number: int) -> None:
        """Delete a sweep with its cells; raises NotFound."""
        with self._database.writing() as work:
            if not work.connection.execute(delete(SWEEP).where(SWEEP.c.id == number)).rowcount:
                raise _unknown(number)


def _number(connection: Connection, sweep: Sweep) -> int | None:
    """The number of the stored sweep with the same plan."""
    query = select(SWEEP.c.id).where(SWEEP.c.plan_digest == sweep.plan_digest)
    return connection.execute(query).scalar()


def _insert(connection: Connection, sweep: Sweep) -> int:
    """Store a sweep without cells; returns its number."""
    values = {**vars(sweep), **sweep.sampling.options(), "created": now()}
    plain = {name: values[name] for name in _PLAIN if name != "id"}
    number = connection.execute(insert(SWEEP).values(plain).returning(SWEEP.c.id)).scalar_one()
    unknown = {"digest": None, "vector_id": None}
    settings = [{**s.to_json(), **operation_row(s.operation)} for s in sweep.settings]
    for table, rows in (
        (SWEEP_OPERAND, [unknown | o for o in operands(connection, sweep.expression, sweep.model)]),
        (SWEEP_SETTING, [{"ordinal": i, **setting} for i, setting in enumerate(settings)]),
        (SWEEP_PROMPT, [{"ordinal": i, "prompt": p} for i, p in enumerate(sweep.prompts)]),
        (SWEEP_SEED, [{"ordinal": i, "seed": s} for i, s in enumerate(sweep.seeds)]),
    ):
        if rows:
            connection.execute(insert(table), [{"sweep_id": number, **row} for row in rows])
    return int(number)


def _places(sweep: Sweep, keys: Iterable[Key]) -> dict[Key, _Place]:
    """The positions of cells on the axes."""
    settings = {setting: i for i, setting in enumerate(sweep.settings)}
    prompts = {prompt: i for i, prompt in enumerate(sweep.prompts)}
    return {key: (settings[key[0]], prompts[key[1]], key[2]) for key in keys}


def _numbers(connection: Connection, sweep: Sweep, places: Collection[_Place]) -> dict[_Place, int]:
    """Row ids of the stored cells, and of some other cells of their prompts."""
    c = CELL.c
    query = select(c.setting, c.prompt, c.seed, c.id).where(c.sweep_id == sweep.id)
    prompts = given({prompt for _, prompt, _ in places})
    found = connection.execute(query.where(c.prompt.in_(GIVEN)), prompts)
    return {(setting, prompt, seed): i for setting, prompt, seed, i in found}


def _one(connection: Connection, number: int) -> Sweep:
    """The sweep of a number with its cells; raises NotFound."""
    found = _read(connection, select(SWEEP).where(SWEEP.c.id == number))
    if not found:
        raise _unknown(number)
    return replace(found[0], cells=tuple(_cells(connection, found[0])))


def _unknown(number: int) -> NotFound:
    return NotFound(f"there is no sweep {number}: `steerlab sweeps` lists those that are kept")


def _read(connection: Connection, query: Select[Any]) -> list[Sweep]:
    rows = [dict(row) for row in connection.execute(query).mappings()]
    ids = [row["id"] for row in rows]
    s, p, d = SWEEP_SETTING.c, SWEEP_PROMPT.c, SWEEP_SEED.c
    query = select(s.sweep_id, s.layer, s.strength, s.coefficient, s.dose)
    query = query.add_columns(s.operation, s.parameters)
    settings = _by_sweep(connection, ids, query, s)
    prompts = _by_sweep(connection, ids, select(p.sweep_id, p.prompt), p)
    seeds = _by_sweep(connection, ids, select(d.sweep_id, d.seed), d)
    count = select(CELL.c.sweep_id, func.count().label("done")).group_by(CELL.c.sweep_id)
    done = _by_sweep(connection, ids, count, CELL.c)
    return [
        Sweep(
            sampling=sampling_of(row),
            settings=tuple(_setting(row["expression"], found) for found in settings[row["id"]]),
            prompts=tuple(found["prompt"] for found in prompts[row["id"]]),
            seeds=tuple(found["seed"] for found in seeds[row["id"]]),
            done=sum(found["done"] for found in done[row["id"]]),
            **row,
        )
        for row in rows
    ]


def _setting(expression: str, row: RowMapping) -> Setting:
    baseline = row["layer"] is None
    label, layers = ("", ()) if baseline else (expression, (row["layer"],))
    how = (row["strength"], row["dose"], operation_of(dict(row)))
    return Setting(None, row["coefficient"], label, layers, *how)


def _by_sweep(
    connection: Connection, ids: Sequence[int], query: Select[Any], columns: Any
) -> dict[int, list[RowMapping]]:
    """Sweep id -> rows of a child table, in order."""
    ordered = query.order_by(columns.ordinal) if "ordinal" in columns else query
    found: dict[int, list[RowMapping]] = defaultdict(list)
    ordered = ordered.where(columns.sweep_id.in_(GIVEN))
    for row in connection.execute(ordered, given(ids)).mappings():
        found[row["sweep_id"]].append(row)
    return found


def _cells(connection: Connection, sweep: Sweep) -> list[Cell]:
    c, m, d = CELL.c, CELL_METRIC.c, SWEEP_SEED.c
    own = select(c.id).where(c.sweep_id == sweep.id)
    metrics: dict[int, dict[str, MetricValue]] = defaultdict(dict)
    measured = select(m.cell_id, m.name, m.value, m.reason).where(m.cell_id.in_(own))
    for number, name, value, reason in connection.execute(measured.order_by(m.name)):
        metrics[number][name] = MetricValue(value, reason)
    query = select(c.setting, c.prompt, c.seed, c.text, c.finish, c.tokens, c.id)
    query = query.join(SWEEP_SEED, and_(d.sweep_id == c.sweep_id, d.seed == c.seed))
    query = query.where(c.sweep_id == sweep.id).order_by(c.prompt, d.ordinal, c.setting)
    return [
        Cell(
            sweep.settings[row.setting],
            sweep.prompts[row.prompt],
            *(row.seed, row.text, row.finish, row.tokens),
            metrics=metrics[row.id],
        )
        for row in connection.execute(query)
    ]
