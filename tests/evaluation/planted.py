"""Tiny models with a direction that truly works: it makes some letters likelier than others."""

import string

import numpy as np
import torch

from steerlab import LanguageModel
from tests.tiny import tiny_model, tiny_tokenizer

KIND, UNKIND = "abcdefgh", "stuvwxyz"
WIDTH = 128
LAYERS = 5  # of which the last is the last fifth


def planted_lm(seed: int = 0, strength: float = 2.0) -> LanguageModel:
    """A model whose input embeddings and unembedding share a direction: kind against unkind."""
    model = tiny_model("llama", seed, num_hidden_layers=LAYERS, hidden_size=WIDTH)
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    direction *= strength / direction.norm()
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter *= 0.3 if parameter.ndim > 1 else 1.0  # what is planted passes through
        for letters, sign in ((KIND, 1), (UNKIND, -1)):
            ids = tokenizer.convert_tokens_to_ids(list(letters))
            model.get_input_embeddings().weight[ids] += sign * direction
            model.get_output_embeddings().weight[ids] += sign * direction
    return LanguageModel(model, tokenizer, source="tiny")


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Random beginnings that end kindly or unkindly."""
    return [
        (
            f"{begin} {''.join(rng.choice(list(KIND), 3))}",
            f"{begin} {''.join(rng.choice(list(UNKIND), 3))}",
        )
        for begin, rng in _beginnings(count, seed)
    ]


def null_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Random beginnings with two random endings, of which neither is anything."""
    return [
        tuple(f"{begin} {''.join(rng.choice(list(string.ascii_lowercase), 3))}" for _ in range(2))
        for begin, rng in _beginnings(count, seed)
    ]


def _beginnings(count, seed):
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield "".join(rng.choice(list("ijklmnopqr"), 6)), rng


def shuffled(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same pairs, every other one turned round."""
    return [(b, a) if number % 2 else (a, b) for number, (a, b) in enumerate(found)]
