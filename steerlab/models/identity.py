"""Which model it is: the fingerprint of the weights in use, adapters and precision included.

The identity is read at each use: `state_of` compares cheaply with the last use, and the weights
are read again only where they changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steerlab.core.recipe import ModelIdentity
from steerlab.errors import ModelError
from steerlab.models.blocks import text_config, weights_present

_PER_WEIGHT = 256  # entries of a weight that are read
_PER_EMBEDDING = 2**20  # a fine-tune may change few rows of it
_PER_PROBE = 8  # values of a parameter that `state_of` reads
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class _Weights:
    """A fingerprint and a precision, and the state of the model that they were read in."""

    state: Hashable
    fingerprint: str | None
    dtype: str | None


_last: WeakKeyDictionary[nn.Module, _Weights] = WeakKeyDictionary()
"""Model -> its weights at the last use."""
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


def state_of(model: nn.Module) -> Hashable:
    """A value that changes with training, loading, merging, casting and other adapters.

    It holds the version and place of every parameter, a few of its values, and the active
    adapters. A change of a few values through `.data` can go unnoticed.
    """
    parameters = list(model.parameters())
    places = tuple((id(p), p._version, p.dtype, _place(p)) for p in parameters)
    probes = [probe for p in parameters if (probe := _probe(p)) is not None]
    values = [v for found in _by_device(probes) for v in torch.stack(found).tolist()]
    return places, tuple(values), active_adapters(model)


def active_adapters(model: nn.Module) -> tuple[str, ...]:
    """The names of the adapters (as of PEFT) that act on a model, sorted."""
    return tuple(sorted({name for module in model.modules() for name in _acting_on(module)}))


def _acting_on(module: nn.Module) -> list[str]:
    """The adapters that act on one layer of PEFT, and none elsewhere."""
    if not hasattr(module, "adapter_layer_names"):
        return []
    if merged := list(getattr(module, "merged_adapters", ())):
        return merged
    return [] if module.disable_adapters else list(module.active_adapters)  # type: ignore[arg-type]


def _weights_of(model: nn.Module, parent: nn.Module, blocks: Sequence[nn.Module]) -> _Weights:
    state = state_of(model)
    last = _last.get(model)
    if last is None or last.state != state:
        digests = fingerprint(blocks, parent, model.get_output_embeddings())  # type: ignore[operator]
        last = _last[model] = _Weights(state, digests, _precision(model, blocks))
    return last


def fingerprint(blocks: Sequence[nn.Module], *around: nn.Module | None) -> str | None:
    """Digests of a sample of the weights: of the blocks, and of what is around them.

    Three parts, with dots between: the signs of every matrix in the blocks (all there was in
    fingerprints of earlier versions); the signs of the matrices in `around`, which holds the
    embeddings, the final norm and the head; all vectors (norms, biases), rounded to bfloat16.
    A sign survives rounding to any floating-point type, so a float32, bfloat16 and float16 load
    of one checkpoint agree, while training flips some signs. The last part of a float16 load
    differs where the checkpoint is in float32; `ModelIdentity.verdict` knows.
    Quantised weights are sampled byte by byte. Active adapters count, inactive ones do not.
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
    vectors = [sample for sample in (*inside, *outside) if not sample.is_matrix]
    rest = (_digest_of([*embeddings.values()]), _digest_of(vectors))
    return ".".join([matrices, *((digest or "")[:16] for digest in rest)])


@dataclass(frozen=True)
class _Sample:
    """Some entries of a weight, as bytes: (n,) uint8."""

    name: str
    is_matrix: bool
    entries: Tensor

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
            inner = name if adapters and short == "base_layer" else f"{name}{short}."
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
                yield _sample(scaled + short, weight, _PER_EMBEDDING)


def _own_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the whole numbers that quantised layers keep in buffers."""
    yield from module.named_parameters(recurse=False)
    passing = module._non_persistent_buffers_set
    for name, buffer in module.named_buffers(recurse=False):
        if name not in passing and buffer.ndim >= 2 and _is_quantised(buffer):
            yield name, buffer


def _is_quantised(weight: Tensor) -> bool:
    plain = weight.dtype in _PLAIN or weight.dtype is torch.bool
    return not plain or hasattr(weight, "__tensor_flatten__")


def _sample(name: str, weight: Tensor, most: int) -> _Sample:
    if weight.is_meta:
        raise ModelError(
            f"the model's weights are not loaded: {name} is on the meta device; load the "
            "checkpoint first"
        )
    return _Sample(name, weight.ndim >= 2, _entries(weight.detach(), most))


def _entries(weight: Tensor, most: int) -> Tensor:
    """Entries at regular places as bytes, (n,) uint8: signs of a matrix, values of a vector."""
    if hasattr(weight, "__tensor_flatten__"):
        parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
        return torch.cat([_entries(part, most) for part in parts])
    count = most if weight.ndim >= 2 else _PER_WEIGHT
    stride = max(weight.numel() // count, 1) | 1  # odd: walks over all columns
    some = weight.reshape(-1)[::stride][:count]
    if weight.dtype not in _PLAIN:
        return some.contiguous().view(torch.uint8)
    if weight.ndim >= 2:
        return torch.signbit(some).to(torch.uint8)
    return some.to(torch.bfloat16).contiguous().view(torch.uint8)


def _precision(model: nn.Module, blocks: Sequence[nn.Module]) -> str | None:
    """The data type of the weights: "float32", or how they are quantised: "nf4", "int8"."""
    kinds = {
        _kind(weight)
        for block in blocks
        for module in block.modules()
        for _, weight in _own_weights(module)
        if weight.ndim >= 2 and _is_quantised(weight)
    }
    plain = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return "+".join(sorted(kinds)) or plain or None


def _kind(weight: Tensor) -> str:
    if hasattr(weight, "__tensor_flatten__"):
        return type(weight).__name__
    return str(getattr(weight, "quant_type", "") or weight.dtype).removeprefix("torch.")


def _place(parameter: Tensor) -> int:
    try:
        return parameter.data_ptr()
    except RuntimeError:  # a tensor that wraps others has none
        return 0


def _probe(parameter: Tensor) -> Tensor | None:
    """The sum of a few values, a float64 scalar; None for weights without plain values."""
    if parameter.is_meta or _is_quantised(parameter) or not parameter.is_contiguous():
        return None
    stride = max(parameter.numel() // _PER_PROBE, 1)
    return parameter.detach().view(-1)[::stride][:_PER_PROBE].double().sum()


def _by_device(values: Iterable[Tensor]) -> list[list[Tensor]]:
    found: dict[torch.device, list[Tensor]] = {}
    for value in values:
        found.setdefault(value.device, []).append(value)
    return list(found.values())


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
