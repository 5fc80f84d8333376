"""A float32 GGUF file of a transformers model, without a tokenizer: it is given token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.errors import Incompatible

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""transformers' names -> llama.cpp's."""


def write(model: Any, path: Path) -> None:
    """Write the weights and what llama.cpp has to know of them.

    Raises Incompatible for architectures, position encodings and windows that are not handled.
    """
    import gguf

    config = model.config
    architecture = _ARCHITECTURES.get(config.model_type)
    rope = dict(getattr(config, "rope_parameters", None) or {})
    if architecture is None or rope.get("rope_type", "default") != "default":
        what = rope.get("rope_type", "") if architecture else config.model_type
        raise Incompatible(
            f"a GGUF file is made here of {', '.join(_ARCHITECTURES)} with plain rotary positions, "
            f"not of {what}"
        )
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise Incompatible("a GGUF file is made here of models without sliding windows")
    file = gguf.GGUFWriter(path, architecture)
    heads, width = config.num_attention_heads, config.hidden_size
    head = getattr(config, "head_dim", None) or width // heads
    file.add_block_count(config.num_hidden_layers)
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(width)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_key_length(head)
    file.add_value_length(head)
    file.add_rope_dimension_count(head)
    file.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_vocab_size(config.vocab_size)
    file.add_file_type(gguf.LlamaFileType.ALL_F32)
    file.add_tokenizer_model("no_vocab")
    kind = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        if architecture == "llama" and ".self_attn.q_proj" in name:
            array = _interleaved(array, heads)
        if architecture == "llama" and ".self_attn.k_proj" in name:
            array = _interleaved(array, config.num_key_value_heads)
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise Incompatible(f"llama.cpp has no tensor for {name}")
        file.add_tensor(found, np.ascontiguousarray(array))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _interleaved(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows in the order of llama.cpp's rotation, which turns neighbours rather than halves."""
    split = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)
