"""Lab: a store with a model beside it, shared by the command line, the TUI and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlab.core.arguments import checks_names, several
from steerlab.core.cell import Cell
from steerlab.core.recipe import Contrast, ModelIdentity
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting, is_front, settings_of
from steerlab.core.sweep import Sweep, SweepPlan, planned
from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible
from steerlab.files.location import discover, expanded
from steerlab.lab.batches import write
from steerlab.lab.engine import EngineRuntime, ModelElsewhere
from steerlab.lab.layers import at_layers, extends, operand
from steerlab.lab.operating_point import OperatingPoint, calibration_of
from steerlab.progress import Loading, Progress, ShouldStop, with_bar

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.core.results import Calibration
    from steerlab.extraction.methods import Pairs
    from steerlab.interventions.applied import Applied
    from steerlab.models.generation import OnText
    from steerlab.models.language_model import LanguageModel
    from steerlab.models.runtime import Runtime
    from steerlab.registry import Store

REMEMBERED = 32
"""How many re-extracted vectors a lab keeps in memory."""


class Lab:
    """A store with a model beside it; the model is loaded when it is first needed.

    store: a Store, a directory, or None for the one that `Store()` finds.
    source: the model to load; None loads the model that the vector at hand was made on.
    engine: URL of a server that runs the model instead; see `EngineRuntime`.
    options: passed to `LanguageModel.load`.
    """

    def __init__(
        self,
        store: Store | Path | str | None = None,
        model: LanguageModel | None = None,
        *,
        source: str | None = None,
        engine: str | None = None,
        **options: Any,
    ) -> None:
        self._store, self.engine = store, engine
        self._opening, self._loading = threading.Lock(), threading.RLock()
        self.source = source
        self.options = options
        self._model = model
        self._reextracted = lru_cache(REMEMBERED)(self._reextract)
        self.extraction: Callable[[Contrast, list[int]], SteeringVector] | None = None  # of servers
        self.is_named = source is not None or model is not None  # else each vector brings its own

    @property
    def store(self) -> Store:
        """The store; a path is opened, and the registry imported, on first use."""
        from steerlab.registry import Store

        with self._opening:
            if not isinstance(self._store, Store):
                self._store = Store(self._store)
            return self._store

    @property
    def store_path(self) -> Path:
        """The store's directory; does not import the registry."""
        if self._store is None or isinstance(self._store, str):
            return discover() if self._store is None else expanded(self._store)
        return self._store if isinstance(self._store, Path) else self._store.path

    @property
    def is_loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def model(self) -> LanguageModel:
        """The language model, loaded on first use."""
        return self.load()

    @property
    def runtime(self) -> Runtime:
        """Runs the model in batches, each row steered by its own setting."""
        if self.engine is not None:
            return EngineRuntime(self.engine)
        from steerlab.interventions.runtime import TransformersRuntime

        return TransformersRuntime(self.model)

    def load(
        self, vector: SteeringVector | None = None, progress: Loading | None = None
    ) -> LanguageModel:
        """The model, loaded if need be: the one named, else the vector's own.

        If none was named, a vector of another model than the loaded one replaces it.
        progress: called with (what, done, total) while the embedded model is fetched.
        """
        if self.engine is not None:
            return self._elsewhere(vector)
        with self._loading:
            if vector is not None and not self.is_named and self.source != vector.model.source:
                self._model = self.source = None
            if self._model is None:
                from steerlab.models.language_model import LanguageModel

                options = {**self.options, **({"progress": progress} if progress else {})}
                if self.source is None:
                    self.source = vector.model.source if vector is not None else "smollm2"
                    if vector is not None and not options.get("revision"):
                        options = {**options, "revision": vector.model.revision}
                self._model = LanguageModel.load(self.source, **options)
            return self._model

    def _elsewhere(self, vector: SteeringVector | None) -> LanguageModel:
        """The engine's model, which has to be the vector's; its precision is unknown."""
        if vector is not None and (self._model is None or self.source != vector.model.source):
            self.source = self.source if self.is_named else vector.model.source
            found: Any = ModelElsewhere(replace(vector.model, dtype=None))
            self._model = found
        none: Any = ModelElsewhere(ModelIdentity(self.source or "engine", "", 0, 0))
        return self._model or none

    def loaded_for(self, vector: SteeringVector) -> LanguageModel | None:
        """The model if it is loaded and is the vector's own, else None; loads nothing."""
        model = self._model
        if model is None:
            return None
        return model if vector.model.has_weights_of(model.identity) else None

    def use(self, source: str | None) -> None:
        """Use another model from now on, loaded when needed; None uses each vector's own."""
        self._model, self.source, self.is_named = None, source, source is not None

    def evaluate(self, expression: str) -> SteeringVector:
        """Compute an expression over stored vectors.

        A name that several models have means the vector of the lab's model.
        """
        try:
            return self.store.evaluate(expression)
        except Incompatible:
            ours = self.stored_model()
            if ours is None:
                raise
            return self.store.evaluate(expression, ours)

    def stored_model(self) -> str | None:
        """The store's name for the lab's model; None if it has no vectors of it."""
        key = None if self._model is None else self._model.identity.key
        for name, identity, _ in self.store.models():
            if key is not None:
                if identity.key == key:
                    return name
            elif self.source in (name, identity.source):
                return name
        return None

    def extract(
        self,
        name: str,
        pairs: Pairs,
        *,
        tags: Sequence[str] = (),
        note: str = "",
        **options: Any,
    ) -> SteeringVector:
        """Extract a vector and store it; options: as for `LanguageModel.extract`."""
        from steerlab.registry.keep import keep

        made = self.model.extract(pairs, **options)
        return keep(self.store, name, made, tags=tags, note=note)[0]

    def at_layers(self, vector: SteeringVector, layers: LayerChoice) -> SteeringVector:
        """The vector at exactly these layers; missing ones are made from its recipe.

        A composition is evaluated again with its operands at these layers.
        Raises Incompatible for an imported vector, which has no recipe to run.
        """
        return at_layers(self, vector, layers)

    def extends(self, vector: SteeringVector) -> bool:
        """Whether `at_layers` can make missing layers, on the vector's own model."""
        return extends(self, vector)

    def operand(self, vector: SteeringVector, ref: str) -> SteeringVector:
        """The operand of a composition by its ref; Incompatible if the ref means another vector."""
        return operand(self, vector, ref)

    def reextracted(self, recipe: Contrast, layers: Sequence[int]) -> SteeringVector:
        """The vector of a recipe on the model; remembered, since each generation asks again."""
        return self._reextracted(self.model.identity, recipe, tuple(layers))

    def _reextract(
        self, model: Hashable, recipe: Contrast, layers: tuple[int, ...]
    ) -> SteeringVector:
        return (self.extraction or self.model.reextract)(recipe, list(layers))

    def operating_point(
        self,
        vector: SteeringVector,
        layers: LayerChoice = None,
        *,
        here: ModelIdentity | None = None,
    ) -> OperatingPoint:
        """Where and how strongly a vector is used; what is not given, its calibration decides.

        layers: by default that of the vector's calibration; the vector's own if it was never
        calibrated, works nowhere, or was calibrated on other weights than are loaded. The
        coefficient is the one calibrated at the layer, and 1 at any other. here: the identity of
        the loaded model, for who has read it: reading it waits for the model.
        """
        if vector.works_at is not None:
            vector = vector.noted(works_at=None)  # where it acts is chosen here: nothing to warn of
        at = None if layers is None else self.at_layers(vector, layers)
        found = self.calibration_of(vector, None if at is None else at.layers)
        if found is not None and self.is_loaded:
            same = vector.model.has_weights_of(here or self.model.identity)
            found = found if same else None
        if found is None or found.coefficient is None:
            return OperatingPoint(vector if at is None else at, 1.0)
        if at is None:
            makes_it = self.engine is not None and found.layer not in vector.directions
            at = vector if makes_it else self.at_layers(vector, found.layer)
        return OperatingPoint(at, found.coefficient, found)

    def steering(
        self,
        of: str | SteeringVector,
        coefficient: float | None = None,
        *,
        dose: float | None = None,
        layers: LayerChoice = None,
        **options: Any,
    ) -> AbstractContextManager[Applied]:
        """`steerlab.steering` where and as strongly as `generate` steers.

        of: a vector, or an expression over stored vectors. What is not given is as in
        `operating_point`. options: as for `steerlab.steering`.
        """
        from steerlab.interventions.hooks import steering

        vector = self.evaluate(of) if isinstance(of, str) else of
        lm = self.load(vector)
        point = self.operating_point(vector, layers)
        strength = point.coefficient if coefficient is None else coefficient
        return steering(lm, point.vector, strength, dose=dose, **options)

    def swept(self, vector: SteeringVector, layers: LayerChoice) -> SteeringVector:
        """The vector at the layers of a sweep: None for its own and the calibrated one."""
        if layers is None:
            layers = sorted({*vector.layers, *self.operating_point(vector).vector.layers})
        return self.at_layers(vector, layers)

    def calibration_of(
        self, vector: SteeringVector, layers: Sequence[int] | None = None
    ) -> Calibration | None:
        """See `operating_point.calibration_of`."""
        return calibration_of(self.store, vector, layers)

    @checks_names(Sampling)
    @with_bar("generating")
    def compare(
        self,
        prompts: str | Sequence[str],
        settings: Sequence[Setting],
        *,
        seeds: Sequence[int] = (0,),
        positions: Positions = "all",
        allow_other_weights: bool = False,
        audit: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> list[Cell]:
        """Generate every prompt with every seed under every setting, as rows of few batches.

        Returns the cells prompt by prompt, seed by seed, setting by setting. Put `Setting()`
        among `settings` for a baseline; equal settings are generated once.
        If a setting is a front vector, every prompt begins with BOS, the baseline's too, so that
        texts differ by the steering alone.
        audit: measure which tokens of each text are changed, at which layers, and how far:
            `cell.audit`.
        on_text(index, piece): called as texts grow; index: of the cell in that order.
        should_stop: asked after every token; returns what was written so far.
        progress: called with (tokens done, tokens to do at most).
        sampling: options of `Sampling`.
        """
        prompts = several(prompts, str, "prompts")
        rows = [(setting, p, seed) for p in prompts for seed in seeds for setting in settings]
        chosen = Sampling(**sampling)
        vectors = [s.vector for s in settings if s.vector is not None]
        self.load(vectors[0] if vectors else None)
        found: dict[int, Cell] = {}
        for batch in write(
            self.runtime,
            rows,
            chosen,
            positions=positions,
            bos=is_front(settings),
            allow_other_weights=allow_other_weights,
            audit=audit,
            on_text=on_text,
            should_stop=should_stop,
            progress=progress,
        ):
            found |= batch
        return [found[place] for place in sorted(found)]

    @checks_names(Sampling, compare)
    def sweep(
        self,
        vector: str | SteeringVector,
        layers: LayerChoice,
        prompts: str | Sequence[str],
        *,
        coefficients: Sequence[float] = (),
        doses: Sequence[float] = (),
        **options: Any,
    ) -> Sweep:
        """Layers x strengths x prompts (x seeds) in as few batches as memory allows.

        Returns a sequence of cells that notebooks show as a heatmap and a table. vector: may be
        an expression. layers: as for `swept`. A strength of 0 is the baseline, which no layer
        changes, so it comes once for each prompt and seed, and first. Give coefficients or doses;
        at equal coefficient, layers differ in dose. options: as for `compare`. Nothing is stored:
        `steerlab.lab.sweeps.run_sweep` does.
        """
        plan = SweepPlan(
            vector,
            prompts,
            doses=doses,
            coefficients=coefficients,
            seeds=options.get("seeds", (0,)),
            positions=options.get("positions", "all"),
            sampling=Sampling.pop_from({**options}),
        )
        made = self.evaluate(vector) if isinstance(vector, str) else vector
        at = self.swept(made, layers)
        sweep = planned(plan, made, at, self.load(made).identity)
        label = sweep.expression
        settings = settings_of(at, doses=plan.doses, coefficients=plan.coefficients, label=label)
        cells = self.compare(plan.prompts, settings, **{**options, "seeds": plan.seeds})
        return replace(sweep, settings=tuple(settings)).with_cells(cells)
