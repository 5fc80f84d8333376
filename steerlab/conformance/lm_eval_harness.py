"""lm-evaluation-harness with the file that `export --to lm-eval` writes, read by its own loader."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerlab.conformance.conform import Answer, Case
from steerlab.interop.torch_files import write_lm_eval


def answers(case: Case) -> list[Answer]:
    """By the two calls that its tasks are made of."""
    harness = _loaded(case)

    def log_probs(ids: list[int]) -> Tensor:
        """As its log-likelihood tasks compute them."""
        found: Tensor = harness._model_call(torch.tensor([ids]))[0]
        return found.float().log_softmax(-1)

    def greedy(ids: list[int]) -> list[int]:
        """As its generation tasks write."""
        prompt = torch.tensor([ids])
        found = harness._model_generate(
            context=prompt,
            max_length=len(ids) + case.new_tokens,
            stop=[],
            attention_mask=torch.ones_like(prompt),
            eos_token_id=list(case.ends) or None,
        )
        return [int(token) for token in found[0, len(ids) :]]

    return case.answered(greedy, log_probs)


def _loaded(case: Case) -> Any:
    """The harness's model class for steered models, or its usual one."""
    options: dict[str, Any] = {
        "pretrained": case.location,
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 1,
    }
    if case.steered:
        from lm_eval.models.hf_steered import SteeredModel

        path = case.directory / "vector.pt"
        path.write_bytes(write_lm_eval(case.vector, 1.0))
        return SteeredModel(steer_path=str(path), **options)
    from lm_eval.models.huggingface import HFLM

    return HFLM(**options)
