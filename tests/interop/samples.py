"""Files in the layouts of other programs, made by code of our own."""

from __future__ import annotations

import io
import struct

import numpy as np

ROWS = {n: np.random.default_rng(n).normal(size=8).astype("<f4") for n in (1, 2, 4)}
"""What the files hold: number -> direction, of a model that is 8 wide."""

RNG = np.random.default_rng(0)
ONE = RNG.normal(size=8).astype("<f4")
STACK = RNG.normal(size=(6, 8)).astype("<f4")
HIDDEN = RNG.normal(size=(7, 8)).astype("<f4")
POSITIONS = RNG.normal(size=(2, 6, 8))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def gguf_file(rows, keys=(), hint="llama", kind=0):
    """A GGUF control vector; rows: direction number, or name of a tensor -> array."""
    keys = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": hint,
        "controlvector.layer_count": len(rows),
        **dict(keys),
    }
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(rows), len(keys)))
    for key, value in keys.items():
        head += _text(key)
        if isinstance(value, str):
            head += struct.pack("<I", 8) + _text(value)
        elif isinstance(value, int):
            head += struct.pack("<II", 4, value)
        else:
            head += struct.pack("<If", 6, value)
    body = bytearray()
    for number, row in rows.items():
        name = f"direction.{number}" if isinstance(number, int) else number
        head += _text(name) + struct.pack("<IQIQ", 1, len(row), kind, len(body))
        body += np.asarray(row, "<f4").tobytes()
        body += bytes(-len(body) % 32)
    return bytes(head + bytes(-len(head) % 32) + body)


def _text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()
