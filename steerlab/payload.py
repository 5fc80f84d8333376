"""SteeringVector <-> safetensors: self-describing files, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from steerlab.errors import CorruptPayload, NotFound, SteerlabError, StoreError
from steerlab.notation import printable
from steerlab.record import Record, canonical_json, record_from_json
from steerlab.untrusted import check_weight, from_json
from steerlab.vector import Array, SteeringVector

FORMAT = 1
"""Version of the metadata; a file with a higher one is refused, never guessed at."""

METADATA_KEY = "steerlab"  # the only one: with several, the file's bytes vary between processes
TEMPORARY_PREFIX = ".tmp-"

LONGEST_HEADER = 12 * 2**20
MOST_OBJECTS = 120_000
"""Bytes and objects of a file's header, where the records are: no file with more is written or
read. A header is not trusted: parsing one of many tensors takes ten times its size."""


def encode(entries: Sequence[tuple[Record, SteeringVector]]) -> bytes:
    """The bytes of a payload file holding one vector, or many that came together.

    Tensor "<model>.<name>.v<n>/<layer>" is that layer's float32 direction; the single
    metadata key holds the records as canonical JSON, with their sha256. The same input gives
    the same bytes. Raises StoreError if two vectors would go under one key, or for records that
    are too large to be read again.
    """
    tensors = {
        f"{record.qualified}/{b}": array
        for record, vector in entries
        for b, array in vector.float32().items()
    }
    keys = [record.qualified for record, _ in entries]
    if repeated := [key for key, count in Counter(keys).items() if count > 1]:
        raise StoreError(f"one file can't hold two vectors called {repeated[0]}")
    records = [{"key": record.qualified, **record.to_json()} for record, _ in entries]
    header = {"format": FORMAT, "sha256": _checksum(records), "vectors": records}
    data = to_bytes(tensors, metadata={METADATA_KEY: (text := canonical_json(header))})
    try:
        _check_header(io.BytesIO(data))
        check_weight(text)
    except ValueError as error:
        raise StoreError(
            f"what is to be kept of {', '.join(keys[:3])} is too large for a file ({error}): "
            "make it of fewer prompts"
        ) from None
    return data


def read_records(path: Path) -> dict[str, Record]:
    """Key -> record of every vector in a payload file, without reading the arrays.

    Raises NotFound if there is no such file, StoreError if it can't be read, CorruptPayload
    if it is not a payload.
    """
    with _opened(path) as file:
        return _records(file.metadata(), path)


def read(path: Path, key: str | None = None) -> tuple[Record, SteeringVector]:
    """One vector of a payload file, checked against its digest.

    key: which one; None for a file that holds one.
    Raises NotFound, or CorruptPayload if anything about the file is not as it says.
    """
    with _opened(path) as file:
        records = _records(file.metadata(), path)
        if key is None and len(records) == 1:
            key = next(iter(records))
        if key not in records:
            held = printable(", ".join(list(records)[:5])) or "no vector"
            raise NotFound(f"{path} holds {held}, not {key}")
        return _vector(file, key, records[key], path)


def read_known(path: Path, key: str, record: Record) -> SteeringVector | None:
    """The vector that a file says exactly this of; None where it says, or holds, another thing.

    Checked against its digest. The other records of the file are not read, which takes its time
    where there are hundreds. Raises as `read_records` does.
    """
    said = canonical_json({"key": key, **record.to_json()})
    with _opened(path) as file:
        if said not in (file.metadata() or {}).get(METADATA_KEY, ""):
            return None
        with contextlib.suppress(CorruptPayload):
            return _vector(file, key, record, path)[1]
    return None


def read_all(path: Path) -> list[tuple[Record, SteeringVector]]:
    """Every vector of a payload file, each checked against its digest."""
    with _opened(path) as file:
        records = _records(file.metadata(), path)
        return [_vector(file, key, record, path) for key, record in records.items()]


def read_arrays(path: Path, wanted: Mapping[str, Sequence[int]]) -> dict[str, dict[int, Array]]:
    """Key -> layer -> array as it lies in the file; keys that are not whole there are left out.

    Nothing is checked, and no record is read: for hints over many vectors, not for use.
    Raises as `read_records` does.
    """
    found = {}
    with _opened(path) as file:
        for key, layers in wanted.items():
            with contextlib.suppress(SafetensorError, ValueError):
                found[key] = {b: np.asarray(file.get_tensor(f"{key}/{b}")) for b in layers}
    return found


def write(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: a reader sees all of it or nothing of it.

    Temporary file in the same directory, flush, fsync, rename, fsync of the directory.
    Raises StoreError when the disk is full or the directory read-only; no part is left then.
    """
    temporary = stage(path, data)
    try:
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise _unwritten(path, temporary, error) from None


def stage(path: Path, data: bytes) -> Path:
    """Write a temporary file beside `path`, and have it on the disk; returns where it is.

    Raises StoreError as `write` does.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        make_directory(path.parent)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritten(path, temporary, error) from None
    return temporary


def _unwritten(path: Path, temporary: Path, error: OSError) -> StoreError:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
    return StoreError(f"can't write {path}: {error.strerror or error}")


def make_directory(path: Path) -> None:
    """Create a directory durably: its entry in the parent is synced too."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename or a new name in this directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> Any:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CorruptPayload(f"{path} is not a file but a device or a pipe")
            _check_header(file)
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise NotFound(f"no payload file {path}") from None
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise CorruptPayload(f"{path} is not a whole safetensors file: {_short(error)}") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for its writer


def _check_header(file: BinaryIO) -> None:
    """Refuse a header that is or claims to be larger than any that is written, unparsed."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes, where {LONGEST_HEADER} is the most")
    if file.read(length).count(b"{") > MOST_OBJECTS:
        raise ValueError(f"a header of more than {MOST_OBJECTS} objects")


def _short(error: object) -> str:
    """What a library says of an error, which may quote the file, in one line of bounded length."""
    text = printable(str(error))
    return text if len(text) <= 200 else f"{text[:200]}…"


def _records(metadata: dict[str, str] | None, path: Path) -> dict[str, Record]:
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise CorruptPayload(f"{path} is a safetensors file, but not steerlab's: no record in it")
    try:
        if not text.isascii():  # canonical JSON is, and takes a quarter of the memory
            raise CorruptPayload(f"{path} has a record that steerlab did not write: not ASCII")
        data = from_json(text)
        if type(data["format"]) is not int or data["format"] < 1:
            raise CorruptPayload(f"{path} has a payload format that never was")
        if data["format"] > FORMAT:
            raise CorruptPayload(
                f"{path} has payload format {data['format']}, newer than this steerlab reads "
                f"({FORMAT}): upgrade steerlab"
            )
        if data["sha256"] != _checksum(data["vectors"]):
            raise CorruptPayload(f"{path} was altered: its record no longer matches its checksum")
        entries = [dict(entry) for entry in data["vectors"]]
        records = {str(entry.pop("key")): record_from_json(entry) for entry in entries}
        if len(records) < len(entries):
            raise CorruptPayload(f"{path} holds two vectors under one key")
        return records
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CorruptPayload(f"{path} has a record that can't be read: {_short(why)}") from None
    except CorruptPayload as error:
        if str(path) in str(error):
            raise
        raise CorruptPayload(f"{path}: {_short(error)}") from None


def _checksum(records: Any) -> str:
    """sha256 of the records' canonical JSON, made record by record: it is as long as the file."""
    if not isinstance(records, list):
        return hashlib.sha256(canonical_json(records).encode()).hexdigest()
    sha = hashlib.sha256(b"[")
    for number, record in enumerate(records):
        sha.update(b"," * (number > 0))
        sha.update(canonical_json(record).encode())
    sha.update(b"]")
    return sha.hexdigest()


class _Directions(Mapping[int, Array]):
    """Layer -> array as it is asked for: a vector's own are twice as large, one is enough."""

    def __init__(self, file: Any, key: str, layers: Sequence[int]) -> None:
        self.file, self.key, self.layers = file, key, dict.fromkeys(layers)

    def __getitem__(self, layer: int) -> Array:
        name = f"{self.key}/{layer}"
        kind = self.file.get_slice(name).get_dtype()
        if kind != "F32":
            raise CorruptPayload(f"{printable(name)[:100]} is {kind}, not F32")
        return np.asarray(self.file.get_tensor(name))

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def _vector(file: Any, key: str, record: Record, path: Path) -> tuple[Record, SteeringVector]:
    try:
        vector = SteeringVector(
            _Directions(file, key, [facts.layer for facts in record.layers]),
            model=record.model,
            scope=record.scope,
            recipe=record.recipe,
            residual_norms={f.layer: f.residual_norm for f in record.layers if f.residual_norm},
            diagnostics={f.layer: f.diagnostics for f in record.layers},
            ref=record.ref,
        )
    except (SafetensorError, ValueError) as error:
        raise CorruptPayload(f"{path} can't be read: {_short(error)}") from None
    except SteerlabError as error:
        raise CorruptPayload(f"{path}: {_short(error)}") from None
    if vector.digest != record.digest:
        raise CorruptPayload(
            f"{path} was altered: {record.ref} no longer matches its digest {record.digest[:12]}; "
            "restore the file from a copy, or remove the vector"
        )
    return record, vector
