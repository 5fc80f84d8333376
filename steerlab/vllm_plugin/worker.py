"""Steering in the processes that run the model: it knows rows and positions, and no names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.errors import ModelError
from steerlab.vllm_plugin.bank import Bank, Scheduled
from steerlab.vllm_plugin.steering import KEY

_BANKS: list[Bank] = []
"""The banks of this process; an op in a compiled graph names one by its number."""

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]

_LIBRARY: Any = torch.library.Library("steerlab", "FRAGMENT")  # type: ignore[no-untyped-call]
"""Of the op; a call costs 4.5 µs here, and 7 µs with `torch.library.custom_op`."""

_LIBRARY.define("steer(Tensor hidden, SymInt bank, SymInt layer) -> Tensor")


def steer(hidden: Tensor, bank: int, layer: int) -> Tensor:
    """hidden: (tokens, d_model), steered; opaque to the compiler, which must not see who is."""
    held = _BANKS[bank]
    return held.add_to(hidden, layer) if held.acts_at(layer) else hidden.clone()


_LIBRARY.impl("steer", steer, "CompositeExplicitAutograd")
_LIBRARY._register_fake("steer", lambda hidden, bank, layer: torch.empty_like(hidden))


def steer_runner(runner: Any) -> None:
    """Let a GPUModelRunner (or CPUModelRunner) steer once it has loaded its model."""
    check_supported(runner)
    load = runner.load_model

    def load_model(*args: Any, **kwargs: Any) -> None:
        load(*args, **kwargs)
        _attach(runner)

    runner.load_model = load_model


def check_supported(runner: Any) -> None:
    """Raise ModelError for ways to run a model in which tokens could not be placed."""
    config = runner.vllm_config
    parallel = config.parallel_config
    refused = {
        "the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)": not hasattr(runner, "_prepare_inputs"),
        "speculative decoding": config.speculative_config is not None,
        "KV transfer, whose caches don't know how a prompt was steered": (
            config.kv_transfer_config is not None
        ),
        "microbatches (--enable-dbo)": parallel.use_ubatching,
        "prefill context parallelism": parallel.prefill_context_parallel_size > 1,
    }
    for what, found in refused.items():
        if found:
            raise ModelError(f"steerlab does not steer with {what}: start vLLM without it")


def _attach(runner: Any) -> None:
    """Hook the blocks of a loaded model, and look at each pass before it runs."""
    from vllm.model_executor.models.utils import PPMissingLayer

    from steerlab.models.blocks import find_blocks

    _, blocks = find_blocks(runner.get_model())
    here = {b: m for b, m in enumerate(blocks) if not isinstance(m, PPMissingLayer)}
    bank = Bank(
        list(here),
        runner.model_config.get_hidden_size(),
        requests=runner.max_num_reqs,
        tokens=runner.max_num_tokens,
        dtype=runner.dtype,
        device=runner.device,
    )
    _BANKS.append(bank)
    for layer, block in here.items():
        hook = _hook(block, bank, len(_BANKS) - 1, layer)
        block.register_forward_pre_hook(hook, with_kwargs=True)
    prepare = runner._prepare_inputs

    def prepare_inputs(scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        bank.prepare(_scheduled(runner, num_scheduled_tokens))
        return prepare(scheduler_output, num_scheduled_tokens)

    runner._prepare_inputs = prepare_inputs


def _hook(block: nn.Module, bank: Bank, number: int, layer: int) -> Hook:
    """What adds to the `hidden_states` of a block; a residual beside it is left alone."""
    names = list(inspect.signature(block.forward).parameters)
    if "hidden_states" not in names:
        raise ModelError(f"{type(block).__name__} takes no hidden_states: steerlab can't steer it")
    place = names.index("hidden_states")

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[place] if place < len(args) else kwargs["hidden_states"]
        if torch.compiler.is_compiling():
            hidden = torch.ops.steerlab.steer(hidden, number, layer)
        elif bank.acts_at(layer):
            hidden = bank.add_to(hidden, layer)
        else:
            return None
        if place < len(args):
            return (*args[:place], hidden, *args[place + 1 :]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    return hook


def _scheduled(runner: Any, tokens: Any) -> list[Scheduled]:
    """What the next pass reads, request by request; empty if none of them is steered."""
    batch = runner.input_batch
    states = [runner.requests[request] for request in batch.req_ids]
    messages = [
        ((s.sampling_params and s.sampling_params.extra_args) or {}).get(KEY) for s in states
    ]
    if not any(messages):
        return []
    firsts = batch.num_computed_tokens_cpu[: len(states)].tolist()
    lengths = [state.num_prompt_tokens for state in states]
    return list(map(Scheduled, messages, firsts, tokens.tolist(), lengths))
