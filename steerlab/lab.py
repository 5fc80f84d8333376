"""Lab: where the store and a model meet. What the command line, the TUI and notebooks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from steerlab.errors import BadOption, Incompatible, ModelMismatch
from steerlab.expression import evaluate
from steerlab.recipe import Contrast, Expression
from steerlab.registry import Store
from steerlab.vector import SteeringVector, span

if TYPE_CHECKING:
    from steerlab.generation import Completion, OnText, ShouldStop
    from steerlab.model import LanguageModel, LayerChoice, Pairs
    from steerlab.steer import Injection, Positions

Progress = Callable[[int, int], None]
_ROWS = {"cpu": 64}  # one batch; beyond it a CPU gains nothing more from batching
_ROWS_ACCELERATOR = 256


@dataclass(frozen=True)
class Cell:
    """One generation of a comparison or a sweep.

    vector: what was injected, None for the baseline. coefficient, dose: 0 for the baseline;
    dose is None where the residual norm is not known, and signed like the coefficient.
    """

    prompt: str
    seed: int
    vector: SteeringVector | None
    coefficient: float
    dose: float | None
    completion: Completion

    @property
    def layers(self) -> tuple[int, ...]:
        """Where it was steered; empty for the baseline."""
        return self.vector.layers if self.vector is not None else ()

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON values."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "vector": None if self.vector is None else str(self.vector),
            "layers": list(self.layers),
            "coefficient": self.coefficient,
            "dose": self.dose,
            "text": self.completion.text,
            "finish": self.completion.finish,
        }


@dataclass(frozen=True)
class Setting:
    """One way to steer: a vector at a strength; vector None is the baseline."""

    vector: SteeringVector | None = None
    coefficient: float = 0.0

    @property
    def dose(self) -> float | None:
        """Signed dose; 0 for the baseline."""
        if self.vector is None or self.coefficient == 0:
            return 0.0
        dose = self.vector.dose(self.coefficient)
        return None if dose is None else (dose if self.coefficient > 0 else -dose)


class Lab:
    """A store with a model beside it; the model is loaded when something first needs it.

    source: what to load; None takes the model that the vector at hand was made on.
    options: passed to `LanguageModel.load`.
    """

    def __init__(
        self,
        store: Store | None = None,
        model: LanguageModel | None = None,
        *,
        source: str | None = None,
        **options: Any,
    ) -> None:
        self.store = store if store is not None else Store()
        self.source = source
        self.options = options
        if model is not None:
            self.__dict__["model"] = model

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, loaded on first use."""
        from steerlab.model import LanguageModel

        return LanguageModel.load(self.source or "smollm2", **self.options)

    def for_vector(self, vector: SteeringVector) -> LanguageModel:
        """The lab's model; if none was named, the one the vector was made on."""
        if "model" not in self.__dict__ and self.source is None:
            self.source = vector.model.source
        return self.model

    def extract(
        self,
        name: str,
        pairs: Pairs,
        *,
        tags: Sequence[str] = (),
        note: str = "",
        **options: Any,
    ) -> SteeringVector:
        """Extract a vector (`LanguageModel.extract` takes the options) and store it."""
        return self.store.save(name, self.model.extract(pairs, **options), tags=tags, note=note)

    def at_layers(self, vector: SteeringVector, layers: LayerChoice) -> SteeringVector:
        """The vector at exactly these layers; those it lacks are made again from its recipe.

        A composition is evaluated again from its operands' recipes.
        Raises Incompatible for an imported vector, which has no recipe to run.
        """
        wanted = self.for_vector(vector).layers(layers)
        missing = [b for b in wanted if b not in vector.directions]
        made = self._remade(vector, missing) if missing else vector
        if made.model.key != vector.model.key:
            raise ModelMismatch(
                f"{vector} was made on {vector.model.source}, and layer {missing[0]} can't be made "
                f"on {made.model.source}: name its own model"
            )
        parts = {b: vector if b in vector.directions else made for b in wanted}
        return SteeringVector(
            {b: part.directions[b] for b, part in parts.items()},
            model=vector.model,
            recipe=vector.recipe,
            scope=vector.scope,
            residual_norms={
                b: part.residual_norms[b] for b, part in parts.items() if b in part.residual_norms
            },
            ref=None if missing else vector.ref,
        )

    def _remade(self, vector: SteeringVector, layers: list[int]) -> SteeringVector:
        recipe = vector.recipe
        if isinstance(recipe, Contrast):
            return self.model.reextract(recipe, layers)
        if isinstance(recipe, Expression):
            return evaluate(
                recipe.text, lambda ref: self.at_layers(self.store.load(ref, vector.model), layers)
            )
        raise Incompatible(
            f"{vector} was imported at layers {span(vector.layers)} and has no recipe that could "
            f"make layer {layers[0]}"
        )

    def compare(
        self,
        prompts: Sequence[str],
        settings: Sequence[Setting],
        *,
        seeds: Sequence[int] = (0,),
        positions: Positions = "all",
        allow_other_weights: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> list[Cell]:
        """Generate every prompt with every seed under every setting: rows of a batch, no loop.

        The order is prompt by prompt, seed by seed, setting by setting. Baselines belong in
        `settings` as `Setting()`; equal ones are generated once. on_text(index, piece) speaks
        of that order. sampling: options of `LanguageModel.generate`.
        progress: called with (tokens done, tokens to do at most).
        """
        wanted = [(p, s, setting) for p in prompts for s in seeds for setting in settings]
        vectors = [s.vector for s in settings if s.vector is not None]
        model = self.for_vector(vectors[0]) if vectors else self.model
        unique = _distinct(wanted)
        texts: list[Completion] = []
        size = _ROWS.get(model.model.device.type, _ROWS_ACCELERATOR)
        starts = range(0, len(unique), size)
        for number, start in enumerate(starts):
            batch = unique[start : start + size]
            steps = sampling.get("max_new_tokens", 40)
            ticker = _Ticker(should_stop, progress, number * steps, len(starts) * steps)
            texts += self._batch(
                batch, positions, allow_other_weights, on_text, ticker, start, sampling
            )
            if ticker.stopped:
                break
        row_of = {cell: row for row, cell in enumerate(unique)}
        return [
            Cell(prompt, seed, setting.vector, setting.coefficient, setting.dose, texts[row])
            for prompt, seed, setting in wanted
            if (row := row_of[_key(prompt, seed, setting)]) < len(texts)
        ]

    def _batch(
        self,
        batch: Sequence[tuple[str, int, Setting]],
        positions: Positions,
        allow_other_weights: bool,
        on_text: OnText | None,
        ticker: _Ticker,
        start: int,
        sampling: dict[str, Any],
    ) -> list[Completion]:
        from steerlab.steer import Injection, steering

        injections: list[SteeringVector | Injection] = [
            Injection(setting.vector, setting.coefficient, positions, rows=(row,))
            for row, (_, _, setting) in enumerate(batch)
            if setting.vector is not None
        ]
        with steering(self.model, injections, allow_other_weights=allow_other_weights):
            return self.model.generate(
                [prompt for prompt, _, _ in batch],
                seed=[seed for _, seed, _ in batch],
                on_text=None if on_text is None else lambda row, text: on_text(start + row, text),
                should_stop=ticker,
                **sampling,
            )

    def sweep(
        self,
        vector: SteeringVector,
        layers: LayerChoice,
        prompts: Sequence[str],
        *,
        coefficients: Sequence[float] = (),
        doses: Sequence[float] = (),
        **options: Any,
    ) -> list[Cell]:
        """Layers x strengths x prompts (x seeds) in as few batches as memory allows.

        Layers that the vector lacks are made again from its recipe. A strength of 0 is the
        baseline, which no layer changes, so it is generated once a prompt and seed and stands
        first. Give coefficients or doses; at equal coefficient, layers differ in dose.
        options: as for `compare`.
        """
        if bool(coefficients) == bool(doses):
            raise BadOption("a sweep needs either coefficients or doses")
        at = self.at_layers(vector, layers)
        settings = [Setting()] if 0 in (*coefficients, *doses) else []
        for b in at.layers:
            direction = at[b]
            strengths = [direction.coefficient(d) for d in doses if d] if doses else coefficients
            settings += [Setting(direction, c) for c in strengths if c]
        return self.compare(prompts, settings, **options)


class _Ticker:
    """Asked after every token: counts it, and passes on whether to stop."""

    def __init__(
        self, should_stop: ShouldStop | None, progress: Progress | None, done: int, total: int
    ) -> None:
        self.should_stop, self.progress = should_stop, progress
        self.done, self.total = done, total
        self.stopped = False

    def __call__(self) -> bool:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
        self.stopped = self.should_stop is not None and self.should_stop()
        return self.stopped


def _key(prompt: str, seed: int, setting: Setting) -> tuple[str, int, Setting]:
    neutral = setting.vector is None or setting.coefficient == 0
    return (prompt, seed, Setting() if neutral else setting)


def _distinct(wanted: Sequence[tuple[str, int, Setting]]) -> list[tuple[str, int, Setting]]:
    return list(dict.fromkeys(_key(*cell) for cell in wanted))
