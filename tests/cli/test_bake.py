"""bake writes a model, an adapter or an ablation."""

from __future__ import annotations

import json

import pytest

from steerlab import LanguageModel
from steerlab.cli import ExitCode


def test_a_baked_model_is_loaded_like_any_other(cli, store, tmp_path):
    done = cli("bake", "love", "-", "anger", "out", "--dose", "0.2")
    assert (done.code, done.out) == (ExitCode.OK, "out\n"), done.err
    assert "for dose 0.2" in done.err
    lm = LanguageModel.load(str(tmp_path / "out"))
    assert lm.generate("I think", max_new_tokens=3).token_ids


@pytest.mark.parametrize(("flag", "kind"), [("--adapter", "BEFT"), ("--lora", "LORA")])
def test_adapters(cli, store, tmp_path, flag, kind):
    done = cli("bake", "love[2]", "out", flag)
    assert (done.code, done.out) == (ExitCode.OK, "out\n"), done.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == kind


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["love", "vectors"], ExitCode.USAGE, "already exists"),
        (["love[2]", "out", "--lora", "--dose", "1"], ExitCode.USAGE, "no strength"),
        (["love", "out", "--lora", "--adapter"], ExitCode.USAGE, "exclude each other"),
        (["love", "out", "--lora"], ExitCode.BAD_INPUT, "holds one"),
        (["front", "out"], ExitCode.BAD_INPUT, "no positions"),
        (["nothing", "out"], ExitCode.NOT_FOUND, "nothing"),
        (["love", "out", "--dose", "1", "--coefficient", "1"], ExitCode.BAD_INPUT, "not both"),
    ],
)
def test_what_is_not_baked(refused, tmp_path, arguments, code, why):
    assert why in refused(code, "bake", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


@pytest.mark.parametrize("verb", [("bake", "love", "out"), ("conform", "love")])
@pytest.mark.parametrize("strength", [("--dose", 0), ("--dose", 0.1, "--coefficient", 1)])
def test_a_strength_that_cant_be_is_refused_before_a_model_is_loaded(
    refused, store, monkeypatch, verb, strength
):
    monkeypatch.setattr("steerlab.models.language_model.LanguageModel.load", None)
    why = refused(ExitCode.BAD_INPUT, *verb, *strength)
    assert "steers nothing" in why or "not both" in why
