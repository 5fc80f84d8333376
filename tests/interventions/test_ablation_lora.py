"""A LoRA of rank 1 keeps a direction out of the residual stream."""

from __future__ import annotations

import pytest
import torch

from steerlab import unit
from steerlab.errors import Incompatible
from steerlab.interventions.ablation_lora import ablation_lora
from tests.interventions.test_bake import loaded, log_probs, vector


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_model_is_the_one_with_orthogonal_weights(tmp_path, architecture):
    from peft import PeftModel

    lm = loaded(tmp_path / "m", architecture)
    made = vector(lm, 2)
    for name, data in ablation_lora(lm, made).items():
        (tmp_path / name).write_bytes(data)
    plain = log_probs(lm.model)
    u = torch.tensor(unit(made).directions[2][0]).float()
    adapted = PeftModel.from_pretrained(loaded(tmp_path / "m", architecture).model, tmp_path)
    theirs = log_probs(adapted)
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter -= torch.outer(u, u @ parameter)
            elif name.endswith("embed_tokens.weight"):
                parameter -= torch.outer(parameter @ u, u)
    assert (theirs - log_probs(lm.model)).abs().max() < 1e-4
    assert (theirs - plain).abs().max() > 1e-2
    stream = adapted(torch.arange(5, 25)[None], output_hidden_states=True).hidden_states[:-1]
    assert max(float((h @ u).abs().max()) for h in stream) < 1e-4


def test_what_it_can_not_be_exact_for_is_refused(tmp_path):
    lm = loaded(tmp_path / "m")
    with pytest.raises(Incompatible, match="holds one"):
        ablation_lora(lm, vector(lm, 1, 2))
    gpt2 = loaded(tmp_path / "g", "gpt2")
    with pytest.raises(Incompatible, match="gpt2"):
        ablation_lora(gpt2, vector(gpt2, 2))
    biased = loaded(tmp_path / "b", attention_bias=True)
    with pytest.raises(Incompatible, match="o_proj, which no LoRA can change"):
        ablation_lora(biased, vector(biased, 2))
