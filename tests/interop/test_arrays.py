"""Arrays in files of numpy and torch, in the layouts that people have."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from steerlab.errors import BadOption, CorruptPayload, Incompatible, SteerlabError
from steerlab.interop import numpy_files, torch_files
from steerlab.interop.foreign import Asserted, bind
from tests.interop.samples import HIDDEN, ONE, POSITIONS, STACK, npy
from tests.registry.samples import TINY, vector

INPUT, OUTPUT = Asserted(layer_from="input"), Asserted(layer_from="output")


def npz(arrays, save=np.savez):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def pt(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def tensors(value):
    if isinstance(value, dict):
        return {key: tensors(entry) for key, entry in value.items()}
    return torch.tensor(value)


def all_in(data, said):
    read = {b"\x93": numpy_files.read_npy, b"PK": None}.get(data[:1])
    if read is None:
        read = torch_files.read if b"data.pkl" in data else numpy_files.read_npz
    return {one.name: bind(one, TINY, "x", said, model_named=False) for one in read(data, "x")}


def rows(found):
    return {b: array[0].tolist() for b, array in found.float32().items()}


def refusal(*arguments):
    with pytest.raises(SteerlabError) as caught:
        all_in(*arguments)
    assert "\n" not in str(caught.value)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("data", [npy(ONE), pt(torch.tensor(ONE)), npz({"love": ONE})])
def test_a_single_direction_asks_for_its_layer(data):
    kind, why = refusal(data, Asserted())
    assert kind is BadOption
    assert "--layer B" in why
    (found,) = all_in(data, Asserted(layer=3)).values()
    assert rows(found) == {3: ONE.tolist()}
    assert "layer=3" in found.recipe.asserted


@pytest.mark.parametrize("data", [npy(STACK), pt(torch.tensor(STACK))])
def test_a_row_a_layer_asks_which_end_of_the_block(data):
    assert "--layer-from" in refusal(data, Asserted())[1]
    assert rows(all_in(data, INPUT)[""]) == dict(enumerate(STACK.tolist()))
    found = all_in(data, OUTPUT)[""]
    assert rows(found) == dict(enumerate(STACK[:5].tolist(), 1))
    assert found.recipe.facts == ("dropped=row 5, after the final norm",)


@pytest.mark.parametrize("data", [npy(HIDDEN), pt(torch.tensor(HIDDEN))])
def test_a_row_more_than_layers_is_hidden_states(data):
    found = all_in(data, Asserted())[""]
    assert rows(found) == dict(enumerate(HIDDEN[:6].tolist()))
    assert found.recipe.facts == ("dropped=row 6, after the final norm",)
    assert "layer_from" not in str(found.recipe)


def test_mean_differences_are_a_vector_a_position():
    found = all_in(pt(torch.tensor(POSITIONS)), INPUT)
    assert list(found) == ["position_0", "position_1"]
    assert rows(found["position_1"])[5] == POSITIONS[1, 5].astype("f4").tolist()
    assert found["position_1"].recipe.facts == ("position=1",)


def test_a_view_into_a_larger_storage():
    whole = torch.tensor(POSITIONS)
    found = all_in(pt(whole[1, 4]), Asserted(layer=4))[""]
    assert rows(found) == {4: POSITIONS[1, 4].astype("f4").tolist()}
    assert rows(all_in(pt(whole[:, 2:].transpose(0, 1)[1, 1]), Asserted(layer=4))[""]) == {
        4: POSITIONS[1, 3].astype("f4").tolist()
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_numbers(dtype):
    array = torch.tensor(ONE).to(dtype)
    found = all_in(pt(array), Asserted(layer=1))[""]
    assert rows(found) == {1: array.float().tolist()}


@pytest.mark.parametrize(
    ("keys", "said", "layers"),
    [
        ([2, 3], INPUT, [2, 3]),
        (["2", "3"], OUTPUT, [3, 4]),
        (["layer_2", "layer_3"], OUTPUT, [3, 4]),
        (["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"], Asserted(), [2, 3]),
        (["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"], Asserted(), [3, 4]),
        (["model.layers.2", "model.layers.3"], Asserted(), [3, 4]),
    ],
)
def test_keys_name_layers(keys, said, layers):
    named = dict(zip(keys, STACK, strict=False))
    expected = dict(zip(layers, STACK.tolist(), strict=False))
    assert rows(all_in(pt(tensors(named)), said)[""]) == expected
    assert rows(all_in(pt(OrderedDict(tensors(named))), said)[""]) == expected
    assert rows(all_in(npz({str(k): v for k, v in named.items()}), said)[""]) == expected


def test_keys_name_vectors():
    named = {"calm": HIDDEN, "brave": HIDDEN[::-1].copy()}
    for data in (pt(tensors(named)), npz(named, np.savez_compressed)):
        assert list(all_in(data, Asserted())) == ["calm", "brave"]


def test_a_state_of_steering_vectors():
    state = {"layer_activations": {2: torch.tensor(ONE)}, "layer_type": "decoder_block"}
    assert rows(all_in(pt(state), Asserted())[""]) == {3: ONE.tolist()}
    state["layer_type"] = "mlp"
    assert refusal(pt(state), Asserted())[0] is Incompatible


def lm_eval(**changed):
    entry = {"steering_vector": torch.tensor(ONE), "steering_coefficient": 2.0, "action": "add"}
    return pt({"layers.2": {**entry, "bias": None, "head_index": None, **changed}})


def test_lm_eval():
    found = all_in(lm_eval(), Asserted())[""]
    assert rows(found) == {3: ONE.tolist()}
    assert found.recipe.facts == ("coefficient=2.0",)
    for changed in ({"action": "clamp"}, {"bias": torch.ones(8)}, {"head_index": 3}):
        assert refusal(lm_eval(**changed), Asserted())[0] is Incompatible
    for c in (10**400, float("nan"), "2"):
        assert refusal(lm_eval(steering_coefficient=c), Asserted())[0] is CorruptPayload


def test_lm_eval_comes_back():
    once = vector(1, 1, 2, 3)
    data = torch_files.write_lm_eval(once, -1.5)
    found = all_in(data, Asserted())[""]
    assert found == once
    assert found.recipe.facts == ("coefficient=-1.5",)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert list(loaded) == ["layers.0", "layers.1", "layers.2"]
    entry = loaded["layers.2"]
    assert entry.pop("steering_vector").tolist() == rows(once)[3]
    assert entry == {
        "steering_coefficient": -1.5, "action": "add", "bias": None, "head_index": None
    }  # fmt: skip
    with pytest.raises(Incompatible, match="layer 0"):
        torch_files.write_lm_eval(vector(1, 0, 1), 1.0)


def test_npz_comes_back():
    once = vector(1, 0, 3, 5)
    assert all_in(numpy_files.write_npz(once), Asserted())[""] == once
    assert numpy_files.write_npz(once) == numpy_files.write_npz(once)
    with np.load(io.BytesIO(numpy_files.write_npz(once))) as file:
        assert sorted(file) == [f"blocks.{b}.hook_resid_pre" for b in (0, 3, 5)]


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_is_executed(capsys):
    for value in (Evil(), {"layer": Evil()}, [torch.tensor(ONE), Evil()]):
        kind, why = refusal(pt(value), Asserted(layer=1))
        assert kind is CorruptPayload
        assert "needs to be unpickled" in why
    with pytest.raises(CorruptPayload, match="Python objects"):
        numpy_files.read_npy(npy(np.array([Evil()], dtype=object)), "x")
    assert "executed" not in capsys.readouterr().out


def with_pickle(stream):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("x/data.pkl", stream)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pt({"a": 1}), "no tensor of floats"),
        (pt("love"), "neither a tensor nor a dict"),
        (pt({"1": torch.ones(8), "2": torch.ones(9)}), "one length"),
        (pt({"1": torch.ones(8), "2": torch.ones(8).half()}), "several types"),
        (pt({"1": torch.ones(8), "calm": torch.ones(8)}), "others do not"),
        (pt({"1": torch.ones(8), "layer_1": torch.ones(8)}), "twice"),
        (pt(torch.ones(8, dtype=torch.int64)), "no tensor of floats"),
        (pt(torch.ones(2, 2, 2, 8)), "which no vector has"),
        (pt(torch.tensor(1.0)), "which no vector has"),
        (pt({"calm": torch.tensor(1.0)}), "which no vector has"),
        (npz({"1": np.ones(())}), "lists of numbers"),
        (with_pickle(pickle.dumps([1], 2)[:-2]), "whole file of torch"),
        (with_pickle(b"\x80\x02t."), "whole file of torch"),
        (with_pickle(b"\x80\x02N\x86."), "takes more than it made"),
        (with_pickle(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."), "calls os.system"),
        (with_pickle(b"\x80\x02}r\xff\xff\xff\x7f."), "neither a tensor"),
        (npy(np.ones(8, int)), "not real numbers"),
        (npz({}), "no array"),
        (npy(ONE)[:-4], "whole array"),
    ],
)
def test_what_is_no_vector(data, why):
    assert why in refusal(data, Asserted(layer=1))[1]


def test_a_zip_that_would_unpack_to_much_more():
    data = npz({"1": np.zeros(20_000_000, "f4")}, np.savez_compressed)
    assert len(data) < 200_000
    assert "which no vector has" in refusal(data, Asserted())[1]


def test_no_more_is_unpacked_than_an_entry_states():
    data = bytearray(npz({"1": np.zeros(16_000_000, "f4")}, np.savez_compressed))
    at = data.rfind(b"PK\x01\x02") + 24  # the size in the central directory, which zipfile goes by
    data[at : at + 4] = (100).to_bytes(4, "little")
    tracemalloc.start()
    try:
        assert "not a whole zip file" in refusal(bytes(data), Asserted())[1]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
