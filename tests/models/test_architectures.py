"""Every architecture that transformers knows is steered rightly, or refused with the reason."""

from __future__ import annotations

import pytest
import transformers

from tests.models.architectures import TABLE, causal_types, read_table, verdict, wrapper_types

SEEDS = [
    "cohere",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "exaone4",
    "gemma",
    "gemma4_text",
    "glm4",
    "glm4_moe",
    "gpt_neo",
    "gpt_oss",
    "granite",
    "jamba",
    "llama4_text",
    "ministral3",
    "olmo",
    "olmo3",
    "phi",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_text",
    "qwen3_next",
    "smollm3",
    "stablelm",
    "starcoder2",
]
"""25 of most use, besides those of tests/tiny.py."""

pytestmark = pytest.mark.filterwarnings("default")  # of other people's models


@pytest.mark.parametrize("model_type", SEEDS)
def test_it_is_right(model_type):
    if model_type not in causal_types():
        pytest.skip(f"this transformers has no {model_type}")
    assert verdict(model_type, ("generated",)) == "right"


@pytest.mark.campaign
@pytest.mark.parametrize("model_type", [*causal_types(), *wrapper_types()])
def test_it_is_what_the_table_says(model_type):
    found = verdict(model_type)
    if f"transformers {transformers.__version__}:" in TABLE.read_text():
        assert found == read_table()[model_type]
