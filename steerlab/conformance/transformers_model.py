"""Programs that run a transformers model as it is: with a hook, an adapter, or baked weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.conformance.conform import Answer, Case
from steerlab.interop import peft_directory
from steerlab.interventions.bake import baked_model


def hook(case: Case) -> list[Answer]:
    """With hooks of ten lines, written without steerlab's own, on what each block returns."""
    model = load(case)
    n = case.vector.model.n_layers
    blocks = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)
    for b, row in case.vector.float32().items() if case.steered else ():
        direction = torch.tensor(row[0])
        if b == 0:
            blocks[0].register_forward_pre_hook(_before(direction), with_kwargs=True)
        else:
            blocks[b - 1].register_forward_hook(_after(direction))
    return _said(model, case)


def _after(direction: torch.Tensor) -> Any:
    def add(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + direction, *output[1:])
        return output + direction

    return add


def _before(direction: torch.Tensor) -> Any:
    def add(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0] + direction, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + direction}

    return add


def peft(case: Case) -> list[Answer]:
    """With the BEFT adapter that `export --to peft` writes, loaded by PEFT."""
    model = load(case)
    if case.steered:
        from peft import PeftModel

        for name, data in peft_directory.write(case.vector).items():
            (case.directory / name).write_bytes(data)
        with warnings.catch_warnings(action="ignore"):  # of merging, which nobody does here
            model = PeftModel.from_pretrained(model, case.directory)
    return _said(model, case)


def bake(case: Case) -> list[Answer]:
    """With the vector in the weights, as `bake` writes them."""
    return _said(load(case, checkpoint(case) if case.steered else None), case)


def checkpoint(case: Case) -> str:
    """The directory of a checkpoint with the vector in it."""
    place = case.directory / "baked"
    baked_model(case.location, case.revision, case.vector, as_llama=True).save_pretrained(place)
    return str(place)


def load(case: Case, location: str | None = None) -> Any:
    """The model in float32 on the CPU, as transformers loads it.

    location: of other files than the case's own.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32}
    if location is None:
        options["revision"] = case.revision
    return AutoModelForCausalLM.from_pretrained(location or case.location, **options).eval()


@torch.no_grad()
def _said(model: Any, case: Case) -> list[Answer]:
    """What a model answers by transformers' own loop."""

    def log_probs(ids: list[int]) -> Tensor:
        """One pass without a cache."""
        found: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return found.float().log_softmax(-1)

    def greedy(ids: list[int]) -> list[int]:
        """Transformers' `generate`, with a cache."""
        prompt = torch.tensor([ids])
        found = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=case.new_tokens,
            eos_token_id=list(case.ends) or None,
            pad_token_id=next(iter(case.ends), 0),
        )
        return [int(token) for token in found[0, len(ids) :]]

    return case.answered(greedy, log_probs)
