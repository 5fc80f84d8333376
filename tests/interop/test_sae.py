"""A feature of a directory of SAELens is a direction at its hook."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from steerlab.errors import CorruptPayload, Incompatible, NotFound, SteerlabError
from steerlab.interop import sae_directory
from steerlab.interop.foreign import Asserted, bind
from tests.registry.samples import TINY

DECODER = np.random.default_rng(0).normal(size=(5, TINY.d_model)).astype("<f4")


def sae(path, hook="blocks.2.hook_resid_post", nested=True, decoder=DECODER, **more):
    said = {"hook_name": hook, "model_name": "tiny", **more}
    (path / "cfg.json").write_text(json.dumps({"metadata": said} if nested else said))
    tensors = {"W_enc": DECODER.T.copy(), "W_dec": decoder, "b_dec": np.zeros(8, "<f4")}
    (path / "sae_weights.safetensors").write_bytes(save(tensors))
    return path


@pytest.mark.parametrize(
    ("hook", "layer"), [("blocks.2.hook_resid_post", 3), ("blocks.2.hook_resid_pre", 2)]
)
@pytest.mark.parametrize("nested", [True, False])
def test_the_row_of_the_feature_is_read(tmp_path, hook, layer, nested):
    found = sae_directory.read(sae(tmp_path, hook, nested), 4)
    made = bind(found, TINY, "sae", Asserted(), model_named=True)
    assert made.layers == (layer,)
    np.testing.assert_array_equal(made.directions[layer][0], DECODER[4])
    assert found.name == "feature_4"


def test_what_it_states_is_recorded(tmp_path):
    more = {"neuronpedia_id": "tiny/2-res", "model_class_name": "HookedTransformer"}
    facts = sae_directory.read(sae(tmp_path, **more), 0).facts
    assert facts[:2] == ("feature=0", "neuronpedia_id=tiny/2-res")
    assert facts[2].startswith("stream=mean-centred")


def test_half_precision_is_read(tmp_path):
    found = sae_directory.read(sae(tmp_path, decoder=DECODER.astype("<f2")), 1)
    np.testing.assert_array_equal(found.rows[2], DECODER[1].astype("<f2"))


def test_a_feature_or_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="features 0 to 4, not 5"):
        sae_directory.read(sae(tmp_path), 5)
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(NotFound, match="sae_weights"):
        sae_directory.read(tmp_path, 0)
    with pytest.raises(NotFound, match=r"cfg\.json"):
        sae_directory.read(tmp_path / "none", 0)


def test_other_hooks_are_refused(tmp_path):
    with pytest.raises(Incompatible, match="hook_mlp_out"):
        sae_directory.read(sae(tmp_path, "blocks.2.hook_mlp_out"), 0)


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"metadata": 3}', "\ud800"])
def test_a_damaged_config_is_refused(tmp_path, config):
    sae(tmp_path)
    (tmp_path / "cfg.json").write_bytes(config.encode(errors="surrogatepass"))
    with pytest.raises(CorruptPayload, match=r"cfg\.json"):
        sae_directory.read(tmp_path, 0)


def test_damaged_weights_are_refused_or_read(tmp_path):
    sae(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    refused = []
    for _ in range(2000):
        data = bytearray(whole[: random.integers(0, len(whole) + 1)])
        for at in random.integers(0, max(1, min(len(data), 300)), 3):
            if data:
                data[at] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            found = sae_directory.read(tmp_path, 4)
        except SteerlabError as error:
            refused.append(str(error))
            continue
        assert found.width == len(found.rows[2])
    assert 1000 < len(refused) < 2000
    assert not any("\n" in text for text in refused)
