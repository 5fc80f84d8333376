"""Where a transformers model's blocks are, and whether prompts fit into it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.errors import BadPrompts, ModelError


def find_blocks(model: nn.Module, path: str | None = None) -> tuple[nn.Module, list[nn.Module]]:
    """The module that runs the blocks, and its blocks in order.

    Blocks are the outermost ModuleList as long as the text config's num_hidden_layers.
    path: dotted name of the ModuleList, for a model where that rule finds none or another.
    Raises ModelError when there is none or more than one.
    """
    wanted = getattr(text_config(model), "num_hidden_layers", None)
    lists: dict[str, nn.ModuleList] = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)
    }
    if path is not None:
        if path not in lists:
            raise ModelError(f"the model has no block list {path!r}; it has {_listed(lists)}")
        found = [path]
    else:
        fitting = [name for name, module in lists.items() if len(module) == wanted]
        found = [n for n in fitting if not any(n.startswith(f"{o}.") for o in fitting if o != n)]
        for other in ({"vision", "visual", "image", "audio"}, {"encoder"}):
            if len(found) > 1:
                found = [n for n in found if not other & set(_words(n))]
    if len(found) != 1:
        count = "" if wanted is None else f"{wanted} "
        raise ModelError(
            f"can't tell which of the model's module lists are its {count}blocks "
            f"({_listed(lists)}): name one with blocks='…'"
        )
    parent = model.get_submodule(found[0].rpartition(".")[0])
    blocks = list(lists[found[0]])
    _check_blocks(model, blocks)
    return parent, blocks


def _check_blocks(model: nn.Module, blocks: list[nn.Module]) -> None:
    """Raise ModelError for blocks that can't be steered one by one."""
    name = type(model).__name__
    check_no_virtual_tokens(model)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{name} reads with an encoder: steerlab steers decoders that stand alone")
    places: dict[int, int] = {}
    for layer, block in enumerate(blocks):
        first = places.setdefault(id(block), layer)
        if first != layer:
            raise ModelError(
                f"layers {first} and {layer} of {name} are the same module, which runs twice: "
                "they can't be steered apart"
            )
    modules = [module for block in blocks for module in block.modules()]
    for module in modules:
        offloaded = hasattr(module, "_hf_hook")
        if not offloaded and any(p.is_meta for p in module.parameters(recurse=False)):
            raise ModelError(f"the weights of {name} are not loaded: they are on the meta device")


def check_reads_text(model: nn.Module) -> None:
    """Raise ModelError for a model that can't be run on token ids alone."""
    needed = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name != "input_ids"
    ]
    if needed:
        raise ModelError(
            f"{type(model).__name__} can't read a text alone: it needs {', '.join(needed)}"
        )


def check_no_virtual_tokens(model: nn.Module) -> None:
    """Raise ModelError for adapters that put tokens of their own before every prompt."""
    for name, config in dict(getattr(model, "peft_config", {})).items():
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(
                f"the adapter {name!r} puts virtual tokens before every prompt (prompt or prefix "
                "tuning), so positions are unknown: steer the model without it"
            )


def stream_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], d_model: int) -> Tensor:
    """The residual stream among the arguments of a block: (batch, seq, d_model).

    Raises ModelError for blocks that are called in another way.
    """
    hidden = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(hidden, Tensor):
        raise ModelError(
            "the blocks of this model take no hidden_states, but "
            f"{', '.join(sorted(kwargs)) or 'nothing'}: steerlab can't tell where the residual "
            "stream is"
        )
    if hidden.ndim != 3 or hidden.shape[-1] != d_model:
        raise ModelError(
            f"the blocks of this model take hidden states of shape {tuple(hidden.shape)}, not "
            f"(batch, positions, {d_model}): models with several residual streams, or with rows "
            "merged, can't be steered"
        )
    return hidden


def check_shape(hidden: Tensor, batch: int, seq: int) -> None:
    """Raise ModelError unless the input of a block is (batch, seq, d_model)."""
    if hidden.shape[:2] != (batch, seq):
        raise ModelError(
            f"the blocks of this model take hidden states of shape {tuple(hidden.shape)} for "
            f"{batch} rows of {seq} tokens: models that put positions first, or tokens of their "
            "own before the prompt, can't be steered"
        )


def modules_in(module: nn.Module) -> list[nn.Module]:
    """What `module.modules()` yields, in a tenth of its time."""
    found: dict[nn.Module, None] = {}
    waiting = [module]
    while waiting:
        if (one := waiting.pop()) not in found:
            found[one] = None
            waiting += [child for child in reversed(one._modules.values()) if child is not None]
    return list(found)


def parameters_in(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of these modules themselves, each once."""
    found = [p for one in modules for p in one._parameters.values() if p is not None]
    return list({id(parameter): parameter for parameter in found}.values())


def _words(name: str) -> list[str]:
    return name.replace("_", ".").split(".")


def _listed(lists: dict[str, nn.ModuleList]) -> str:
    outer = {n: m for n, m in lists.items() if not any(n.startswith(f"{o}.") for o in lists)}
    return ", ".join(f"{n} ({len(m)})" for n, m in outer.items()) or "none"


def text_config(model: nn.Module) -> Any:
    """The part of the config that describes the language model."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(f"{type(model).__name__} has no transformers config: it can't be steered")
    return config.get_text_config(decoder=True)


def context_of(model: nn.Module) -> int | None:
    """How many tokens the model can read; None if any number."""
    room = getattr(text_config(model), "max_position_embeddings", None)
    return room if room and room > 0 else None  # XLNet says -1


def attends_to_everything(model: nn.Module) -> bool:
    """Whether every layer keeps the whole prefix in its cache (no sliding window, no state)."""
    config = text_config(model)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not window and not hasattr(config, "layers_block_type")


def attends_by_column(model: nn.Module) -> bool:
    """Whether some layers attend to the nearest columns of a pass, whatever its mask (GPT-Neo)."""
    return "local" in (getattr(text_config(model), "attention_layers", None) or ())


def takes_any_mask(model: nn.Module) -> bool:
    """Whether attention takes a mask of its own for each token; flash attention takes none.

    It is not to be tried: on CUDA it reads outside of its tensors, which ends all further work.
    """
    return "flash" not in str(getattr(text_config(model), "_attn_implementation", ""))


def input_device(model: nn.Module) -> torch.device:
    """The device that token ids have to be on; offloaded weights are brought to it."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if embedding.weight.is_meta:
        where = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
        return torch.device("cpu" if where is None else where)
    return torch.device(embedding.weight.device)


def weights_present(module: nn.Module) -> AbstractContextManager[Any]:
    """Bring offloaded weights of a module into memory for the `with` block."""
    if any(p.is_meta for p in module.parameters(recurse=False)):
        from accelerate.utils import align_module_device

        return align_module_device(module, "cpu")  # type: ignore[no-any-return]
    return nullcontext()


def check_fits(model: Any, ids: Sequence[Sequence[int]], new: int, source: str) -> None:
    """Raise BadPrompts for a token that the model lacks, or for more tokens than it has room for.

    new: how many follow the longest of `ids`.
    """
    size = len(model.get_input_embeddings().weight)
    odd = next((i for tokens in ids for i in tokens if not 0 <= i < size), None)
    if odd is not None:
        raise BadPrompts(f"{source} has no token {odd}: it has {size}")
    longest = max(len(i) for i in ids)
    room = context_of(model)
    if room is not None and longest + new > room:
        more = f" and {new} new ones do" if new else " does"
        raise BadPrompts(
            f"a prompt of {longest} tokens{more} not fit into the {room} positions of {source}"
        )
