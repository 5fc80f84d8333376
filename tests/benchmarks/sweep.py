"""A sweep as one batch, against the post's loop: one `generate` a cell, the hook around it."""

from collections.abc import Iterator

import torch

from steerlab import Lab, LanguageModel, SteeringVector, Store
from tests.benchmarks.startup import STORE
from tests.benchmarks.timing import Ratio, paired

LAYERS = (10, 15, 20)
COEFFICIENTS = (-40.0, -20.0, 0.0, 20.0, 40.0)
PROMPTS = ("I think you are a", "Today I feel", "My neighbour is", "The weather this week")
NEW_TOKENS = 40


def run() -> Iterator[Ratio]:
    """3 layers x 5 coefficients x 4 prompts x 40 tokens, sampled as in the post."""
    lm = LanguageModel.load("smollm2")
    lm.model.generation_config.eos_token_id = None  # every cell writes all of its tokens
    lab = Lab(Store(STORE), lm)
    love = lab.store.load("love")
    at = lab.at_layers(love, LAYERS)
    units = SteeringVector(
        {b: d / (d**2).sum() ** 0.5 for b, d in at.directions.items()}, model=at.model
    )
    lm.generate(PROMPTS, max_new_tokens=4)
    yield paired(
        "3 x 5 x 4 sweep as one batch  vs  the sequential loop",
        lambda: lab.sweep(
            units,
            LAYERS,
            PROMPTS,
            coefficients=COEFFICIENTS,
            max_new_tokens=NEW_TOKENS,
            temperature=0.7,
            top_p=0.9,
            repetition_penalty=1.05,
        ),
        lambda: _loop(lm, units),
        runs=2,
        asked=">= 7",
        inverse=True,
        warm_up=False,  # the loop takes minutes; a short batch has warmed the model up
    )


def _loop(lm: LanguageModel, units: SteeringVector) -> None:
    for layer in LAYERS:
        direction = torch.tensor(units.directions[layer][0], dtype=torch.float32)
        for coefficient in COEFFICIENTS:
            for prompt in PROMPTS:
                inputs = lm.tokenizer(prompt, return_tensors="pt")
                handle = lm.blocks[layer].register_forward_pre_hook(
                    lambda _, args, c=coefficient, d=direction: (args[0] + c * d, *args[1:])
                )
                try:
                    lm.model.generate(
                        **inputs,
                        max_new_tokens=NEW_TOKENS,
                        do_sample=True,
                        temperature=0.7,
                        top_p=0.9,
                        repetition_penalty=1.05,
                        pad_token_id=0,
                    )
                finally:
                    handle.remove()
