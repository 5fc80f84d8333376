"""Payload files: the identity of save -> load, and the refusal of everything else."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as to_bytes
from safetensors.numpy import save_file

from steerlab.core.derivation import numbered
from steerlab.core.recipe import Contrast
from steerlab.core.record import Labels, Record, canonical_json, record_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.files import payload
from steerlab.files.durable import write
from steerlab.files.header import METADATA_KEY, FileTooLarge
from steerlab.files.payload import FORMAT, read, read_all, read_known, read_records
from tests.strategies import MODEL, any_vector, contrasts, families, texts, values, vector

encode = payload.encode
CREATED = "2026-01-02T03:04:05.000000+00:00"
LATER = "2026-01-02T03:04:05.000001+00:00"
Entries = list[tuple[Record, SteeringVector]]


def entry(found: SteeringVector, name: str = "love", version: int = 1, **more: object):
    record = replace(record_of(found, name, version), created=CREATED, software={}, **more)
    return record, found


def sample_entries() -> Entries:
    """A stored contrast, an expression made from it, and a front tensor: always the same."""
    love = SteeringVector(
        {1: [0.1, 2, 3, 4], 2: np.arange(8.0)[::2]},
        model=MODEL,
        recipe=Contrast(("I love you", "naïve 爱"), ("I hate you", "cold"), positive_ids=((1, 2),)),
        residual_norms={1: 95.5},
        diagnostics={1: {"agreement": 1.0}},
        ref="love.v1",
    )
    front = vector([0, 0, 0, 0], [1, 2, 3, 4], scope="front")
    return [
        entry(love, tags=("emotion",), note="warm"),
        entry(love / 3 - 0.5 * love, "less"),
        entry(front, "front", 12),
    ]


LOVE = sample_entries()[0][0].story
"""The key of the first sample."""


def saved(path: Path, entries: Entries) -> Path:
    write(path, encode(entries))
    return path


def refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for reading in (read, read_all):
        with pytest.raises(CorruptPayload) as caught:
            reading(path)
        assert str(path) in str(caught.value)


class TestRoundTrip:
    @given(any_vector, contrasts, texts)
    def test_saving_and_loading_is_the_identity(self, tmp_path_factory, found, recipe, note):
        found = SteeringVector(
            found.directions,
            model=MODEL,
            scope=found.scope,
            recipe=recipe,
            residual_norms=found.residual_norms,
        )
        record, _ = entry(found, tags=("a", note), note=note)
        path = saved(tmp_path_factory.mktemp("payload") / "p.safetensors", [(record, found)])
        again, loaded = read(path)
        assert again == record
        assert loaded == found
        assert values(loaded) == values(found)
        assert (loaded.recipe, loaded.scope, loaded.model) == (recipe, found.scope, MODEL)
        assert loaded.residual_norms == found.residual_norms
        assert loaded.ref == "love.v1"
        assert encode([(again, loaded)]) == path.read_bytes()

    @given(families(3))
    def test_an_expression_survives_too(self, tmp_path_factory, leaves):
        a, b, c = leaves
        made = (a - b / 3) * 0.1 + c
        path = saved(tmp_path_factory.mktemp("payload") / "p.safetensors", [entry(made)])
        _, loaded = read(path)
        assert loaded == made
        assert numbered(loaded.recipe) == numbered(made.recipe)  # equal operands have one name
        assert values(loaded) == {b: x.tolist() for b, x in made.float32().items()}
        assert 2 * loaded == loaded + loaded

    def test_many_vectors_in_one_file(self, tmp_path):
        entries = sample_entries()
        path = saved(tmp_path / "p.safetensors", entries)
        keys = [record.story for record, _ in entries]
        assert list(read_records(path)) == keys
        assert list(read_records(path).values()) == [record for record, _ in entries]
        assert read_all(path) == entries
        for key, pair in zip(keys, entries, strict=True):
            assert read(path, key) == pair
        with pytest.raises(NotFound, match=rf"{keys[0]}, .*not None"):
            read(path)
        with pytest.raises(NotFound, match=r"not love\.v1"):
            read(path, "love.v1")

    def test_labels_that_are_not_known_are_not_written(self, tmp_path):
        entries = [(record.labelled(Labels("", 0)), v) for record, v in sample_entries()]
        write(tmp_path / "p", payload.encode(entries))
        assert list(read_records(tmp_path / "p").values()) == [record for record, _ in entries]
        assert read_all(tmp_path / "p")[1][1].ref is None
        data = (tmp_path / "p").read_bytes()
        for name in (b"emotion", b"warm", b"less", b'"version"'):
            assert name not in data

    def test_two_stories_of_the_same_numbers_lie_side_by_side(self, tmp_path):
        love = vector([1, 0, 0, 0])
        two = [entry(love), (replace(entry(love)[0], created=LATER), love)]
        path = saved(tmp_path / "p", two)
        assert read_all(path) == two

    def test_hundreds_of_vectors_in_one_file(self, tmp_path):
        entries = [entry(vector([float(i), 1, 0, 0]), f"n{i}") for i in range(300)]
        assert read_all(saved(tmp_path / "p", entries)) == entries

    def test_what_was_known_of_each_layer_survives(self, tmp_path):
        _, love = read(saved(tmp_path / "p", sample_entries()[:1]))
        assert dict(love.residual_norms) == {1: 95.5}
        assert love.diagnostics[1] == {"agreement": 1.0}
        record, _ = sample_entries()[0]
        assert record.doses() == {1: record.layers[0].norm / 95.5, 2: None}

    def test_non_contiguous_arrays_are_stored_right(self, tmp_path):
        table = np.arange(24, dtype=np.float32).reshape(4, 6)
        front = SteeringVector({1: table[:, ::2].T}, model=MODEL, scope="front")
        _, loaded = read(saved(tmp_path / "p", [entry(front)]))
        assert loaded.directions[1].tolist() == table[:, ::2].T.tolist()

    def test_the_same_input_gives_the_same_bytes(self):
        assert encode(sample_entries()) == encode(sample_entries())

    def test_an_empty_file_of_no_vectors(self, tmp_path):
        path = saved(tmp_path / "p", [])
        assert read_all(path) == []
        with pytest.raises(NotFound, match="holds no vector"):
            read(path)

    def test_the_same_vector_twice_is_refused(self):
        with pytest.raises(StoreError, match=r"can't hold love\.v1 twice"):
            encode([entry(vector([1, 0, 0, 0])), entry(vector([1, 0, 0, 0]), "other")])


def lengths(data: bytes) -> list[int]:
    """Where a file may be cut: around every boundary of the format, and a sample between."""
    header = 8 + struct.unpack("<Q", data[:8])[0]
    near = {n + d for n in (0, 8, header, len(data)) for d in (-2, -1, 0, 1, 2)}
    return sorted(n for n in near | set(range(0, len(data), 97)) if 0 <= n < len(data))


class TestDamage:
    one = encode(sample_entries()[:1])

    @pytest.mark.parametrize("length", lengths(one))
    def test_a_file_cut_short_is_refused(self, tmp_path, length):
        refuses(tmp_path / "p", self.one[:length])

    @pytest.mark.parametrize("more", [b"\0", b"x" * 4, b"y" * 1000])
    def test_a_file_with_more_at_its_end_is_refused(self, tmp_path, more):
        refuses(tmp_path / "p", self.one + more)

    def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(self, tmp_path):
        path = tmp_path / "p"
        record, original = sample_entries()[0]
        header = 8 + struct.unpack("<Q", self.one[:8])[0]
        places = {*range(12), *range(12, header, 5), *range(header, len(self.one))}
        survived = []
        for place in sorted(places):
            for mask in (0x01, 0x20, 0x80):
                data = bytearray(self.one)
                data[place] ^= mask
                path.write_bytes(data)
                try:
                    found = read(path)
                except (CorruptPayload, NotFound):
                    continue
                assert found == (record, original), f"byte {place} ^ {mask:#x} went unnoticed"
                survived.append(place)
        assert len(survived) < 10  # such as the sign of a zero

    def test_a_changed_entry_is_refused_by_its_digest(self, tmp_path):
        data = bytearray(self.one)
        data[-4:] = struct.pack("<f", 7.0)
        path = tmp_path / "p"
        path.write_bytes(data)
        with pytest.raises(CorruptPayload, match="no longer matches its digest"):
            read(path)
        assert list(read_records(path)) == [LOVE]

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_an_entry_that_is_not_finite_is_refused(self, tmp_path, bad):
        refuses(tmp_path / "p", self.one[:-4] + struct.pack("<f", bad))

    @pytest.mark.parametrize(
        "data", [b"", b"\0" * 8, b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64, b'{"a":1}' * 9]
    )
    def test_other_files_are_refused(self, tmp_path, data):
        refuses(tmp_path / "p", data)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_refused(self, tmp_path_factory, data):
        refuses(tmp_path_factory.mktemp("payload") / "p", data)

    def test_a_missing_file_is_not_found(self, tmp_path):
        with pytest.raises(NotFound, match="no payload file"):
            read(tmp_path / "p")
        with pytest.raises(NotFound):
            read_records(tmp_path / "none" / "p")

    def test_a_directory_can_not_be_read(self, tmp_path):
        with pytest.raises(StoreError, match="can't read"):
            read(tmp_path)

    @pytest.mark.parametrize("size", [2**60, 2**63, 2**64 - 1, 13 * 2**20])
    def test_a_header_that_claims_to_be_huge_is_refused_unread(self, tmp_path, size):
        refuses(tmp_path / "p", struct.pack("<Q", size) + b"{}" * 100)
        with pytest.raises(CorruptPayload, match=f"a header of {size} bytes"):
            read_records(tmp_path / "p")

    def test_a_header_that_lies_beyond_the_file_is_refused_unread(self, tmp_path, monkeypatch):
        monkeypatch.setattr("steerlab.files.header.LONGEST_HEADER", 2**64)
        refuses(tmp_path / "p", struct.pack("<Q", 101) + b"{" * 100)
        with pytest.raises(CorruptPayload, match="a header of 101 bytes in a file of 108"):
            read(tmp_path / "p")

    def test_what_is_larger_than_is_read_is_not_called_altered(self, tmp_path, monkeypatch):
        path = tmp_path / "p"
        path.write_bytes(self.one)
        for limit in ("LONGEST_HEADER", "MOST_OBJECTS", "MOST_MEMORY"):
            with monkeypatch.context() as patch:
                patch.setattr(f"steerlab.files.header.{limit}", 2)
                with pytest.raises(FileTooLarge, match="larger than this steerlab reads") as caught:
                    read(path)
                assert "altered" not in str(caught.value)
                with pytest.raises(StoreError, match=r"too large .* make it of fewer prompts"):
                    encode(sample_entries()[:1])
        assert read(path) == sample_entries()[0]

    def test_many_token_ids_are_read(self, tmp_path):
        prompts = tuple(map(str, range(1000)))
        ids = (tuple(range(100_000, 100_650)),) * 1000
        recipe = Contrast(positive=prompts, negative=prompts, positive_ids=ids, negative_ids=ids)
        large = entry(vector([1, 0, 0, 0], recipe=recipe))
        (tmp_path / "p").write_bytes(encode([large]))
        assert read(tmp_path / "p") == large

    def test_a_long_header_is_read_only_as_it_is_written(self, tmp_path, monkeypatch):
        """It is not left to safetensors, which would keep it four times."""
        monkeypatch.setattr("steerlab.files.header.LONGEST_SHARED", 100)
        data = self.one
        (tmp_path / "p").write_bytes(data)
        assert read(tmp_path / "p") == sample_entries()[0]
        assert next(read_known(tmp_path / "p", [(LOVE, sample_entries()[0][0])])) is not None
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        for text in (
            json.dumps(dict(reversed(header.items()))).encode(),
            json.dumps(header, separators=(",", ":")).replace("steer", "st\\u0065er").encode(),
            json.dumps(header, separators=(",", ":")).replace("love", "lov\\u0065", 1).encode(),
        ):
            refuses(tmp_path / "p", struct.pack("<Q", len(text)) + text + data[-32:])

    def test_a_tensor_that_claims_2_to_the_60_elements_is_refused(self, tmp_path):
        for shape in ([2**60], [2**30, 2**30], [2**62, 4], [0, 2**60]):
            entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 2**60]}
            for offsets in ([0, 4 * 2**60], [0, 0], [0, 16], [2**60, 2**61]):
                header = json.dumps({f"{LOVE}/1": entry | {"data_offsets": offsets}}).encode()
                refuses(tmp_path / "p", struct.pack("<Q", len(header)) + header + bytes(16))

    def test_a_header_of_countless_tensors_is_refused_unparsed(self, tmp_path):
        entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        header = ("{" + ",".join(f'"{i}":{entry}' for i in range(130_000)) + "}").encode()
        refuses(tmp_path / "p", struct.pack("<Q", len(header)) + header)
        with pytest.raises(CorruptPayload, match="a header of more than 120000 objects"):
            read(tmp_path / "p")

    def test_a_named_pipe_or_a_device_is_no_payload(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(CorruptPayload, match="not a file but a device or a pipe"):
                read(path)

    def test_what_could_not_be_read_again_is_not_written(self):
        love = vector([1, 0, 0, 0])
        with pytest.raises(StoreError, match="too large for a file"):
            encode([entry(love, note="x" * 2**24)])
        with pytest.raises(StoreError, match="too large for a file"):
            encode([entry(love, tags=tuple("t" for _ in range(1_400_000)))])

    def test_a_plain_safetensors_file_is_not_ours(self, tmp_path):
        path = tmp_path / "p"
        for metadata in (None, {"format": "pt"}):
            save_file({"w": np.ones(4, np.float32)}, path, metadata=metadata)
            with pytest.raises(CorruptPayload, match="not steerlab's"):
                read(path)


def forged(change, tensors=None, number=FORMAT) -> bytes:
    """A payload whose metadata was changed by someone who also mended its checksum."""
    record, love = sample_entries()[0]
    said = record.to_json()
    if number > 1:
        said = {**record.story_to_json(), "labels": record.labels.to_json()}
    vectors = [{"key": LOVE, **json.loads(canonical_json(said))}]
    data = {"format": number, "vectors": vectors}
    data = change(data) or data
    if isinstance(data, dict) and "sha256" not in data and "vectors" in data:
        data["sha256"] = hashlib.sha256(canonical_json(data["vectors"]).encode()).hexdigest()
    arrays = {f"{LOVE}/{b}": x for b, x in love.float32().items()}
    text = data if isinstance(data, str) else json.dumps(data)
    return to_bytes(arrays if tensors is None else tensors, metadata={METADATA_KEY: text})


def setting(*path, to):
    """A change of one value deep in the first vector's record."""

    def change(data):
        target = data["vectors"][0]
        steps = path[:-1]
        if "labels" in target and path[0] in target["labels"]:
            steps = ("labels", *steps)
        for step in steps:
            target = target[step]
        target[path[-1]] = to

    return change


class TestForgeries:
    @pytest.mark.parametrize("number", [1, FORMAT])
    def test_an_unchanged_one_is_read(self, tmp_path, number):
        (tmp_path / "p").write_bytes(forged(lambda data: None, number=number))
        assert read(tmp_path / "p") == sample_entries()[0]

    def test_a_newer_format_is_refused_in_so_many_words(self, tmp_path):
        (tmp_path / "p").write_bytes(forged(lambda data: data.update(format=FORMAT + 1)))
        with pytest.raises(CorruptPayload, match=r"newer than this steerlab reads.*upgrade"):
            read_records(tmp_path / "p")

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: "not json",
            lambda data: "[" * 100_000,
            lambda data: '{"format":' + "9" * 5000 + "}",
            lambda data: "[]",
            lambda data: "null",
            lambda data: "{}",
            lambda data: data.update(format="1"),
            lambda data: data.update(format=True),
            lambda data: data.update(format=0),
            lambda data: data.update(format=0.5),
            lambda data: data.update(format=None),
            lambda data: data.update(sha256="0" * 64),
            lambda data: data.update(sha256=None),
            lambda data: data.pop("vectors") and None,
            lambda data: data.update(vectors=None),
            lambda data: data.update(vectors={"a": 1}),
            lambda data: data.update(vectors=["ab"]),
            lambda data: data.update(vectors=[[["key", "x"]]]),
            lambda data: data["vectors"][0].pop("key") and None,
            lambda data: data["vectors"].append(data["vectors"][0]),
            lambda data: data.update(vectors=[0] * 1_400_000),
            lambda data: data["vectors"][0].pop("digest") and None,
            lambda data: data["vectors"][0].pop("recipe") and None,
            setting("digest", to="0" * 64),
            setting("digest", to=5),
            setting("name", to="not a name"),
            setting("name", to="lambda"),
            setting("name", to=["love"]),
            setting("version", to=0),
            setting("version", to="1"),
            setting("version", to=True),
            setting("scope", to="front"),
            setting("scope", to="nowhere"),
            setting("scope", to=[]),
            setting("norm", to=None),
            setting("norm", to=10**400),
            setting("norm", to="1"),
            setting("tags", to="emotion"),
            setting("tags", to=[1]),
            setting("note", to=None),
            setting("software", to=[]),
            setting("software", to={"steerlab": 1}),
            setting("extra", to=1),
            setting("layers", to=None),
            setting("layers", to=[]),
            setting("layers", to="12"),
            setting("layers", to=[1, 2]),
            setting("layers", 0, "layer", to=5),
            setting("layers", 0, "layer", to=-1),
            setting("layers", 0, "layer", to=99),
            setting("layers", 0, "layer", to="1"),
            setting("layers", 0, "positions", to=2.0),
            setting("layers", 0, "residual_norm", to="95"),
            setting("layers", 0, "diagnostics", to={"agreement": "high"}),
            setting("layers", 0, "surprise", to=1),
            setting("model", to=None),
            setting("model", "d_model", to=5),
            setting("model", "d_model", to="4"),
            setting("model", "n_layers", to=1),
            setting("model", "n_layers", to=7),
            setting("model", "fingerprint", to="other"),
            setting("model", "fingerprint", to=1),
            setting("model", "source", to=None),
            setting("model", "surprise", to=None),
            setting("recipe", to=None),
            setting("recipe", to={}),
            setting("recipe", to={"kind": "spell"}),
            setting("recipe", to={"kind": ["contrast"]}),
            setting("recipe", "positive", to="I love you"),
            setting("recipe", "positive", to=[1]),
            setting("recipe", "chat", to=1),
            setting("recipe", "read", to=None),
            setting("recipe", "read", to=True),
            setting("recipe", "positive_ids", to=[["a"]]),
            setting("recipe", "surprise", to=1),
        ],
    )
    @pytest.mark.parametrize("number", [1, FORMAT])
    def test_hostile_metadata_is_refused(self, tmp_path, change, number):
        refuses(tmp_path / "p", forged(change, number=number))

    @pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_are_not_finite_are_refused(self, tmp_path, word):
        def change(data):
            return json.dumps({**data, "sha256": "0"}).replace('"norm": ', f'"norm": {word}, "x": ')

        refuses(tmp_path / "p", forged(change))

    def test_what_a_file_says_is_quoted_in_one_short_line(self, tmp_path):
        path = tmp_path / "p"
        evil = "\x1b[31m\n" * 5000
        changes = (
            setting("model", "source", to=evil),
            setting("key", to=evil),
            setting(evil, to=evil),
            setting("recipe", "kind", to=evil),
            lambda data: f'{{"{"x" * 9999}',
        )
        for change in changes:
            path.write_bytes(forged(change, {evil: np.ones(4, np.float32)}))
            with pytest.raises(CorruptPayload) as caught:
                read(path)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("depth", [50, 500, 900, 5000])
    def test_deep_nesting_is_refused(self, tmp_path, depth):
        nest = "[" * depth + "]" * depth
        for field in ("note", "tags", "recipe"):
            record = json.dumps(sample_entries()[0][0].to_json() | {"key": "k", field: 0})
            deep = record.replace(f'"{field}": 0', f'"{field}": {nest}')
            assert nest in deep
            text = f'{{"format": 1, "sha256": "0", "vectors": [{deep}]}}'
            refuses(tmp_path / "p", forged(lambda data, text=text: text))

    @pytest.mark.parametrize(
        "tensors",
        [
            {},
            {f"{LOVE}/1": np.ones((1, 4), np.float32)},
            {f"{LOVE}/{b}": np.ones((1, 4), np.float64) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((1, 4), np.float16) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((1, 4), np.int32) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((1, 5), np.float32) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((2, 4), np.float32) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((0, 4), np.float32) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((1, 1, 4), np.float32) for b in (1, 2)},
            {f"{LOVE}/{b}": np.ones((1, 4), np.float32) for b in (1, 2)},
        ],
    )
    def test_arrays_that_the_record_does_not_describe(self, tmp_path, tensors):
        refuses(tmp_path / "p", forged(lambda data: None, tensors))
