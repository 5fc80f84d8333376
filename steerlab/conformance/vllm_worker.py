"""Runs vLLM in a Python of its own: `python vllm_worker.py ASKED TOLD`, without steerlab.

ASKED is JSON: a model, and prompts with texts after them. TOLD, an .npz file, gets the greedy text
of each prompt, and the log-probabilities of each next token in prompt and text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_CONTEXT = 2048


def main() -> None:
    """Load the model and answer."""
    from transformers import AutoConfig
    from vllm import LLM, SamplingParams

    asked = json.loads(Path(sys.argv[1]).read_text())
    config = AutoConfig.from_pretrained(asked["model"]).get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or _CONTEXT
    engine = LLM(
        model=asked["model"],
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=min(_CONTEXT, longest),
        max_logprobs=-1,
        block_size=32,
    )

    def run(ids: list[int], new_tokens: int, log_probs: int | None) -> Any:
        how = SamplingParams(
            temperature=0.0,
            max_tokens=new_tokens,
            stop_token_ids=asked["ends"],
            prompt_logprobs=log_probs,
            logprobs=log_probs,
            detokenize=False,
        )
        prompt: Any = {"prompt_token_ids": ids}
        return engine.generate([prompt], how, use_tqdm=False)[0]

    told: dict[str, Any] = {}
    for n, (prompt, text) in enumerate(asked["asked"]):
        told[f"text {n}"] = np.array(run(prompt, asked["new_tokens"], None).outputs[0].token_ids)
        found = run([*prompt, *text], 1, -1)
        table = [*(found.prompt_logprobs or [])[1:], found.outputs[0].logprobs[0]]
        told[f"log_probs {n}"] = _array(table)
    whole = Path(sys.argv[2])
    np.savez(partly := whole.with_name("partly.npz"), **told)
    partly.replace(whole)


def _array(table: list[dict[int, Any]]) -> Any:
    """(tokens, vocab) float32 of dicts of the whole vocabulary."""
    rows = np.full((len(table), max(map(max, table)) + 1), np.nan, "<f4")
    for row, entries in zip(rows, table, strict=True):
        row[list(entries)] = [entry.logprob for entry in entries.values()]
    return rows


if __name__ == "__main__":
    main()
