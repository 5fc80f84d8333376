"""Running a `Contrast` recipe on a model."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from steerlab.core.prompts import TURN_READS, Prompt, PromptSet, Read, Span
from steerlab.core.recipe import Contrast, ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts, ModelError, SteeringError
from steerlab.extraction import methods, streamed
from steerlab.extraction.readings import Array, Reader, Readings
from steerlab.extraction.spool import WINDOW, Spool, spooled
from steerlab.progress import ShouldStop, Watch

LARGE = 10 * WINDOW
"""More prompts than these are read window by window."""


def extract(
    lm: Reader,
    recipe: Contrast,
    layers: Sequence[int],
    *,
    skip_undecided: bool = False,
    scratch: Path | None = None,
    **watch: Unpack[Watch],
) -> SteeringVector:
    """Make the vector of a checked recipe (`methods.check_recipe`); see `LanguageModel.extract`.

    scratch: where the activations of a large set are kept while it is read; None keeps all in
        memory.
    """
    if recipe.method == "actadd":
        return _front(lm, recipe, layers, watch.get("should_stop"))
    if scratch is not None and len(recipe.prompts) > LARGE:
        return _windowed(lm, recipe, layers, skip_undecided, scratch, **watch)
    return _broadcast(lm, recipe, layers, skip_undecided, **watch)


def _windowed(
    lm: Reader,
    recipe: Contrast,
    layers: Sequence[int],
    skip_undecided: bool,
    scratch: Path,
    **watch: Unpack[Watch],
) -> SteeringVector:
    """Extract in constant memory; goes on where the same extraction was stopped."""
    sizes = recipe.sizes
    held, keep = recipe.prompt_ids, recipe.prompt_set is None
    parts: list[Contrast] = []
    model = lm.identity
    directory = scratch / _key(model, recipe, layers)
    with spooled(directory, sizes, layers, model.d_model) as spool:
        if keep and not held and spool.done:  # ids of what was read before
            for window, digest in enumerate([*spool.digests]):
                parts.append(located(lm, _part(recipe, window)))
                if _digest_of_ids(parts[-1]) != digest:  # a template may hold the date
                    parts.pop()
                    spool.keep(window)
                    break
        for window in spool.windows:  # a prompt that can't be read is told before hours of reading
            located(lm, _part(recipe, window))
        for window in spool.windows:
            part = located(lm, _part(recipe, window))
            parts += [part] if keep else []
            found = read(lm, part, layers, **_shifted(watch, spool.done, sum(sizes)))
            spool.add(found, _digest_of_ids(part))
        made = replace(recipe, prompt_set=_checked(recipe, spool)).without_prompts()
        if keep and not held:
            made = _with_ids_of(recipe, parts)
        directions = _directions(lambda b: streamed.direction(recipe, spool, b), layers,
                                 skip_undecided)  # fmt: skip
        norms = {b: norm for b in directions if (norm := spool.median_norm(b)) is not None}
        lengths = {b: float(np.linalg.norm(d)) for b, d in directions.items()}
        if recipe.method in ("pca", "probe"):
            lengths = {b: streamed.largest_difference(spool, b) for b in directions}
        methods.check_not_zero(lengths, norms)
        figures = {b: streamed.diagnose(recipe, spool, b) for b in directions if sizes[1]}
        return SteeringVector(
            directions, model=model, recipe=made, residual_norms=norms, diagnostics=figures
        )


def _part(recipe: Contrast, window: int) -> Contrast:
    return recipe.part(window * WINDOW, (window + 1) * WINDOW)


def _shifted(watch: Watch, done: int, total: int) -> Watch:
    """The watch of one window: progress counts the prompts of all."""
    progress = watch.get("progress")
    if progress is None:
        return watch
    progress(done, total)
    return {**watch, "progress": lambda n, _: progress(done + n, total)}


def _key(model: ModelIdentity, recipe: Contrast, layers: Sequence[int]) -> str:
    """A name for the work: equal for what would read the same activations."""
    named = recipe.prompt_set and replace(recipe.prompt_set, ids_digest="")
    bare = replace(recipe.without_prompts(), method="", seed=None, prompt_set=named)
    facts = [model.source, *map(str, model.key), model.dtype, model.tokenizer, model.chat_template]
    return _digest([repr(bare), facts, list(layers), WINDOW])[:32]


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _digest_of_ids(part: Contrast) -> str:
    """sha256 of the token ids that were read, and where."""
    digest = hashlib.sha256()
    for numbers in (*part.prompt_ids, *part.spans):
        digest.update(array("q", [len(numbers), *numbers]).tobytes())
    return digest.hexdigest()


def _checked(recipe: Contrast, spool: Spool) -> PromptSet | None:
    """The prompt set with the digest of its token ids; raises BadPrompts if it had others."""
    named = recipe.prompt_set
    if named is None:
        return None
    ids = _digest(spool.digests)
    if named.ids_digest not in ("", ids):
        raise BadPrompts(
            f"the prompts of {named.path} have other tokens than when the vector was made: the "
            "tokenizer or its chat template has changed"
        )
    return replace(named, ids_digest=ids)


def _with_ids_of(recipe: Contrast, parts: Sequence[Contrast]) -> Contrast:
    """The recipe with the ids and spans of its parts, in the order of its prompts."""

    def joined(name: str) -> tuple[tuple[int, ...], ...]:
        sides: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for part in parts:
            values, start = getattr(part, name), 0
            for side, size in zip(sides, part.sizes, strict=True):
                side += values[start : start + size]
                start += size
        return tuple(value for side in sides for value in side)

    ids, spans = joined("prompt_ids"), joined("spans")
    return replace(recipe.without_ids(), prompt_ids=ids, spans=spans)


def read_pairs(
    lm: Reader, recipe: Contrast, layers: Sequence[int], **watch: Unpack[Watch]
) -> dict[int, tuple[Array, Array]]:
    """Activations of a recipe's pairs: layer -> positive and negative, (n_pairs, d_model) each.

    For recipes that read one activation a prompt, so not for actadd.
    """
    with lm.lock:
        found = read(lm, recipe, layers, **watch)
    sides = {b: split(recipe, values) for b, values in found.values.items()}
    return {b: (positive, negative) for b, (positive, negative, _) in sides.items()}


def _broadcast(
    lm: Reader,
    recipe: Contrast,
    layers: Sequence[int],
    skip_undecided: bool,
    **watch: Unpack[Watch],
) -> SteeringVector:
    made = located(lm, recipe)
    found = read(lm, made, layers, **watch)
    sides = {b: split(recipe, values) for b, values in found.values.items()}
    directions = _directions(lambda b: direction(recipe, *sides[b], b), sides, skip_undecided)
    diagnose = methods.diagnose if recipe.is_paired else methods.diagnose_sets
    norms = {b: found.residual_norms[b] for b in directions if b in found.residual_norms}
    methods.check_not_zero({b: _size(recipe, sides[b], directions[b]) for b in directions}, norms)
    return SteeringVector(
        directions,
        model=lm.identity,
        recipe=made,
        residual_norms=norms,
        diagnostics={b: diagnose(*sides[b][:2]) for b in directions if recipe.negative},
    )


def _size(recipe: Contrast, sides: tuple[Array, Array, Array], made: Array) -> float:
    """How much the prompts differ: pca and probe give unit vectors, whose norm does not tell."""
    if recipe.method in ("pca", "probe"):
        return float(np.linalg.norm(sides[0] - sides[1], axis=1).max())
    return float(np.linalg.norm(made))


def _directions(
    make: Callable[[int], Array], layers: Iterable[int], skip_undecided: bool
) -> dict[int, Array]:
    """The direction of each layer, (d_model,); Undecided names the layer."""
    found: dict[int, Array] = {}
    undecided: methods.Undecided | None = None
    for b in layers:
        try:
            found[b] = make(b)
        except methods.Undecided as error:
            undecided = methods.Undecided(f"at layer {b}, {error}")
            if not skip_undecided:
                raise undecided from None
    if undecided is not None and not found:
        raise undecided
    return found


def located(lm: Reader, recipe: Contrast) -> Contrast:
    """The recipe with the token ids of its prompts and, if its read needs them, the places read.

    What the recipe brings is used: a template may hold the date, a tokenizer may change.
    Raises BadPrompts for a prompt without the token to read.
    """
    prompts = recipe.prompts
    ids, spans = recipe.prompt_ids, recipe.spans
    if not ids:
        ids = tuple(tuple(lm.tokens(p, chat=recipe.chat)) for p in prompts)
        if recipe.read in TURN_READS:
            spans = tuple(lm.span(p, recipe.read, chat=recipe.chat) for p in prompts)
    if len(ids) != len(prompts):
        raise BadPrompts(f"the recipe has {len(prompts)} prompts, but token ids of {len(ids)}")
    if not all(ids):
        raise BadPrompts("the recipe has token ids of an empty prompt")
    lm.check_length(ids)
    _check_readable(ids, recipe.read, prompts)
    made = replace(recipe.without_ids(), prompt_ids=ids, spans=spans)
    _spans(made)
    return made


def read(lm: Reader, recipe: Contrast, layers: Sequence[int], **watch: Unpack[Watch]) -> Readings:
    """The activations of a recipe's prompts; see `split`. Raises BadPrompts as `located` does."""
    if not recipe.prompt_ids:
        recipe = located(lm, recipe)
    found = lm.read_tokens(recipe.prompt_ids, layers, _spans(recipe) or recipe.read, **watch)
    _check_finite(found.values)
    return found


def _spans(recipe: Contrast) -> list[Span]:
    """The places that are read, where the read depends on turns."""
    if recipe.read not in TURN_READS:
        return []
    spans = [(span[0], span[1]) for span in recipe.spans if len(span) == 2]
    lengths = map(len, recipe.prompt_ids)
    fits = len(spans) == len(recipe.prompt_ids)
    if not fits or not all(0 <= a < b <= n for (a, b), n in zip(spans, lengths, strict=True)):
        raise BadPrompts("the recipe does not say which tokens of its prompts were read")
    return spans


def split(recipe: Contrast, values: Array) -> tuple[Array, Array, Array]:
    """The activations of positive, negative and baseline prompts: (n, d_model) each."""
    positive, negative, baseline = np.split(values, np.cumsum(recipe.sizes[:2]))
    return positive, negative, baseline


def direction(
    recipe: Contrast, positive: Array, negative: Array, baseline: Array, layer: int
) -> Array:
    """The method's direction, (d_model,), from activations as `split` returns them."""
    if recipe.method == "mean_centred":
        everything = baseline if len(baseline) else np.concatenate([positive, negative])
        return methods.mean_centred(positive, everything)
    if recipe.method == "random":
        size = float(np.linalg.norm(methods.mean_difference(positive, negative)))
        return methods.random_direction(size, positive.shape[1], recipe.seed or 0, layer)
    return methods.PAIRED[recipe.method](positive, negative)


def _front(
    lm: Reader, recipe: Contrast, layers: Sequence[int], should_stop: ShouldStop | None
) -> SteeringVector:
    positive, negative = _padded(lm, recipe)
    high, low = (lm.record_tokens(ids, layers, should_stop) for ids in (positive, negative))
    _check_finite(high)
    _check_finite(low)
    norms = {
        b: float(np.median(np.linalg.norm(np.concatenate([high[b][1:], low[b][1:]]), axis=1)))
        for b in layers
    }
    directions = {b: methods.actadd(high[b], low[b]) for b in layers}
    methods.check_not_zero({b: float(np.linalg.norm(d)) for b, d in directions.items()}, norms)
    return SteeringVector(
        directions,
        model=lm.identity,
        recipe=replace(recipe.without_ids(), prompt_ids=(tuple(positive), tuple(negative))),
        scope="front",
        residual_norms=norms,
    )


def _padded(lm: Reader, recipe: Contrast) -> tuple[list[int], list[int]]:
    """The token ids of the pair, each from BOS on; the shorter one is padded with spaces."""
    if recipe.prompt_ids:
        sizes = {len(ids) for ids in recipe.prompt_ids}
        if len(recipe.prompt_ids) != 2 or len(sizes) != 1 or 0 in sizes:
            raise BadPrompts("the recipe has no token ids of two prompts of one length")
        positive, negative = map(list, recipe.prompt_ids)
        lm.check_length([positive, negative])
        return positive, negative
    positive, negative = (lm.tokens(p, chat=recipe.chat, bos=True) for p in recipe.prompts)
    lm.check_length([positive, negative])
    space = lm.space_token()
    if len(positive) == len(negative):
        return positive, negative
    if space is None:
        raise ModelError(f"{lm.source}'s tokenizer has no space token to pad prompts with")
    width = max(len(positive), len(negative))
    positive, negative = (ids + [space] * (width - len(ids)) for ids in (positive, negative))
    return positive, negative


def _check_readable(ids: Sequence[Sequence[int]], read: Read, prompts: Sequence[Prompt]) -> None:
    """Raise BadPrompts for a prompt without the token to read."""
    shortest = min(range(len(ids)), key=lambda i: len(ids[i]))
    n, prompt = len(ids[shortest]), str(prompts[shortest])
    if read == "mean" and n < 2:
        raise BadPrompts(
            f"{prompt!r} is one token: the mean over all tokens but the first is empty"
        )
    if isinstance(read, int) and not -n <= read < n:
        raise BadPrompts(f"there is no token {read} in {prompt!r}: it has {n} tokens")


def _check_finite(found: Mapping[int, Array]) -> None:
    for layer, values in found.items():
        if not np.isfinite(values).all():
            raise SteeringError(
                f"the model's activations at layer {layer} are NaN or infinite: "
                "try another dtype (bfloat16 or float32)"
            )
