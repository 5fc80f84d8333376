"""Running a sweep: missing cells are written batch by batch, and each batch is stored at once.

A row does not depend on its batch, so a sweep that was cancelled or killed, or that several
processes share, gives the same texts as one written in one go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from steerlab.core.cell import Cell, Key, MetricValue
from steerlab.core.recipe import recipe_to_json
from steerlab.core.record import canonical_json
from steerlab.core.setting import Setting, settings_of
from steerlab.core.sweep import StoredSweep, SweepPlan
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.lab.batches import write
from steerlab.lab.lab import Lab
from steerlab.lab.workers import WorkerShard
from steerlab.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.models.generation import OnText
    from steerlab.models.language_model import LanguageModel
    from steerlab.registry import Store

OnSweep = Callable[[StoredSweep], object]
OnCells = Callable[[Sequence[Cell]], object]


class CellMetric(Protocol):
    """A metric that needs the model: measured once for each cell, and stored with it."""

    name: str

    def __call__(
        self, model: LanguageModel, sweep: StoredSweep, cells: Sequence[Cell]
    ) -> Sequence[MetricValue]:
        """One value a cell; sweep: all cells so far, for `sweep.baseline(cell)`."""


class _Keeping:
    """A sink that stores cells."""

    def __init__(self, store: Store, sweep: StoredSweep) -> None:
        self.store, self.sweep = store, store.sweeps.begin(sweep)

    def add(self, cells: Sequence[Cell]) -> None:
        self.store.sweeps.add(self.sweep, cells)

    def measure(self, name: str, values: Mapping[Key, MetricValue]) -> None:
        self.store.sweeps.measure(self.sweep, name, values)

    def now(self) -> StoredSweep:
        assert self.sweep.id is not None
        return self.store.sweeps.get(self.sweep.id)


class _Passing:
    """An in-memory sink, for keep=False."""

    def __init__(self, sweep: StoredSweep) -> None:
        self.sweep = sweep
        self.cells: dict[Key, Cell] = {}

    def add(self, cells: Sequence[Cell]) -> None:
        self.cells |= {cell.key: cell for cell in cells}

    def measure(self, name: str, values: Mapping[Key, MetricValue]) -> None:
        for key, value in values.items():
            cell = self.cells[key]
            self.cells[key] = replace(cell, metrics={**cell.metrics, name: value})

    def now(self) -> StoredSweep:
        return self.sweep.with_cells(self.cells.values())


@dataclass
class _Run:
    """This process's part of a sweep."""

    lab: Lab
    plan: SweepPlan
    sink: _Keeping | _Passing
    directions: Mapping[int, SteeringVector]
    shard: WorkerShard
    rows: int
    stop: ShouldStop
    progress: Progress | None
    on_cells: OnCells | None
    on_text: OnText | None
    stopped: bool = False
    cut_off: list[Cell] = field(default_factory=list)

    def write(self, missing: Sequence[Key]) -> None:
        """Write this process's share of the missing cells; each batch goes to the sink."""
        plan, own = self.plan, self.shard.of(missing)
        places = {key: place for place, key in enumerate(self.sink.sweep.planned())}

        def hear(row: int, piece: str) -> None:
            self.on_text(places[own[row]], piece)  # type: ignore[misc]  # if there is one

        for batch in write(
            self.lab.runtime,
            [(self._with_vector(setting), prompt, seed) for setting, prompt, seed in own],
            plan.sampling,
            positions=plan.positions,
            bos=any(vector.scope == "front" for vector in self.directions.values()),
            allow_other_weights=plan.allow_other_weights,
            size=self.rows,
            on_text=hear if self.on_text is not None else None,
            should_stop=self.stop,
            progress=self.progress,
        ):
            self._keep([replace(cell, setting=own[i][0]) for i, cell in batch.items()])
            self.stopped = self.stopped or self.stop()
            if self.stopped:
                return

    def _with_vector(self, setting: Setting) -> Setting:
        if setting.layer is None:
            return setting
        return replace(setting, vector=self.directions[setting.layer])

    def _keep(self, cells: Sequence[Cell]) -> None:
        """Send whole texts to the sink; remember cut-off ones, which are never stored."""
        whole = [cell for cell in cells if cell.finish != "cancelled"]
        self.cut_off += [cell for cell in cells if cell.finish == "cancelled"]
        if whole:
            self.sink.add(whole)
        if whole and self.on_cells is not None:
            self.on_cells(whole)

    def measure(self, metric: CellMetric) -> None:
        """Measure this process's share of the cells that lack the metric."""
        sweep = self.sink.now()
        lacking = [cell for cell in sweep.cells if metric.name not in cell.metrics]
        own = self.shard.of(lacking)
        for done, batch in enumerate(_batches(own, self.rows)):
            self.stopped = self.stopped or self.stop()
            if self.stopped:
                return
            values = _values(metric, self.lab.model, sweep, batch)
            found = {cell.key: value for cell, value in zip(batch, values, strict=True)}
            self.sink.measure(metric.name, found)
            if self.progress is not None:
                self.progress(min((done + 1) * self.rows, len(own)), len(own))


def run_sweep(
    lab: Lab,
    plan: SweepPlan,
    *,
    keep: bool = True,
    metrics: Sequence[CellMetric] = (),
    on_start: OnSweep | None = None,
    on_cells: OnCells | None = None,
    on_text: OnText | None = None,
    should_stop: ShouldStop | None = None,
    progress: Progress | None = None,
    rows: int | None = None,
    shard: WorkerShard | None = None,
) -> StoredSweep:
    """Write the cells of a plan that the store lacks; returns the sweep with all its cells.

    Each batch is stored whole, in one transaction: after Ctrl-C or a kill, the same plan writes
    only the missing cells, with the same result. Under `accelerate launch` each process writes
    its share.

    keep: False writes everything anew and stores nothing.
    metrics: measured for every cell that lacks them.
    on_start(sweep): called once, with the cells already stored. on_cells(cells): called after
        each batch. on_text(place, piece): place: in `sweep.planned()`.
    should_stop: asked after every token; the texts that it cuts off are returned with finish
        "cancelled", and not stored.
    progress: called with (done, to do). rows: of a batch; None takes what is fastest, as far as
        memory goes.
    """
    shard = shard or WorkerShard.current()
    if shard.count > 1 and not keep:
        raise BadOption("several processes share a sweep through the store: it has to be kept")
    run = _begun(lab, plan, keep, shard, rows, should_stop, progress, on_cells, on_text)
    if on_start is not None:
        on_start(run.sink.sweep)
    missing = run.sink.sweep.missing()
    shard.wait()  # everyone has read the same cells before anyone writes
    run.write(missing)
    shard.wait()
    for metric in metrics:
        run.measure(metric)
        shard.wait()
    written = run.sink.now()
    return written.with_cells([*written.cells, *run.cut_off])


def _begun(
    lab: Lab, plan: SweepPlan, keep: bool, shard: WorkerShard, rows: int | None, *hooks: Any
) -> _Run:
    should_stop, progress, on_cells, on_text = hooks
    vector = lab.evaluate(plan.vector) if isinstance(plan.vector, str) else plan.vector
    if shard.device is not None and not lab.is_loaded:
        lab.options = {**lab.options, "device": shard.device}
    model = lab.load(vector)
    at = lab.at_layers(vector, list(vector.layers) if plan.layers is None else plan.layers)
    sweep = _described(plan, vector, at, model)
    sink = _Keeping(lab.store, sweep) if keep else _Passing(sweep)
    size = rows or lab.runtime.batch_rows(plan.prompts, plan.sampling.max_new_tokens)
    directions = {layer: at[layer] for layer in at.layers}
    stop = should_stop or (lambda: False)
    return _Run(lab, plan, sink, directions, shard, size, stop, progress, on_cells, on_text)


def _described(
    plan: SweepPlan, vector: SteeringVector, at: SteeringVector, model: LanguageModel
) -> StoredSweep:
    """The sweep of a plan on this model, without cells; at: the vector at the plan's layers."""
    expression = plan.vector if isinstance(plan.vector, str) else str(vector)
    settings = settings_of(at, doses=plan.doses, coefficients=plan.coefficients, label=expression)
    identity = model.identity
    return StoredSweep(
        plan_digest=_digest(plan, vector, model, at.layers),
        expression=expression,
        digest=vector.digest,
        model=identity.source,
        model_key="/".join(map(str, identity.key)),
        strength=plan.strength,
        settings=tuple(setting.without_vector() for setting in settings),
        prompts=tuple(plan.prompts),
        seeds=tuple(plan.seeds),
        positions=plan.positions,
        sampling=plan.sampling,
    )


def _digest(
    plan: SweepPlan, vector: SteeringVector, model: LanguageModel, layers: Sequence[int]
) -> str:
    """sha256 of everything that decides the texts, in any order.

    The recipe is part of it only where missing layers were made from it.
    """
    identity = model.identity
    anew = any(layer not in vector.directions for layer in layers)
    decides = {
        "format": "steerlab.sweep.1",
        "vector": vector.digest,
        "recipe": recipe_to_json(vector.recipe) if anew else None,
        "model": [*identity.key, identity.dtype, identity.tokenizer],
        "chat_template": identity.chat_template if plan.sampling.chat else None,
        "layers": sorted(layers),
        plan.strength: sorted(plan.strengths),
        "prompts": sorted(plan.prompts),
        "seeds": sorted(plan.seeds),
        "positions": plan.positions,
        "sampling": plan.sampling.options(),
    }
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


def _batches(units: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (units[start : start + size] for start in range(0, len(units), size))


def _values(
    metric: CellMetric, model: LanguageModel, sweep: StoredSweep, cells: Sequence[Cell]
) -> Sequence[MetricValue]:
    """A metric's values; if it fails on a batch, cell by cell, each with its reason."""
    try:
        return metric(model, sweep, cells)
    except Exception as error:  # one text that a scorer can't take must not end a sweep
        if len(cells) == 1:
            return [MetricValue(None, f"{type(error).__name__}: {error}"[:300])]
        return [_values(metric, model, sweep, [cell])[0] for cell in cells]
