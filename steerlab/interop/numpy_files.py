"""Arrays of numpy: .npy and .npz, without pickles."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy

from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload
from steerlab.interop import arrays
from steerlab.interop.foreign import Array, Foreign, rows_of, shortened

MOST_UNPACKED = 32_000_000
"""Bytes that an archive may hold beyond its own size."""

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z]\d{0,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}+,? ?){0,8})\), ?\}"
)
"""As numpy writes it: the keys are sorted."""

_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError),
    *(NotImplementedError, RuntimeError, OverflowError, KeyError),
)
"""What zipfile raises for damaged files."""


def read_npy(data: bytes, what: str) -> list[Foreign]:
    """The vectors of one array."""
    return arrays.vectors_of("npy", {"": _array(data, what)}, what)


def read_npz(data: bytes, what: str) -> list[Foreign]:
    """The vectors of an archive of arrays."""
    parts = unpacked(data, what)
    named = {name.removesuffix(".npy"): _array(part, what) for name, part in parts.items()}
    return arrays.vectors_of("npz", named, what)


def write_npz(vector: SteeringVector) -> bytes:
    """An archive with an array (d_model,) a layer; the same vector gives the same bytes.

    Keys are TransformerLens's: "blocks.15.hook_resid_pre".
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for b, row in rows_of(vector, "an npz file").items():
            part = io.BytesIO()
            npy.write_array(part, row)
            entry = zipfile.ZipInfo(f"blocks.{b}.hook_resid_pre.npy")
            file.writestr(entry, part.getvalue())
    return packed.getvalue()


def unpacked(data: bytes, what: str) -> dict[str, bytes]:
    """The files of a zip of bounded size; raises CorruptPayload."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            sizes = sum(max(entry.file_size, entry.compress_size) for entry in entries)
            if sizes > len(data) + MOST_UNPACKED:
                raise CorruptPayload(f"{what} would unpack to {sizes} bytes, which no vector has")
            if any(entry.compress_type not in _PACKED for entry in entries):
                raise CorruptPayload(f"{what} is packed as neither numpy nor torch packs")
            if len({entry.filename for entry in entries}) < len(entries):
                raise CorruptPayload(f"{what} holds two files of one name")
            return {entry.filename: _unpacked(file, entry) for entry in entries}
    except _BROKEN as error:
        raise CorruptPayload(f"{what} is not a whole zip file: {shortened(error)}") from None


def _unpacked(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes that an entry states to have; `file.read` unpacks up to 2 GiB more at once."""
    with file.open(entry) as part:
        return part.read(entry.file_size)


def _array(data: bytes, what: str) -> Array:
    """An array in the format of .npy, as a view of the data."""
    wide = data[6:7] != b"\x01"  # versions 2 and 3
    start = 12 if wide else 10
    end = start + int.from_bytes(data[8:start], "little")
    found = _HEADER.fullmatch(data[start:end].rstrip()) if end - start <= _LONGEST_HEADER else None
    if not data.startswith(_MAGIC) or found is None:
        raise CorruptPayload(f"{what} is not a whole array of plain numbers of numpy")
    dtype, fortran, *_ = (part.decode() for part in found.groups())
    if dtype[1] == "O":
        raise CorruptPayload(f"{what} holds Python objects, not numbers: it is not read")
    shape = [int(n) for n in found[3].decode().replace(",", " ").split()]
    try:
        flat = np.frombuffer(data, dtype, math.prod(shape), end)
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptPayload(f"{what} is not a whole array of numpy: {shortened(error)}") from None
    return flat.reshape(shape[::-1]).T if fortran == "True" else flat.reshape(shape)
