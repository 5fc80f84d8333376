"""Fast linear layers against plain ones, on 50 prompts.

Run as `python -m tests.benchmarks.equality`, or with the name of a product, which all layers then
take: what is fastest here may be torch's own. Prints the largest difference of log-probabilities
of the next token, how many greedy texts of 40 tokens are equal, and of each other text the margin
between the two likeliest tokens where it parts.
"""

import json
import sys
from itertools import takewhile

from steerlab import LanguageModel
from steerlab.evaluation.calibration.side_effects import FRESH, NEUTRAL
from steerlab.models import fast_layers
from steerlab.models.products import ROWS, Choice

PROMPTS = [*FRESH, *NEUTRAL, *(f"{text} not" for text in (*NEUTRAL, *FRESH))][:50]


def main(products: list[str]) -> None:
    """Compare both layouts of the embedded model."""
    if products:
        choice = Choice((products[0],) * len(ROWS))
        fast_layers.chosen = lambda groups: dict.fromkeys(groups, choice)
    fast, plain = (LanguageModel.load("smollm2", layout=layout) for layout in ("fast", "plain"))
    apart = fast.next_log_probs(PROMPTS) - plain.next_log_probs(PROMPTS)
    texts = [lm.generate(PROMPTS, max_new_tokens=40) for lm in (fast, plain)]
    margins = []
    for ours, theirs in zip(*texts, strict=True):
        if ours.token_ids != theirs.token_ids:
            both = zip(ours.token_ids, theirs.token_ids, strict=False)
            same = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
            logs = plain.next_log_probs([ours.prompt + plain.tokenizer.decode(same)])[0].topk(2)
            margins.append(float(logs.values[0] - logs.values[1]))
    found = {
        "prompts": len(PROMPTS),
        "log-probabilities differ by": float(apart.abs().max()),
        "equal texts": len(PROMPTS) - len(margins),
        "margins of the others": margins,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:2])
