"""Label files that strangers wrote: read or refused, whatever is in them."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.core.record import Labels, canonical_json
from steerlab.errors import CorruptPayload
from steerlab.registry import Store
from steerlab.registry.labels import Removed, parsed
from tests.fuzz.hostile import change_bytes

STORY = "a" * 64
LABEL = {"name": "love", "version": 2, "tags": ["é"], "note": "n", "edits": 3}
WHOLE = canonical_json({"format": 1, "labels": {STORY: LABEL}}).encode()


def test_a_label_file_is_read():
    assert parsed(WHOLE, "x") == {STORY: Labels("love", 2, ("é",), "n")}
    assert parsed(WHOLE, "x")[STORY].edits == 3
    gone = {"format": 1, "labels": {STORY: {"removed_from": "payloads/x", "edits": 4}}}
    assert parsed(canonical_json(gone).encode(), "x") == {STORY: Removed("payloads/x", 4)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "not a name"),
        ("name", 5),
        ("version", 0),
        ("version", True),
        ("version", 1.5),
        ("tags", "all"),
        ("tags", [1]),
        ("note", None),
        ("edits", "many"),
        ("name", None),
        ("version", 2**63),
        ("version", 10**18),
        ("edits", -1),
        ("edits", 2**63),
        ("tags", [" "]),
        ("tags", ["\ud800"]),
        ("note", "\ud800"),
    ],
)
def test_an_impossible_label_is_refused_in_one_line(key, value):
    data = canonical_json({"format": 1, "labels": {STORY: {**LABEL, key: value}}}).encode()
    with pytest.raises(CorruptPayload, match="is no label file") as caught:
        parsed(data, "x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("edits", ["1e400", "-1", "true", "null", '"7"', "9" * 30])
def test_an_impossible_removal_is_refused_in_one_line(edits):
    said = f'{{"removed_from":"payloads/x","edits":{edits}}}'
    with pytest.raises(CorruptPayload, match=r"is no label file: .*edits"):
        parsed(f'{{"format":1,"labels":{{"{STORY}":{said}}}}}'.encode(), "x")


def test_a_label_of_very_many_edits_leaves_room_for_more(family):
    """A hand wrote it, and the registry was lost."""
    family.tag("love", ["a"])
    (file,) = family.path.glob("labels/**/*.json")
    file.write_text(file.read_text().replace('"edits":1', f'"edits":{2**62 - 1}'))
    for registry in family.path.glob("registry.db*"):
        registry.unlink()
    again = Store(family.path)
    again.tag("love", ["b"])
    assert again.verify() == []
    for registry in family.path.glob("registry.db*"):
        registry.unlink()
    assert Store(family.path).record("love").tags == ("a", "b", "feeling")


@given(
    st.one_of(
        st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)
    )
)
def test_anything_else_is_refused(data):
    with pytest.raises(CorruptPayload):
        parsed(data if isinstance(data, bytes) else data.encode(), "x")


def test_changed_bytes_are_read_or_refused():
    random = Random(5)
    for _ in range(3000):
        try:
            found = parsed(change_bytes(random, WHOLE, WHOLE), "x")
        except CorruptPayload:
            continue
        assert all(isinstance(label, Labels | Removed) for label in found.values())
