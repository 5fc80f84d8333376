"""Sweeps as values: the plan, and the cells written so far. Needs no model and no store."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from steerlab.core import above
from steerlab.core.arguments import checks_names, numbers, several
from steerlab.core.cell import Cell, Key
from steerlab.core.display import count
from steerlab.core.recipe import recipe_to_json
from steerlab.core.record import canonical_json
from steerlab.core.run import POSITIONS, Positions
from steerlab.core.sampling import GREEDY, Sampling
from steerlab.core.setting import Setting, settings_of
from steerlab.errors import BadOption

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from steerlab.core.notation import LayerChoice
    from steerlab.core.recipe import ModelIdentity
    from steerlab.core.vector import SteeringVector

Strength = Literal["dose", "coefficient"]
T = TypeVar("T")


@dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep: layers x strengths x prompts x seeds of one vector.

    vector: a value, or an expression over stored vectors.
    layers: as `LanguageModel.layers` takes them; None for the vector's own and its calibration's.
    doses, coefficients: give one of the two. A strength of 0 is the baseline, which no layer
        changes, so each prompt and seed has one. Repeated values count once.
    Raises BadOption for what can't be swept.
    """

    vector: str | SteeringVector
    prompts: Sequence[str]
    layers: LayerChoice = None
    doses: Sequence[float] = ()
    coefficients: Sequence[float] = ()
    seeds: Sequence[int] = (0,)
    positions: Positions = "all"
    sampling: Sampling = GREEDY
    allow_other_weights: bool = False

    def __post_init__(self) -> None:
        doses, coefficients = (
            [x or 0.0 for x in numbers(given, name)]  # -0.0 is 0
            for given, name in ((self.doses, "doses"), (self.coefficients, "coefficients"))
        )
        for name, values in (
            ("prompts", _distinct(several(self.prompts, str, "prompts"))),
            ("doses", _distinct(doses)),
            ("coefficients", _distinct(coefficients)),
            ("seeds", _distinct(map(int, self.seeds))),
        ):
            object.__setattr__(self, name, values)
        if bool(self.doses) == bool(self.coefficients):
            raise BadOption("a sweep needs either coefficients or doses")
        if not all(map(math.isfinite, self.strengths)):
            raise BadOption("a sweep's strengths have to be finite numbers")
        if not self.prompts or not self.seeds:
            raise BadOption("a sweep needs a prompt and a seed")
        if self.positions not in POSITIONS:
            raise BadOption(f"positions are {', '.join(POSITIONS)}, not {self.positions!r}")

    @property
    def strength(self) -> Strength:
        """Whether the strengths are doses or coefficients."""
        return "dose" if self.doses else "coefficient"

    @property
    def strengths(self) -> Sequence[float]:
        """Doses or coefficients, whichever were given."""
        return self.doses or self.coefficients


@dataclass(frozen=True, repr=False)
class Sweep(above.Shown, Sequence[Cell]):
    """A sweep with the cells written so far, and everything that decided its texts.

    A sequence of its cells. Notebooks show it as a heatmap and a table of texts.

    plan_digest: of all that; equal plans are one sweep. digest: of the vector that `expression`
        meant. model: where the model was loaded from. model_key: its `ModelIdentity.key`.
    cells: in the plan's order; empty in lists, where only `done`, their number, is known.
    id, created: given by the store; None and empty if the sweep is not stored.
    """

    plan_digest: str
    expression: str
    digest: str
    model: str
    model_key: str
    strength: Strength
    settings: tuple[Setting, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    positions: Positions = "all"
    sampling: Sampling = GREEDY
    cells: tuple[Cell, ...] = field(default=(), compare=False)
    done: int = field(default=0, compare=False)
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    def __repr__(self) -> str:
        stored = "" if self.id is None else f" {self.id}"
        layers = f"{count(len(self.layers), 'layer')} x {count(len(self.strengths), self.strength)}"
        return f"<Sweep{stored} of {self.expression}: {layers}, {count(len(self), 'text')}>"

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | Sequence[Cell]:
        return self.cells[index]

    def plot(self, metric: str | None = None) -> Figure:
        """A heatmap of a metric's means, by layer and strength, as a matplotlib figure.

        metric: as `sweep --metric` takes it; None for the first one that was measured, or else
        "distinct-2".
        """
        return above.figure(self, metric=metric)

    @checks_names()
    def texts(
        self,
        *,
        layer: int | None = None,
        strength: float | None = None,
        prompt: str | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """The texts in the plan's order, of these settings only where some are given.

        strength: a dose or a coefficient, whichever the sweep has; 0 for the baseline, which has
        no layer.
        """
        wanted = {"layer": layer, "strength": strength}
        return [
            cell.text
            for cell in self.cells
            if all(x is None or getattr(cell.setting, n) == x for n, x in wanted.items())
            and prompt in (None, cell.prompt)
            and seed in (None, cell.seed)
        ]

    def to_pandas(self) -> DataFrame:
        """A DataFrame with a row for each text; raises BadOption if pandas is not installed."""
        try:
            from pandas import DataFrame
        except ImportError:
            raise BadOption("pandas is not installed: pip install pandas") from None
        return DataFrame([_flat(cell) for cell in self.cells])

    @property
    def total(self) -> int:
        """Number of cells in the plan."""
        return len(self.settings) * len(self.prompts) * len(self.seeds)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are compared."""
        return _distinct(s.layer for s in self.settings if s.layer is not None)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths that are compared, with 0 if there is a baseline."""
        return tuple(sorted({s.strength for s in self.settings}))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that were measured."""
        return _distinct(name for cell in self.cells for name in cell.metrics)

    def planned(self) -> Iterator[Key]:
        """Every cell of the plan: prompt by prompt, seed by seed, setting by setting."""
        for prompt, seed, setting in product(self.prompts, self.seeds, self.settings):
            yield setting, prompt, seed

    def missing(self) -> list[Key]:
        """Cells not written yet, baselines first: the others are valued beside them."""
        there = {cell.key for cell in self.cells}
        lacking = [key for key in self.planned() if key not in there]
        return sorted(lacking, key=lambda key: key[0].layer is not None)

    def baseline(self, cell: Cell) -> Cell | None:
        """The baseline of a cell's prompt and seed; None if it is not written."""
        return self._baselines.get((cell.prompt, cell.seed))

    @cached_property
    def _baselines(self) -> dict[tuple[str, int], Cell]:
        return {(c.prompt, c.seed): c for c in self.cells if c.setting.layer is None}

    def with_cells(self, cells: Iterable[Cell]) -> Sweep:
        """The sweep with these cells, in the plan's order."""
        found = {cell.key: cell for cell in cells}
        ordered = tuple(found[key] for key in self.planned() if key in found)
        done = sum(cell.finish != "cancelled" for cell in ordered)
        return replace(self, cells=ordered, done=done)

    def to_json(self) -> dict[str, Any]:
        """The sweep as JSON values, its cells with their metrics."""
        data = {**vars(self), **self.sampling.options(), "total": self.total}
        for name in ("sampling", "_baselines"):
            data.pop(name, None)
        data["settings"] = [setting.to_json() for setting in self.settings]
        data["cells"] = [_with_metrics(cell) for cell in self.cells]
        return data


def planned(
    plan: SweepPlan, vector: SteeringVector, at: SteeringVector, identity: ModelIdentity
) -> Sweep:
    """The sweep of a plan on this model, without cells; at: the vector at the plan's layers."""
    expression = plan.vector if isinstance(plan.vector, str) else str(vector)
    settings = settings_of(at, doses=plan.doses, coefficients=plan.coefficients, label=expression)
    return Sweep(
        plan_digest=_plan_digest(plan, vector, identity, at.layers),
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


def _plan_digest(
    plan: SweepPlan, vector: SteeringVector, identity: ModelIdentity, layers: Sequence[int]
) -> str:
    """sha256 of everything that decides the texts, in any order.

    The recipe is part of it only where missing layers were made from it.
    """
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


def _flat(cell: Cell) -> dict[str, Any]:
    """A cell as a row of a table."""
    metrics = {name: metric.value for name, metric in cell.metrics.items()}
    names = ("prompt", "seed", "text", "finish", "tokens")
    facts = {name: getattr(cell, name) for name in names}
    return cell.setting.to_json() | facts | metrics


def _with_metrics(cell: Cell) -> dict[str, Any]:
    metrics = {name: asdict(value) for name, value in sorted(cell.metrics.items())}
    return {**cell.to_json(), "tokens": cell.tokens, "metrics": metrics}


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
