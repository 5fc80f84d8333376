"""Vector files of other programs, tampered with in their bytes and in their structure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

from steerlab.errors import SteerlabError
from steerlab.interop import gguf, recognise
from steerlab.interop.foreign import Asserted, Foreign, bind
from tests.fuzz import hostile
from tests.interop.samples import ROWS, gguf_file
from tests.registry.samples import TINY, vector

SAID = (
    Asserted(),
    Asserted(layer=3),
    Asserted(layer_from="input"),
    Asserted(layer_from="output", layers=slice(0, 6)),
)


def read(path: Path) -> None:
    """A file that is accepted gives vectors, or is told to lack something; nothing else."""
    for found in recognise.read(path):
        _bound(found, path)


def _bound(found: Foreign, path: Path) -> None:
    refused: SteerlabError | None = None
    for said in SAID:
        try:
            made = bind(found, TINY, str(path), said, model_named=False)
        except SteerlabError as error:
            refused = error
            continue
        assert made.model == TINY
        assert "\n" not in str(made.recipe)
        return
    assert refused is not None
    raise refused


def _gguf(random: Random) -> bytes:
    keys = {
        f"glp.{hostile.text(random)[:20]}": hostile.text(random)[:50]
        .encode("utf-8", "replace")
        .decode()
    }
    bases = (
        gguf_file(ROWS),
        gguf_file(ROWS, {"glp.mode": "add", "general.name": "calm"}),
        gguf.write_glp(vector(1, 2, 3), 1.0),
    )
    made = bytearray(random.choice(bases))
    if random.random() < 0.2:
        return gguf_file(ROWS, {k.encode("utf-8", "replace").decode(): v for k, v in keys.items()})
    if random.random() < 0.5:  # a number of the structure: a count, a length, a type, an offset
        at = random.randrange(4, max(5, len(made) - 8))
        number = random.choice((0, 1, 2, 9, 255, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1))
        made[at : at + 8] = struct.pack("<Q", number)
    return bytes(made) if random.random() < 0.4 else _changed(random, bytes(made), bases)


def _changed(random: Random, data: bytes, others: tuple[bytes, ...]) -> bytes:
    return hostile.change_bytes(random, data, random.choice(others))


MAKERS: dict[str, tuple[str, Callable[[Random], bytes]]] = {
    "gguf": (".gguf", _gguf),
}
"""Format -> the suffix of its files, and a maker of hostile ones."""
