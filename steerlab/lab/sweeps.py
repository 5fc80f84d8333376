"""Running a sweep: missing cells are written batch by batch, and each batch is stored at once.

A row does not depend on its batch, so a sweep that was cancelled or killed, or that several
processes share, gives the same texts as one written in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from steerlab.core.cell import Cell, Key, MetricValue
from steerlab.core.setting import Setting, is_front
from steerlab.core.sweep import Sweep, SweepPlan, planned
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.lab.batches import write
from steerlab.lab.lab import Lab
from steerlab.lab.workers import WorkerShard
from steerlab.progress import Progress, ShouldStop, with_bar

if TYPE_CHECKING:
    from steerlab.models.generation import OnText
    from steerlab.models.language_model import LanguageModel

OnSweep = Callable[[Sweep], object]


class CellMetric(Protocol):
    """A metric that is measured once for each cell, and stored with it."""

    @property
    def name(self) -> str:
        """What the cells' values are called."""

    def __call__(
        self, model: LanguageModel, sweep: Sweep, cells: Sequence[Cell]
    ) -> Sequence[MetricValue]:
        """One value a cell; sweep: all cells so far, for `sweep.baseline(cell)`."""


@dataclass
class _Run:
    """This process's part of a sweep.

    directions: the vector at each layer of the sweep. keep: whether cells are stored.
    unstored: cells that are not, because of that or because they were cut off.
    """

    lab: Lab
    plan: SweepPlan
    sweep: Sweep
    directions: Mapping[int, SteeringVector]
    shard: WorkerShard
    rows: int
    keep: bool
    stop: ShouldStop
    progress: Progress | None
    unstored: dict[Key, Cell] = field(default_factory=dict)

    def now(self) -> Sweep:
        """The sweep with all its cells, those of other processes too."""
        sweep = self.lab.store.sweeps.begin(self.sweep) if self.keep else self.sweep
        return sweep.with_cells([*sweep.cells, *self.unstored.values()])

    def write(self, missing: Sequence[Key], on_text: OnText | None) -> None:
        """Write this process's share of the missing cells, and keep each batch."""
        plan, own = self.plan, self.shard.of(missing)
        places = {key: place for place, key in enumerate(self.sweep.planned())}

        def hear(row: int, piece: str) -> None:
            on_text(places[own[row]], piece)  # type: ignore[misc]  # if there is one

        for batch in write(
            self.lab.runtime,
            [(s.with_vector(self.directions), prompt, seed) for s, prompt, seed in own],
            plan.sampling,
            positions=plan.positions,
            bos=is_front(map(Setting, self.directions.values())),
            allow_other_weights=plan.allow_other_weights,
            size=self.rows,
            on_text=hear if on_text is not None else None,
            should_stop=self.stop,
            progress=self.progress,
        ):
            self._keep([replace(cell, setting=own[i][0]) for i, cell in batch.items()])
            if self.stop():
                return

    def _keep(self, cells: Sequence[Cell]) -> None:
        """Store whole texts; those that were cut off never are."""
        whole = [cell for cell in cells if cell.finish != "cancelled"]
        cut_off = [cell for cell in cells if cell.finish == "cancelled"]
        self.unstored |= {cell.key: cell for cell in (cut_off if self.keep else cells)}
        if self.keep and whole:
            self.lab.store.sweeps.add(self.sweep, whole)

    def measure(self, metric: CellMetric) -> None:
        """Measure this process's share of the cells that lack the metric."""
        sweep = self.now()
        whole = [cell for cell in sweep.cells if cell.finish != "cancelled"]
        own = self.shard.of([cell for cell in whole if metric.name not in cell.metrics])
        self.shard.wait()  # everyone has read the same values before anyone stores some
        for start in range(0, len(own), self.rows):
            if self.stop():
                return
            batch = own[start : start + self.rows]
            values = _values(metric, self.lab.model, sweep, batch)
            self._keep_values(metric.name, zip(batch, values, strict=True))
            if self.progress is not None:
                self.progress(start + len(batch), len(own))

    def _keep_values(self, name: str, measured: Iterable[tuple[Cell, MetricValue]]) -> None:
        if self.keep:
            values = {cell.key: value for cell, value in measured}
            self.lab.store.sweeps.measure(self.sweep, name, values)
            return
        for cell, value in measured:
            self.unstored[cell.key] = replace(cell, metrics={**cell.metrics, name: value})


@with_bar("sweeping")
def run_sweep(
    lab: Lab,
    plan: SweepPlan,
    *,
    keep: bool = True,
    metrics: Sequence[CellMetric] = (),
    on_start: OnSweep | None = None,
    on_text: OnText | None = None,
    should_stop: ShouldStop | None = None,
    progress: Progress | None = None,
    rows: int | None = None,
    shard: WorkerShard | None = None,
) -> Sweep:
    """Write the cells of a plan that the store lacks; returns the sweep with all its cells.

    Each batch is stored whole, in one transaction: after Ctrl-C or a kill, the same plan writes
    only the missing cells, with the same result. Under `accelerate launch` each process writes
    its share.

    keep: False writes everything anew and stores nothing.
    metrics: measured for every cell that lacks them.
    on_start(sweep): called once, with the cells already stored. on_text(place, piece): place: in
        `sweep.planned()`.
    should_stop: asked after every token; the texts that it cuts off are returned with finish
        "cancelled", and not stored.
    progress: called with (done, to do). rows: of a batch; None takes what is fastest, as far as
        memory goes.
    """
    shard = shard or WorkerShard.current()
    if shard.count > 1 and not keep:
        raise BadOption("several processes share a sweep through the store: it has to be kept")
    vector = lab.evaluate(plan.vector) if isinstance(plan.vector, str) else plan.vector
    if shard.device is not None and not lab.is_loaded:
        lab.options = {**lab.options, "device": shard.device}
    model = lab.load(vector)
    at = lab.swept(vector, plan.layers)
    sweep = planned(plan, vector, at, model.identity)
    sweep = lab.store.sweeps.begin(sweep) if keep else sweep
    size = rows or lab.runtime.batch_rows(plan.prompts, plan.sampling.max_new_tokens)
    stop = should_stop or (lambda: False)
    directions = {layer: at[layer] for layer in at.layers}
    run = _Run(lab, plan, sweep, directions, shard, size, keep, stop, progress)
    if on_start is not None:
        on_start(sweep)
    shard.wait()  # everyone has read the same cells before anyone writes
    run.write(sweep.missing(), on_text)
    shard.wait()
    for metric in metrics:
        run.measure(metric)
        shard.wait()
    return run.now()


def _values(
    metric: CellMetric, model: LanguageModel, sweep: Sweep, cells: Sequence[Cell]
) -> Sequence[MetricValue]:
    """A metric's values; if it fails on a batch, cell by cell, each with its reason."""
    try:
        return metric(model, sweep, cells)
    except Exception as error:  # one text that a scorer can't take must not end a sweep
        if len(cells) == 1:
            return [MetricValue(None, f"{type(error).__name__}: {error}"[:300])]
        return [_values(metric, model, sweep, [cell])[0] for cell in cells]
