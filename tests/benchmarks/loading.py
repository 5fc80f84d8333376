"""Loading the converted embedded model, against transformers loading the same checkpoint."""

from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM

from steerlab import LanguageModel
from steerlab.models.embedded import checkpoint
from tests.benchmarks.timing import Ratio, paired


def run() -> Iterator[Ratio]:
    """LanguageModel.load against AutoModelForCausalLM.from_pretrained."""
    path = checkpoint()
    yield paired(
        "LanguageModel.load  vs  from_pretrained",
        lambda: LanguageModel.load("smollm2"),
        lambda: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        runs=7,
        asked="<= 1.3",
    )
