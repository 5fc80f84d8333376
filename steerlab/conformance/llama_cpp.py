"""llama.cpp, by the C functions of the library in the wheel of xllamacpp.

Weights and cache are float32; the control vector is the GGUF file that `export` writes, read by
the `gguf` package and laid out as llama.cpp's own loader does: row N - 1 holds direction.N.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.conformance import gguf_model
from steerlab.conformance.conform import Answer, Case
from steerlab.conformance.transformers_model import load
from steerlab.errors import ModelError
from steerlab.interop import gguf


class _Parameters(ctypes.Structure):
    """A struct that is passed by value and whose fields differ from version to version.

    It is larger than any, which is harmless: each side reads and writes its own part.
    """

    _fields_ = (("words", ctypes.c_uint32 * 128),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_quiet = _LOG(lambda level, text, data: None)


@cache
def _library() -> Any:
    from xllamacpp import xllamacpp

    found = ctypes.CDLL(xllamacpp.__file__)
    pointer, floats = ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_model_default_params": (_Parameters, []),
        "llama_context_default_params": (_Parameters, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _Parameters]),
        "llama_init_from_model": (pointer, [pointer, _Parameters]),
        "llama_set_adapter_cvec": (
            ctypes.c_int32,
            [pointer, floats, ctypes.c_size_t, *[ctypes.c_int32] * 3],
        ),
        "llama_decode": (ctypes.c_int32, [pointer, _Batch]),
        "llama_get_logits": (floats, [pointer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_free": (None, [pointer]),
        "llama_model_free": (None, [pointer]),
        "llama_log_set": (None, [_LOG, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.llama_log_set(_quiet, None)
    return found


_LONGEST = 2048  # tokens of a prompt and its text: llama.cpp's default batch


def answers(case: Case) -> list[Answer]:
    """Of the model in llama.cpp, with the control vector."""
    with opened(case) as context:
        return case.answered(partial(context.greedy, new_tokens=case.new_tokens), context.log_probs)


@contextmanager
def opened(case: Case) -> Iterator[Context]:
    """The model, loaded and steered."""
    data = gguf.write(case.vector) if case.steered else b""  # refused before a model is written
    path = case.directory / "model.gguf"
    weights = load(case)
    gguf_model.write(weights, path)
    shape = case.vector.model.n_layers, case.vector.model.d_model
    vocab = int(weights.config.vocab_size)
    del weights
    library = _library()
    model = library.llama_model_load_from_file(bytes(path), library.llama_model_default_params())
    if not model:
        raise ModelError("llama.cpp does not load the GGUF file that was made of the model")
    context = library.llama_init_from_model(model, _float32_cache(library))
    try:
        if not context:
            raise ModelError("llama.cpp can't run with a float32 cache")
        if case.steered:
            (case.directory / "vector.gguf").write_bytes(data)
            _steer(context, case, *shape)
        yield Context(context, vocab, case.ends)
    finally:
        if context:
            library.llama_free(context)
        library.llama_model_free(model)


def _float32_cache(library: Any) -> _Parameters:
    """Parameters of a context; the types of keys and values are the two words after callbacks."""
    found: _Parameters = library.llama_context_default_params()
    words = list(found.words)
    f16, none = 1, 0
    places = [
        at for at in range(4, 48) if words[at - 4 : at + 2] == [none, none, none, none, f16, f16]
    ]
    if len(places) != 1 or words[1] != _LONGEST:
        raise ModelError("this version of xllamacpp has another layout: try another version")
    found.words[places[0]] = found.words[places[0] + 1] = 0  # GGML_TYPE_F32
    found.words[13] = 0
    found.words[0] = found.words[2] = _LONGEST  # n_ctx, n_ubatch
    return found


def _steer(context: int, case: Case, n_layers: int, d_model: int) -> None:
    from gguf import GGUFReader

    table = np.zeros((n_layers, d_model), np.float32)
    for tensor in GGUFReader(case.directory / "vector.gguf").tensors:
        table[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    flat = table.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if _library().llama_set_adapter_cvec(context, flat, table.size, d_model, 1, n_layers - 1):
        raise ModelError("llama.cpp refuses the control vector")


class Context:
    """A context of llama.cpp, with its model."""

    def __init__(self, context: int, vocab: int, ends: Sequence[int]) -> None:
        self.context, self.vocab, self.ends = context, vocab, ends

    def log_probs(self, ids: Sequence[int]) -> Tensor:
        """One pass over an empty cache."""
        library = _library()
        library.llama_memory_clear(library.llama_get_memory(self.context), True)
        return self._passed(ids)

    def greedy(self, ids: Sequence[int], new_tokens: int) -> list[int]:
        """The prompt in one pass, then token by token."""
        found: list[int] = []
        log_probs = self.log_probs(ids)
        while True:
            found.append(int(log_probs[-1].argmax()))
            if len(found) == new_tokens or found[-1] in self.ends:
                return found
            log_probs = self._passed(found[-1:])

    def _passed(self, ids: Sequence[int]) -> Tensor:
        library, n = _library(), len(ids)
        tokens, wanted = (ctypes.c_int32 * n)(*ids), (ctypes.c_int8 * n)(*[1] * n)
        batch = _Batch(n_tokens=n, token=tokens, logits=wanted)
        if library.llama_decode(self.context, batch):
            raise ModelError(f"llama.cpp does not run {n} tokens")
        logits = library.llama_get_logits(self.context)
        found = np.ctypeslib.as_array(logits, (n, self.vocab)).copy()
        return torch.from_numpy(found).log_softmax(-1)
