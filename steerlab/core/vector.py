"""SteeringVector: a frozen map layer -> direction, with an algebra that records recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlab.core import above
from steerlab.core.arguments import checks_names
from steerlab.core.derivation import expression_of, operand_of
from steerlab.core.direction import (
    SMALLEST,
    Array,
    Scope,
    digest_of,
    direction,
    dot,
    layer_of,
    measured,
    norm_of,
    padded,
    to_float32,
    total_norm,
)
from steerlab.core.notation import (
    Layers,
    is_ref,
    layers_text,
    number,
    span,
    subscript,
    weight_of,
    whole,
)
from steerlab.core.recipe import Expression, Imported, ModelIdentity, Recipe, Verdict
from steerlab.errors import BadExpression, BadVector, Incompatible, NotFound

_VALUES = ("model", "recipe", "scope", "ref", "called", "works_at")  # that are no mappings


class SteeringVector(above.Drawn):
    """A frozen map layer -> direction, bound to one model; equal and hashed by digest.

    directions: layer -> (positions, d_model), float64 in memory, float32 once stored or
        injected; layer b is the input of block b. A 1-d array is taken as one position.
    model: its identity, or a LanguageModel or transformers model, whose identity is read.
    scope: "broadcast" (one position, added everywhere) or "front" (row i at token i).
    recipe: how it came to be. All but unstored Expressions are rounded to float32 at once, so
        that a new vector and its stored form compute the same bits.
    residual_norms: layer -> median norm of the residual stream there; the unit of doses.
    diagnostics: layer -> named measurements made at extraction.
    ref: the stored name, such as "love.v1"; None for a vector that is not stored.
    called: what to show for one that has no name, such as "love.v1 at layer 21".
    works_at: the layer where its calibration found it to work, if that is none of its own.

    Raises BadVector for a shape, entry, norm or ref that can't be used, NotFound for a layer
    the model does not have.
    """

    __array_ufunc__ = None  # numpy scalars and arrays on the left defer to our operators

    directions: Mapping[int, Array]
    model: ModelIdentity
    recipe: Recipe
    scope: Scope
    residual_norms: Mapping[int, float]
    diagnostics: Mapping[int, Mapping[str, float]]
    ref: str | None
    called: str
    works_at: int | None

    @checks_names()
    def __init__(
        self,
        directions: Mapping[int, ArrayLike],
        *,
        model: ModelIdentity | Any,
        recipe: Recipe | None = None,
        scope: Scope = "broadcast",
        residual_norms: Mapping[int, float] | None = None,
        diagnostics: Mapping[int, Mapping[str, float]] | None = None,
        ref: str | None = None,
        called: str = "",
        works_at: int | None = None,
    ) -> None:
        if not isinstance(model, ModelIdentity):
            model = above.identity(model)
        recipe = recipe if recipe is not None else Imported("Python")
        exact = isinstance(recipe, Expression) and ref is None
        arrays = {
            b: direction(directions[b], b, model.d_model, scope, exact)
            for b in sorted(layer_of(b, model) for b in directions)
        }
        if not arrays:
            raise BadVector("a steering vector needs a direction for at least one layer")
        if ref is not None and not is_ref(ref):
            raise BadVector(f"{ref!r} is no reference: write name, name.v2 or model.name.v2")
        norms = {
            int(b): measured(r, "residual norm", b)
            for b, r in (residual_norms or {}).items()
            if b in arrays
        }
        notes = {
            int(b): MappingProxyType({k: measured(x, k, b) for k, x in facts.items()})
            for b, facts in (diagnostics or {}).items()
            if b in arrays
        }
        for name, value in (
            ("directions", MappingProxyType(arrays)),
            ("model", model),
            ("recipe", recipe),
            ("scope", scope),
            ("residual_norms", MappingProxyType(norms)),
            ("diagnostics", MappingProxyType(notes)),
            ("ref", ref),
            ("called", called),
            ("works_at", works_at),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a SteeringVector is frozen: can't set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a SteeringVector is frozen: can't delete {name!r}")

    def noted(self, **notes: Any) -> SteeringVector:
        """The same vector with another `called` or `works_at`."""
        return self.__reduce__()[0](**notes)

    def __reduce__(self) -> tuple[Callable[..., SteeringVector], tuple[()]]:
        state = {name: getattr(self, name) for name in _VALUES} | {
            "directions": dict(self.directions),
            "residual_norms": dict(self.residual_norms),
            "diagnostics": {b: dict(d) for b, d in self.diagnostics.items()},
        }
        return partial(SteeringVector, **state), ()

    # what it is

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a direction, in order."""
        return tuple(self.directions)

    def norms(self) -> dict[int, float]:
        """Layer -> Frobenius norm of its direction, summed exactly."""
        return dict(self._norms)

    @cached_property
    def _norms(self) -> dict[int, float]:
        return {b: norm_of(direction) for b, direction in self.directions.items()}

    @cached_property
    def norm(self) -> float:
        """Frobenius norm over all layers, summed exactly."""
        first, *others = self._norms.values()
        return total_norm(self.directions.values()) if others else first

    @cached_property
    def digest(self) -> str:
        """Content address: sha256 of a canonical header and the float32 bytes, as hex."""
        return digest_of(self.directions, self.model, self.scope)

    def float32(self) -> dict[int, NDArray[np.float32]]:
        """Layer -> contiguous little-endian float32 copy, -0.0 folded to 0.0.

        This is what is stored and injected.
        """
        return {b: to_float32(array, b) for b, array in self.directions.items()}

    def reaches(self) -> dict[int, float]:
        """Layer -> norm of the sum of its direction and those of the layers before it.

        What one layer adds stays in the stream and meets what the next one adds.
        """
        return dict(self._reaches)

    @cached_property
    def _reaches(self) -> dict[int, float]:
        if len(self.directions) == 1:
            return self._norms
        sums = accumulate(self.directions.values(), lambda x, y: np.add(*padded(x, y)))
        return {b: norm_of(x) for b, x in zip(self.directions, sums, strict=True)}

    def dose(self, coefficient: float) -> float | None:
        """‖coefficient * (sum of v up to a layer)‖ / median residual norm there: the largest.

        For one layer ‖coefficient * v‖ / median residual norm. None where the residual norm of
        no layer is known.
        """
        per_unit = [d for d in self.doses().values() if d is not None]
        return abs(coefficient) * max(per_unit) if per_unit else None

    def doses(self) -> dict[int, float | None]:
        """Layer -> dose of coefficient 1 there, with what the layers before it added.

        None where no residual norm is known.
        """
        known = self.residual_norms
        return {b: n / known[b] if known.get(b) else None for b, n in self._reaches.items()}

    def coefficient(self, dose: float) -> float:
        """The coefficient at which this vector has `dose` (its sign is kept)."""
        per_unit = self.dose(1.0)
        if per_unit is None:
            raise Incompatible(
                "no residual norm is known for this vector, so a dose has no coefficient: "
                "give a coefficient instead"
            )
        if per_unit == 0:
            raise Incompatible("the vector is zero: no coefficient gives it a dose")
        return dose / per_unit

    def cosines(self, other: SteeringVector) -> dict[int, float]:
        """Layer -> cosine to `other`, for the layers they share; 0 where either is zero."""
        self.check_compatible(other)
        cosines = {}
        for b in self.directions:
            if b in other.directions:
                x, y = padded(self.directions[b], other.directions[b])
                sizes = norm_of(x), norm_of(y)
                known = min(sizes) >= SMALLEST
                cosines[b] = dot(x, y) / (sizes[0] * sizes[1]) if known else 0.0
        return cosines

    # the algebra

    def __add__(self, other: object) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return _combine("({}) + ({})", self, other, lambda x, y: x + y)

    def __sub__(self, other: object) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return _combine("({}) - ({})", self, other, lambda x, y: x - y)

    def __neg__(self) -> SteeringVector:
        return self._map("-({})", lambda x: -x)

    def __pos__(self) -> SteeringVector:
        return self

    def __mul__(self, weight: object) -> SteeringVector:
        if (w := weight_of(weight)) is None:
            return NotImplemented
        return self._map(f"({{}}) * {number(w)}", lambda x: x * w)

    def __rmul__(self, weight: object) -> SteeringVector:
        if (w := weight_of(weight)) is None:
            return NotImplemented
        return self._map(f"{number(w)} * ({{}})", lambda x: w * x)

    def __truediv__(self, weight: object) -> SteeringVector:
        if (w := weight_of(weight)) is None:
            return NotImplemented
        if w == 0:
            raise BadExpression("can't divide a vector by zero")
        return self._map(f"({{}}) / {number(w)}", lambda x: x / w)

    def __getitem__(self, layers: Layers) -> SteeringVector:
        """Select layers: love[15], love[10:20]; raises NotFound for a missing layer."""
        layers = whole(layers)
        picked = {b: self.directions[b] for b in self._pick(layers)}
        return derived(f"({{}})[{subscript(layers)}]", [self], picked)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __iter__(self) -> Iterator[int]:
        raise TypeError("a SteeringVector is no sequence: iterate over .layers or .directions")

    def __str__(self) -> str:
        return self.called or operand_of(self)[0]

    def __repr__(self) -> str:
        shown = f"{self.model.name}, {layers_text(self.layers)}, {self.scope}"
        return f"<SteeringVector {self}: {shown}, norm {self.norm:.4g}>"

    def _pick(self, layers: Layers) -> range:
        if isinstance(layers, slice):
            bounds = (layers.start, layers.stop, layers.step)
            if any(x is not None and x < 0 for x in bounds) or layers.step == 0:
                raise NotFound("layers are counted from 0, upwards: use love[10:20]")
            first = self.layers[0] if layers.start is None else layers.start
            stop = self.layers[-1] + 1 if layers.stop is None else layers.stop
            wanted = range(first, stop, layers.step or 1)
        else:
            wanted = range(layers, layers + 1)
        missing = next((b for b in wanted if b not in self.directions), None)
        if missing is not None or not wanted:
            lacking = "an empty range of layers" if missing is None else f"layer {missing}"
            raise NotFound(f"{self} has no direction at {lacking}: it has {span(self.layers)}")
        return wanted

    def _map(self, template: str, function: Callable[[Array], Array]) -> SteeringVector:
        with np.errstate(over="ignore"):
            arrays = {b: function(x) for b, x in self.directions.items()}
        return derived(template, [self], arrays)

    def check_compatible(self, other: SteeringVector) -> None:
        """Raise Incompatible for a vector of another model or scope."""
        mine, theirs = self.model, other.model
        if not mine.has_weights_of(theirs):
            why = _difference(mine, theirs)
            raise Incompatible(
                f"{self} belongs to {mine.source} and {other} to {theirs.source} ({why}): "
                "vectors of different models can't be combined"
            )
        if self.scope != other.scope:
            raise Incompatible(
                f"{self} is {self.scope} and {other} is {other.scope}: "
                "a vector added everywhere and one added to the first tokens can't be combined"
            )


def _difference(mine: ModelIdentity, theirs: ModelIdentity) -> str:
    if mine.verdict(theirs) is Verdict.OTHER_QUANTIZATION:
        return f"one in {mine.dtype}, one in {theirs.dtype}"
    return "their weights differ" if mine.source == theirs.source else "another model"


def derived(
    template: str, parents: Sequence[SteeringVector], directions: Mapping[int, Array]
) -> SteeringVector:
    """A vector made from others; template: its expression, with braces for the parents."""
    norms: dict[int, float] = {}
    for parent in parents:
        norms = {**parent.residual_norms, **norms}
    return SteeringVector(
        directions,
        model=best_known(parents).model,
        scope=parents[0].scope,
        recipe=expression_of(template, parents),
        residual_norms=norms,
    )


def best_known(parents: Sequence[SteeringVector]) -> SteeringVector:
    """The first parent whose model has a fingerprint, else the first."""
    known = (parent for parent in parents if parent.model.fingerprint is not None)
    return next(known, parents[0])


def _combine(
    template: str,
    a: SteeringVector,
    b: SteeringVector,
    function: Callable[[Array, Array], Array],
) -> SteeringVector:
    a.check_compatible(b)
    return derived(template, [a, b], layerwise(function, a.directions, b.directions))


def layerwise(
    function: Callable[[Array, Array], Array], a: Mapping[int, Array], b: Mapping[int, Array]
) -> dict[int, Array]:
    """`function` at every layer that either has; a missing layer counts as zero."""
    zero = np.zeros((1, next(iter(a.values())).shape[1]))
    return {
        layer: function(*padded(a.get(layer, zero), b.get(layer, zero)))
        for layer in sorted({*a, *b})
    }
