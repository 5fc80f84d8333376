"""Telling foreign files apart by their bytes, never by their names, and reading them."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from steerlab.core.recipe import is_name
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import header
from steerlab.files.limits import from_json
from steerlab.interop import gguf, json_files, numpy_files, safetensors_files, torch_files
from steerlab.interop.foreign import Foreign, UnknownFile

MOST_BYTES = 64_000_000
"""Bytes of the largest file that is read: vectors of 128 layers of 16384 numbers have 8 MB."""


Read = Callable[[bytes, str], list[Foreign]]

READERS: dict[str, Read] = {
    "gguf": gguf.read,
    "npy": numpy_files.read_npy,
    "npz": numpy_files.read_npz,
    "pt": torch_files.read,
    "safetensors": safetensors_files.read,
    "json": json_files.read,
}
"""Container -> its reader, which takes the bytes and the name of the file."""

_ZIP, _NUMPY, _GZIP = b"PK\x03\x04", b"\x93NUMPY", b"\x1f\x8b"


def is_ours(path: Path) -> bool:
    """Whether a file is for the registry to read or refuse: a payload, an archive, or unreadable.

    Reads its beginning alone.
    """
    try:
        with open(path, "rb", opener=header.without_waiting) as file:
            start = file.read(512)
            length = int.from_bytes(start[:8], "little")
            if not _is_safetensors(start):
                known = start.startswith((_ZIP, _NUMPY, gguf.MAGIC))
                return start[257:262] == b"ustar" and not known
            file.seek(8)
            return f'"{header.METADATA_KEY}"'.encode() in file.read(min(length, 1 << 16))
    except OSError:
        return True


def read(path: Path) -> list[Foreign]:
    """The vectors of a foreign file; raises CorruptPayload, in one line, for anything else."""
    what = str(path)
    data = _bytes_of(path)
    kind = container_of(data, what)
    found = READERS[kind](data, what)
    sidecar = path.with_suffix(".json")
    if kind == "safetensors" and sidecar != path and sidecar.is_file():
        found = safetensors_files.with_sidecar(found, header.read_plain(sidecar), data, what)
    if any(one.format == safetensors_files.FIT for one in found):
        raise CorruptPayload(
            f"{what} is a fit of saklas, whose layers {sidecar.name} weighs: put it beside the file"
        )
    stem = path.name.partition(".")[0] if path.name.strip(".") else ""
    hint = _hint(path, stem)
    return [
        replace(
            one, name=_name(one.name, stem), hint=one.hint or (hint if None in one.rows else "")
        )
        for one in found
    ]


def container_of(data: bytes, what: str) -> str:
    """The container of a file, a key of READERS; raises CorruptPayload for other files."""
    start = data[:512].lstrip()
    if not start:
        raise CorruptPayload(f"{what} is empty: copy it here again")
    if start.startswith(b"version https://git-lfs"):
        raise CorruptPayload(
            f"{what} is a Git LFS pointer, not the file itself: fetch it with git lfs pull"
        )
    if start[:1] == b"<" or start[:9].lower() == b"<!doctype":
        raise CorruptPayload(
            f"{what} is a web page, not a vector: download the raw file, and log in if it asks"
        )
    if data.startswith(_GZIP):
        raise CorruptPayload(f"{what} is compressed: unpack it with gunzip first")
    if data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05":
        raise CorruptPayload(
            f"{what} is a pickle, which can run programs, so it is not read: if you trust it, "
            f"convert it with {torch_files.CONVERT}"
        )
    kinds = _kinds(data, start)
    if data.startswith(_ZIP) and not kinds:
        raise CorruptPayload(f"{what} is a zip file that was cut short: copy it here again")
    if len(kinds) > 1:
        raise CorruptPayload(f"{what} is two formats at once, {' and '.join(kinds)}: not read")
    kind = kinds[0] if kinds else ""
    if kind not in READERS:
        raise UnknownFile(
            f"{what} is no vector file that steerlab knows: it begins with {data[:8]!r}"
        )
    return kind


def _kinds(data: bytes, start: bytes) -> list[str]:
    """Every container that a file is, judging by its first bytes and by a zip's directory."""
    known = {
        "gguf": data.startswith(gguf.MAGIC),
        "npy": data.startswith(_NUMPY),
        "safetensors": _is_safetensors(data),
        "json": start[:1] in (b"{", b"["),
    }
    return [kind for kind, holds in known.items() if holds] + _kinds_of_zip(data)


def _kinds_of_zip(data: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = [f"/{name}" for name in file.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError):
        return []
    known = {"pt": "/data.pkl", "npz": ".npy"}
    kinds = [k for k, suffix in known.items() if any(n.endswith(suffix) for n in names)]
    return kinds or ["zip"]


def _is_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40


def _bytes_of(path: Path) -> bytes:
    data = header.read_plain(path)
    if len(data) > MOST_BYTES:
        raise CorruptPayload(
            f"{path} has {len(data) / 1e6:.0f} MB, more than any vector file: is it a model?"
        )
    return data


# names


def _name(stated: str, stem: str) -> str:
    """A name for the vector: the one in the file, else the name of the file."""
    for text in (re.sub(r"\.v\d+$", "", stated), stem):
        name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")[:70]
        for called in (name, f"vector_{name}") if name else ():
            if is_name(called):
                return called
    return "vector"


_METADATA = "direction_metadata.json"
"""The file that refusal_direction writes beside direction.pt; it counts layers as we do."""

_LAYER_IN_NAME = re.compile(r"(?:layer|(?<![a-z])l)[ _.=-]*(\d{1,3})(?!\d)", re.IGNORECASE)


def _hint(path: Path, stem: str) -> str:
    """What is known of the layer of a file that does not state it; "layer-10" is not minus ten."""
    with contextlib.suppress(SteerlabError, ValueError, TypeError, KeyError):
        said = from_json(header.read_plain(path.with_name(_METADATA)).decode())["layer"]
        if type(said) is int:
            return f"{_METADATA} beside it says --layer {said}"
    found = _LAYER_IN_NAME.search(stem)
    if found is None:
        return ""
    number = int(found[1])
    return (
        f"its name suggests {number}: --layer {number} if that is the input of block {number}, "
        f"--layer {number + 1} if it is its output"
    )
