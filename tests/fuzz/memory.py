"""python -m tests.fuzz.memory: files that are small and would be large once read.

Each is read in this process, whose high-water mark may grow by twice the file and 100 MB.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from steerlab.core.recipe import Contrast
from steerlab.core.record import record_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import SteerlabError
from steerlab.evaluation.generalization.suite import suite
from steerlab.files import header, payload
from steerlab.files.contrast import read_items, read_pairs
from steerlab.files.prompts import read_lines
from steerlab.interop.torch_writer import dumped
from steerlab.registry import Store
from tests.fuzz import archives, foreign
from tests.fuzz.archives import Member
from tests.fuzz.campaign import ROOM, peak, reset_peak
from tests.fuzz.payloads import file_of
from tests.interop.samples import gguf_file, npy
from tests.registry.samples import TINY

_MANY = 10_000
"""Files of an archive of empty ones; each takes less memory than its header and checksum."""

WIDE = "\U0001f600"
"""One of these makes all of a text take four bytes a character."""


def import_new(path: Path) -> None:
    """Import into a store that is new."""
    Store(path.with_name(f"{path.name}-store")).transfer.import_(path)


def restore_new(path: Path) -> None:
    """Restore to a place where nothing is, and take it away again."""
    new = path.with_name(f"{path.name}-store")
    try:
        Store(new).transfer.restore(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def texts() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    """Text files as (name, reader, content)."""
    yield "wide.jsonl", read_pairs, f'{{"positive": "{WIDE}{"x" * 15_900_000}"}}'
    row = {"positive": f"I love you {WIDE}" * 9, "negative": "I hate you" * 9}
    yield "prose.jsonl", read_pairs, f"{json.dumps(row, ensure_ascii=False)}\n" * 50_000
    yield "short.csv", read_pairs, "positive,negative\n" + "ab,cd\n" * 540_000
    instruction = [{"pos": f"p{i}", "neg": f"n{i}"} for i in range(1000)]
    crossed = {"instruction": instruction, "questions": [f"q{i}" for i in range(199)]}
    yield "crossed.json", read_pairs, json.dumps(crossed)
    yield "keys.jsonl", read_pairs, "".join(f'{{"k{i % 900}": "a"}}\n' for i in range(200_000))
    yield "blank.jsonl", read_pairs, "{" + " " * 8_000_000 + "\n" * 500_000
    yield "dicts.json", read_pairs, "[" + '{"a":1},' * 2_000_000 + "1]"
    yield "lists.json", read_items, "[" + "[]," * 500_000 + "1]"
    yield "few.json", read_items, "[" + '{"a":1},' * 250_000 + "1]"
    yield "lines.txt", read_lines, "ab\n" * 1_100_000
    yield "tables.toml", read_pairs, "".join(f"[a{i}]\n" for i in range(60_000))
    yield "dotted.toml", suite, "".join(f"a{i}.b=1\n" for i in range(120_000))
    yield "parts.toml", suite, "".join(f"a{i}{'.b' * 30}=1\n" for i in range(50_000))
    yield "one key.toml", suite, "a." * 200_000 + "a = 1"


def headers() -> Iterator[tuple[str, bytes]]:
    """Payload files that are nearly all header."""
    begin = '{"format":1,"sha256":"","vectors":['
    for name, text in (
        ("dicts", '{"a":1},' * 250_000 + "1"),
        ("few dicts", '{"a":1},' * 110_000 + "1"),
        ("numbers", "12345," * 1_100_000 + "1"),
        ("wide", f'"{WIDE}{"x" * 12_000_000}"'),
        ("escaped", json.dumps(f"{WIDE}{'x' * 12_000_000}")),
    ):
        yield name, file_of({"__metadata__": {header.METADATA_KEY: f"{begin}{text}]}}"}}, b"")
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    yield "tensors", file_of({f"{i}": empty for i in range(110_000)}, b"")
    for claimed in (2**30, 2**60, 2**63):
        yield f"header of {claimed}", struct.pack("<Q", claimed) + b"{}"
        shape = {"dtype": "F32", "shape": [claimed], "data_offsets": [0, 4 * claimed]}
        yield f"{claimed} entries", file_of({"x": shape}, b"")


def long_headers() -> Iterator[tuple[str, bytes]]:
    """Payload files of nearly as much header as is read, hostile and honest ones."""
    begin = '{"format":1,"sha256":"","vectors":['
    for name, value in (
        ("long dicts", '{"a":1},' * 9_000_000 + "1"),
        ("long numbers", "12345," * 14_000_000 + "1"),
        ("long large numbers", "1234567," * 1_400_000 + "1"),
        ("long wide", f'"{WIDE}{"x" * 90_000_000}"'),
        ("long escaped", json.dumps(f"{WIDE}{'x' * 90_000_000}")),
        ("long backslashes", json.dumps("\\" * 20_000_000)),
        ("long text", f'"{"x" * 90_000_000}"'),
    ):
        metadata = {header.METADATA_KEY: f"{begin}{value}]}}"}
        text = json.dumps({"__metadata__": metadata}, separators=(",", ":")).encode()
        yield name, struct.pack("<Q", len(text)) + text
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    named = {"__metadata__": {header.METADATA_KEY: f"{begin}1]}}"}}
    yield "tensors of a record", file_of(named | {f"{i}": empty for i in range(110_000)}, b"")
    prose = tuple(f"{i} {'I love you so much. ' * 5}" for i in range(800_000))
    yield "prose", honest(Contrast(prose))
    yield "Chinese", honest(Contrast(tuple(f"{i}{'愛' * 400}" for i in range(30_000))))
    yield "prose of emojis", honest(Contrast(tuple(f"{p}{WIDE}" for p in prose[:150_000])))
    ids = (tuple(range(20_000, 20_100)),) * 40_000
    yield "token ids", honest(Contrast(prose[: len(ids)], prompt_ids=ids))


def honest(recipe: Contrast) -> bytes:
    """A payload file of one vector with this recipe."""
    vector = SteeringVector({2: np.ones(8)}, model=TINY, recipe=recipe, ref="large.v1")
    return payload.encode([(record_of(vector, "large", 1), vector)])


def arrays(positions: int = 999_000) -> bytes:
    """An honest payload, of 32 MB, which is the most that one with several vectors has."""
    rows = np.ones((positions, 8), np.float32)
    vector = SteeringVector({2: rows}, model=TINY, scope="front", ref="large.v1")
    return payload.encode([(record_of(vector, "large", 1), vector)])


def strangers() -> Iterator[tuple[str, bytes]]:
    """Vector files of other programs, nearly as large as those that are read."""
    entries = 1_000_000
    floats = ",".join(["0.12345678901234567"] * entries)
    yield "svec of floats", f'{{"directions":{{"1":[{floats}]}}}}'.encode()
    yield "svec of digits", b'{"directions":{"1":[' + b"1," * 20_000_000 + b"1]}}"
    yield "svec of layers", json.dumps({"directions": {i: [1] for i in range(300_000)}}).encode()
    lens = '{"activations":[[' + "12345," * 200_000 + '1]],"layer_indices":[1]}'
    yield "lens of numbers", f"[{','.join([lens] * 9)}]".encode()
    text = f'"{WIDE}{"x" * 15_000_000}"'
    yield "svec of a text", f'{{"directions":{{}},"model_type":{text}}}'.encode()
    yield "npy of halves", npy(np.zeros((10, 3_000_000), "<f2"))
    yield "npy on end", npy(np.zeros((5_000_000, 3), "<f4"))
    yield "npz of zeros", zipped({"a.npy": npy(np.zeros(7_000_000, "<f4"))})
    yield "npz of many", zipped({f"{i}.npy": npy(np.zeros(8, "<f4")) for i in range(60_000)})
    yield "npz of one name", zipped({f"{'x' * 60_000}{i}.npy": b"" for i in range(500)})
    halves = {"1": np.zeros(12_000_000, "<f2"), "2": np.zeros(12_000_000, "<f2")}
    yield "safetensors of halves", save(halves)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    yield "safetensors of many", file_of({f"{i}": empty for i in range(60_000)}, b"")
    wide = {"dtype": "BF16", "shape": [15_000_000], "data_offsets": [0, 30_000_000]}
    yield "safetensors of bfloat16", file_of({"1": wide}, bytes(30_000_000))
    made = dumped({"1": np.zeros(7_000_000, "<f4")})
    yield "pt", made
    with zipfile.ZipFile(io.BytesIO(made)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    pickle = parts["archive/data.pkl"].replace(b"FloatStorage", b"BFloat16Storage")
    yield "pt of bfloat16", zipped({**parts, "archive/data.pkl": pickle}, zipfile.ZIP_STORED)
    tuples = b"\x80\x02]q\x00" + b"h\x00\x85" * 120_000 + b"."
    yield "pt of tuples", zipped({"a/data.pkl": tuples, "a/data/0": b""})
    memo = b"\x80\x02}" + b"q\x00" * 200_000 + b"."
    yield "pt of memos", zipped({"a/data.pkl": memo})
    yield "gguf of keys", gguf_file({}, {f"key{i}{'x' * 3000}": "y" * 3000 for i in range(9_000)})
    yield "gguf of tensors", gguf_file({f"t{i}": np.zeros(1, "<f4") for i in range(9_000)})
    yield "gguf", gguf_file({i: np.zeros(100_000, "<f4") for i in range(100)})


def zipped(files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return packed.getvalue()


def tars() -> Iterator[tuple[str, Callable[[Path], object], Iterable[bytes]]]:
    """Archives as (name, reader, pieces)."""
    payload_name = b"payloads/a.safetensors"
    vast = Member(payload_name, b"x", size=b"\x80" + (2**60).to_bytes(11, "big"))
    zeros = Member(payload_name, bytes(50_000_000))
    small = Member(b"payloads/a.safetensors", arrays(1000))
    lines = b"0" * 64 + b"  payloads/a.safetensors\n"
    large = archives.hostile_with("ALTER TABLE run ADD x TEXT AS (hex(zeroblob(400000000)))")
    for verb, read in (("import", import_new), ("restore", restore_new)):
        yield f"2^60 bytes, {verb}", read, [archives.pack([vast])]
        yield f"50 MB of zeros, {verb}", read, [archives.pack([zeros])]
        sums = lines * (50_000_000 // len(lines))
        yield f"50 MB of checksums, {verb}", read, [archives.pack([small], sums)]
        yield f"{_MANY} members, {verb}", read, many()
    yield "made-up column, restore", restore_new, [archives.pack([Member(b"registry.db", large)])]


def many() -> Iterator[bytes]:
    """An archive of empty files, whose checksums are a lie from the last on."""
    sums = []
    for number in range(_MANY):
        member = Member(f"payloads/{number // 1000}/{number:040}.safetensors".encode(), b"")
        yield member.packed()
        sums.append(archives.sums_of([member]))
    yield Member(b"SHA256SUMS", b"".join(sums)[:-2] + b"\n\n").packed()


def main() -> int:
    """Read them all; the exit code is 1 if one takes more than it may."""
    over = 0
    print(f"{'file':32}  {'MB':>5}  {'peak MB':>7}  {'most':>5}  {'s':>4}")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as d:
        for name, read, text in texts():
            over += measured(Path(d) / name, read, [text.encode()])
        for name, data in headers():
            over += measured(Path(d) / name, payload.read_all, [data])
        for name, data in long_headers():
            over += measured(Path(d) / name, payload.read_all, [data])
        for name, data in strangers():
            over += measured(Path(d) / name, foreign.read, [data])
            del data
        large = arrays()
        over += measured(Path(d) / "arrays", payload.read, [large])
        over += measured(Path(d) / "arrays, imported", import_new, [large])
        del large
        for name, read, pieces in tars():
            over += measured(Path(d) / name, read, pieces)
    return int(over > 0)


def measured(path: Path, read: Callable[[Path], object], pieces: Iterable[bytes]) -> bool:
    """Read one, print a line, and say whether it took too much."""
    with path.open("wb") as file:
        file.writelines(pieces)
    size = path.stat().st_size
    del pieces
    reset_peak()
    before, start = peak(), time.perf_counter()
    try:
        read(path)
        outcome = "read"
    except SteerlabError as error:
        outcome = str(error).rpartition(": ")[2][:50]
    took, most = peak() - before, 2 * size + ROOM
    mb = f"{size / 1e6:5.1f}  {took / 1e6:7.1f}  {most / 1e6:5.0f}"
    print(f"{path.name:32}  {mb}  {time.perf_counter() - start:4.1f}  {outcome}", flush=True)
    path.unlink()
    return took > most


if __name__ == "__main__":
    sys.exit(main())
