"""Linear layers by the fastest product, against torch's own, in one process."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from steerlab import Lab, LanguageModel, Store
from steerlab.core.notation import LayerChoice
from steerlab.models import recording
from tests.benchmarks.decoding import plain_generate
from tests.benchmarks.extraction import distinct_pairs
from tests.benchmarks.startup import STORE
from tests.benchmarks.sweep import COEFFICIENTS, LAYERS, NEW_TOKENS, PROMPTS
from tests.benchmarks.timing import Ratio, paired

ASKED = {1: "<= 0.62", 2: "<= 0.42", 4: "", 8: "", 16: ""}


def run() -> Iterator[Ratio]:
    """64 greedy tokens at 1 to 16 rows, a sweep, 64 pairs; transformers' loop at one row."""
    fast, plain = (LanguageModel.load("smollm2", layout=layout) for layout in ("fast", "plain"))
    for lm in (fast, plain):
        lm.model.generation_config.eos_token_id = None  # every row writes all of its tokens

    def both(call: Callable[[LanguageModel], object]) -> tuple[partial[object], partial[object]]:
        return partial(call, fast), partial(call, plain)

    for rows, asked in ASKED.items():
        prompts = ["I think you are a"] * rows
        write = partial(LanguageModel.generate, prompts=prompts, max_new_tokens=64)
        yield paired(f"64 tokens, {rows} rows  vs  plain", *both(write), runs=5, asked=asked)
    ours = partial(fast.generate, ["I think you are a"], max_new_tokens=64)
    theirs = plain_generate(plain, ["I think you are a"], 64)
    yield paired("64 tokens, 1 row  vs  model.generate", ours, theirs, runs=5, asked=ASKED[1])
    if find_spec("xllamacpp") is not None:
        with llama_cpp(fast) as write:
            yield paired("64 tokens, 1 row  vs  llama.cpp, float32", ours, write, runs=5, asked="")
    yield paired("sweep of 3 x 5 x 4 x 40  vs  plain", *both(_sweep), runs=2, asked="<= 0.55")
    for layers in (15, "all"):
        ours, theirs = both(partial(_extract, layers=layers))
        what = f"64 pairs, layers {layers}  vs  plain, a prompt a row"
        yield paired(what, ours, partial(_a_prompt_a_row, theirs), runs=5, asked="<= 0.60")


@contextmanager
def llama_cpp(lm: LanguageModel) -> Iterator[Callable[[], object]]:
    """The same 64 tokens by llama.cpp, of the same float32 weights."""
    from steerlab.conformance.conform import Case
    from steerlab.conformance.llama_cpp import opened

    with tempfile.TemporaryDirectory() as folder:
        love = Store(STORE).load("love")
        case = Case(love, False, Path(folder), lm.model.name_or_path, None, (), [], 64)
        with opened(case) as other:
            yield partial(other.greedy, lm.tokens("I think you are a"), 64)


def _sweep(lm: LanguageModel) -> None:
    lab = Lab(Store(STORE), lm)
    lab.sweep(
        lab.at_layers(lab.store.load("love"), LAYERS),
        LAYERS,
        PROMPTS,
        coefficients=[c / 40 for c in COEFFICIENTS],
        max_new_tokens=NEW_TOKENS,
        temperature=0.7,
        top_p=0.9,
        repetition_penalty=1.05,
    )


def _a_prompt_a_row(call: Callable[[], object]) -> None:
    """A call that reads prompts as before: on the cache of what they begin with, not as trees."""
    with patch.dict(recording._ROW_TOKENS, cpu=0):
        call()


def _extract(lm: LanguageModel, layers: LayerChoice) -> None:
    lm.extract(distinct_pairs(), layers=layers)
