"""lm-evaluation-harness with the file that `export --to lm-eval` writes, read by its own loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from steerlab.conformance.conform import Case, Session
from steerlab.interop.torch_files import write_lm_eval


@contextmanager
def session(case: Case, steered: bool) -> Iterator[Session]:
    """Its model class for steered models, or its usual one."""
    options: dict[str, Any] = {
        "pretrained": case.location,
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 1,
    }
    if steered:
        from lm_eval.models.hf_steered import SteeredModel

        path = case.directory / "vector.pt"
        path.write_bytes(write_lm_eval(case.vector, 1.0))
        yield _Session(SteeredModel(steer_path=str(path), **options), case.ends)
    else:
        from lm_eval.models.huggingface import HFLM

        yield _Session(HFLM(**options), case.ends)


class _Session:
    """A `Session` over the two calls that the harness's tasks are made of."""

    def __init__(self, harness: Any, ends: Sequence[int]) -> None:
        self.harness, self.ends = harness, list(ends)

    def log_probs(self, ids: Sequence[int]) -> Tensor:
        """As its log-likelihood tasks compute them."""
        found: Tensor = self.harness._model_call(torch.tensor([ids]))[0]
        return found.float().log_softmax(-1)

    def greedy(self, ids: Sequence[int], new_tokens: int) -> list[int]:
        """As its generation tasks write."""
        prompt = torch.tensor([ids])
        found = self.harness._model_generate(
            context=prompt,
            max_length=len(ids) + new_tokens,
            stop=[],
            attention_mask=torch.ones_like(prompt),
            eos_token_id=self.ends or None,
        )
        return [int(token) for token in found[0, len(ids) :]]
