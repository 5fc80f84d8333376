"""Setup: all settings of the lab panel, as one value."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from typing import Any

from steerlab.core.notation import layers_of
from steerlab.core.run import POSITIONS, Positions, Run
from steerlab.core.sampling import Sampling
from steerlab.core.verb import Verb

PROMPT = "I think you are a"
DOSE = 0.2
COLUMNS = (2, 3, 5)
"""Texts side by side: baseline and c, or from −c to +c around the baseline."""


MOST_PINNED = 3
"""Settings beside the current one, each with a column of its own."""


@dataclass(frozen=True)
class Pin:
    """A vector at a strength and layers: what one column has of its own."""

    expression: str
    dose: float | None
    coefficient: float
    layers: str = ""

    @property
    def name(self) -> str:
        """The vector, and its layers if they are not its own."""
        noun = "layer" if self.layers.isdecimal() else "layers"
        return f"{self.expression} {noun} {self.layers}" if self.layers else self.expression

    def __str__(self) -> str:
        strength = f"c {self.coefficient:+.3g}" if self.dose is None else f"dose {self.dose:+.2f}"
        return f"{self.name} {strength}"


@dataclass(frozen=True)
class Setup:
    """The settings of the next generation.

    dose: None where there is none; then `coefficient` counts, and otherwise it follows from the
        dose and the vector. layers: as typed; empty for where the
        vector works, else its own.
    columns: of COLUMNS, while nothing is pinned. pinned: settings with columns of their own.
    The rest: as for `LanguageModel.generate`.
    """

    expression: str = ""
    prompt: str = PROMPT
    dose: float | None = DOSE
    coefficient: float = 1.0
    layers: str = ""
    positions: Positions = "all"
    columns: int = 2
    pinned: tuple[Pin, ...] = ()
    seed: int = 0
    chat: bool = False
    allow_other_weights: bool = False
    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    @property
    def sampling(self) -> Sampling:
        """How texts are written; raises BadOption for an option that is out of its range."""
        return Sampling(**{f.name: getattr(self, f.name) for f in fields(Sampling)})

    def check(self) -> None:
        """Raise BadOption for an option out of range."""
        _ = self.sampling
        if self.layers:
            layers_of(self.layers)

    @property
    def shares(self) -> tuple[float, ...]:
        """The columns as multiples of the strength; 0 is the baseline."""
        if not self.expression.strip():
            return (0.0,)
        if self.pinned:
            return (0.0, 1.0)
        return {2: (0.0, 1.0), 3: (-1.0, 0.0, 1.0), 5: (-1.0, -0.5, 0.0, 0.5, 1.0)}[self.columns]

    @property
    def pin(self) -> Pin:
        """What the current setting has of its own."""
        return Pin(self.expression, self.dose, self.coefficient, self.layers)

    @property
    def others(self) -> tuple[Pin, ...]:
        """The pinned settings that have a column beside the current one."""
        return tuple(pin for pin in self.pinned if pin != self.pin)

    def summary(self) -> str:
        """The options in short: "40 tokens · greedy"."""
        parts = [f"{self.max_new_tokens} tokens"]
        parts.append(f"T {self.temperature:g}" if self.temperature else "greedy")
        if self.temperature:
            parts += [f"seed {self.seed}"]
            parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
            parts += [f"top-k {self.top_k}"] if self.top_k else []
        if self.repetition_penalty != 1:
            parts.append(f"penalty {self.repetition_penalty:g}")
        parts += [] if self.positions == "all" else [f"at {self.positions}"]
        parts += ["chat"] if self.chat else []
        if self.pinned:
            first, *more = self.pinned
            parts.append(f"kept: {first}" + (f" and {len(more)} more" if more else ""))
        return " · ".join(parts)

    def command(self, verb: Verb, source: str | None = None) -> str:
        """The commands for the same texts, a line for each setting. verb: `generate`."""
        pins = (*self.others, self.pin) if self.expression.strip() else (self.pin,)
        columns = 2 if len(pins) > 1 else self.columns
        alone = [replace(self, pinned=(), columns=columns, **vars(pin)) for pin in pins]
        return "\n".join(one._command(verb, source, one is alone[0]) for one in alone)

    def _command(self, verb: Verb, source: str | None, baseline: bool) -> str:
        """The command of one setting, quoted for a shell."""
        usual = vars(Setup())
        chosen = {name: value for name, value in vars(self).items() if value != usual[name]}
        chosen |= {"prompts": shlex.quote(self.prompt), "source": source or ""}
        chosen |= {"no_baseline": not baseline, **self._strength()}
        values = {n: v if isinstance(v, bool) else str(v) for n, v in chosen.items()}
        return shlex.join(["steerlab", *verb.words(values)])

    def _strength(self) -> dict[str, str]:
        strength = self.coefficient if self.dose is None else self.dose
        listed = ",".join(f"{share * strength:g}" for share in self.shares if share)
        return {"coefficients" if self.dose is None else "doses": listed}


def setup_of(run: Run) -> Setup:
    """The setup of a stored run."""
    generations = [g for g in run.generations if not g.expression]
    pinned = [
        Pin(g.expression, g.dose, g.coefficient, g.layers) for g in run.generations if g.expression
    ]
    strongest = max(generations, key=lambda g: (abs(g.coefficient), g.coefficient), default=None)
    shared = {f.name for f in fields(Setup)} & {f.name for f in fields(Run)}
    plain = {name: getattr(run, name) for name in shared}
    setup = Setup(**plain, **run.sampling.options(), pinned=tuple(pinned[:MOST_PINNED]))
    steered = sum(1 for g in generations if g.coefficient)
    columns = next((n for n in COLUMNS if n > steered), COLUMNS[-1])
    if strongest is None or not strongest.coefficient:
        return replace(setup, columns=columns)
    dose, coefficient = strongest.dose, strongest.coefficient
    return replace(setup, columns=columns, dose=dose, coefficient=coefficient)


def from_memory(values: dict[str, Any]) -> Setup:
    """A setup from remembered values; invalid ones take their defaults."""
    plain = Setup()
    fitting: dict[str, Any] = {}
    for field in fields(Setup):
        value, default = values.get(field.name), getattr(plain, field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if type(value) is type(default) or (isinstance(default, float) and number):
            fitting[field.name] = value
    choices = (("columns", COLUMNS), ("positions", POSITIONS))
    fitting = {**fitting, **{n: getattr(plain, n) for n, c in choices if fitting.get(n) not in c}}
    return Setup(**fitting)
