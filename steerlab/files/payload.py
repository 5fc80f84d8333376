"""Payload files: steering vectors as safetensors with their records, checked on reading.

A payload file holds one vector, or several that were saved together. The tensor "<key>/<layer>"
is the float32 direction of a layer; the single metadata key holds the records as canonical JSON,
with their sha256. Format 2, which is written now, holds stories under their own sha256, each with
the labels that it had then, if any. Format 1 used names as keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from steerlab.core.direction import Array
from steerlab.core.display import printable
from steerlab.core.record import Labels, Record, canonical_json, record_from_json, record_from_story
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, CorruptPayload, NotFound, SteerlabError, StoreError
from steerlab.files import header
from steerlab.files.limits import TooLarge

FORMAT = 2
"""Version of the metadata; a file with a higher one is refused, never guessed at."""

PROMISING = frozenset(
    (".gguf", ".npy", ".npz", ".pt", ".pth", ".bin", ".pkl", ".svec", ".json", ".onnx", ".h5")
)
"""Suffixes of files that other programs read, which a payload file must not have."""

_PIECE = 2**20
_OFFSETS = re.compile(rb'"data_offsets":\[(\d{1,18}),(\d{1,18})\]\}')

_Arrays = dict[str, dict[str, Array]]
"""Key -> layer, as text -> float32 array."""


def check_suffix(path: Path) -> None:
    """Raise BadOption for a name that promises another format than a payload file."""
    if path.suffix.lower() in PROMISING:
        raise BadOption(
            f"{path} would be a payload file, and its name promises another format: call it "
            f"{path.stem}.safetensors, or choose a format with `steerlab export --to`"
        )


def encode(entries: Sequence[tuple[Record, SteeringVector]]) -> bytes:
    """The bytes of a payload file; the same input gives the same bytes.

    Raises StoreError for a vector that is there twice, or for records that are too large to be
    read again.
    """
    keys = [record.story for record, _ in entries]
    if repeated := [key for key, count in Counter(keys).items() if count > 1]:
        ref = next(record.ref for record, _ in entries if record.story == repeated[0])
        raise StoreError(f"one file can't hold {ref} twice")
    tensors = {
        f"{key}/{b}": array
        for key, (_, vector) in zip(keys, entries, strict=True)
        for b, array in vector.float32().items()
    }
    said = (spelt(record) for record, _ in entries)
    records = f"[{','.join(said)}]"
    text = f"{_beginning(FORMAT, hashlib.sha256(records.encode()).hexdigest())}{records}}}"
    data = to_bytes(tensors, metadata={header.METADATA_KEY: text})
    header.check_size([record for record, _ in entries], data, text)
    return data


def read_records(path: Path) -> dict[str, Record]:
    """Key -> record of every vector in a payload file, without reading the arrays.

    Raises NotFound if there is no such file, StoreError if it can't be read, FileTooLarge if this
    steerlab does not read as much, CorruptPayload if it is not a payload.
    """
    file, length = _opened(path)
    with file:
        text = _short_text(file, length)
    return _records(header.long_text(path) if text is None else text, path)


def read(
    path: Path, key: str | None = None, labels: Labels | None = None
) -> tuple[Record, SteeringVector]:
    """One vector of a payload file, checked against its digest.

    key: the vector's; None for a file of one vector. labels: its labels, if they are known.
    Raises NotFound, or CorruptPayload if the file is damaged.
    """
    records, arrays = _contents(path, key)
    if key is None and len(records) == 1:
        key = next(iter(records))
    if key not in records:
        held = printable(", ".join(list(records)[:5])) or "no vector"
        raise NotFound(f"{path} holds {held}, not {key}")
    record = records[key] if labels is None else records[key].labelled(labels)
    return _vector(path, arrays.get(key, {}), record)


def read_known(path: Path, known: Iterable[tuple[str, Record]]) -> Iterator[SteeringVector | None]:
    """The vectors of known records, by their keys in a file; None for those that can't be read.

    Each is checked against its digest. The header, which may hold hundreds of records, is
    searched for the arrays instead of parsed. `read` reads headers that are spelled differently,
    and reports errors.
    """
    with contextlib.ExitStack() as stack:
        text = b""
        with contextlib.suppress(OSError):
            file = open(path, "rb", buffering=0, opener=header.without_waiting)  # noqa: SIM115
            stack.enter_context(file)
            text = header.unparsed(file)
        for key, record in known:
            found = None
            with contextlib.suppress(OSError, ValueError, CorruptPayload):  # a row may say inf
                found = _vector(path, _found(file, text, key, record), record)[1] if text else None
            yield found


def read_all(path: Path) -> list[tuple[Record, SteeringVector]]:
    """Every vector of a payload file, each checked against its digest."""
    records, arrays = _contents(path)
    return [_vector(path, arrays.pop(key, {}), record) for key, record in records.items()]


def read_arrays(path: Path, wanted: Mapping[str, Sequence[int]]) -> dict[str, dict[int, Array]]:
    """Key -> layer -> array; keys with a missing layer are left out.

    Nothing is checked and no record is read: for approximate searches over many vectors.
    Raises as `read_records` does.
    """
    file, _ = _opened(path)
    found: dict[str, dict[int, Array]] = {}
    with file:
        for key, layers in wanted.items():
            with contextlib.suppress(SafetensorError, ValueError):
                found[key] = {b: np.asarray(file.get_tensor(f"{key}/{b}")) for b in layers}
    return found


def _opened(path: Path) -> tuple[Any, int]:
    """A file opened by safetensors, and the length of its header."""
    try:
        with open(path, "rb", opener=header.without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CorruptPayload(f"{path} is not a file but a device or a pipe")
            length = header.length_of(file, status.st_size)
        return safe_open(path, framework="numpy"), length
    except FileNotFoundError:
        raise NotFound(f"no payload file {path}") from None
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from None
    except TooLarge as error:
        raise header.FileTooLarge.of(path, error) from None
    except (SafetensorError, ValueError) as error:
        raise CorruptPayload(f"{path} is not a whole safetensors file: {_short(error)}") from None


def _found(file: io.FileIO, text: bytes, key: str, record: Record) -> dict[int, Array]:
    """Layer -> array, for tensors that are spelled as safetensors writes them."""
    begin, size = 8 + len(text), os.fstat(file.fileno()).st_size
    last = text.rfind(f'"{key}/'.encode())
    found = {}
    for facts in record.layers:
        shape = (facts.positions, record.model.d_model)
        spelt = f'"{key}/{facts.layer}":{{"dtype":"F32","shape":[{shape[0]},{shape[1]}],'.encode()
        at = text.rfind(spelt, 0, last + len(spelt))
        offsets = _OFFSETS.match(text, at + len(spelt)) if at >= 0 else None
        if offsets is None:
            continue
        start, end = map(int, offsets.groups())
        if end - start == 4 * shape[0] * shape[1] and begin + end <= size:
            file.seek(begin + start)
            found[facts.layer] = np.frombuffer(file.read(end - start), "<f4").reshape(shape)
    return found


def _contents(path: Path, key: str | None = None) -> tuple[dict[str, Record], _Arrays]:
    """The records of a file, and the float32 arrays of one vector or of all.

    Arrays are read first: an open safetensors file holds its header three times in memory.
    """
    file, length = _opened(path)
    with file:
        text = _short_text(file, length)
        arrays = _all_taken(file, key) if text is None or text else {}
    if text is None:  # nothing here may hold a long text while its records are made
        return _records(header.long_text(path), path), arrays
    return _records(text, path), arrays


def _short_text(file: Any, length: int) -> str | None:
    """The records' text; empty if there is none, None if it is long (`header.is_long`)."""
    if header.is_long(length):
        return None
    return str((file.metadata() or {}).get(header.METADATA_KEY, ""))


def _all_taken(file: Any, key: str | None) -> _Arrays:
    found: _Arrays = defaultdict(dict)
    for name in file.keys():  # noqa: SIM118  # it is no dict
        owner, _, layer = name.rpartition("/")
        if key in (None, owner):
            with contextlib.suppress(SafetensorError, ValueError):
                found[owner][layer] = np.asarray(file.get_tensor(name))
    return found


def _short(error: object) -> str:
    """An error of a library, which may quote the file, as one short line."""
    text = printable(str(error))
    return text if len(text) <= 200 else f"{text[:200]}…"


def _records(text: str, path: Path) -> dict[str, Record]:
    if not text:
        raise CorruptPayload(f"{path} is a safetensors file, but not steerlab's: no record in it")
    try:
        if not text.isascii():  # canonical JSON is, and takes a quarter of the memory
            raise CorruptPayload(f"{path} has a record that steerlab did not write: not ASCII")
        data = header.values(text)
        if type(data["format"]) is not int or data["format"] < 1:
            raise CorruptPayload(f"{path} has a payload format that never was")
        if data["format"] > FORMAT:
            raise CorruptPayload(
                f"{path} has payload format {data['format']}, newer than this steerlab reads "
                f"({FORMAT}): upgrade steerlab"
            )
        if not _is_sealed(text, data):
            raise CorruptPayload(f"{path} was altered: its record no longer matches its checksum")
        del text
        entries = [dict(entry) for entry in data["vectors"]]
        read_one = record_from_json if data["format"] == 1 else record_from_story
        records = {str(entry.pop("key")): read_one(entry) for entry in entries}
        if len(records) < len(entries):
            raise CorruptPayload(f"{path} holds two vectors under one key")
        return records
    except TooLarge as error:
        raise header.FileTooLarge.of(path, error) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CorruptPayload(f"{path} has a record that can't be read: {_short(why)}") from None
    except CorruptPayload as error:
        if str(path) in str(error):
            raise
        raise CorruptPayload(f"{path}: {_short(error)}") from None


def spelt(record: Record) -> str:
    """The text of a record as it is written to a file."""
    more = {"labels": record.labels.to_json()} if record.name else {}
    return canonical_json({"key": record.story, **record.story_to_json(), **more})


def _beginning(number: object, sha256: object) -> str:
    """The part of the text before the records, as canonical JSON."""
    return f'{{"format":{number},"sha256":"{sha256}","vectors":'


def _is_sealed(text: str, data: Any) -> bool:
    """Whether the checksum in a text matches its records.

    A text as `encode` writes it is hashed directly, which saves its size in memory; a long text
    that is spelled differently was not written by steerlab.
    """
    begin = _beginning(data["format"], data["sha256"])
    if text.startswith(begin) and text.endswith("}"):
        sha = hashlib.sha256()
        for at in range(len(begin), len(text) - 1, _PIECE):
            sha.update(text[at : min(at + _PIECE, len(text) - 1)].encode())
        if sha.hexdigest() == data["sha256"]:
            return True
    if header.is_long(len(text)):
        return False
    records = canonical_json(data["vectors"]).encode()
    return bool(data["sha256"] == hashlib.sha256(records).hexdigest())


def _vector(
    path: Path, arrays: Mapping[Any, Array], record: Record
) -> tuple[Record, SteeringVector]:
    """The vector of a record, checked; arrays: by layer, as a number or as text."""
    try:
        spelt = {str(layer): array for layer, array in arrays.items()}
        vector = from_arrays({f.layer: _float32(spelt, f.layer) for f in record.layers}, record)
    except ValueError as error:
        raise CorruptPayload(f"{path} can't be read: {_short(error)}") from None
    except SteerlabError as error:
        raise CorruptPayload(f"{path}: {_short(error)}") from None
    if vector.digest != record.digest:
        raise CorruptPayload(
            f"{path} was altered: {record.ref} no longer matches its digest {record.digest[:12]}; "
            "restore the file from a copy, or remove the vector"
        )
    return record, vector


def from_arrays(arrays: Mapping[int, NDArray[Any]], record: Record) -> SteeringVector:
    """The vector of a record with these arrays by layer, unchecked."""
    return SteeringVector(
        arrays,
        model=record.model,
        scope=record.scope,
        recipe=record.recipe,
        residual_norms={f.layer: f.residual_norm for f in record.layers if f.residual_norm},
        diagnostics={f.layer: f.diagnostics for f in record.layers},
        ref=record.ref if record.name else None,
    )


def _float32(arrays: Mapping[str, Array], layer: int) -> Array:
    array = arrays.get(str(layer))
    if array is None or array.dtype != np.float32:
        raise CorruptPayload(f"its layer {layer} is {'missing' if array is None else 'not F32'}")
    return array
