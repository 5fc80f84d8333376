"""Vectors in the post: export and import."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steerlab import payload
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.registry import Store
from tests.registry.samples import vector


@pytest.fixture
def colleague(tmp_path):
    return Store(tmp_path / "colleague")


def test_a_vector_arrives_as_it_left(family, colleague, tmp_path):
    file = family.export("love", tmp_path / "love.safetensors")
    (result,) = colleague.import_(file)
    assert (result.ref, result.was, result.already) == ("love.v1", "love.v1", False)
    assert colleague.record("love") == family.record("love")
    assert colleague.load("love") == family.load("love")
    assert colleague.verify() == []


def test_the_same_record_twice_is_said_and_not_stored(family, colleague, tmp_path):
    file = family.export("love", tmp_path / "love.safetensors")
    colleague.import_(file)
    assert [(r.ref, r.already) for r in colleague.import_(file)] == [("love.v1", True)]
    colleague.rename("love", "amour")
    assert [(r.ref, r.already) for r in colleague.import_(file)] == [("amour.v1", True)]
    assert len(colleague.list(every_version=True)) == 1


def test_a_taken_name_gets_its_next_version(family, colleague, tmp_path):
    colleague.save("love", vector(30))
    colleague.save("love", vector(31))
    (result,) = colleague.import_(family.export("love", tmp_path / "x.safetensors"))
    assert result.ref == "love.v3"
    assert colleague.load("love.v2") == vector(31)
    assert colleague.load("love") == vector(1)
    assert colleague.verify() == []


def test_with_its_parents_it_can_be_re_evaluated(family, colleague, tmp_path):
    file = family.export("deep", tmp_path / "deep.safetensors", parents=True)
    colleague.save("love", vector(30))
    assert {r.ref for r in colleague.import_(file)} == {"love.v2", "anger.v1", "warm.v1", "deep.v1"}
    assert colleague.record("warm").recipe.text == "love.v2 - 0.5 * anger.v1"
    assert colleague.verify() == []


def test_an_operand_that_is_not_here_is_not_mistaken_for_another(family, colleague, tmp_path):
    file = family.export("warm", tmp_path / "warm.safetensors")
    colleague.save("love", vector(30))
    colleague.import_(file)
    text = colleague.record("warm").recipe.text
    assert text == f"unsaved_{vector(1).digest[:12]} - 0.5 * anger.v1"
    (finding,) = colleague.verify()
    assert "is not in this store" in finding.problem
    colleague.import_(family.export("love", tmp_path / "love.safetensors"))
    colleague.import_(family.export("anger", tmp_path / "anger.safetensors"))
    assert colleague.verify() == []


def test_an_import_is_checked(family, colleague, tmp_path):
    file = family.export("love", tmp_path / "love.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(CorruptPayload):
        colleague.import_(file)
    lying = replace(family.record("love"), norm=1e9)
    payload.write(file, payload.encode([(lying, family.load("love"))]))
    with pytest.raises(CorruptPayload, match="the record says norm"):
        colleague.import_(file)
    with pytest.raises(NotFound):
        colleague.import_(tmp_path / "nowhere.safetensors")
    timeless = replace(family.record("love"), created="yesterday")
    payload.write(file, payload.encode([(timeless, family.load("love"))]))
    with pytest.raises(CorruptPayload, match="'yesterday' is not a time"):
        colleague.import_(file)
    assert colleague.list() == []


def test_a_time_of_another_zone_becomes_utc(family, colleague, tmp_path):
    local = replace(family.record("love"), created="2024-05-01T12:00:00+02:00")
    payload.write(tmp_path / "x", payload.encode([(local, family.load("love"))]))
    colleague.import_(tmp_path / "x")
    assert colleague.record("love").created == "2024-05-01T10:00:00.000000+00:00"
    assert colleague.verify() == []


def test_an_export_overwrites_nothing(family, tmp_path):
    assert family.export("love", tmp_path) == tmp_path / "love.safetensors"
    with pytest.raises(StoreError, match="exists"):
        family.export("love", tmp_path)
