"""A store of many vectors with prompts, tags and notes, made in a minute."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steerlab import Store
from steerlab.core.recipe import Contrast, Imported, ModelIdentity
from steerlab.core.vector import SteeringVector

WORDS = ("angry", "calm", "customer", "doctor", "formal", "happy", "pirate", "refusal", "weary")
BATCH = 10_000


def large_store(
    directory: Path, count: int, seed: int = 0, width: int = 8, layers: int = 11
) -> Store:
    """`count` vectors called vector_0 …, of shape (1, width), with four pairs of prompts each.

    Each has one layer, of so many from 10 on. One in twenty was imported and one in a hundred
    composed of the two before it; all are tagged "many", and those saved together "batch_0" and
    so on.
    """
    store = Store(directory)
    made = _vectors(count, np.random.default_rng(seed), model_of(width), layers)
    for start in range(0, count, BATCH):
        together = [(f"vector_{i}", next(made)) for i in range(start, min(start + BATCH, count))]
        store.save_many(together, tags=["many", f"batch_{start // BATCH}"])
    return store


def model_of(width: int) -> ModelIdentity:
    """The model that the vectors say they belong to."""
    return ModelIdentity("smollm2", "LlamaForCausalLM", 30, width, "f" * 16)


def _vectors(
    count: int, random: np.random.Generator, model: ModelIdentity, layers: int
) -> Iterator[SteeringVector]:
    before: list[SteeringVector] = []
    for number in range(count):
        if number % 100 == 99:
            made = before[-1] - 0.5 * before[-2]
        else:
            made = vector_of(number, random, model, layers)
        yield made
        before = [*before[-1:], made]


def vector_of(
    number: int, random: np.random.Generator, model: ModelIdentity, layers: int = 11
) -> SteeringVector:
    """A vector of one layer, by contrast or, one in twenty, imported."""
    layer = 10 + number % layers
    direction = {layer: random.standard_normal(model.d_model)}
    if number % 20 == 19:
        recipe: Contrast | Imported = Imported(f"collection_{number}.pt", "torch")
    else:
        word, other = WORDS[number % len(WORDS)], WORDS[(number // 7) % len(WORDS)]
        recipe = Contrast(
            tuple(f"The {word} {other} says {k} things to customer {number}" for k in range(4)),
            tuple(f"Nobody says {k} things to number {number}" for k in range(4)),
        )
    return SteeringVector(direction, model=model, recipe=recipe, residual_norms={layer: 10.0})
