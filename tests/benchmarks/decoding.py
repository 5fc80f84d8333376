"""What steering costs per token, against plain `model.generate`."""

from collections.abc import Callable, Iterator

import torch

from steerlab import LanguageModel, Store, steering
from tests.benchmarks.startup import STORE
from tests.benchmarks.timing import Ratio, paired

NEW_TOKENS = 128


def run() -> Iterator[Ratio]:
    """128 greedy tokens, batch 1 and 8: steered, against unsteered without any hook of ours."""
    lm = LanguageModel.load("smollm2")
    vector = Store(STORE).load("love")
    for batch in (1, 8):
        prompts = ["I think you are a"] * batch
        plain = plain_generate(lm, prompts)

        def steered_plain(plain: Callable[[], object] = plain) -> None:
            with steering(lm, vector, vector.coefficient(0.15)):
                plain()

        def steered_ours(prompts: list[str] = prompts) -> None:
            with steering(lm, vector, vector.coefficient(0.15)):
                lm.generate(prompts, max_new_tokens=NEW_TOKENS)

        runs = 7 if batch == 1 else 5
        asked = "<= 1.02"
        yield paired(
            f"steered model.generate  vs  unsteered, batch {batch}",
            steered_plain,
            plain,
            runs=runs,
            asked=asked,
        )
        yield paired(
            f"steered lm.generate  vs  unsteered model.generate, batch {batch}",
            steered_ours,
            plain,
            runs=runs,
            asked=asked,
        )


def plain_generate(
    lm: LanguageModel, prompts: list[str], new_tokens: int = NEW_TOKENS
) -> Callable[[], object]:
    """transformers' own `generate`, greedy."""
    inputs = lm.tokenizer(prompts, return_tensors="pt")
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}

    def generate() -> torch.Tensor:
        return lm.model.generate(**inputs, **options)

    return generate
