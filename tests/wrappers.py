"""Tiny random vision-language models: wrappers that give their language model embeddings."""

from __future__ import annotations

from functools import cache

import torch
import transformers

from steerlab import LanguageModel
from tests.tiny import COMMON, tiny_tokenizer

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = COMMON | {"head_dim": 8}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 8}
ENDS = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
WRAPPERS = {
    "llava": (
        "Llava",
        {
            "vision_config": SMALL | {"model_type": "clip_vision_model"},
            "text_config": TEXT | {"model_type": "llama"},
            "image_token_id": 299,
        },
    ),
    "gemma3_vl": (
        "Gemma3",
        {
            "vision_config": SMALL | {"model_type": "siglip_vision_model"},
            "text_config": TEXT | {"model_type": "gemma3_text", "sliding_window": 8},
            "mm_tokens_per_image": 4,
            "image_token_id": 299,
            "boi_token_id": 297,
            "eoi_token_id": 298,
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        {
            "vision_config": QWEN | {"out_hidden_size": 32, "fullatt_block_indexes": [0]},
            "text_config": TEXT | {"rope_parameters": ROPE},
            "image_token_id": 299,
            "video_token_id": 298,
            "vision_start_token_id": 297,
            "vision_end_token_id": 296,
        },
    ),
    "qwen3_vl": (
        "Qwen3VL",
        {
            "vision_config": QWEN | {"out_hidden_size": 32, "deepstack_visual_indexes": [0]},
            "text_config": TEXT | {"rope_parameters": ROPE},
            "image_token_id": 299,
            "video_token_id": 298,
            "vision_start_token_id": 297,
            "vision_end_token_id": 296,
        },
    ),
    "mistral3": (
        "Mistral3",
        {
            "vision_config": SMALL | {"model_type": "pixtral"},
            "text_config": TEXT | {"model_type": "mistral"},
            "image_token_id": 299,
        },
    ),
    "smolvlm": (
        "SmolVLM",
        {
            "vision_config": SMALL,
            "text_config": TEXT | {"model_type": "llama"},
            "image_token_id": 299,
        },
    ),
}


@cache
def wrapper_lm(name: str) -> LanguageModel:
    """A tiny wrapper, and a tokenizer."""
    prefix, settings = WRAPPERS[name]
    config = getattr(transformers, f"{prefix}Config")(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    for key, value in ENDS.items():
        setattr(model.generation_config, key, value)
    return LanguageModel(model.eval(), tiny_tokenizer(), source=name)
