"""Reading a vector whose record is known: quickly where the file says so, and never wrongly."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given

from steerlab.core.vector import SteeringVector
from steerlab.files import header, payload
from steerlab.files.payload import read, read_known
from tests.files.test_payload import encode, entry, sample_entries
from tests.fuzz.hostile import change_bytes
from tests.strategies import MODEL, any_vector, contrasts, texts, vector

ENTRIES = sample_entries()
WHOLE = encode(ENTRIES)
LOVE, LESS, FRONT = (record.story for record, _ in ENTRIES)
LENGTH = struct.unpack("<Q", WHOLE[:8])[0]


def known(path: Path) -> list[SteeringVector | None]:
    """What is read of each sample."""
    return list(read_known(path, [(record.story, record) for record, _ in ENTRIES]))


def respelt(change) -> bytes:
    """The samples' file with another text for a header."""
    header = change(WHOLE[8 : 8 + LENGTH].decode()).encode()
    return struct.pack("<Q", len(header)) + header + WHOLE[8 + LENGTH :]


@given(any_vector, contrasts, texts)
def test_whatever_is_written_is_read_without_a_parse(tmp_path_factory, found, recipe, note):
    options = {"model": MODEL, "scope": found.scope, "recipe": recipe, "ref": "love.v1"}
    mine = entry(SteeringVector(found.directions, **options), tags=(f"t{note}",), note=note)
    path = tmp_path_factory.mktemp("payload") / "p"
    path.write_bytes(encode([mine, entry(vector([1, 2, 3, 4]), "other")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(payload, "safe_open")
        (again,) = read_known(path, [(mine[0].story, mine[0])])
    assert (again, again.ref) == (mine[1], "love.v1")
    assert again.recipe == recipe


def test_each_of_many_layers_is_found(tmp_path):
    model = replace(MODEL, n_layers=40)
    arrays = np.random.default_rng(0).standard_normal((3, 40, 4))
    made = [SteeringVector(dict(enumerate(some)), model=model) for some in arrays]
    entries = [entry(found, name) for found, name in zip(made, ("n", "n1", "m"), strict=True)]
    (tmp_path / "p").write_bytes(encode(entries))
    assert list(read_known(tmp_path / "p", [(r.story, r) for r, _ in entries])) == made


def test_a_record_of_other_numbers_gets_none(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(WHOLE)
    assert known(path) == [found for _, found in ENTRIES]
    record, _ = ENTRIES[0]
    for other in (
        replace(record, digest="0" * 64),
        replace(record, layers=record.layers[:1]),
        replace(record, layers=(replace(record.layers[0], positions=2**40), record.layers[1])),
        replace(record, model=replace(record.model, d_model=2**40)),
    ):
        assert list(read_known(path, [(record.story, other)])) == [None]
    assert list(read_known(path, [(ENTRIES[1][0].story, record)])) == [None]


def test_what_is_not_a_file_to_be_read_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_bytes(WHOLE[:7])
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "none", Path("/dev/zero")):
        assert known(path) == [None] * 3
    waited_for = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    assert known(tmp_path / "pipe") == [None] * 3
    os.close(waited_for)


@pytest.mark.parametrize("length", [0, LENGTH + 1, len(WHOLE), 2**31, 2**60, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_none(tmp_path, length):
    (tmp_path / "p").write_bytes(struct.pack("<Q", length) + WHOLE[8:])
    assert known(tmp_path / "p") == [None] * 3


def test_a_header_that_is_too_long_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "LONGEST_HEADER", LENGTH - 1)
    (tmp_path / "p").write_bytes(WHOLE)
    assert known(tmp_path / "p") == [None] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("[64,80]", "[64, 80]"),
        lambda text: text.replace("F32", "\\u00463\\u0032"),
        lambda text: text.replace(f'"{LOVE}/', f'"\\u{ord(LOVE[0]):04x}{LOVE[1:]}/'),
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: json.dumps(dict(reversed(json.loads(text).items()))),
    ],
)
def test_what_is_spelt_otherwise_is_left_to_the_parser(tmp_path, change):
    path = tmp_path / "p"
    path.write_bytes(respelt(change))
    assert None in known(path)
    assert [read(path, record.story) for record, _ in ENTRIES] == ENTRIES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[64,80]", "[0,16]"),
        ("[64,80]", "[64,76]"),
        ("[64,80]", "[80,64]"),
        ("[64,80]", f"[64,{2**60}]"),
        ("[64,80]", f"[{2**60},{2**60 + 16}]"),
        ("[64,80]", f"[{10**40},{10**40 + 16}]"),
        ("[64,80]", "[-16,0]"),
        ("[64,80]", "[64,80"),
        ('"shape":[1,4]', f'"shape":[{2**60}]'),
        ('"shape":[1,4]', '"shape":[4,1]'),
        ('"dtype":"F32"', '"dtype":"I32"'),
    ],
)
def test_a_tensor_that_lies_is_none(tmp_path, old, new):
    (tmp_path / "p").write_bytes(respelt(lambda text: text.replace(old, new)))
    assert known(tmp_path / "p")[0] is None


def test_a_tensor_that_stands_there_twice_is_right_or_none(tmp_path):
    lie = f'"{LOVE}/1":{{"dtype":"F32","shape":[1,4],"data_offsets":[0,16]}}'
    for place in (f'"{FRONT}/1', f'"{LESS}/2', '"__metadata__'):
        (tmp_path / "p").write_bytes(
            respelt(lambda text, p=place: text.replace(p, f"{lie},{p}", 1))
        )
        love = known(tmp_path / "p")[0]
        assert love is None or love == ENTRIES[0][1]


def test_changed_bytes_are_right_or_none(tmp_path):
    random, path, taken = Random(3), tmp_path / "p", 0
    for _ in range(1000):
        path.write_bytes(change_bytes(random, WHOLE, WHOLE))
        for again, (record, found) in zip(known(path), ENTRIES, strict=True):
            if again is not None:
                taken += 1
                assert again == found
                assert again.ref == record.ref
                assert again.recipe == record.recipe
    assert 300 < taken < 2700
