"""Extraction of 64 pairs at one middle layer, against bare forward passes of the same texts."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from steerlab import LanguageModel
from tests.benchmarks.timing import Ratio, paired

LAYER = 15
SUBJECTS = ("my neighbour", "the teacher", "a small bird", "our old car", "this book", "the sea",
            "her letter", "the young baker")  # fmt: skip
TIMES = ("in the morning", "after the long meeting", "on the way home through the rain",
         "while the others were asleep", "at the market", "during dinner with friends",
         "before anyone could speak", "when the music stopped")  # fmt: skip
QUESTION = (
    "You are taking part in a conversation about everyday life. Read the description with care "
    "and say in one word how the speaker feels about it. The description is as follows: "
)


def distinct_pairs() -> list[tuple[str, str]]:
    """64 pairs without a common beginning to speak of."""
    return [
        (f"{time} {subject} made me feel wonderful", f"{time} {subject} made me feel terrible")
        for subject in SUBJECTS
        for time in TIMES
    ]


def shared_pairs() -> list[tuple[str, str]]:
    """64 pairs that share a question, as multiple-choice contrast sets do."""
    return [(f"{QUESTION}{a}", f"{QUESTION}{b}") for a, b in distinct_pairs()]


def run() -> Iterator[Ratio]:
    """Against passes cut after the layer, and whole passes without the LM head."""
    lm = LanguageModel.load("smollm2")
    for name, pairs in (("distinct", distinct_pairs()), ("shared prefix", shared_pairs())):
        for what, cut, asked in (("cut passes", True, "<= 1.1"), ("whole passes", False, "<= 0.6")):
            yield paired(
                f"extract 64 pairs ({name})  vs  {what}",
                lambda pairs=pairs: lm.extract(pairs, layers=LAYER),
                _bare(lm, pairs, cut=cut),
                runs=9,
                asked=asked,
            )


class _Cut(Exception):
    pass


def _bare(lm: LanguageModel, pairs: list[tuple[str, str]], *, cut: bool) -> Callable[[], object]:
    """Batched passes, padded and masked, sorted by length, nothing recorded."""
    texts = sorted((text for pair in pairs for text in pair), key=len)
    lm.tokenizer.padding_side = "right"

    def stop(*_: object) -> None:
        raise _Cut

    @torch.no_grad()
    def passes() -> None:
        handle = lm.blocks[LAYER].register_forward_pre_hook(stop) if cut else None
        try:
            for start in range(0, len(texts), 64):
                inputs = lm.tokenizer(texts[start : start + 64], padding=True, return_tensors="pt")
                with contextlib.suppress(_Cut):
                    lm.model.model(**inputs, use_cache=False)
        finally:
            if handle is not None:
                handle.remove()

    return passes
