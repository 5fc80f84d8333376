"""Vectors in the post: export and import."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from steerlab.core.recipe import Expression, Operand
from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.files import durable, payload
from steerlab.registry import Store
from tests.registry.samples import PAIRS, TINY, vector

LOVE = Operand("love.v1", "a" * 64)


@pytest.fixture
def colleague(tmp_path):
    return Store(tmp_path / "colleague")


def test_a_vector_arrives_as_it_left(family, colleague, tmp_path):
    file = family.transfer.export("love", tmp_path / "love.safetensors")
    (result,) = colleague.transfer.import_(file)
    assert (result.ref, result.was, result.already) == ("love.v1", "love.v1", False)
    assert colleague.record("love") == family.record("love")
    assert colleague.load("love") == family.load("love")
    assert colleague.verify() == []


def test_the_same_record_twice_is_said_and_not_stored(family, colleague, tmp_path):
    file = family.transfer.export("love", tmp_path / "love.safetensors")
    colleague.transfer.import_(file)
    assert [(r.ref, r.already) for r in colleague.transfer.import_(file)] == [("love.v1", True)]
    colleague.rename("love", "amour")
    assert [(r.ref, r.already) for r in colleague.transfer.import_(file)] == [("amour.v1", True)]
    assert len(colleague.list(every_version=True)) == 1


def test_a_taken_name_gets_its_next_version(family, colleague, tmp_path):
    colleague.save("love", vector(30))
    colleague.save("love", vector(31))
    (result,) = colleague.transfer.import_(
        family.transfer.export("love", tmp_path / "x.safetensors")
    )
    assert result.ref == "love.v3"
    assert colleague.load("love.v2") == vector(31)
    assert colleague.load("love") == vector(1)
    assert colleague.verify() == []


def test_with_its_parents_it_can_be_re_evaluated(family, colleague, tmp_path):
    file = family.transfer.export("deep", tmp_path / "deep.safetensors", parents=True)
    colleague.save("love", vector(30))
    assert {r.ref for r in colleague.transfer.import_(file)} == {
        "love.v2",
        "anger.v1",
        "warm.v1",
        "deep.v1",
    }
    assert colleague.record("warm").recipe.text == "love.v2 - 0.5 * anger.v1"
    assert colleague.verify() == []


def test_an_operand_that_is_not_here_is_not_mistaken_for_another(family, colleague, tmp_path):
    file = family.transfer.export("warm", tmp_path / "warm.safetensors")
    colleague.save("love", vector(30))
    colleague.transfer.import_(file)
    text = colleague.record("warm").recipe.text
    assert text == f"unsaved_{vector(1).digest[:12]} - 0.5 * anger.v1"
    (finding,) = colleague.verify()
    assert "is not in this store" in finding.problem
    colleague.transfer.import_(family.transfer.export("love", tmp_path / "love.safetensors"))
    colleague.transfer.import_(family.transfer.export("anger", tmp_path / "anger.safetensors"))
    assert colleague.verify() == []


def test_an_import_is_checked(family, colleague, tmp_path):
    file = family.transfer.export("love", tmp_path / "love.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(CorruptPayload):
        colleague.transfer.import_(file)
    lying = replace(family.record("love"), norm=1e9)
    durable.write(file, payload.encode([(lying, family.load("love"))]))
    with pytest.raises(CorruptPayload, match="the record says norm"):
        colleague.transfer.import_(file)
    with pytest.raises(NotFound):
        colleague.transfer.import_(tmp_path / "nowhere.safetensors")
    timeless = replace(family.record("love"), created="yesterday")
    durable.write(file, payload.encode([(timeless, family.load("love"))]))
    with pytest.raises(CorruptPayload, match="'yesterday' is not a time"):
        colleague.transfer.import_(file)
    assert colleague.list() == []


def test_layers_in_any_order_are_those_of_the_row(family, colleague, tmp_path):
    record = family.record("love")
    turned = replace(record, layers=record.layers[::-1])
    assert len(record.layers) > 1
    file = tmp_path / "love.safetensors"
    durable.write(file, payload.encode([(turned, family.load("love"))]))
    colleague.transfer.import_(file)
    (own,) = colleague.path.glob("payloads/*/*.safetensors")
    own.write_bytes(file.read_bytes())
    colleague.upkeep.rebuild()
    assert colleague.verify() == []
    assert colleague.record("love") == record
    assert colleague.load("love") == vector(1)


CLAIMS = {
    "no expression": {"recipe": Expression("__import__('os').system('touch x')", ())},
    "not closed": {"recipe": Expression("((love.v1", (LOVE,))},
    "too deep": {"recipe": Expression("-" * 500 + "love.v1", (LOVE,))},
    "null bytes": {"recipe": Expression("love.v1\0", (LOVE,))},
    "an operand nobody knows": {"recipe": Expression("love.v1 - anger.v1", (LOVE,))},
    "a ref that is none": {"recipe": Expression("love.v1", (LOVE, Operand("../x", "b" * 64)))},
    "a digest that is none": {"recipe": Expression("love.v1", (Operand("love.v1", "a" * 63),))},
    "pairs of unequal length": {"recipe": replace(PAIRS, negative=("one",), negative_ids=())},
    "token ids of other prompts": {"recipe": replace(PAIRS, positive_ids=((1,),) * 3)},
    "no time of any calendar": {"created": "9999-99-99T99:99:99.999999+00:00"},
    "before all time": {"created": "0001-01-01T00:00+23:59"},
    "other digits": {"created": "\uff12\uff10\uff12\uff14-01-01T00:00:00.000000+00:00"},
    "an endless model": {"model": replace(TINY, n_layers=2**64)},
    "a version beyond all": {"version": 2**63},
    "no digest": {"digest": "\x1b[31m"},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_record_that_could_not_be_shown_or_computed_is_refused(
    family, colleague, tmp_path, claim, caplog
):
    """By an import as by a rebuild, whose other vectors come back."""
    love = family.load("love")
    forged = replace(family.record("love"), **CLAIMS[claim])
    if "model" in CLAIMS[claim]:
        love = SteeringVector(love.directions, model=forged.model)
        forged = replace(forged, digest=love.digest)
    colleague.save("anger", vector(2))
    durable.write(tmp_path / "p.safetensors", payload.encode([(forged, love)]))
    with pytest.raises(CorruptPayload) as caught:
        colleague.transfer.import_(tmp_path / "p.safetensors")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    shutil.copy(tmp_path / "p.safetensors", colleague.path / "payloads")
    assert colleague.upkeep.rebuild() == 1
    assert "left out" in caplog.text
    assert colleague.verify() == []


def test_a_time_of_another_zone_becomes_utc(family, colleague, tmp_path):
    local = replace(family.record("love"), created="2024-05-01T12:00:00+02:00")
    durable.write(tmp_path / "x", payload.encode([(local, family.load("love"))]))
    colleague.transfer.import_(tmp_path / "x")
    assert colleague.record("love").created == "2024-05-01T10:00:00.000000+00:00"
    assert colleague.verify() == []


def test_an_export_overwrites_nothing(family, tmp_path):
    assert family.transfer.export("love", tmp_path) == tmp_path / "love.safetensors"
    with pytest.raises(StoreError, match="exists"):
        family.transfer.export("love", tmp_path)


def test_the_same_numbers_with_another_story_are_kept_and_told_apart(family, colleague, tmp_path):
    """Found again by a colleague: other prompts gave the very same arrays."""
    retold = replace(PAIRS, seed=8)
    colleague.save("love", vector(1, recipe=retold))
    file = colleague.transfer.export("love", tmp_path / "love.safetensors")
    (result,) = family.transfer.import_(file)
    assert (result.ref, result.already, result.same_numbers) == ("love.v2", False, "love.v1")
    assert set(result.differs) == {"created", "recipe"}
    assert family.record("love.v1").recipe == PAIRS
    assert family.record("love.v2").recipe == retold
    assert family.record("love.v1").digest == family.record("love.v2").digest
    assert family.verify() == []
    (again,) = family.transfer.import_(file)
    assert (again.ref, again.already, again.same_numbers) == ("love.v2", True, None)


def test_an_export_says_what_a_vector_is_called_now_and_a_payload_what_it_was_saved_as(
    family, colleague, tmp_path
):
    family.rename("love", "amour")
    family.tag("amour", add=["later"])
    file = family.transfer.export("amour", tmp_path / "love.safetensors")
    (own,) = family.path.glob(f"payloads/*/{family.record('amour').digest}.safetensors")
    assert b"later" in file.read_bytes()
    assert b"later" not in own.read_bytes()
    (result,) = colleague.transfer.import_(own)
    assert result.ref == "love.v1"
    (again,) = colleague.transfer.import_(file)
    assert again.already


def test_an_archive_of_a_store_brings_the_labels_along(family, colleague, tmp_path):
    family.tag("love", add=["later"])
    family.rename("anger", "fury")
    colleague.transfer.import_(family.transfer.backup(tmp_path / "all.tar").path)
    assert colleague.names() == ["deep", "fury", "love", "warm"]
    assert colleague.record("love") == family.record("love")
    assert str(colleague.record("warm").recipe) == "= love.v1 - 0.5 * fury.v1"
    assert colleague.verify() == []
