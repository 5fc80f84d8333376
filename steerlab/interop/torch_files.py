"""Files of torch.save (.pt, .pth), read without unpickling.

Such a file is a zip: `NAME/data.pkl`, a pickle, and `NAME/data/N`, the numbers. The pickle's
opcodes are read one by one, and those that build dicts, lists, tuples, texts, numbers and tensors
are followed. Nothing is imported, and nothing is called that a file names.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload, Incompatible
from steerlab.interop import arrays
from steerlab.interop.foreign import Array, Foreign, fact, foreign, outputs_of, shortened
from steerlab.interop.numpy_files import unpacked
from steerlab.interop.torch_writer import dumped

CONVERT = (
    'python -c "import sys, torch; '
    'torch.save(torch.load(sys.argv[1], weights_only=False), sys.argv[2])" OLD NEW'
)
"""A command that saves the plain tensors of a pickle, for users who trust it."""

_LONGEST = 500_000  # bytes of the pickle, which has no numbers of tensors in it
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}


class _Unreadable(ValueError):
    """A pickle that does more than build plain values and tensors."""


class _Global(NamedTuple):
    """A class or function that a pickle names; it is never imported."""

    module: str
    name: str


class _Storage(NamedTuple):
    """The numbers of a file in the zip."""

    kind: str
    key: str


def read(data: bytes, what: str) -> list[Foreign]:
    """The vectors of a file, in any layout that is known; raises CorruptPayload for others."""
    parts = unpacked(data, what)
    pickles = [name for name in parts if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CorruptPayload(f"{what} holds {len(pickles)} pickles, where torch writes one")
    root = pickles[0].removesuffix("data.pkl")
    if parts.get(f"{root}byteorder", b"little") != b"little":
        raise CorruptPayload(f"{what} has big-endian numbers, which are not read")
    storages = {
        name.removeprefix(f"{root}data/"): part
        for name, part in parts.items()
        if name.startswith(f"{root}data/")
    }
    try:
        value = _Machine(parts[pickles[0]], storages).value()
    except _Unreadable as error:
        raise CorruptPayload(
            f"{what} needs to be unpickled ({shortened(error)}), which can run programs: if you "
            f"trust it, save its tensors alone; {CONVERT} is a beginning"
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise CorruptPayload(f"{what} is not a whole file of torch: {shortened(error)}") from None
    return _vectors(value, what)


_MARK = object()
"""Where the items of a container begin on the stack."""


class _Machine:
    """Follows the opcodes of a pickle that build plain values and tensors."""

    def __init__(self, pickle: bytes, storages: Mapping[str, bytes]) -> None:
        if len(pickle) > _LONGEST:
            raise _Unreadable(f"a pickle of {len(pickle)} bytes")
        self._pickle, self._storages = pickle, storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left = sum(map(len, storages.values()))  # entries that tensors may still have

    def value(self) -> Any:
        """The value that the pickle builds."""
        for opcode, argument, _ in pickletools.genops(self._pickle):
            if opcode.name == "STOP":
                break
            self._follow(opcode.name, argument)
        return self._stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(name))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(name[-1]))))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "SETITEM":
                self._set(self._last(2))
            case "SETITEMS":
                self._set(self._marked())
            case "APPEND":
                self._extend(self._last(1))
            case "APPENDS":
                self._extend(self._marked())
            case "GLOBAL":  # a name, which is not looked up
                stack.append(_Global(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_Global(*map(str, self._last(2))))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(self._called(*self._last(2)))
            case "BUILD":  # attributes, as a state dict has, are left out
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise _Unreadable("it sets attributes")
            case _:
                raise _Unreadable(f"it uses {name}")

    def _last(self, n: int) -> list[Any]:
        """Take the last items off the stack."""
        if len(self._stack) < n:
            raise ValueError("its pickle takes more than it made")
        return [self._stack.pop() for _ in range(n)][::-1]

    def _marked(self) -> list[Any]:
        """Take the items down to the last mark off the stack."""
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _set(self, items: list[Any]) -> None:
        """Put pairs of a key and a value into the dict on top."""
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Unreadable("it fills something else than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise _Unreadable("a key that is neither text nor a number")
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _Unreadable("it fills something else than a list")
        self._stack[-1].extend(items)

    def _called(self, function: Any, arguments: Any) -> Any:
        """A tensor or an empty dict; nothing else is called."""
        if function == ("collections", "OrderedDict") and arguments == ():
            return {}
        if function == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor(*arguments[:4])
        if function == ("torch._utils", "_rebuild_parameter"):
            return arguments[0]
        raise _Unreadable(f"it calls {'.'.join(map(str, function))!s:.80}")

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Array:
        """A view of a storage; a copy if it is bfloat16."""
        whole = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in whole):
            raise ValueError("a tensor of which the numbers are elsewhere")
        flat = np.frombuffer(self._storages[storage.key], _DTYPES[storage.kind])
        if len(shape) != len(strides) or len(shape) > 8:
            raise ValueError(f"a tensor of {len(shape)} dimensions")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        self._left -= math.prod(shape)
        if math.prod(shape) and (last >= len(flat) or self._left < 0):
            raise ValueError("a tensor that reaches beyond its numbers")
        view = np.lib.stride_tricks.as_strided(
            flat[offset:], shape, [step * flat.itemsize for step in strides], writeable=False
        )
        if storage.kind != "BFloat16Storage":
            return view
        return (view.astype("<u4") << 16).view("<f4")


def _storage(described: Any) -> _Storage:
    """The storage that a tuple describes."""
    if not isinstance(described, tuple) or len(described) != 5 or described[0] != "storage":
        raise _Unreadable("an unknown persistent id")
    kind, key = described[1], described[2]
    if not isinstance(kind, _Global) or kind.module != "torch" or kind.name not in _DTYPES:
        raise _Unreadable(f"numbers of the type {getattr(kind, 'name', '?')!s:.40}")
    return _Storage(kind.name, str(key))


# layouts


def _vectors(value: Any, what: str) -> list[Foreign]:
    """The vectors of a value, by its layout."""
    if isinstance(value, np.ndarray):
        value = {"": value}
    if not isinstance(value, dict) or not value:
        raise CorruptPayload(
            f"{what} holds {_kind(value)}, and neither a tensor nor a dict of them"
        )
    if all(isinstance(entry, dict) and "steering_vector" in entry for entry in value.values()):
        return [_of_lm_eval(value, what)]
    if isinstance(inner := value.get("layer_activations"), dict):
        return _of_steering_vectors(inner, value.get("layer_type"), what)
    return arrays.vectors_of("pt", _tensors(value, what), what)


def _tensors(value: Mapping[Any, Any], what: str) -> dict[str, Array]:
    """The tensors of a dict by the text of their keys."""
    found = {str(key): entry for key, entry in value.items()}
    for key, entry in found.items():
        if not isinstance(entry, np.ndarray) or entry.dtype.kind != "f":
            raise CorruptPayload(f"{what}: {key[:60]!r} is {_kind(entry)}, and no tensor of floats")
    return found


def _of_lm_eval(value: Mapping[Any, Any], what: str) -> Foreign:
    """lm-evaluation-harness: hookpoint -> direction, coefficient and action."""
    rows: dict[int | None, Array] = {}
    strengths = set()
    for key, entry in value.items():
        place = arrays.place_of(str(key))
        if place is None or place[1] != "output":
            raise CorruptPayload(f"{what}: {str(key)[:60]!r} is no block's output")
        entry = {"action": "add", "steering_coefficient": 1.0, **entry}
        row = _tensors({key: entry.pop("steering_vector")}, what)[str(key)]
        rows[place[0]] = row.reshape(-1) if row.ndim and row.size == row.shape[-1] else row
        strengths.add(_strength(entry, f"{what}: {str(key)[:60]!r}"))
    if len(strengths) > 1:
        raise Incompatible(f"{what} has several coefficients, one a layer: multiply them in first")
    facts = (fact("coefficient", strengths.pop()),)
    return foreign("lm-eval", rows, what, site="output", facts=facts)


def _strength(entry: Mapping[Any, Any], where: str) -> float:
    """The coefficient of a hookpoint; raises Incompatible for anything but an addition."""
    said = {str(name): value for name, value in entry.items() if value is not None}
    c = said.pop("steering_coefficient", 1.0)
    if not isinstance(c, int | float):
        raise CorruptPayload(f"{where} has a coefficient that is no number but {_kind(c)}")
    if not abs(c) < 1e300:
        raise CorruptPayload(f"{where} has the coefficient {c!s:.20}, which no vector can have")
    if not isinstance(said.get("action"), str) or said.pop("action") != "add":
        raise Incompatible(f"{where} is not to be added, and steerlab adds vectors")
    if said:
        raise Incompatible(f"{where} has {min(said)[:40]!r}, which is not read")
    return float(c)


def _of_steering_vectors(layers: Mapping[Any, Any], kind: Any, what: str) -> list[Foreign]:
    """steering-vectors' state: layer -> direction, at the outputs of blocks."""
    if kind is not None and not (isinstance(kind, str) and kind == "decoder_block"):
        name = kind[:40] if isinstance(kind, str) else _kind(kind)
        raise Incompatible(f"{what} acts on {name}, where steerlab does not steer")
    found = arrays.vectors_of("steering-vectors", _tensors(layers, what), what)
    return [replace(one, site="output") for one in found]


def _kind(value: Any) -> str:
    return "the name of a class" if isinstance(value, _Global) else f"a {type(value).__name__}"


# writing


_BLOCKS = {
    **dict.fromkeys(("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gptj"), "h"),
    "mpt": "blocks",
    "opt": "decoder.layers",
}
"""Architecture -> the list of blocks in transformers' base model, where it is not "layers"."""


def write_lm_eval(vector: SteeringVector, coefficient: float) -> bytes:
    """A file for lm-evaluation-harness's `--model steered`."""
    blocks = _BLOCKS.get(vector.model.architecture, "layers")
    return dumped(
        {
            f"{blocks}.{block}": {
                "steering_vector": row,
                "steering_coefficient": float(coefficient),
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for block, row in outputs_of(vector, "an lm-eval file").items()
        }
    )
