"""GGUF control vectors, as llama.cpp, repeng, EasySteer and GLP write them."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from steerlab.errors import BadOption, CorruptPayload, Incompatible, NotFound, SteerlabError
from steerlab.interop import gguf
from steerlab.interop.foreign import Asserted, bind
from tests.interop.samples import ROWS, gguf_file
from tests.registry.samples import OTHER, TINY, vector

NOTHING = Asserted()


def bound(data, said=NOTHING, model=TINY):
    (found,) = gguf.read(data, "x.gguf")
    return bind(found, model, "x.gguf", said, model_named=False)


def refusal(call, *arguments, **options):
    with pytest.raises(SteerlabError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return type(caught.value), str(caught.value)


def test_direction_n_is_the_input_of_the_next_block():
    found = bound(gguf_file(ROWS))
    assert found.layers == (2, 3, 5)
    for number, row in ROWS.items():
        assert found.float32()[number + 1][0].tolist() == row.tolist()
    assert found.recipe.format == "gguf"
    assert found.recipe.asserted == ("model=tests/Tiny-1",)


def test_what_was_exported_is_imported_again():
    once = vector(1, 2, 3, 5)
    assert bound(gguf.write(once)) == once
    assert gguf.write(bound(gguf.write(once))) == gguf.write(once)


def test_the_real_package_reads_what_we_write(tmp_path):
    from gguf import GGUFReader

    (tmp_path / "x.gguf").write_bytes(gguf.write(vector(1, 2, 5)))
    reader = GGUFReader(tmp_path / "x.gguf")
    assert [t.name for t in reader.tensors] == ["direction.1", "direction.4"]
    assert all(t.tensor_type.name == "F32" and t.shape.tolist() == [8] for t in reader.tensors)
    assert reader.tensors[1].data.tolist() == vector(1, 2, 5).float32()[5][0].tolist()
    hint = reader.fields["controlvector.model_hint"]
    assert bytes(hint.parts[hint.data[0]]).decode() == "llama"


def test_we_read_what_the_real_package_writes(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "x.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(ROWS))
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    for number, row in ROWS.items():
        writer.add_tensor(f"direction.{number}", row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert bound((tmp_path / "x.gguf").read_bytes()) == bound(gguf_file(ROWS))


@pytest.mark.parametrize("layers", [(0,), (1, 2), (1,)])
def test_layers_0_and_1_can_not_be_exported(layers):
    kind, why = refusal(gguf.write, vector(1, *layers))
    assert kind is Incompatible
    assert f"acts at layer {layers[0]}" in why


def test_a_front_vector_can_not_be_exported():
    assert "first tokens" in refusal(gguf.write, vector(scope="front"))[1]


def test_direction_0_is_asked_about():
    data = gguf_file({0: ROWS[1], 1: ROWS[2]})
    kind, why = refusal(bound, data)
    assert kind is BadOption
    assert "direction.0" in why
    assert "--layer-from" in why
    assert bound(data, Asserted(layer_from="input")).layers == (0, 1)
    found = bound(data, Asserted(layer_from="output"))
    assert found.layers == (1, 2)
    assert "layer_from=output" in found.recipe.asserted


def test_the_output_of_the_last_block_has_no_layer_here():
    data = gguf_file({4: ROWS[1], 5: ROWS[2]})
    kind, why = refusal(bound, data)
    assert kind is BadOption
    assert "--layers 5:6" in why
    assert bound(data, Asserted(layers=slice(5, 6))).layers == (5,)


def test_a_layer_beyond_the_model():
    assert refusal(bound, gguf_file({9: ROWS[1]}))[0] is NotFound


def test_the_sign_is_turned_and_recorded():
    found = bound(gguf_file(ROWS), Asserted(negated=True))
    assert found == -bound(gguf_file(ROWS))
    assert "sign=-" in found.recipe.asserted


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Asserted(layer=3), "states its layers"),
        (Asserted(layer_from="input"), "leave --layer-from out"),
        (Asserted(layers=[4]), "not those of --layers"),
    ],
)
def test_what_the_file_states_is_not_asserted(said, why):
    assert why in refusal(bound, gguf_file(ROWS), said)[1]


def test_a_key_that_is_there_twice_is_refused():
    data = gguf_file(ROWS, {"glp.mode": "project", "glp.modf": "add"})
    kind, why = refusal(bound, data.replace(b"glp.modf", b"glp.mode"))
    assert kind is CorruptPayload
    assert "'glp.mode' is there twice" in why


# GLP


def glp_file(**changed):
    sha = hashlib.sha256(b"".join(ROWS[n].tobytes() for n in sorted(ROWS))).hexdigest()
    keys = {
        "mode": "add",
        "spec_version": 1,
        "hook_point": "residual_stream_post_layer",
        "layer_ids_zero_based": "1,2,4",
        "alpha_default": 2.5,
        "content_sha256": sha,
        "method": "mean difference",
        **changed,
    }
    glp = {f"glp.{k}": v for k, v in keys.items() if v is not None}
    base = {"general.base_model.0.name": "Tiny-1", "general.base_model.0.organization": "tests"}
    return gguf_file(ROWS, {**base, "general.name": "calm", **glp})


def test_glp_states_more():
    (found,) = gguf.read(glp_file(), "x.gguf")
    assert (found.format, found.name, found.model) == ("glp", "calm", "tests/Tiny-1")
    assert "glp.alpha_default=2.5" in found.facts
    assert "glp.method=mean difference" in found.facts
    assert bound(glp_file()).recipe.asserted == ()


def test_glp_comes_back_with_its_meaning():
    once = vector(1, 2, 3, ref="calm.v1")
    (found,) = gguf.read(gguf.write_glp(once, 0.5), "x.gguf")
    assert bind(found, TINY, "x", Asserted(), model_named=False) == once
    assert "glp.alpha_default=0.5" in found.facts
    assert found.model == TINY.source


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mode": "project"}, "project out"),
        ({"mode": "melt"}, "unknown glp.mode"),
        ({"mode": 3}, "unknown glp.mode"),
        ({"spec_version": 2}, "spec_version"),
        ({"hook_point": "attention"}, "acts at"),
        ({"layer_ids_zero_based": "1,2"}, "names layers"),
        ({"content_sha256": "0" * 64}, "altered"),
    ],
)
def test_what_glp_says_is_honoured_or_refused(changed, why):
    assert why in refusal(gguf.read, glp_file(**changed), "x.gguf")[1]


def test_an_absent_mode_means_add():
    assert bound(glp_file(mode=None)) == bound(gguf_file(ROWS))


# damage


def mixed():
    return gguf_file({1: ROWS[1], 2: np.ones(9, "<f4")})


def cut_in_an_array(kind, length):
    key = struct.pack("<Q1sIIQ", 1, b"a", 9, kind, length)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + b"\1\2"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: gguf_file(ROWS)[:-40], "beyond its end"),
        (lambda: cut_in_an_array(4, 5), "cut short"),
        (lambda: cut_in_an_array(10, 2**63), "cut short"),
        (lambda: gguf_file(ROWS)[:30], "not a whole GGUF"),
        (lambda: gguf_file({}), "no direction"),
        (mixed, "one length"),
        (lambda: gguf_file(ROWS, kind=1), "not F32"),
        (lambda: gguf_file({"output.weight": ROWS[1]}), "not a control vector"),
        (lambda: b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "are the most"),
        (lambda: b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1"),
        (lambda: gguf_file(ROWS, {"general.alignment": 0}), "alignment"),
    ],
)
def test_damaged_files_are_refused(data, why):
    kind, text = refusal(gguf.read, data(), "x.gguf")
    assert kind is CorruptPayload
    assert why in text


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_entries_that_are_no_numbers(entry):
    assert "x.gguf: layer 2 holds NaN" in refusal(bound, gguf_file({1: np.full(8, entry)}))[1]


def test_another_width():
    assert "made on another model" in refusal(bound, gguf_file({1: np.ones(9)}))[1]


def test_an_architecture_of_the_same_shape_is_no_obstacle_to_a_named_model():
    assert bound(gguf_file(ROWS), model=OTHER).model == OTHER
