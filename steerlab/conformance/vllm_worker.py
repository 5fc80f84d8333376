"""Runs vLLM in a Python of its own: `python vllm_worker.py MODEL CONTEXT`, without steerlab.

Each line of stdin is JSON with token ids and a number of new tokens; the answer is a line that
begins with "answer", with JSON: the new tokens, and the log-probabilities of each next token.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Load the model, then answer until stdin ends."""
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams

    _, model, context = sys.argv
    config = AutoConfig.from_pretrained(model).get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or int(context)
    engine = LLM(
        model=model,
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=min(int(context), longest),
        max_logprobs=-1,
        block_size=32,
    )
    for line in sys.stdin:
        asked = json.loads(line)
        every = -1 if asked["log_probs"] else None
        how = SamplingParams(
            temperature=0.0,
            max_tokens=asked["new_tokens"],
            stop_token_ids=asked["ends"],
            prompt_logprobs=every,
            logprobs=every,
            detokenize=False,
        )
        prompt: Any = {"prompt_token_ids": asked["ids"]}
        (found,) = engine.generate([prompt], how, use_tqdm=False)
        made: Any = found.outputs[0]
        answer: dict[str, Any] = {"tokens": list(made.token_ids)}
        if asked["log_probs"]:
            table = [*(found.prompt_logprobs or [])[1:], made.logprobs[0]]
            answer["log_probs"] = base64.b64encode(_array(table).tobytes()).decode()
        print(f"answer {json.dumps(answer)}", flush=True)


def _array(table: list[dict[int, Any]]) -> Any:
    """(tokens, vocab) float32 of dicts of the whole vocabulary."""
    rows = np.full((len(table), max(map(max, table)) + 1), np.nan, "<f4")
    for row, entries in zip(rows, table, strict=True):
        row[list(entries)] = [entry.logprob for entry in entries.values()]
    return rows


if __name__ == "__main__":
    main()
