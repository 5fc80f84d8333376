"""Files that `torch.load(weights_only=True)` reads, written without torch."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np

_INT, _TEXT, _FLOAT = b"J", b"X", b"G"  # BININT, BINUNICODE, BINFLOAT
_STATE = b"ccollections\nOrderedDict\n)R"


def dumped(value: Any) -> bytes:
    """A file of dicts, texts, floats, None and float32 arrays; the same value gives the same."""
    arrays: list[np.ndarray[Any, Any]] = []
    files = {"data.pkl": b"\x80\x02" + _pickled(value, arrays) + b".", "byteorder": b"little"}
    files |= {f"data/{n}": array.astype("<f4").tobytes() for n, array in enumerate(arrays)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in {**files, "version": b"3\n"}.items():
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return packed.getvalue()


def _pickled(value: Any, arrays: list[np.ndarray[Any, Any]]) -> bytes:
    if isinstance(value, dict):
        pairs = (_pickled(part, arrays) for pair in value.items() for part in pair)
        return b"}(" + b"".join(pairs) + b"u"
    if isinstance(value, str):
        text = value.encode()
        return _TEXT + struct.pack("<I", len(text)) + text
    if isinstance(value, float):
        return _FLOAT + struct.pack(">d", value)
    if isinstance(value, int):
        return _INT + struct.pack("<i", value)
    if value is None:
        return b"N"
    arrays.append(value)
    return _tensor(value, len(arrays) - 1)


def _tensor(array: np.ndarray[Any, Any], number: int) -> bytes:
    """A contiguous tensor of a storage of its own."""
    parts = ("storage", str(number), "cpu", array.size)
    name, key, device, size = (_pickled(part, []) for part in parts)
    storage = b"(" + name + b"ctorch\nFloatStorage\n" + key + device + size + b"tQ"
    strides = [step // array.itemsize for step in array.strides]
    layout = _pickled(0, []) + _ints(array.shape) + _ints(strides) + b"\x89" + _STATE
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + b"tR"


def _ints(numbers: Any) -> bytes:
    return b"(" + b"".join(_pickled(int(n), []) for n in numbers) + b"t"
