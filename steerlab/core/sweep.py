"""Sweeps as values: what is to be written, and what has been. Needs no model and no store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from steerlab.core.results import defined
from steerlab.core.run import POSITIONS, Positions
from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.core.vector import SteeringVector

Strength = Literal["dose", "coefficient"]
Key = tuple["SweepSetting", str, int]
"""What tells a sweep's cells apart: setting, prompt, seed."""

_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "chat")
T = TypeVar("T")


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is to write: layers x strengths x prompts x seeds of one vector.

    vector: a value, or an expression over stored vectors.
    layers: as `LanguageModel.layers` takes them; None for the vector's own.
    doses, coefficients: one of the two. A strength of 0 is the baseline, which no layer changes,
        so there is one of it for each prompt and seed. What is given twice counts once.
    Raises BadOption for what can't be swept.
    """

    vector: str | SteeringVector
    prompts: Sequence[str]
    layers: LayerChoice = None
    doses: Sequence[float] = ()
    coefficients: Sequence[float] = ()
    seeds: Sequence[int] = (0,)
    positions: Positions = "all"
    chat: bool = False
    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    allow_other_weights: bool = False

    def __post_init__(self) -> None:
        prompts = [self.prompts] if isinstance(self.prompts, str) else self.prompts
        for name, values in (
            ("prompts", _distinct(prompts)),
            ("doses", _distinct(float(d) or 0.0 for d in self.doses)),  # -0.0 is 0
            ("coefficients", _distinct(float(c) or 0.0 for c in self.coefficients)),
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
        Sampling(**{name: getattr(self, name) for name in _SAMPLING if name != "chat"})

    @property
    def strength(self) -> Strength:
        """What the strengths are."""
        return "dose" if self.doses else "coefficient"

    @property
    def strengths(self) -> Sequence[float]:
        """Doses or coefficients, whichever were given."""
        return self.doses or self.coefficients

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens are chosen, as `LanguageModel.generate` takes it."""
        return {name: getattr(self, name) for name in _SAMPLING}


@dataclass(frozen=True)
class SweepSetting:
    """A layer at a strength. The baseline has no layer, and 0 everywhere.

    strength: as it was asked for. dose: signed; None where no residual norm is known.
    """

    layer: int | None
    strength: float
    coefficient: float
    dose: float | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dose", None if self.dose is None else defined(self.dose))


BASELINE = SweepSetting(None, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class MetricValue:
    """What a metric says of a cell; value None where it is undefined, reason: why, if known."""

    value: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        found = None if self.value is None else defined(float(self.value))
        object.__setattr__(self, "value", found)
        if self.value is not None:
            object.__setattr__(self, "reason", None)


@dataclass(frozen=True)
class SweepCell:
    """A text of a sweep. finish: "stop" or "length"; "cancelled" only where nothing is stored."""

    setting: SweepSetting
    prompt: str
    seed: int
    text: str
    finish: str
    tokens: int
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What tells it from the other cells of its sweep."""
        return (self.setting, self.prompt, self.seed)


@dataclass(frozen=True)
class StoredSweep:
    """A sweep as far as it has come, with everything that decided its texts.

    plan_digest: of all that; equal plans are one sweep. digest: of the vector that `expression`
        meant. model: where it came from, model_key: which one it is.
    cells: in the plan's order; empty in lists, where `done` alone says how many are stored.
    id, created: given by the store, None and empty where nothing is kept.
    """

    plan_digest: str
    expression: str
    digest: str
    model: str
    model_key: str
    strength: Strength
    settings: tuple[SweepSetting, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    positions: Positions = "all"
    chat: bool = False
    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    cells: tuple[SweepCell, ...] = field(default=(), compare=False)
    done: int = field(default=0, compare=False)
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    @property
    def total(self) -> int:
        """Cells that the plan has."""
        return len(self.settings) * len(self.prompts) * len(self.seeds)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are compared."""
        return _distinct(s.layer for s in self.settings if s.layer is not None)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths that are compared, the baseline's 0 among them if there is one."""
        return tuple(sorted({s.strength for s in self.settings}))

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens were chosen, as `LanguageModel.generate` takes it."""
        return {name: getattr(self, name) for name in _SAMPLING}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return _distinct(name for cell in self.cells for name in cell.metrics)

    def planned(self) -> Iterator[Key]:
        """Every cell of the plan: prompt by prompt, seed by seed, setting by setting."""
        for prompt, seed, setting in product(self.prompts, self.seeds, self.settings):
            yield setting, prompt, seed

    def missing(self) -> list[Key]:
        """What is not written yet, baselines first: values are told beside them."""
        there = {cell.key for cell in self.cells}
        lacking = [key for key in self.planned() if key not in there]
        return sorted(lacking, key=lambda key: key[0].layer is not None)

    def baseline(self, cell: SweepCell) -> SweepCell | None:
        """The baseline of a cell's prompt and seed; None if there is none (yet)."""
        return self._baselines.get((cell.prompt, cell.seed))

    @cached_property
    def _baselines(self) -> dict[tuple[str, int], SweepCell]:
        return {(c.prompt, c.seed): c for c in self.cells if c.setting.layer is None}

    def with_cells(self, cells: Iterable[SweepCell]) -> StoredSweep:
        """The sweep with these cells, in the plan's order."""
        found = {cell.key: cell for cell in cells}
        ordered = tuple(found[key] for key in self.planned() if key in found)
        done = sum(cell.finish != "cancelled" for cell in ordered)
        return replace(self, cells=ordered, done=done)

    def row(self, cell: SweepCell) -> dict[str, Any]:
        """A cell as JSON values."""
        layer = cell.setting.layer
        return {
            "prompt": cell.prompt,
            "seed": cell.seed,
            "vector": None if layer is None else self.expression,
            "layers": [] if layer is None else [layer],
            "coefficient": cell.setting.coefficient,
            "dose": cell.setting.dose,
            "text": cell.text,
            "finish": cell.finish,
        }

    def to_json(self) -> dict[str, Any]:
        """The sweep as JSON values, its cells with what was measured of them."""
        names = (f.name for f in fields(self) if f.name not in ("cells", "settings"))
        data = {name: getattr(self, name) for name in names}
        data["settings"] = [asdict(setting) for setting in self.settings]
        data["total"] = self.total
        data["cells"] = [
            {**self.row(c), "tokens": c.tokens, "metrics": {k: asdict(m) for k, m in _of(c)}}
            for c in self.cells
        ]
        return data


def _of(cell: SweepCell) -> Iterable[tuple[str, MetricValue]]:
    return sorted(cell.metrics.items())


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
