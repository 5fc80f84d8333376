"""A store of many small vectors with prompts, tags and notes, made in seconds."""

from pathlib import Path

import numpy as np

from steerlab import Store
from steerlab.recipe import Contrast, ModelIdentity
from steerlab.vector import SteeringVector

MODEL = ModelIdentity(
    source="smollm2",
    architecture="LlamaForCausalLM",
    n_layers=30,
    d_model=8,
    fingerprint="f" * 16,
)
WORDS = ("angry", "calm", "customer", "doctor", "formal", "happy", "pirate", "refusal", "weary")
BATCH = 10_000


def large_store(directory: Path, count: int, seed: int = 0) -> Store:
    """`count` vectors called vector_0 …: four pairs of prompts each, some tags, some notes."""
    store = Store(directory)
    random = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        store.save_many([(f"vector_{i}", _vector(i, random)) for i in numbers], tags=["many"])
    return store


def _vector(number: int, random: np.random.Generator) -> SteeringVector:
    word, other = WORDS[number % len(WORDS)], WORDS[(number // 7) % len(WORDS)]
    positive = tuple(f"The {word} {other} says {k} things to customer {number}" for k in range(4))
    negative = tuple(f"Nobody says {k} things to number {number}" for k in range(4))
    layer = 10 + number % 11
    return SteeringVector(
        {layer: random.standard_normal(MODEL.d_model)},
        model=MODEL,
        recipe=Contrast(positive, negative),
        residual_norms={layer: 10.0},
    )
