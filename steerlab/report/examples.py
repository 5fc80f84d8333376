"""Example texts of a vector, stored or newly written, by signed dose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from steerlab.core.notation import layers_text
from steerlab.core.run import Generation
from steerlab.errors import Cancelled, SteerlabError
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration
    from steerlab.core.run import Run
    from steerlab.core.setting import Setting
    from steerlab.core.sweep import Sweep
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store

PROMPTS = ("I think you are a", "Today I feel", "The people I met were")
DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)
SAMPLING: dict[str, Any] = {
    "max_new_tokens": 40,
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.05,
}
"""As in the post "Paper Implementation: Steering Language Models With Activation Engineering"."""

_MOST = 3  # prompts shown of a sweep
_RECENT = 30  # runs and sweeps searched


@dataclass(frozen=True)
class Examples:
    """Continuations of one prompt, put in order from the most negative coefficient.

    source: where they come from, in words.
    """

    prompt: str
    source: str
    texts: Sequence[Generation]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.texts, key=lambda text: text.coefficient))
        object.__setattr__(self, "texts", ordered)

    @property
    def has_both_signs(self) -> bool:
        """Whether there are texts at both signs of the coefficient."""
        return any(t.coefficient < 0 for t in self.texts) and any(
            t.coefficient > 0 for t in self.texts
        )


def kept_examples(store: Store, record: Record, layer: int | None = None) -> tuple[Examples, ...]:
    """Stored texts of exactly this vector, from its newest sweep or run.

    Texts at both signs come before others, then sweeps before runs. layer: preferred layer of
    a sweep.
    """
    ref = store.qualified(record.ref, record.model)
    found: list[tuple[Examples, ...]] = []
    for sweep in store.sweeps.list(ref, limit=_RECENT):
        if sweep.digest == record.digest and sweep.id is not None:
            whole = store.sweeps.get(sweep.id)
            if whole.cells and whole.layers:
                found.append(_of_sweep(whole, layer))
    found += [
        (_of_run(run),)
        for run in store.runs.list(ref, limit=_RECENT)
        if any(g.coefficient for g in run.generations) and _means(store, run, record)
    ]
    whole_ones = [examples for examples in found if all(e.has_both_signs for e in examples)]
    return next(iter([*whole_ones, *found]), ())


def _of_sweep(sweep: Sweep, layer: int | None) -> tuple[Examples, ...]:
    layers = sweep.layers
    chosen = layer if layer in layers else layers[len(layers) // 2]
    seed = sweep.seeds[0]
    made = []
    for prompt in sweep.prompts[:_MOST]:
        texts = [
            Generation.of(cell)
            for cell in sweep.cells
            if (cell.prompt, cell.seed) == (prompt, seed) and cell.setting.layer in (chosen, None)
        ]
        made.append(Examples(prompt, f"sweep {sweep.id}, layer {chosen}", texts))
    return tuple(made)


def _of_run(run: Run) -> Examples:
    at = f", layers {run.layers}" if run.layers else ""
    return Examples(run.prompt, f"run {run.id}{at}", run.generations)


def _means(store: Store, run: Run, record: Record) -> bool:
    """Whether a run's expression evaluates to this vector."""
    try:
        return store.evaluate(run.expression, record.model).digest == record.digest
    except SteerlabError:
        return False


def written_examples(
    lab: Lab,
    vector: SteeringVector,
    calibration: Calibration | None = None,
    *,
    prompts: Sequence[str] = PROMPTS,
    doses: Sequence[float] = (),
    seed: int = 0,
    **watch: Unpack[Watch],
) -> tuple[Examples, ...]:
    """Write texts in one batch, at the calibrated layer and within its safe doses if any.

    doses: signed; empty for the ends of the safe range and their halves, or else ±0.1 and ±0.2.
        The baseline is always included. A vector without residual norms, and so without doses,
        gets coefficients of ±1 and ±2.
    Raises Cancelled, and the errors of loading and steering.
    """
    at, safe = vector, None
    if calibration is not None and calibration.works and calibration.layer is not None:
        at, safe = lab.at_layers(vector, calibration.layer), calibration.safe
    settings = _settings(at, doses, safe)
    cells = lab.compare(prompts, settings, seeds=(seed,), **watch, **SAMPLING)
    should_stop = watch.get("should_stop")
    if should_stop is not None and should_stop():
        raise Cancelled("cancelled: no page was written")
    how = f"temperature {SAMPLING['temperature']}, seed {seed}"
    source = f"written for this page, {layers_text(at.layers)}, {how}"
    texts: dict[str, list[Generation]] = defaultdict(list)
    for cell in cells:
        texts[cell.prompt].append(Generation.of(cell))
    return tuple(Examples(prompt, source, found) for prompt, found in texts.items())


def _settings(
    vector: SteeringVector, doses: Sequence[float], safe: tuple[float, float] | None
) -> list[Setting]:
    from steerlab.core.setting import Setting

    if vector.dose(1.0) is None and not doses:
        coefficients: Sequence[float] = (-2, -1, 0, 1, 2)
    else:
        around = [round(end * part, 2) for end in safe or () for part in (1.0, 0.5)]
        wanted = sorted({0.0, *(doses or around or DOSES)})
        coefficients = [vector.coefficient(dose) if dose else 0.0 for dose in wanted]
    return [Setting(vector, c) if c else Setting() for c in coefficients]
