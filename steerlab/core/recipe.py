"""Recipes and model identities: plain values and their JSON."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from steerlab.core.contrast import Contrast as Contrast
from steerlab.errors import CorruptPayload, NameTaken

T = TypeVar("T")

FUNCTIONS = ("unit", "project", "reject", "mean")
"""The functions of the expression language; no vector can be called like one."""

_RESERVED = r"v\d+|unsaved_[0-9a-f]{12,64}"


class Verdict(Enum):
    """How well a vector of one model fits another."""

    SAME = "same"
    OTHER_PRECISION = "same weights, other precision"
    OTHER_QUANTIZATION = "same model, quantized otherwise"
    OTHER_WEIGHTS = "same shape, other weights"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model a vector belongs to.

    fingerprint: of the weights, the same in every floating-point precision; None if unknown.
        Digests of the blocks' matrices, of embeddings and head, and of norms and biases, with
        dots between; vectors of earlier versions have the first alone.
    dtype: of the weights: "float32"; "int8", "nf4" and others where they are quantized.
    tokenizer, chat_template: digests of what turned text into tokens.
    """

    source: str
    architecture: str
    n_layers: int
    d_model: int
    fingerprint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None

    @property
    def key(self) -> tuple[str, int, int, str]:
        """The identity of the blocks' weights; part of every digest.

        Weights without a fingerprint are identified by source and revision.
        """
        weights = self._digests[0] or f"{self.source}@{self.revision or ''}"
        return (self.architecture, int(self.n_layers), int(self.d_model), weights)

    @property
    def name(self) -> str:
        """A Python identifier made from the source: "Qwen/Qwen2.5-7B" gives "qwen2_5_7b"."""
        return _identifier(self.source)

    def verdict(self, other: ModelIdentity) -> Verdict:
        """How a vector of this model may be used on `other`."""
        if self.key[:3] != other.key[:3]:
            return Verdict.INCOMPATIBLE
        same_origin = (self.source, self.revision) == (other.source, other.revision)
        same_dtype = None in (self.dtype, other.dtype) or self.dtype == other.dtype
        if not same_dtype and (self.is_quantized or other.is_quantized):
            return Verdict.OTHER_QUANTIZATION if same_origin else Verdict.OTHER_WEIGHTS
        if self.fingerprint is None or other.fingerprint is None:
            same = same_origin
        else:
            same = self._has_fingerprint_of(other)
        if not same:
            return Verdict.OTHER_WEIGHTS
        return Verdict.SAME if same_dtype else Verdict.OTHER_PRECISION

    def has_weights_of(self, other: ModelIdentity) -> bool:
        """Whether both have the same weights, in whatever floating-point precision."""
        return self.verdict(other) in (Verdict.SAME, Verdict.OTHER_PRECISION)

    @property
    def is_quantized(self) -> bool:
        """Whether its weights are in fewer than 16 bits, as far as is known."""
        return self.dtype not in (None, "float64", "float32", "bfloat16", "float16")

    @property
    def _digests(self) -> list[str]:
        """The parts of the fingerprint: one empty text if it is unknown."""
        return (self.fingerprint or "").split(".")

    def _has_fingerprint_of(self, other: ModelIdentity) -> bool:
        """Whether all parts that both fingerprints have are equal.

        Norms of float32 that were rounded to float16 tell nothing: they round to bfloat16
        another way.
        """
        mine, theirs = self._digests, other._digests
        shared = min(len(mine), len(theirs))
        if shared == 3 and self.dtype != other.dtype and "float16" in (self.dtype, other.dtype):
            shared = 2
        return mine[:shared] == theirs[:shared]


@lru_cache(maxsize=64)
def _identifier(source: str) -> str:
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    text = re.sub(r"\W+", "_", last.lower(), flags=re.ASCII).strip("_")[:70] or "model"
    return text if is_name(text) else f"model_{text}"


@dataclass(frozen=True)
class Operand:
    """An operand of an expression: its name in the text, and its digest."""

    ref: str
    digest: str


@dataclass(frozen=True)
class Expression:
    """Computed from other vectors; `text` is canonical, as `ast.unparse` writes it."""

    text: str
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return f"= {self.text}"


@dataclass(frozen=True)
class Imported:
    """Imported from elsewhere.

    quantity: "difference" of activations, raw "mean" activation, or "unknown".
    facts: what the file says beside its numbers, as "key=value". asserted: what it does not say
        and the person who imported it did, in the same form: "layer_from=output".
    """

    source: str
    format: str = "array"
    quantity: str = "unknown"
    facts: tuple[str, ...] = ()
    asserted: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = {"the file says": self.facts, "asserted": self.asserted}
        notes = "".join(f"; {what}: {', '.join(said)}" for what, said in told.items() if said)
        return f"imported from {self.source} ({self.format}){notes}"


Recipe = Contrast | Expression | Imported
_KINDS: dict[str, type[Recipe]] = {
    "contrast": Contrast,
    "expression": Expression,
    "imported": Imported,
}


def kind_of(recipe: Recipe) -> str:
    """The kind of a recipe: contrast, expression or imported."""
    return type(recipe).__name__.lower()


def is_name(text: str) -> bool:
    """Whether `text` can name a vector: an identifier, not a keyword, function or version."""
    return (
        text.isidentifier()
        and text.isascii()
        and len(text) <= 80
        and not keyword.iskeyword(text)
        and text not in FUNCTIONS
        and not text.startswith("_")
        and not re.fullmatch(_RESERVED, text)
    )


def check_name(text: str) -> str:
    """Return `text` if it can name a vector; otherwise raise NameTaken with the reason."""
    if is_name(text):
        return text
    if text in FUNCTIONS:
        why = "it is a function of the expression language"
    elif keyword.iskeyword(text):
        why = "it is a Python keyword"
    elif re.fullmatch(_RESERVED, text):
        why = "v1, v2, … are versions, and unsaved_… stands for a vector that is not stored"
    else:
        why = "names are Python identifiers: letters, digits and _, such as calm_2, 80 at most"
    raise NameTaken(f"can't name a vector {text[:90]!r}: {why}")


@dataclass(frozen=True)
class LayerFacts:
    """The norm of one direction, the residual norm of its layer, and diagnostics.

    residual_norm: median over positions >= 1; None if it was never measured.
    diagnostics: agreement, pairwise_cosine, separability; see `steerlab.extraction.methods`.
    reach: norm of the sum of the directions up to this one; None for a vector of one layer, and
        for vectors of several that were stored before doses counted it.
    """

    layer: int
    positions: int
    norm: float
    residual_norm: float | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    reach: float | None = None

    @property
    def dose(self) -> float | None:
        """Dose of coefficient 1, by `reach` if it is known; None without a residual norm."""
        size = self.norm if self.reach is None else self.reach
        return size / self.residual_norm if self.residual_norm else None

    def to_json(self) -> dict[str, Any]:
        """JSON values; `reach` only if it is known, so that earlier stories keep their digests."""
        data = vars(self) | {"diagnostics": dict(self.diagnostics)}
        return {k: v for k, v in data.items() if k != "reach" or v is not None}


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, with its kind."""
    plain = {"kind": kind_of(recipe), **vars(recipe)}
    if isinstance(recipe, Expression):
        plain["operands"] = [dict(vars(operand)) for operand in recipe.operands]
    for later in ("prompt_ids", "facts", "asserted", "systems", "answers", "spans", "prompt_set"):
        if not plain.get(later, True):
            del plain[later]  # stories of earlier versions are digests of JSON without it
    if (named := plain.get("prompt_set")) is not None:
        plain["prompt_set"] = dict(vars(named))
    return plain


def recipe_from_json(data: Any) -> Recipe:
    """Inverse of `recipe_to_json`; raises CorruptPayload for invalid data."""
    fields = mapping(data, "recipe")
    cls = _KINDS.get(str(fields.pop("kind", None)))
    if cls is None:
        raise CorruptPayload("the recipe is of a kind that steerlab does not know")
    return build(cls, fields, "recipe")


def mapping(data: Any, what: str) -> dict[str, Any]:
    """A copy of a JSON object, or CorruptPayload."""
    if not isinstance(data, dict):
        raise CorruptPayload(f"the {what} is not a JSON object")
    return dict(data)


def build(cls: type[T], fields: Mapping[str, Any], what: str, *, nan: bool = False) -> T:
    """Make a dataclass of JSON values, checking each against the field's declared type.

    nan: None stands for a float that is NaN, which JSON lacks. Raises CorruptPayload.
    """
    hints = field_types(cls)  # type: ignore[arg-type]  # a class is hashable, mypy doubts it
    unknown = set(fields) - set(hints)
    if unknown:
        raise CorruptPayload(f"the {what} has an unknown field {sorted(unknown)[0]!r}")
    try:
        return cls(**{key: _coerce(value, hints[key], nan) for key, value in fields.items()})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptPayload(f"the {what} can't be read: {error}") from None


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Field -> type of a dataclass; resolving them costs more than reading what they describe."""
    return get_type_hints(cls)


@cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Origin and arguments of an annotation, which cost as much as the values they describe."""
    return get_origin(hint), get_args(hint)


def _coerce(value: Any, hint: Any, nan: bool) -> Any:
    origin, options = _parts(hint)
    if value is None and type(None) in options:
        return None
    if value is None and hint is float and nan:
        return math.nan
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(number := float(value) + 0.0):  # SQLite keeps no negative zero
            return number
    elif type(value) is hint:
        return value
    elif origin is UnionType:
        for option in options:
            try:
                return _coerce(value, option, nan)
            except TypeError:
                continue
    elif origin is Literal and value in options:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(item, options[0], nan) for item in value)
    elif origin is Mapping and isinstance(value, dict):
        return {str(k): _coerce(v, options[1], nan) for k, v in value.items()}
    elif is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return build(hint, value, hint.__name__.lower(), nan=nan)
    raise TypeError(f"{value!r:.60} is not {hint}")
