"""Tiny random models of every architecture that transformers knows, made by shrinking.

`python -m tests.models.architectures` steers all of them and writes what comes of it into the
table beside this file; with model types as arguments, it prints the verdicts on these.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from steerlab import LanguageModel
from steerlab.errors import SteerlabError
from tests.models.judging import POSITIONS, TEXTS, judge, judge_plain_module, one_line
from tests.tiny import tiny_tokenizer

TABLE = Path(__file__).with_suffix(".md")
LARGEST = 15_000_000  # parameters of a model that is built
SIZES = {
    name: size
    for size, names in {
        300: """vocab_size unpadded_vocab_size vocab_size_per_layer_input shape_vocab_size
            pronunciation_vocab_size encoder_hash_byte_group_vocab""",
        128: "max_position_embeddings n_positions max_seq_len n_ctx context_length",
        48: """intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim dim_ff dff d_inner
            ffn_hidden_size dense_intermediate_size intermediate_size_mlp""",
        32: """hidden_size d_model n_embd word_embed_proj_dim emb_dim attention_hidden_size
            lru_width embedding_size""",
        16: """moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size
            expert_ffn_hidden_size moe_shared_expert_intermediate_size index_head_dim
            shared_experts_intermediate_size q_lora_rank kv_lora_rank o_lora_rank""",
        8: """head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim
            linear_value_head_dim attention_head_size dim_head kv_channels swa_head_dim
            qk_head_dim linear_head_dim global_head_dim mamba_d_state state_size ssm_state_size
            sliding_window sliding_window_size attention_window_size mamba_head_dim mamba_d_head
            hidden_size_per_layer_input""",
        4: """num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers depth
            num_encoder_layers num_decoder_layers num_attention_heads n_head n_heads num_heads
            decoder_attention_heads encoder_attention_heads num_encoder_attention_heads
            num_decoder_attention_heads attention_heads linear_num_value_heads num_experts
            n_routed_experts num_local_experts moe_num_experts swa_num_attention_heads
            linear_num_heads index_n_heads index_topk rotary_dim""",
        2: """num_key_value_heads linear_num_key_heads swa_num_key_value_heads
            num_experts_per_tok num_global_key_value_heads eos_token_id pad_token_id""",
        1: """n_group topk_group n_shared_experts num_shared_experts bos_token_id
            first_k_dense_replace""",
    }.items()
    for name in names.split()
} | {"is_decoder": True}
"""Field of a config -> its value in a tiny one."""

HALF_LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}
HALF_HYBRID = {"layers_block_type": ["linear_attention", "hybrid"] * 2}
CHANGES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"mamba_n_heads": 8, "mamba_chunk_size": 16, "attn_layer_indices": [1, 3]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_top_k": 2},
    },
    "ernie4_5_moe": {"moe_k": 2, "moe_layer_end_index": 3},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_chunk_size": 16},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 8},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_chunk_size": 16,
        "layer_types": ["mamba", "attention"] * 2,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": HALF_LINEAR,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"num_heads": 8, "n_groups": 1, "chunk_size": 16},
    "mllama": {"text_config": {"cross_attention_layers": [3]}},
    "moshi": {"sliding_window": 128},  # its cache slides, its mask does not
    "nemotron_h": {"mamba_num_heads": 8, "n_groups": 1, "chunk_size": 16},
    "qwen4_exp_text": HALF_LINEAR
    | {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
    | {"indexer_budget": 8, "indexer_compress_ratio": 2, "ngram_vocab_size_base": 100},
    "reformer": {
        "axial_pos_shape": (8, 16),
        "axial_pos_embds_dim": (16, 16),
        "attn_layers": ["local", "lsh"] * 2,
        "num_buckets": 4,
    },
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"hidden_size": 128, "num_heads": 4},
    "zamba": HALF_HYBRID | {"attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": HALF_HYBRID | {"hybrid_layer_ids": [1, 3], "chunk_size": 16},
    "zaya": {"num_experts_per_tok": 1},
}
"""Model type -> what else its tiny config needs."""


class TooLargeError(Exception):
    """The config of an architecture can't be shrunk by the names of its fields."""


def causal_types() -> list[str]:
    """Every causal architecture that the installed transformers knows."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def wrapper_types() -> list[str]:
    """Every architecture that reads images around a causal one, beside `causal_types`."""
    wrappers = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.keys()
    return sorted(wrappers - MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys())


def tiny_config(model_type: str) -> Any:
    """The config of an architecture with 4 layers of 32."""
    kind = getattr(transformers, CONFIG_MAPPING_NAMES[model_type])
    return kind(**_merged(_sizes(kind), CHANGES.get(model_type, {})))


def _sizes(kind: Any) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(kind)}
    found: dict[str, Any] = {name: size for name, size in SIZES.items() if name in fields}
    if "kv_lora_rank" in fields:  # latent attention has a key of its own for each head
        found["num_key_value_heads"] = 4
    for name, inner in (getattr(kind, "sub_configs", None) or {}).items():
        if inner is not transformers.AutoConfig:
            found[name] = _sizes(inner)
        elif (default := getattr(kind(), name, None)) is not None:
            found[name] = {"model_type": default.model_type, **_sizes(type(default))}
    return found


def _merged(some: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: _merged(some[name], value)
        for name, value in others.items()
        if isinstance(some.get(name), dict)
    }
    return some | others | inner


def tiny(model_type: str) -> Any:
    """A random model of an architecture; raises whatever keeps it from being built."""
    causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText
    config = tiny_config(model_type)
    with torch.device("meta"):
        size = sum(p.numel() for p in kind.from_config(config).parameters())
    if size > LARGEST:
        raise TooLargeError(f"{size / 1e6:.0f} million parameters are left")
    torch.manual_seed(0)
    model = kind.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    check_runs(model.eval())
    return model


@torch.no_grad()
def check_runs(model: Any) -> None:
    """Raise whatever an unsteered text raises: some models need more than token ids."""
    ids = torch.arange(3, 9)[None]
    model(input_ids=ids)
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False)


def verdict(model_type: str, positions: tuple[str, ...] = POSITIONS) -> str:
    """What steering one architecture comes to: "right", with what is refused, or "refused: why".

    Raises AssertionError where it is wrong, and whatever it crashes with.
    """
    try:
        model = tiny(model_type)
    except Exception as error:
        return f"not built: {one_line(error)[:160]}"
    try:
        lm = LanguageModel(model, tiny_tokenizer(), source=model_type)
        assert lm.identity
        lm.next_log_probs(TEXTS)  # the trial of batches is over
    except SteerlabError as error:
        judge_plain_module(model)
        return f"refused: {one_line(error)[:160]}"
    return judge(lm, positions)


def read_table() -> dict[str, str]:
    """Model type -> its verdict when the table was written."""
    rows = [line.strip("| ").split(" | ", 1) for line in TABLE.read_text().splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def write_table(verdicts: dict[str, str]) -> None:
    """Replace the table."""
    lines = [
        f"Steering on tiny random models, transformers {transformers.__version__}, written by",
        "`python -m tests.models.architectures`.",
    ]
    for what, types in (("Causal", causal_types()), ("With images", wrapper_types())):
        found = {name: verdicts[name] for name in types}
        lines += ["", f"{what}: {_counted(found.values())}", "", "| model_type | verdict |"]
        lines += ["|---|---|", *(f"| {name} | {found[name]} |" for name in found)]
    TABLE.write_text("\n".join(lines) + "\n")


def _counted(verdicts: Collection[str]) -> str:
    kinds = ("right", "refused", "not built")
    counts = (f"{sum(v.startswith(kind) for v in verdicts)} {kind}" for kind in kinds)
    return f"{len(verdicts)} architectures, {', '.join(counts)}."


def main(types: list[str]) -> int:
    """Judge these, or all; the exit code is the number of those that are wrong or crash."""
    verdicts, failed = {}, 0
    for model_type in types or [*causal_types(), *wrapper_types()]:
        try:
            verdicts[model_type] = verdict(model_type)
        except Exception as error:
            failed += 1
            print(f"{model_type}: {type(error).__name__}: {one_line(error)[:400]}", flush=True)
        else:
            print(f"{model_type}: {verdicts[model_type]}", flush=True)
    if not types and not failed:
        write_table(verdicts)
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
