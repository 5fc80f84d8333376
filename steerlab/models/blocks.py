"""Where a transformers model's blocks are, and which model it is."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.core.recipe import ModelIdentity
from steerlab.errors import ModelError

_SIGNS_PER_PARAMETER = 256


def find_blocks(model: nn.Module, path: str | None = None) -> tuple[nn.Module, list[nn.Module]]:
    """The module that runs the blocks, and its blocks in order.

    Blocks are the outermost ModuleList as long as the text config's num_hidden_layers.
    path: dotted name of the ModuleList, for a model where that rule finds none or another.
    Raises ModelError when there is none or more than one.
    """
    wanted = n_layers_of(model)
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
        if len(found) > 1:
            found = [n for n in found if not {"vision", "visual", "encoder"} & set(_words(n))]
    if len(found) != 1:
        raise ModelError(
            f"can't tell which of the model's module lists are its {wanted} blocks "
            f"({_listed(lists)}): name one with blocks='…'"
        )
    parent = model.get_submodule(found[0].rpartition(".")[0])
    return parent, list(lists[found[0]])


def _words(name: str) -> list[str]:
    return name.replace("_", ".").split(".")


def _listed(lists: dict[str, nn.ModuleList]) -> str:
    return ", ".join(f"{n} ({len(m)})" for n, m in lists.items()) or "none"


def text_config(model: nn.Module) -> Any:
    """The part of the config that describes the language model."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(f"{type(model).__name__} has no transformers config: it can't be steered")
    return config.get_text_config(decoder=True)


def n_layers_of(model: nn.Module) -> int:
    """Number of blocks, as the config says."""
    return int(text_config(model).num_hidden_layers)


def input_device(model: nn.Module) -> torch.device:
    """The device that token ids have to be on; offloaded weights are brought to it."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if embedding.weight.is_meta:
        where = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
        return torch.device("cpu" if where is None else where)
    return torch.device(embedding.weight.device)


def identify(
    model: nn.Module, blocks: list[nn.Module], source: str | None = None, tokenizer: Any = None
) -> ModelIdentity:
    """The identity of a model, as its vectors carry it.

    source: where it was loaded from; None reads the model's own `name_or_path`.
    """
    config = text_config(model)
    return ModelIdentity(
        source=source or getattr(model, "name_or_path", "") or type(model).__name__,
        architecture=str(config.model_type),
        n_layers=len(blocks),
        d_model=int(config.hidden_size),
        fingerprint=fingerprint(blocks),
        revision=getattr(model.config, "_commit_hash", None),
        dtype=str(getattr(model, "dtype", "")).removeprefix("torch.") or None,
        tokenizer=_tokenizer_digest(tokenizer),
        chat_template=_digest(getattr(tokenizer, "chat_template", None)),
    )


def fingerprint(blocks: list[nn.Module]) -> str | None:
    """Digest of the signs of a strided sample of every weight matrix in the blocks.

    A sign survives rounding to any floating-point type, so a float32, bfloat16 and float16
    load of one checkpoint agree, while training flips some of the 256 signs taken from each
    matrix. None where no floating-point matrix is left to read (a quantised load).
    """
    samples = []
    for block in blocks:
        for name, module in block.named_modules():
            with weights_present(module):
                for short, weight in module.named_parameters(recurse=False):
                    if weight.ndim >= 2 and weight.is_floating_point() and not weight.is_meta:
                        samples.append((f"{name}.{short}", _signs(weight)))
    if not samples:
        return None
    sha = hashlib.sha256(json.dumps([name for name, _ in samples]).encode())
    device = samples[0][1].device
    sha.update(torch.cat([signs.to(device) for _, signs in samples]).cpu().numpy().tobytes())
    return sha.hexdigest()


def _signs(weight: Tensor) -> Tensor:
    stride = max(weight.numel() // _SIGNS_PER_PARAMETER, 1) | 1  # odd: walks over all columns
    return torch.signbit(weight.detach().reshape(-1)[::stride][:_SIGNS_PER_PARAMETER])


def weights_present(module: nn.Module) -> AbstractContextManager[Any]:
    """Bring offloaded weights of a module into memory for the `with` block."""
    if any(p.is_meta for p in module.parameters(recurse=False)):
        from accelerate.utils import align_module_device

        return align_module_device(module, "cpu")  # type: ignore[no-any-return]
    return nullcontext()


def _tokenizer_digest(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
        return _digest(json.dumps(vocabulary, sort_keys=True)) if vocabulary else None
    state = json.loads(backend.to_str())
    for mutable in ("padding", "truncation"):  # set by the last call
        state.pop(mutable, None)
    return _digest(json.dumps(state, sort_keys=True))


def _digest(text: str | dict[str, str] | None) -> str | None:
    if not text:
        return None
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
