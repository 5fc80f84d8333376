"""PEFT's BEFT adapters steer as ours do."""

from __future__ import annotations

import pytest
import torch

from steerlab import SteeringVector, steering
from steerlab.errors import Incompatible
from steerlab.interop import peft_directory, safetensors_files
from steerlab.interop.foreign import Asserted, bind
from tests.registry.samples import OTHER, vector
from tests.tiny import tiny_lm

SLOW = ("mistral", "qwen2", "qwen3", "phi3")


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
@pytest.mark.parametrize(
    "architecture",
    ["llama", *(pytest.param(a, marks=pytest.mark.campaign) for a in SLOW)],
)
def test_an_adapter_gives_the_logits_of_our_hooks(tmp_path, architecture):
    from peft import PeftModel

    lm = tiny_lm(architecture)
    made = SteeringVector(
        {b: torch.randn(32, generator=torch.Generator().manual_seed(b)) for b in (1, 3)},
        model=lm.identity,
    )
    for name, data in peft_directory.write(made).items():
        (tmp_path / name).write_bytes(data)
    (found,) = safetensors_files.read((tmp_path / "adapter_model.safetensors").read_bytes(), "x")
    assert bind(found, lm.identity, "x", Asserted(), model_named=False) == made
    ids = torch.arange(5, 15)[None]
    with torch.no_grad(), steering(lm, made):
        ours = lm.model(ids).logits.log_softmax(-1)
    with torch.no_grad():
        plain = lm.model(ids).logits.log_softmax(-1)
        adapted = PeftModel.from_pretrained(lm.model, tmp_path)
        theirs = adapted(ids).logits.log_softmax(-1)
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - plain).abs().max() > 1e-2


def test_where_it_would_not_be_exact_it_is_refused():
    with pytest.raises(Incompatible, match="gpt2"):
        peft_directory.write(vector(1, model=OTHER))
    with pytest.raises(Incompatible, match="layer 0"):
        peft_directory.write(vector(1, 0, 2))
