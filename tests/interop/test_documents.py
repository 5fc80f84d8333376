"""JSON and foreign safetensors, in the layouts of the programs that write them."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from steerlab.errors import CorruptPayload, Incompatible, SteerlabError
from steerlab.interop import json_files, recognise, safetensors_files
from steerlab.interop.foreign import Asserted, UnknownFile, bind
from tests.interop.samples import ONE, ROWS, STACK
from tests.registry.samples import TINY, vector

INPUT = Asserted(layer_from="input")
NOTHING = Asserted()


def bound(found, said=NOTHING):
    return bind(found, TINY, "x", said, model_named=False)


def rows(found):
    return {b: array[0].tolist() for b, array in found.float32().items()}


def read_json(value, said=NOTHING):
    return [bound(one, said) for one in json_files.read(json.dumps(value).encode(), "x")]


def refusal(call, *arguments):
    with pytest.raises(SteerlabError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return type(caught.value), str(caught.value)


# JSON


@pytest.mark.parametrize("wrapped", [False, True])
def test_svec(wrapped):
    directions = {str(n): [r.tolist()] if wrapped else r.tolist() for n, r in ROWS.items()}
    value = {"model_type": "llama", "directions": directions, "explained_variances": {}}
    (found,) = read_json(value)
    assert rows(found) == {n + 1: r.tolist() for n, r in ROWS.items()}
    positional = {**value, "directions": {"1": STACK.tolist()}}
    assert refusal(read_json, positional)[0] is CorruptPayload


def neuronpedia(**changed):
    return {
        "modelId": "tests/Tiny-1",
        "layerNumber": 2,
        "hookType": "hook_resid_pre",
        "vector": ONE.tolist(),
        "vectorDefaultSteerStrength": 12,
        "vectorLabel": "calm",
        **changed,
    }


def test_neuronpedia():
    (found,) = read_json(neuronpedia())
    assert rows(found) == {2: ONE.tolist()}
    assert found.recipe.facts == ("coefficient=12",)
    assert found.recipe.asserted == ()
    assert read_json(neuronpedia(hookType="resid-post"))[0].layers == (3,)
    assert refusal(read_json, neuronpedia(hookType="hook_mlp_out"))[0] is Incompatible
    (one,) = json_files.read(json.dumps(neuronpedia()).encode(), "x")
    assert (one.name, one.model) == ("calm", "tests/Tiny-1")


def test_vllm_lens():
    value = [{"activations": STACK[:2].tolist(), "layer_indices": [0, 3], "scale": 2.0}]
    (found,) = read_json(value)
    assert rows(found) == {1: STACK[0].tolist(), 4: STACK[1].tolist()}
    assert found.recipe.facts == ("coefficient=2.0",)
    for changed in ({"norm_match": True}, {"position_indices": [1]}):
        assert refusal(read_json, [{**value[0], **changed}])[0] is Incompatible


def test_json_comes_back():
    once = vector(1, 3)
    for write in (json_files.write_neuronpedia, json_files.write_lens):
        (one,) = json_files.read(write(once, 2.5), "x")
        assert bound(one) == once
        assert one.facts == ("coefficient=2.5",)
    with pytest.raises(Incompatible, match="holds one"):
        json_files.write_neuronpedia(vector(1, 2, 3), 1.0)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"positive": ["I love you"]}, "no layout of vectors"),
        ([], "no layout of vectors"),
        ({"directions": 1}, "no object of layers"),
        ({"directions": {"-1": [1.0]}}, "layer '-1'"),
        ({"directions": {"1": "love"}}, "no list of numbers"),
        ({"directions": {"1": [True]}}, "no list of numbers"),
        ({"directions": {"1": [10**400]}}, "beyond all floats"),
        (neuronpedia(layerNumber="2"), "the layer"),
        (neuronpedia(vector=None), "no list of numbers"),
        ([{"activations": [[1.0]], "layer_indices": [1, 2]}], "for each layer"),
        ([{"activations": [[1.0]], "layer_indices": ["1"]}], "no numbers"),
    ],
)
def test_json_that_is_no_vector(value, why):
    kind, text = refusal(read_json, value)
    assert why in text
    assert (kind is UnknownFile) == ("no layout" in why)


def test_json_that_is_not_whole():
    assert "not whole JSON" in refusal(json_files.read, b'{"directions": ', "x")[1]


# safetensors


def test_plain_safetensors():
    data = save({"layer_2": ONE, "layer_3": STACK[0]})
    (found,) = safetensors_files.read(data, "x")
    assert "--layer-from" in refusal(bound, found)[1]
    assert rows(bound(found, INPUT)) == {2: ONE.tolist(), 3: STACK[0].tolist()}


def test_bfloat16_safetensors():
    import torch
    from safetensors.torch import save as save_torch

    tensor = torch.tensor(ONE).bfloat16()
    (found,) = safetensors_files.read(save_torch({"calm": tensor}), "x")
    assert found.name == "calm"
    assert rows(bound(found, Asserted(layer=1))) == {1: tensor.float().tolist()}


def sidecar(data=b"", **changed):
    said = {"format_version": 6, "saklas_version": "5.1", "method": "merge"}
    said["tensor_sha256"] = hashlib.sha256(data).hexdigest()
    return {**said, "provenance": {}, **changed}


def test_saklas(tmp_path):
    path = tmp_path / "calm.safetensors"
    data = save({"layer_2": ONE})
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(sidecar(data)))
    (found,) = recognise.read(path)
    assert (found.format, found.name) == ("saklas", "calm")
    made = bound(found)
    assert rows(made) == {3: ONE.tolist()}
    assert made.recipe.facts == ("method=merge", "length=relative")
    path.with_suffix(".json").write_text(json.dumps(sidecar(b"another file")))
    assert "not the file that its sidecar describes" in refusal(recognise.read, path)[1]
    path.with_suffix(".json").write_text(json.dumps(sidecar(data, format_version=9)))
    assert refusal(recognise.read, path)[0] is Incompatible
    path.with_suffix(".json").write_text("[]")
    assert recognise.read(path)[0].format == "safetensors"


SHARES = {"1": 0.25, "3": 0.75}


def fit(path, shares=SHARES, **changed):
    """A pack of saklas fitted to a model, with its sidecar."""
    tensors = {"node_coords": np.array([[1.0], [-1.0]], "<f4"), "origin": ONE}
    for n in ("1", "3"):
        tensors |= {f"layer_{n}.mean": ONE, f"layer_{n}.basis": STACK[int(n)][None]}
    (path / "calm.safetensors").write_bytes(save(tensors | changed))
    if shares is not None:
        said = {"method": "manifold_pca", "mahalanobis_share_per_layer": shares}
        (path / "calm.json").write_text(json.dumps(said))
    return path / "calm.safetensors"


def test_a_pack_of_saklas_is_an_axis_weighed_by_layer(tmp_path):
    (found,) = recognise.read(fit(tmp_path))
    assert (found.format, found.name, found.facts) == ("saklas", "calm", ("length=relative",))
    made = bound(found)
    assert made.layers == (2, 4)
    for n, share in ((1, 0.25), (3, 0.75)):
        np.testing.assert_allclose(made.directions[n + 1][0], share * STACK[n], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "shares", "why"),
    [
        ({"layer_1.rbf_weights": ONE}, SHARES, "curved"),
        ({"node_coords": np.zeros((3, 1), "<f4")}, SHARES, "not two nodes"),
        ({"node_coords": np.zeros((), "<f4")}, SHARES, "not two nodes"),
        ({"layer_1.basis": STACK[:2]}, SHARES, "several axes"),
        ({}, None, r"calm\.json weighs"),
        ({}, {"1": 1.0}, "does not weigh its layers"),
        ({}, {"1": 1.0, "3": -1.0}, "weights that are none"),
        ({}, {"1": 1.0, "3": "1"}, "weights that are none"),
    ],
)
def test_other_packs_of_saklas_are_refused(tmp_path, changed, shares, why):
    with pytest.raises((Incompatible, CorruptPayload), match=why):
        recognise.read(fit(tmp_path, shares, **changed))


def test_saklas_comes_back(tmp_path):
    once = vector(1, 1, 3)
    files = safetensors_files.write_saklas(once)
    for suffix, data in files.items():
        (tmp_path / f"calm{suffix or '.safetensors'}").write_bytes(data)
    (found,) = recognise.read(tmp_path / "calm.safetensors")
    assert bound(found) == once
    assert sorted(load(files[""])) == ["layer_0", "layer_2"]
    said = json.loads(files[".json"])
    assert set(said) == set(sidecar())
    assert said["method"] in ("profile", "manifold_pca", "merge")  # all that saklas reads


def steering_lite(method="mean_diff"):
    cfg = {"cfg": json.dumps({"method": method, "coeff": 1.5, "layers": [2]})}
    return save({"layer2.v": ONE}, metadata=cfg)


def test_steering_lite():
    (found,) = safetensors_files.read(steering_lite(), "x")
    assert found.format == "steering-lite"
    assert found.facts == ("method=mean_diff", "coefficient=1.5")
    assert rows(bound(found, INPUT)) == {2: ONE.tolist()}
    assert "spherical" in refusal(safetensors_files.read, steering_lite("spherical"), "x")[1]


def changed(**entry):
    data = save({"1": ONE})
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["1"] |= entry
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    "data",
    [
        save({"1": ONE})[:-4],
        save({"1": ONE})[:20],
        save({"1": np.ones(8, int)}),
        save({"1": ONE}, metadata={"steerlab": "{}"}),
        changed(shape=[4]),
        changed(shape=[-8, -1]),
        changed(shape="8"),
        changed(data_offsets=[0, 2**60]),
        changed(data_offsets=[-32, 32]),
        changed(data_offsets=None),
        changed(dtype=[]),
        b"\xff" * 8 + b"{}",
    ],
)
def test_damaged_safetensors(data):
    assert refusal(safetensors_files.read, data, "x")[0] is CorruptPayload


def test_an_npz_is_no_safetensors(tmp_path):
    file = io.BytesIO()
    np.savez(file, calm=ONE)
    (tmp_path / "x.safetensors").write_bytes(file.getvalue())
    assert recognise.read(tmp_path / "x.safetensors")[0].format == "npz"
