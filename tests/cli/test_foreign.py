"""import and export of the files of other programs."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab import Lab, LanguageModel
from steerlab.cli import ExitCode
from steerlab.core.results import Calibration
from steerlab.errors import ModelError
from tests.interop.samples import gguf_file


@pytest.fixture
def deep(store):
    """A vector of layer 2 alone, which every format can hold."""
    return store.save("deep", store.load("love")[2])


def rows(*numbers):
    return {n: np.random.default_rng(n).normal(size=32).astype("<f4") for n in numbers}


def test_a_foreign_file_comes_in_and_goes_out(cli, store, tmp_path):
    (tmp_path / "Calm-down.gguf").write_bytes(gguf_file(rows(1, 2)))
    done = cli("import", "Calm-down.gguf")
    assert done.out == (
        "Calm_down.v1  imported from Calm-down.gguf (gguf); asserted: model="
        f"{store.models()[0].identity.source}; layers 2-3 of tiny\n"
    )
    assert cli("import", "Calm-down.gguf").out.startswith("Calm_down.v1  already here; ")
    out = cli("export", "Calm_down", "again.gguf")
    assert out.out == "again.gguf\n"
    assert "coefficient 1, since it has no calibrated strength at layers 2-3: baked in" in out.err
    cli("import", "again.gguf")
    assert store.load("again") == store.load("Calm_down")


def test_a_strength_is_baked_in_where_there_is_no_knob(cli, store, deep):
    cli("export", "deep", "x.gguf", "--coefficient", "-2")
    cli("import", "x.gguf")
    assert store.load("x") == -2 * deep
    done = cli("export", "deep", "y.gguf", "--to", "glp", "--dose", "0.2")
    assert "for dose 0.2: stated in the file" in done.err
    assert cli("import", "y.gguf", "--as", "y").code == ExitCode.OK
    assert store.load("y") == deep
    c = deep.coefficient(0.2)
    (fact,) = [f for f in store.load("y").recipe.facts if f.startswith("glp.alpha_default=")]
    assert float(fact.partition("=")[2]) == pytest.approx(c, rel=1e-6)


def test_several_vectors_are_written_as_what_they_do_together(cli, store, deep):
    calm = store.save("calm", store.load("anger")[2])
    done = cli("export", "deep", "calm", "both.gguf", "--dose", "0.2")
    assert done.out == "both.gguf\n"
    assert "the sum of deep.v1 at " in done.err
    cli("import", "both.gguf")
    expected = deep.coefficient(0.2) * deep + calm.coefficient(0.2) * calm
    assert store.load("both") == expected


def test_a_feature_of_an_autoencoder_comes_in(cli, refused, store, tmp_path):
    import json

    from safetensors.numpy import save

    (tmp_path / "sae").mkdir()
    config = {"metadata": {"hook_name": "blocks.2.hook_resid_pre", "model_name": "tiny"}}
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(config))
    decoder = np.random.default_rng(0).normal(size=(9, 32)).astype("<f4")
    (tmp_path / "sae" / "sae_weights.safetensors").write_bytes(save({"W_dec": decoder}))
    done = cli("import", "--sae", "sae", "--feature", "7", "--as", "seventh")
    assert done.code == ExitCode.OK, done.err
    np.testing.assert_array_equal(store.load("seventh").directions[2][0], decoder[7])
    assert "belong together" in refused(ExitCode.USAGE, "import", "--sae", "sae")
    assert "name files" in refused(ExitCode.USAGE, "import")
    assert "not 9" in refused(ExitCode.NOT_FOUND, "import", "--sae", "sae", "--feature", "9")


def test_llama_cpp_is_told_the_strength_by_an_option(cli, store, deep):
    done = cli("export", "deep", "x.gguf", "--to", "llama-cpp", "--coefficient", "2.5")
    assert "llama-server -m MODEL.gguf --control-vector-scaled x.gguf:2.5" in done.err
    cli("import", "x.gguf")
    assert store.load("x") == deep
    assert cli("export", "deep", "y.gguf", "--to", "llama.cpp").code == ExitCode.OK


def test_the_calibrated_strength_and_layer_are_used(cli, store):
    love = store.load("love")
    store.results.save_calibration(Calibration(love.digest, True, 2, 0.3, 7.5, (-0.1, 0.4)))
    assert "coefficient 7.5, as calibrated" in cli("export", "love", "x.gguf").err
    cli("import", "x.gguf")
    assert store.load("x") == 7.5 * love[2]


@pytest.mark.parametrize("strength", [[], ["--dose", 0.1], ["--coefficient", 3]])
def test_a_calibrated_layer_that_is_not_stored_is_made(cli, store, strength):
    love = store.load("love")
    store.results.save_calibration(Calibration(love.digest, True, 3, 0.3, 7.5, (-0.1, 0.4)))
    done = cli("export", "love", "x.npz", *strength)
    assert "love.v1 works at layer 3, which is made now: it is not stored" in done.err
    assert "love.v1 at layer 3 at coefficient" in done.err
    cli("import", "x.npz")
    made = Lab(store).at_layers(love, 3)
    dose, c = (strength[-1:] if "--dose" in strength else None), (strength or [0, 7.5])[-1]
    assert store.load("x") == (made.coefficient(dose[0]) if dose else c) * made


def test_what_is_stored_can_be_written_where_the_calibrated_layer_cant_be_made(
    cli, refused, store, monkeypatch
):
    love = store.load("love")
    store.results.save_calibration(Calibration(love.digest, True, 3, 0.3, 7.5, (-0.1, 0.4)))

    def gone(*_, **__):
        raise ModelError("no such model")

    monkeypatch.setattr("steerlab.models.language_model.LanguageModel.load", gone)
    result = cli("export", "love", "x.npz")
    assert result.code == ExitCode.MODEL
    assert 'what is stored is "(love.v1)[1:3]"' in result.err
    assert cli("export", "(love.v1)[1:3]", "x.npz", "--coefficient", 2).code == ExitCode.OK
    cli("import", "x.npz")
    assert store.load("x") == 2 * love


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["love", "x.npz", "--to", "gguf"], ExitCode.BAD_INPUT, "gguf files end in .gguf"),
        (["love", "x.pkl"], ExitCode.BAD_INPUT, "promises another format"),
        (["love", "x.gguf", "--to", "melt"], ExitCode.USAGE, "no format 'melt'"),
        (["--all", "x.gguf"], ExitCode.USAGE, "name vectors"),
        (["deep", "a:b.gguf", "--to", "llama-cpp"], ExitCode.BAD_INPUT, "end of a name"),
        (["love", "x.gguf", "--parents"], ExitCode.USAGE, "no lineage"),
        (["love", "vectors", "--to", "peft", "--force"], ExitCode.USAGE, "delete it first"),
        (["love", "x.gguf", "--dose", "1", "--coefficient", "1"], ExitCode.BAD_INPUT, "not both"),
        (["love", "x.st", "--dose", "1"], ExitCode.USAGE, "no strength"),
        (["love", "x.gguf", "--coefficient", "0"], ExitCode.BAD_INPUT, "steers nothing"),
        (["love", "x.gguf", "--dose", "0"], ExitCode.BAD_INPUT, "steers nothing"),
        (["love - love", "x.gguf"], ExitCode.BAD_INPUT, "steers nothing"),
        (["front", "x.gguf"], ExitCode.BAD_INPUT, "first tokens"),
    ],
)
def test_what_can_not_be_exported(refused, deep, tmp_path, arguments, code, why):
    assert why in refused(code, "export", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


def test_python_writes_no_payload_under_a_false_name(store, tmp_path):
    from steerlab.errors import BadOption

    with pytest.raises(BadOption, match="promises another format"):
        store.transfer.export("love", tmp_path / "love.gguf")


def test_an_export_replaces_a_file_only_by_force(cli, refused, deep, tmp_path):
    (tmp_path / "x.gguf").write_text("precious")
    assert "--force" in refused(ExitCode.USAGE, "export", "deep", "x.gguf")
    assert cli("export", "deep", "x.gguf", "--force").code == ExitCode.OK


def test_a_directory_is_one_batch(cli, refused, store, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "README.md").write_text("vectors of mine")
    (tmp_path / "d" / ".hidden").write_text("x")
    (tmp_path / "d" / "template.jinja").write_text("{% if messages %}")
    (tmp_path / "d" / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    for name in ("a", "b"):
        (tmp_path / "d" / f"{name}.gguf").write_bytes(gguf_file(rows(1, ord(name) % 2)))
    assert "b.gguf does not state whether" in refused(ExitCode.BAD_INPUT, "import", "d")
    (tmp_path / "d" / "b.gguf").write_bytes(gguf_file(rows(2)))
    (tmp_path / "d" / "a.gguf").write_bytes(gguf_file(rows(1)))
    done = cli("import", "d", "--json")
    assert [one["ref"] for one in done.data] == ["a.v1", "b.v1"]
    assert "README.md is no vector: left out" in done.err
    assert "log.jsonl is no vector: left out" in done.err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n<html>", "is a web page"),
        (b"\x80\x02}q\x00.", "is a pickle, which can run programs"),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (b"love\n", "no vector file that steerlab knows"),
        (b"PK\x03\x04\x14\x00", "a zip file that was cut short"),
    ],
)
def test_files_that_are_no_vectors_are_told_for_what_they_are(refused, tmp_path, content, why):
    (tmp_path / "x.gguf").write_bytes(content)
    assert why in refused(ExitCode.STORE, "import", "x.gguf")


def test_a_file_that_is_two_formats_at_once(refused, tmp_path):
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02N.")
    (tmp_path / "x.gguf").write_bytes(gguf_file(rows(1)) + packed.getvalue())
    assert "two formats at once, gguf and pt" in refused(ExitCode.STORE, "import", "x.gguf")


def test_the_model_is_matched_by_its_shape(cli, refused, store, other_dir, tmp_path, both_models):
    (tmp_path / "x.gguf").write_bytes(gguf_file(rows(1)))
    why = refused(ExitCode.BAD_INPUT, "import", "x.gguf")
    assert "fits several models" in why
    assert "choose with --model" in why
    assert cli("import", "x.gguf", "--model", "other").code == ExitCode.OK
    assert store.load("x", "other").recipe.asserted == (f"model={other_dir}",)


def test_a_width_that_no_known_model_has(refused, tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf_file({1: np.ones(33, "<f4")}))
    why = refused(ExitCode.BAD_INPUT, "import", "x.gguf")
    assert "33 wide" in why
    assert "name its model with --model" in why
    assert "33 wide" in refused(ExitCode.BAD_INPUT, "import", "x.gguf", "--model", "tiny")


def test_the_model_can_be_one_that_has_no_vectors_yet(cli, store, tmp_path, other_dir):
    (tmp_path / "x.gguf").write_bytes(gguf_file(rows(1)))
    assert cli("import", "x.gguf", "--model", other_dir).code == ExitCode.OK
    assert store.load("x").model.source == str(other_dir)


@pytest.mark.parametrize("option", [["--as", "calm"], ["--layer", "1"], ["--sign=-"]])
def test_options_of_foreign_files_are_not_for_ours(cli, refused, option):
    cli("export", "love", "x.st")
    assert "leave the options out" in refused(ExitCode.USAGE, "import", "x.st", *option)


@pytest.mark.parametrize("option", [[], ["--as", "calm"], ["--layer", "1"]])
def test_a_file_that_is_not_there_is_named_whatever_the_options(refused, option):
    assert "no file none.gguf" in refused(ExitCode.NOT_FOUND, "import", "none.gguf", *option)


def test_a_name_is_given_to_one(cli, refused, store, tmp_path):
    for name in ("x.gguf", "1 + 2.gguf"):
        (tmp_path / name).write_bytes(gguf_file(rows(1)))
    why = refused(ExitCode.BAD_INPUT, "import", "x.gguf", "1 + 2.gguf", "--as", "calm")
    assert "--as names one vector" in why
    assert cli("import", "x.gguf", "--as", "calm").out.startswith("calm.v1  ")
    assert cli("import", "1 + 2.gguf").out.startswith("vector_1_2.v1  ")


def test_a_format_that_it_is_not(refused, tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf_file(rows(1)))
    assert "is gguf, not npy" in refused(ExitCode.BAD_INPUT, "import", "x.gguf", "--format", "npy")


def test_what_the_name_suggests_is_proposed(cli, refused, store, tmp_path):
    np.save(tmp_path / "calm_layer-2.npy", rows(1)[1])
    why = refused(ExitCode.BAD_INPUT, "import", "calm_layer-2.npy")
    assert "its name suggests 2: --layer 2 if that is the input of block 2" in why
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 3}')
    why = refused(ExitCode.BAD_INPUT, "import", "calm_layer-2.npy")
    assert "direction_metadata.json beside it says --layer 3" in why
    np.save(
        tmp_path / "l4.npy",
        np.stack([rows(n)[n] for n in range(store.models()[0].identity.n_layers)]),
    )
    why = refused(ExitCode.BAD_INPUT, "import", "l4.npy")
    assert "--layer-from input" in why
    assert "--layer " not in why
    cli("import", "calm_layer-2.npy", "--layer", "3", "--as", "calm")
    assert store.load("calm").layers == (3,)
    assert "layer=3" in cli("show", "calm").out


def test_every_target_comes_back(cli, store, deep):
    from steerlab.interop.targets import TARGETS

    for number, (to, target) in enumerate(TARGETS.items()):
        name = f"x{number}{target.suffix}"
        assert cli("export", "deep", name, "--to", to).code == ExitCode.OK
        assert cli("import", name, "--as", f"x{number}").code == ExitCode.OK
        assert store.load(f"x{number}") == deep


def test_a_message_that_says_which_layers_fit_can_be_followed(cli, refused, store):
    wide = store.save("wide", store.load("love") + store.load("love"))
    why = refused(ExitCode.BAD_INPUT, "export", "wide", "x.json", "--to", "neuronpedia")
    chosen = why.rpartition("as in ")[2].strip()
    assert cli("export", chosen, "x.json", "--to", "neuronpedia").code == ExitCode.OK
    cli("import", "x.json", "--as", "x")
    assert store.load("x") == wide[wide.layers[0]]


def test_what_a_file_states_of_strength_and_model_is_said(cli, store, deep):
    cli("export", "deep", "x.gguf", "--to", "glp", "--coefficient", "2.5")
    done = cli("import", "x.gguf", "--as", "x")
    assert "x.v1: its file states the strength 2.5: use it with --coefficient 2.5" in done.err
    assert "its file states the model" not in done.err
    import json

    asked = {"modelId": "another/model", "layerNumber": 2, "hookType": "hook_resid_pre"}
    asked["vector"] = np.ones(32).tolist()
    (store.path.parent / "y.json").write_text(json.dumps(asked))
    done = cli("import", "y.json", "--as", "y")
    assert "y.v1: its file states the model another/model" in done.err
    assert store.load("y").recipe.asserted == (f"model={deep.model.source}",)
    assert "model=another/model" in store.load("y").recipe.facts


def test_a_file_named_twice_is_one_vector(cli, tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf_file(rows(1)))
    cli("import", "x.gguf", "--as", "first")
    done = cli("import", "x.gguf", "x.gguf")
    assert done.err.count("x.v1: equals first.v1") == 1


def test_a_key_that_is_there_twice_is_refused(refused, tmp_path):
    row = str(np.ones(32).tolist())
    text = f'{{"model_type": "llama", "directions": {{"1": {row}, "1": {row}}}}}'
    (tmp_path / "x.svec").write_text(text)
    assert "'1' is there twice" in refused(ExitCode.STORE, "import", "x.svec")
    head = '{"layer_1": {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}'
    head += head.replace("{", ", ", 1) + "}"
    data = len(head).to_bytes(8, "little") + head.encode() + bytes(128)
    (tmp_path / "x.safetensors").write_bytes(data)
    assert "'layer_1' is there twice" in refused(ExitCode.STORE, "import", "x.safetensors")


def test_a_lora_is_no_vector(refused, tmp_path):
    from safetensors.numpy import save

    key = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
    (tmp_path / "x.safetensors").write_bytes(save({key: np.ones((1, 32), "<f4")}))
    assert "is a LoRA" in refused(ExitCode.STORE, "import", "x.safetensors", "--layer", "2")


def test_a_sidecar_is_not_replaced_either(refused, tmp_path, deep):
    (tmp_path / "x.json").write_text("precious")
    why = refused(ExitCode.STORE, "export", "deep", "x.safetensors", "--to", "saklas")
    assert "x.json exists" in why
    assert not (tmp_path / "x.safetensors").exists()


def test_a_name_that_can_be_of_several_formats(refused):
    assert "say --to lm-eval" in refused(ExitCode.BAD_INPUT, "export", "love", "x.pt")


def test_vectors_that_are_made_for_one_file_share_a_model(cli, store, monkeypatch):
    loaded = []
    load = LanguageModel.load

    def counted(source, **options):
        loaded.append(source)
        return load(source, **options)

    monkeypatch.setattr("steerlab.models.language_model.LanguageModel.load", counted)
    for name in ("love", "anger"):
        digest = store.load(name).digest
        store.results.save_calibration(Calibration(digest, True, 3, 0.3, 7.5, (-0.1, 0.4)))
    done = cli("export", "love", "anger", "x.npz")
    assert len(loaded) == 1
    assert "7.5 * (love.v1 at layer 3) + 7.5 * (anger.v1 at layer 3) at coefficient 1" in done.err
