"""Which model it is: the fingerprint of the weights in use, adapters and precision included.

The identity is read at each use: `state_of` compares cheaply with the last use, and the weights
are read again only where they changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steerlab.core.recipe import ModelIdentity
from steerlab.errors import BadOption, ModelError
from steerlab.models.blocks import (
    check_no_virtual_tokens,
    find_blocks,
    modules_in,
    parameters_in,
    text_config,
    weights_present,
)
from steerlab.models.threads import dismiss_team

_PER_WEIGHT = 256  # entries of a weight that are read
_PER_EMBEDDING = 2**20  # a fine-tune may change few rows of it
_PER_MATRIX_VALUE = 64  # entries of a matrix whose size counts, not only the sign
_PER_PROBE = 8  # values of a parameter that `state_of` reads
_WRAPPED = ("base_layer", "original_module", "token_adapter")  # what a layer of PEFT stands for
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class _Weights:
    """A fingerprint and a precision, and the state of the model that they were read in."""

    state: Hashable
    fingerprint: str | None
    dtype: str | None


_last: WeakKeyDictionary[nn.Module, _Weights] = WeakKeyDictionary()
"""Model -> its weights at the last use."""
_orders: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()
"""Module -> its parameters in the order in which they were first seen."""
_tokenizers: WeakKeyDictionary[Any, tuple[int, str | None]] = WeakKeyDictionary()
"""Tokenizer -> its size when it was read, and its digest."""


def identify(
    model: nn.Module,
    parent: nn.Module,
    blocks: Sequence[nn.Module],
    source: str | None = None,
    tokenizer: Any = None,
) -> ModelIdentity:
    """The identity of a model as it is now, as its vectors carry it.

    parent: the module that runs the blocks. source: where it was loaded from; None reads the
    model's own `name_or_path`. Raises ModelError for a model without weights.
    """
    check_no_virtual_tokens(model)
    config = text_config(model)
    weights = _weights_of(model, parent, blocks)
    return ModelIdentity(
        source=source or getattr(model, "name_or_path", "") or type(model).__name__,
        architecture=str(config.model_type),
        n_layers=len(blocks),
        d_model=int(config.hidden_size),
        fingerprint=weights.fingerprint,
        revision=getattr(model.config, "_commit_hash", None),
        dtype=weights.dtype,
        tokenizer=_tokenizer_digest(tokenizer),
        chat_template=_digest(getattr(tokenizer, "chat_template", None)),
    )


def remember_orders(model: nn.Module) -> None:
    """Note the order of the parameters in each module.

    Passes through PEFT's `target_parameters` put a parameter behind the others, and a fingerprint
    depends on the order. Call it before the first pass.
    """
    for module in model.modules():
        _order(module)


def state_of(model: nn.Module) -> Hashable:
    """A value that changes with training, loading, merging, casting and other adapters.

    It holds the version and place of every parameter, a few of its values, and the active
    adapters. A change of a few values through `.data` can go unnoticed.
    """
    modules = modules_in(model)
    parameters = parameters_in(modules)
    places = tuple([(id(p), _version(p), p.dtype, _place(p)) for p in parameters])
    return places, _few_values(parameters), adapters_on(_adapter_layers(modules))


def adapters_on(layers: Sequence[nn.Module]) -> Hashable:
    """Which adapters act on each of these layers, merged or not, and how strongly."""
    found = []
    for layer in layers:
        acting, scales = _acting_on(layer), getattr(layer, "scaling", {})
        merged = tuple(getattr(layer, "merged_adapters", ()))
        found.append((tuple(acting), tuple(str(scales.get(name)) for name in acting), merged))
    return tuple(found)


def adapter_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that adapters (as of PEFT) may act on."""
    return _adapter_layers(modules_in(model))


def _adapter_layers(modules: Iterable[nn.Module]) -> list[nn.Module]:
    # asking the module itself takes long where the answer is no
    kinds = {kind for kind in set(map(type, modules)) if hasattr(kind, "adapter_layer_names")}
    return [module for module in modules if type(module) in kinds] if kinds else []


def _acting_on(module: nn.Module) -> list[str]:
    """The adapters that act on one of `adapter_layers`, beside the merged ones."""
    if getattr(module, "merged_adapters", ()):
        if module.disable_adapters:
            raise ModelError(
                "adapters are merged into the model's weights and disabled, which PEFT carries out "
                "at the next pass only: unmerge them first"
            )
        return []
    return [] if module.disable_adapters else list(module.active_adapters)  # type: ignore[arg-type]


def identity_of(model: Any) -> ModelIdentity:
    """The identity of a LanguageModel or a transformers model; BadOption for anything else."""
    if isinstance(model, nn.Module):
        return identify(model, *find_blocks(model))
    found = getattr(model, "identity", None)
    if not isinstance(found, ModelIdentity):
        raise BadOption(
            f"model is a LanguageModel, a transformers model or a ModelIdentity, not {model!r:.60}"
        )
    return found


def _weights_of(model: nn.Module, parent: nn.Module, blocks: Sequence[nn.Module]) -> _Weights:
    state = (state_of(model), tuple(map(id, blocks)))
    last = _last.get(model)
    if last is None or last.state != state:
        digests = fingerprint(blocks, parent, model.get_output_embeddings())  # type: ignore[operator]
        last = _last[model] = _Weights(state, digests, _precision(model, blocks))
        dismiss_team()
    return last


def fingerprint(blocks: Sequence[nn.Module], *around: nn.Module | None) -> str | None:
    """Digests of a sample of the weights: of the blocks, and of what is around them.

    Three parts, with dots between: the signs of every matrix in the blocks (all there was in
    fingerprints of earlier versions); the signs of the matrices in `around`, which holds the
    embeddings, the final norm and the head; all vectors (norms, biases) and some entries of each
    matrix, rounded to bfloat16.
    A sign survives rounding to any floating-point type, so a float32, bfloat16 and float16 load
    of one checkpoint agree, while training flips some signs. The last part of a float16 load
    differs where the checkpoint is in float32; `ModelIdentity.verdict` knows.
    Quantized weights are sampled byte by byte. Active adapters count, inactive ones do not.
    None where the blocks have no matrix.
    """
    seen: set[nn.Module] = set()
    inside = [found for block in blocks for found in _samples(block, _PER_WEIGHT, seen)]
    matrices = _digest_of([sample for sample in inside if sample.is_matrix])
    if matrices is None or not around:
        return matrices
    outside = [
        found
        for module in around
        if module is not None
        for found in _samples(module, _PER_EMBEDDING, seen)
    ]
    embeddings = {sample.data: sample for sample in outside if sample.is_matrix}  # may be tied
    values = [replace(s, entries=s.values) for s in (*inside, *outside)]
    rest = (_digest_of([*embeddings.values()]), _digest_of(values))
    return ".".join([matrices, *((digest or "")[:16] for digest in rest)])


@dataclass(frozen=True)
class _Sample:
    """Some entries of a weight, as bytes: (n,) uint8.

    entries: signs of a matrix, bytes of what is quantized. values: rounded to bfloat16.
    """

    name: str
    is_matrix: bool
    entries: Tensor
    values: Tensor

    @property
    def data(self) -> bytes:
        return self.entries.cpu().numpy().tobytes()


def _digest_of(samples: Sequence[_Sample]) -> str | None:
    if not samples:
        return None
    sha = hashlib.sha256(json.dumps([sample.name for sample in samples]).encode())
    device = samples[0].entries.device
    sha.update(torch.cat([s.entries.to(device) for s in samples]).cpu().numpy().tobytes())
    return sha.hexdigest()


def _samples(
    module: nn.Module, most: int, seen: set[nn.Module], name: str = ""
) -> Iterator[_Sample]:
    """Samples of all weights of a module, without its inactive adapters.

    Layers of PEFT give the names that the model has without them. most: entries of a matrix.
    seen: modules to leave out; gets those that were sampled.
    """
    if module in seen:
        return
    seen.add(module)
    with weights_present(module):
        for short, weight in _own_weights(module):
            yield _sample(f"{name}{short}", weight, most)
    adapters = getattr(module, "adapter_layer_names", ())
    for short, child in module.named_children():
        if short in adapters:
            yield from _adapter_samples(module, f"{name}{short}", child)
        else:
            if short == "original_module" and adapters and _acting_on(module):
                continue  # a copy of it acts
            inner = name if adapters and short in _WRAPPED else f"{name}{short}."
            yield from _samples(child, most, seen, inner)


def _adapter_samples(layer: nn.Module, name: str, of: Any) -> Iterator[_Sample]:
    """Samples of the active adapters of a layer, in one of its containers, with their scale."""
    scales = getattr(layer, "scaling", {})
    for adapter in _acting_on(layer):
        if adapter in of:
            scaled = f"{name} * {scales.get(adapter)}."
            held = of[adapter]
            parts = [("", held)] if isinstance(held, Tensor) else held.named_parameters()
            for short, weight in parts:
                entries = _values(weight.detach(), _PER_EMBEDDING)
                yield _Sample(scaled + short, True, entries, entries)


def _own_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the whole numbers that quantized layers keep in buffers."""
    parameters = dict(module.named_parameters(recurse=False))
    yield from ((name, parameters[name]) for name in _order(module) if name in parameters)
    passing = module._non_persistent_buffers_set
    for name, buffer in module.named_buffers(recurse=False):
        if name not in passing and buffer.ndim >= 2 and _is_packed(buffer):
            yield name, buffer


def _order(module: nn.Module) -> tuple[str, ...]:
    names = tuple(name for name, _ in module.named_parameters(recurse=False))
    known = _orders.get(module, ())
    if sorted(known) != sorted(names):
        known = _orders[module] = names
    return known


def _is_packed(weight: Tensor) -> bool:
    """Whether a weight is quantized, so that its numbers are no plain ones."""
    plain = weight.dtype in _PLAIN or weight.dtype is torch.bool
    return not plain or hasattr(weight, "__tensor_flatten__")


def _sample(name: str, weight: Tensor, most: int) -> _Sample:
    if weight.is_meta:
        raise ModelError(
            f"the model's weights are not loaded: {name} is on the meta device; load the "
            "checkpoint first"
        )
    if weight.layout is not torch.strided:
        weight = weight.to_dense()
    is_matrix = weight.ndim >= 2
    values = _values(weight, _PER_MATRIX_VALUE if is_matrix else _PER_WEIGHT)
    if not is_matrix or _is_packed(weight):
        signs = _values(weight, most)
    else:
        signs = torch.signbit(_some(weight.detach(), most)).to(torch.uint8)
    return _Sample(name, is_matrix, signs, values)


def _some(weight: Tensor, most: int) -> Tensor:
    """Entries at regular places: (n,)."""
    stride = max(weight.numel() // most, 1) | 1  # odd: walks over all columns
    return weight.reshape(-1)[::stride][:most]


def _values(weight: Tensor, most: int) -> Tensor:
    """Entries at regular places, rounded to bfloat16 or as they are quantized: (n,) uint8."""
    if hasattr(weight, "__tensor_flatten__"):
        parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
        return torch.cat([_values(part, most) for part in parts])
    some = _some(weight.detach(), most)
    some = some.to(torch.bfloat16) if weight.dtype in _PLAIN else some
    parts = [some, *_scales_beside(weight)]
    return torch.cat([part.contiguous().view(torch.uint8).to(some.device) for part in parts])


def _scales_beside(weight: Tensor) -> list[Tensor]:
    """What bitsandbytes multiplies the numbers of a weight by, kept beside it: (n,) each."""
    found = (
        getattr(getattr(weight, "quant_state", None), "absmax", None),
        getattr(weight, "SCB", None),
    )
    return [_some(scale, _PER_WEIGHT) for scale in found if isinstance(scale, Tensor)]


def is_quantized(blocks: Sequence[nn.Module]) -> bool:
    """Whether any matrix of the blocks is in fewer than 16 bits."""
    return bool(_quantizations(blocks))


def _quantizations(blocks: Sequence[nn.Module]) -> set[str]:
    return {
        _kind(weight)
        for block in blocks
        for module in block.modules()
        for _, weight in _own_weights(module)
        if weight.ndim >= 2 and _is_packed(weight)
    }


def _precision(model: nn.Module, blocks: Sequence[nn.Module]) -> str | None:
    """The data type of the weights: "float32", or how they are quantized: "nf4", "int8"."""
    plain = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return "+".join(sorted(_quantizations(blocks))) or plain or None


def _kind(weight: Tensor) -> str:
    if hasattr(weight, "__tensor_flatten__"):
        return type(weight).__name__
    return str(getattr(weight, "quant_type", "") or weight.dtype).removeprefix("torch.")


def _version(parameter: Tensor) -> int:
    return 0 if parameter.is_inference() else parameter._version


def _place(parameter: Tensor) -> int:
    try:
        return parameter.data_ptr()
    except RuntimeError:  # a tensor that wraps others has none
        return 0


def _few_values(parameters: Iterable[Tensor]) -> bytes:
    """A few values of each plain parameter; one transfer for each device and data type."""
    found: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in parameters:
        if not (parameter.is_meta or _is_packed(parameter)) and parameter.is_contiguous():
            size = parameter.numel()
            some = torch.as_strided(
                parameter.detach(), (min(size, _PER_PROBE),), (max(size // _PER_PROBE, 1),)
            )
            found.setdefault((parameter.device, parameter.dtype), []).append(some)
    parts = (torch.cat(some).cpu().view(torch.uint8) for some in found.values())
    return b"".join(part.numpy().tobytes() for part in parts)


def _tokenizer_digest(tokenizer: Any) -> str | None:
    """The digest of a tokenizer, taken again only when it has grown."""
    if tokenizer is None:
        return None
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    known, digest = _tokenizers.get(tokenizer, (-1, None))
    if known != size:
        digest = _read_tokenizer(tokenizer)
        _tokenizers[tokenizer] = (size, digest)
    return digest


def _read_tokenizer(tokenizer: Any) -> str | None:
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
