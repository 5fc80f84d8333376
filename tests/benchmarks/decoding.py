"""What steering costs per token, against plain `model.generate`."""

from collections.abc import Callable, Iterator
from itertools import product

import torch

from steerlab import LanguageModel, SteeringVector, Store, steering
from tests.benchmarks.startup import STORE
from tests.benchmarks.timing import Ratio, paired

NEW_TOKENS = 128

Call = Callable[[], object]


def run() -> Iterator[Ratio]:
    """128 greedy tokens, batch 1 and 8, at one layer and at all of them.

    Steered, against unsteered without any hook of ours. 20 tokens show what a text costs.
    """
    lm = LanguageModel.load("smollm2")
    love = Store(STORE).load("love")
    (direction,) = love.directions.values()
    everywhere = SteeringVector(dict.fromkeys(range(lm.n_layers), direction / 30), model=love.model)
    vectors = {"one layer": love, "all layers": everywhere}
    for batch, (where, vector) in product((1, 8), vectors.items()):
        prompts = ["I think you are a"] * batch
        for tokens in (NEW_TOKENS, 20):
            plain = plain_generate(lm, prompts, tokens)

            def steered(vector: SteeringVector = vector, plain: Call = plain) -> None:
                with steering(lm, vector, love.coefficient(0.15)):
                    plain()

            what = f"steered, {where}  vs  unsteered, batch {batch}, {tokens} tokens"
            yield paired(what, steered, plain, runs=7 if batch == 1 else 5, asked="<= 1.02")

        def ours(vector: SteeringVector = vector, prompts: list[str] = prompts) -> None:
            with steering(lm, vector, love.coefficient(0.15)):
                lm.generate(prompts, max_new_tokens=NEW_TOKENS)

        plain = plain_generate(lm, prompts)
        what = f"lm.generate, {where}  vs  model.generate, batch {batch}"
        yield paired(what, ours, plain, runs=5, asked="<= 1.02")


def plain_generate(lm: LanguageModel, prompts: list[str], new_tokens: int = NEW_TOKENS) -> Call:
    """transformers' own `generate`, greedy."""
    inputs = lm.tokenizer(prompts, return_tensors="pt")
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}

    def generate() -> torch.Tensor:
        return lm.model.generate(**inputs, **options)

    return generate
