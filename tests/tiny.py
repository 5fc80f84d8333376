"""Tiny random models of many architectures, and a tokenizer for them: all made offline."""

from functools import lru_cache

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steerlab import LanguageModel

VOCAB = 300
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
ARCHITECTURES = {
    "llama": ("LlamaConfig", COMMON),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen3": ("Qwen3Config", COMMON | {"head_dim": 8}),
    "mistral": ("MistralConfig", COMMON | {"sliding_window": None}),
    "mistral_sliding": ("MistralConfig", COMMON | {"sliding_window": 8}),
    "gemma2": ("Gemma2Config", COMMON | {"head_dim": 8, "sliding_window": 8}),
    "gemma3": ("Gemma3TextConfig", COMMON | {"head_dim": 8, "sliding_window": 8}),
    "gpt2": ("GPT2Config", GPT),
    "gpt_neox": ("GPTNeoXConfig", COMMON),
    "phi3": ("Phi3Config", COMMON),
    "opt": (
        "OPTConfig",
        COMMON | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    "bloom": ("BloomConfig", COMMON | {"n_layer": 4, "n_head": 4}),
    "falcon": (
        "FalconConfig",
        COMMON | {"new_decoder_architecture": False, "multi_query": True, "alibi": False},
    ),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 4}),
    "olmo2": ("Olmo2Config", COMMON),
    "mixtral": ("MixtralConfig", COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        COMMON
        | {
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "decoder_sparse_step": 1,
        },
    ),
}
WITH_A_STATE = {  # each keeps at least a part of the past elsewhere than in keys and values
    "mamba": (
        "MambaConfig",
        {name: COMMON[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
        | {"state_size": 8, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "rwkv": (
        "RwkvConfig",
        {name: COMMON[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
        | {"attention_hidden_size": 32, "intermediate_size": 48, "context_length": 128}
        | {"bos_token_id": 1, "eos_token_id": 2},
    ),
    "lfm2": ("Lfm2Config", COMMON | {"full_attn_idxs": [1, 3]}),
    "openai-gpt": ("OpenAIGPTConfig", GPT),  # it has no cache at all
    "minimax": (
        "MiniMaxConfig",
        COMMON
        | {"head_dim": 8, "block_size": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
        | {"layer_types": ["linear_attention", "full_attention"] * 2},
    ),
}


def tiny_model(architecture: str = "llama", seed: int = 0, **changes):
    """A random causal model with 4 layers of 32; the same seed gives the same weights."""
    name, settings = (ARCHITECTURES | WITH_A_STATE)[architecture]
    config = getattr(transformers, name)(**(settings | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # random weights start small: give the layers a say
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


@lru_cache
def tiny_tokenizer():
    """A byte-level tokenizer with BOS and EOS, which it adds to nothing by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=(
            "{% for m in messages %}{{ '<s>' + m['role'] + ':' + m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '|' }}{% endif %}"
        ),
    )


def tiny_lm(architecture: str = "llama", seed: int = 0, **changes) -> LanguageModel:
    """A tiny model with its tokenizer as a LanguageModel."""
    return LanguageModel(tiny_model(architecture, seed, **changes), tiny_tokenizer(), source="tiny")
