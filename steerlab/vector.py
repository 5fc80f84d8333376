"""SteeringVector: a frozen map layer -> direction with an algebra that remembers itself."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlab.errors import BadExpression, BadVector, Incompatible, NotFound
from steerlab.recipe import Expression, Imported, ModelIdentity, Operand, Recipe

Array = NDArray[np.float64]
Scope = Literal["broadcast", "front"]
Layers = int | slice

_SMALLEST = float(np.finfo(np.float32).tiny)


class SteeringVector:
    """A frozen map layer -> direction, bound to one model; equal and hashed by digest.

    directions: layer -> (positions, d_model), float64 in memory, float32 once stored or
        injected; layer b is the input of block b. A 1-d array is taken as one position.
    scope: "broadcast" (one position, added everywhere) or "front" (row i at token i).
    recipe: how it came to be. Anything but an Expression is rounded to float32 at once, so
        that computing with a fresh vector and with its stored form gives the same bits.
    residual_norms: layer -> median norm of the residual stream there; the unit of doses.
    diagnostics: layer -> named measurements made at extraction.
    ref: the stored name, such as "love.v1"; None for a vector that is not stored.

    Raises BadVector for a shape or entry that can't be used, NotFound for a layer the model
    does not have.
    """

    __array_ufunc__ = None  # numpy scalars and arrays on the left defer to our operators

    directions: Mapping[int, Array]
    model: ModelIdentity
    recipe: Recipe
    scope: Scope
    residual_norms: Mapping[int, float]
    diagnostics: Mapping[int, Mapping[str, float]]
    ref: str | None

    def __init__(
        self,
        directions: Mapping[int, ArrayLike],
        *,
        model: ModelIdentity,
        recipe: Recipe | None = None,
        scope: Scope = "broadcast",
        residual_norms: Mapping[int, float] | None = None,
        diagnostics: Mapping[int, Mapping[str, float]] | None = None,
        ref: str | None = None,
    ) -> None:
        recipe = recipe if recipe is not None else Imported("Python")
        exact = isinstance(recipe, Expression)
        arrays = {
            _layer_of(b, model): _direction(directions[b], b, model.d_model, scope, exact)
            for b in sorted(directions)
        }
        if not arrays:
            raise BadVector("a steering vector needs a direction for at least one layer")
        norms = {b: r for b, r in (residual_norms or {}).items() if b in arrays}
        notes = {b: d for b, d in (diagnostics or {}).items() if b in arrays}
        for name, value in (
            ("directions", MappingProxyType(arrays)),
            ("model", model),
            ("recipe", recipe),
            ("scope", scope),
            ("residual_norms", MappingProxyType(norms)),
            ("diagnostics", MappingProxyType(notes)),
            ("ref", ref),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a SteeringVector is frozen: can't set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a SteeringVector is frozen: can't delete {name!r}")

    def __reduce__(self) -> tuple[Callable[..., SteeringVector], tuple[dict[str, Any]]]:
        state = {name: getattr(self, name) for name in ("model", "recipe", "scope", "ref")} | {
            "directions": dict(self.directions),
            "residual_norms": dict(self.residual_norms),
            "diagnostics": dict(self.diagnostics),
        }
        return _rebuilt, (state,)

    # what it is

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a direction, in order."""
        return tuple(self.directions)

    def norms(self) -> dict[int, float]:
        """Layer -> Frobenius norm of its direction, summed exactly."""
        return {b: _norm(direction) for b, direction in self.directions.items()}

    @cached_property
    def norm(self) -> float:
        """Frobenius norm over all layers, summed exactly."""
        return _norm(np.concatenate([d.ravel() for d in self.directions.values()]))

    @cached_property
    def digest(self) -> str:
        """Content address: sha256 of a canonical header and the float32 bytes, as hex."""
        arrays = self.float32()
        header = {
            "format": "steerlab.digest.1",
            "model": list(self.model.key),
            "scope": self.scope,
            "layers": list(arrays),
            "shapes": [list(a.shape) for a in arrays.values()],
        }
        sha = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
        for array in arrays.values():
            sha.update(array.tobytes())
        return sha.hexdigest()

    def float32(self) -> dict[int, NDArray[np.float32]]:
        """Layer -> contiguous little-endian float32 copy, -0.0 folded to 0.0.

        The one place where a vector is rounded; what is stored and injected.
        """
        arrays = {}
        for b, direction in self.directions.items():
            with np.errstate(over="ignore", under="ignore"):
                rounded = np.ascontiguousarray(direction, dtype="<f4") + np.float32(0.0)
            if not np.isfinite(rounded).all():
                raise BadVector(f"layer {b} holds values beyond float32: scale the vector down")
            arrays[b] = rounded
        return arrays

    def dose(self, coefficient: float) -> float | None:
        """‖coefficient * v‖ / median residual norm: the largest over layers (and front rows).

        None where the residual norm of no layer is known.
        """
        per_unit = [d for d in self.doses().values() if d is not None]
        return abs(coefficient) * max(per_unit) if per_unit else None

    def doses(self) -> dict[int, float | None]:
        """Layer -> dose of coefficient 1 there; None where no residual norm is known."""
        peak = {b: max(_norm(row) for row in rows) for b, rows in self.directions.items()}
        known = self.residual_norms
        return {b: peak[b] / known[b] if known.get(b) else None for b in peak}

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
        self._check_compatible(other)
        cosines = {}
        for b in self.directions:
            if b in other.directions:
                x, y = _padded(self.directions[b], other.directions[b])
                size = _norm(x) * _norm(y)
                cosines[b] = _dot(x, y) / size if size else 0.0
        return cosines

    # the algebra

    def __add__(self, other: object) -> SteeringVector:
        return _combine("+", self, other, lambda x, y: x + y)

    def __sub__(self, other: object) -> SteeringVector:
        return _combine("-", self, other, lambda x, y: x - y)

    def __neg__(self) -> SteeringVector:
        return self._map("-({})", lambda x: -x)

    def __pos__(self) -> SteeringVector:
        return self

    def __mul__(self, weight: object) -> SteeringVector:
        if (w := _weight(weight)) is None:
            return NotImplemented
        return self._map(f"({{}}) * {_number(w)}", lambda x: x * w)

    def __rmul__(self, weight: object) -> SteeringVector:
        if (w := _weight(weight)) is None:
            return NotImplemented
        return self._map(f"{_number(w)} * ({{}})", lambda x: w * x)

    def __truediv__(self, weight: object) -> SteeringVector:
        if (w := _weight(weight)) is None:
            return NotImplemented
        if w == 0:
            raise BadExpression("can't divide a vector by zero")
        return self._map(f"({{}}) / {_number(w)}", lambda x: x / w)

    def __getitem__(self, layers: Layers) -> SteeringVector:
        """Select layers: love[15], love[10:20]; each layer named has to be there."""
        picked = self._pick(layers)
        return self._map(
            f"({{}})[{_subscript(layers)}]", lambda x: x, {b: self.directions[b] for b in picked}
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __iter__(self) -> Iterator[int]:
        raise TypeError("a SteeringVector is no sequence: iterate over .layers or .directions")

    def __str__(self) -> str:
        return operand_of(self)[0]

    def __repr__(self) -> str:
        shown = span(self.layers)
        return (
            f"<SteeringVector {self}: {self.model.name}, layer{'s' * (len(self.layers) > 1)} "
            f"{shown}, {self.scope}, norm {self.norm:.4g}>"
        )

    def _pick(self, layers: Layers) -> list[int]:
        if isinstance(layers, slice):
            bounds = (layers.start, layers.stop, layers.step)
            if not all(x is None or (isinstance(x, int) and x >= 0) for x in bounds):
                raise NotFound("layers are counted from 0: use love[10:20]")
            first = self.layers[0] if layers.start is None else layers.start
            stop = self.layers[-1] + 1 if layers.stop is None else layers.stop
            wanted = list(range(first, stop, layers.step or 1))
        elif isinstance(layers, int) and not isinstance(layers, bool):
            wanted = [layers]
        else:
            raise TypeError(f"layers are selected by int or slice, not {layers!r}")
        missing = [b for b in wanted if b not in self.directions]
        if missing or not wanted:
            lacking = f"layer {missing[0]}" if missing else "an empty range of layers"
            raise NotFound(f"{self} has no direction at {lacking}: it has {span(self.layers)}")
        return wanted

    def _map(
        self,
        template: str,
        function: Callable[[Array], Array],
        directions: Mapping[int, Array] | None = None,
    ) -> SteeringVector:
        directions = self.directions if directions is None else directions
        with np.errstate(over="ignore"):
            return _derived(template, [self], {b: function(x) for b, x in directions.items()})

    def _check_compatible(self, other: SteeringVector) -> None:
        if self.model.key != other.model.key:
            mine, theirs = self.model, other.model
            why = "their weights differ" if mine.source == theirs.source else "another model"
            raise Incompatible(
                f"{self} belongs to {mine.source} and {other} to {theirs.source} ({why}): "
                "vectors of different models can't be combined"
            )
        if self.scope != other.scope:
            raise Incompatible(
                f"{self} is {self.scope} and {other} is {other.scope}: "
                "a vector added everywhere and one added to the first tokens can't be combined"
            )


def unit(vector: SteeringVector) -> SteeringVector:
    """Rescale each layer to norm 1 (front tensors: Frobenius norm)."""
    for b, norm in vector.norms().items():
        if norm < _SMALLEST:
            raise BadExpression(f"unit({vector}) is undefined: layer {b} is zero")
    return vector._map("unit({})", lambda x: x / _norm(x))


def project(a: SteeringVector, b: SteeringVector) -> SteeringVector:
    """The part of `a` along `b`, layer by layer; zero where `b` is zero or missing."""
    return _projected("project", a, b, lambda x, along: along)


def reject(a: SteeringVector, b: SteeringVector) -> SteeringVector:
    """What is left of `a` once its part along `b` is taken away."""
    return _projected("reject", a, b, lambda x, along: x - along)


def mean(*vectors: SteeringVector) -> SteeringVector:
    """The layerwise mean; a layer missing in one of them counts as zero there."""
    if not vectors:
        raise BadExpression("mean() needs at least one vector")
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    template = f"mean({', '.join(['{}'] * len(vectors))})"
    arrays = {b: x / len(vectors) for b, x in total.directions.items()}
    return _derived(template, list(vectors), arrays)


def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A random direction with the norm of `vector` at every layer: the control for claims.

    Each layer is N(0, I) rescaled to the vector's norm there; rows of a front tensor that
    are zero stay zero. Seeded by (seed, layer), so one layer never depends on the others.
    """
    arrays = {}
    for b, direction in vector.directions.items():
        noise = np.random.default_rng([seed, b]).standard_normal(direction.shape)
        noise[~direction.any(axis=1)] = 0.0
        size = _norm(noise)
        arrays[b] = noise * (_norm(direction) / size) if size else noise
    return SteeringVector(
        arrays,
        model=vector.model,
        scope=vector.scope,
        recipe=Imported(f"random_like({vector}, seed={seed})", "random"),
        residual_norms=vector.residual_norms,
    )


def operand_of(vector: SteeringVector) -> tuple[str, dict[str, str]]:
    """How an expression names this vector: its text, and ref -> digest of all it names.

    A stored vector is its ref; an unstored expression is its own text; anything else gets a
    placeholder made from its digest, which the store replaces once that vector is saved.
    """
    if vector.ref is not None:
        return vector.ref, {vector.ref: vector.digest}
    if isinstance(vector.recipe, Expression):
        return vector.recipe.text, {o.ref: o.digest for o in vector.recipe.operands}
    placeholder = placeholder_of(vector.digest)
    return placeholder, {placeholder: vector.digest}


def placeholder_of(digest: str) -> str:
    """The name that stands for an unstored operand in an expression's text."""
    return f"unsaved_{digest[:12]}"


def _derived(
    template: str, parents: list[SteeringVector], directions: Mapping[int, Array]
) -> SteeringVector:
    texts: list[str] = []
    operands: dict[str, str] = {}
    norms: dict[int, float] = {}
    for parent in parents:
        text, named = operand_of(parent)
        if any(operands.get(ref, digest) != digest for ref, digest in named.items()):
            text, named = _disambiguated(text, named, operands)
        texts.append(text)
        operands.update(named)
        norms = {**parent.residual_norms, **norms}
    return SteeringVector(
        directions,
        model=parents[0].model,
        scope=parents[0].scope,
        recipe=Expression(
            canonical(template.format(*texts)),
            tuple(Operand(ref, digest) for ref, digest in operands.items()),
        ),
        residual_norms=norms,
    )


def _disambiguated(
    text: str, named: dict[str, str], taken: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Rename refs that already mean another vector (two stores may both have love.v1)."""
    renamed = {
        ref: placeholder_of(digest) if taken.get(ref, digest) != digest else ref
        for ref, digest in named.items()
    }
    return replace_refs(text, renamed), {renamed[ref]: d for ref, d in named.items()}


def replace_refs(text: str, renamed: Mapping[str, str]) -> str:
    """The expression with each operand's ref replaced, as a canonical text."""

    class Rename(ast.NodeTransformer):
        def _renamed(self, node: ast.expr) -> ast.expr:
            ref = ast.unparse(node)
            return ast.parse(renamed.get(ref, ref), mode="eval").body

        def visit_Name(self, node: ast.Name) -> ast.expr:
            return self._renamed(node)

        def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
            return self._renamed(node)

        def visit_Call(self, node: ast.Call) -> ast.expr:
            node.args = [self.visit(argument) for argument in node.args]
            return node

    return ast.unparse(Rename().visit(ast.parse(text, mode="eval")))


def canonical(text: str) -> str:
    """The one spelling of an expression: parentheses and spaces as Python's unparser writes."""
    try:
        return ast.unparse(ast.parse(text, mode="eval"))
    except (RecursionError, MemoryError, SyntaxError):
        raise BadExpression(
            "the expression is nested too deeply: save a part of it under a name first, "
            "or add many vectors with mean(...)"
        ) from None


def _combine(
    sign: str, a: SteeringVector, b: object, function: Callable[[Array, Array], Array]
) -> SteeringVector:
    if not isinstance(b, SteeringVector):
        return NotImplemented
    a._check_compatible(b)
    directions = {}
    for layer in sorted({*a.directions, *b.directions}):
        x, y = a.directions.get(layer), b.directions.get(layer)
        x, y = _padded(
            x if x is not None else np.zeros((1, a.model.d_model)),
            y if y is not None else np.zeros((1, a.model.d_model)),
        )
        with np.errstate(over="ignore", invalid="ignore"):
            directions[layer] = function(x, y)
    return _derived(f"({{}}) {sign} ({{}})", [a, b], directions)


def _projected(
    name: str, a: SteeringVector, b: SteeringVector, keep: Callable[[Array, Array], Array]
) -> SteeringVector:
    a._check_compatible(b)
    if not set(a.directions) & set(b.directions):
        raise Incompatible(
            f"{name}({a}, {b}): they share no layer ({span(a.layers)} and {span(b.layers)})"
        )
    directions = {}
    for layer, x in a.directions.items():
        x, y = _padded(x, b.directions.get(layer, np.zeros((1, a.model.d_model))))
        size = _dot(y, y)
        directions[layer] = keep(x, y * (_dot(x, y) / size) if size else np.zeros_like(x))
    return _derived(f"{name}({{}}, {{}})", [a, b], directions)


def _layer_of(layer: int, model: ModelIdentity) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise BadVector(f"a layer is an integer, not {layer!r}")
    if not 0 <= layer < model.n_layers:
        raise NotFound(
            f"{model.source} has no layer {layer}: its layers are 0 to {model.n_layers - 1}"
        )
    return int(layer)


def _direction(value: ArrayLike, layer: int, d_model: int, scope: str, exact: bool) -> Array:
    source = np.asarray(value)
    if source.dtype.kind not in "fiu":
        raise BadVector(f"layer {layer} holds {source.dtype} values, not real numbers")
    if not np.isfinite(source).all():
        raise BadVector(f"layer {layer} holds NaN or infinity")
    with np.errstate(over="ignore", under="ignore"):
        array = source.astype(np.float64) if exact else source.astype("<f4").astype(np.float64)
    array = np.atleast_2d(array)
    if array.ndim != 2 or array.shape[1] != d_model or not len(array):
        raise BadVector(f"layer {layer} has shape {source.shape}: expected (positions, {d_model})")
    if scope == "broadcast" and len(array) != 1:
        raise BadVector(f"layer {layer} has {len(array)} positions: a broadcast vector has one")
    if scope not in ("broadcast", "front"):
        raise BadVector(f"scope {scope!r} is neither broadcast nor front")
    if not np.isfinite(array).all():
        raise BadVector(f"layer {layer} holds values beyond float32: scale the vector down")
    array = np.ascontiguousarray(array) + 0.0
    array.flags.writeable = False
    return array


def _padded(x: Array, y: Array) -> tuple[Array, Array]:
    """Both with as many rows as the longer one; zero rows are added at the end."""
    rows = max(len(x), len(y))
    grown = [np.pad(a, ((0, rows - len(a)), (0, 0))) if len(a) < rows else a for a in (x, y)]
    return grown[0], grown[1]


def _dot(x: Array, y: Array) -> float:
    return math.fsum((x * y).ravel().tolist())


def _norm(x: Array) -> float:
    return math.sqrt(_dot(x, x))


def _weight(weight: object) -> float | None:
    if isinstance(weight, bool | np.bool_) or not isinstance(weight, Real):
        return None
    try:
        value = float(weight)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise BadExpression(f"a weight has to be a finite number, not {value}")
    return value


def _number(value: float) -> str:
    text = repr(int(value) if value.is_integer() and abs(value) < 2**53 else value)
    return f"({text})" if math.copysign(1.0, value) < 0 else text


def _subscript(layers: Layers) -> str:
    if isinstance(layers, slice):
        bounds = [layers.start, layers.stop, layers.step]
        text = ":".join("" if x is None else str(x) for x in bounds)
        return text.removesuffix(":")
    return str(layers)


def span(layers: tuple[int, ...]) -> str:
    """Layers in few characters: "15", "10-14", "5, 10-12"."""
    runs: list[list[int]] = []
    for b in layers:
        if runs and b == runs[-1][-1] + 1:
            runs[-1].append(b)
        else:
            runs.append([b])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def is_raw_mean(vector: SteeringVector) -> bool:
    """Whether a vector is known to be a raw mean activation rather than a difference."""
    return isinstance(vector.recipe, Imported) and vector.recipe.quantity == "mean"


def _rebuilt(state: dict[str, Any]) -> SteeringVector:
    return SteeringVector(**state)
