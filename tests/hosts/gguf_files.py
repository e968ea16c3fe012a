"""Small GGUF files of random models, written with llama.cpp's own Python package and name tables."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}


def tiny(architecture: str, rope: dict[str, Any] | None = None, **options: Any) -> PreTrainedModel:
    """A random float32 model; biases and norms are random too, so that a lost one shows."""
    config_class, model_class = CLASSES[architecture]
    torch.manual_seed(0)
    if rope is not None:
        options["rope_parameters"] = rope
    model = model_class(config_class(**{**SMALL, **options})).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model


def permute(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """How llama.cpp's converter reorders query and key rows for `llama`."""
    shape = weights.shape
    return weights.reshape(num_heads, 2, shape[0] // num_heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_gguf(
    model: PreTrainedModel,
    path: Path,
    architecture: str,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    skip: tuple[str, ...] = (),
    tokenizer: bool = False,
) -> Path:
    """Writes `model`; `keys` go below the architecture (None leaves one out), `tensors` are added, `skip` left out."""
    config = model.config
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer = gguf.GGUFWriter(path, architecture)
    content: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": config.head_dim,
        **(keys or {}),
    }
    for key, value in content.items():
        if value is not None:
            add_key(writer, f"{architecture}.{key}", value)
    if tokenizer:
        add_tokenizer(writer, config.vocab_size)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, suffix = name.rsplit(".", 1)
        ours = f"{names.get_name(stem)}.{suffix}"
        if ours in skip:
            continue
        data = tensor.numpy()
        if architecture == "llama" and ".attn_q." in ours:
            data = permute(data, config.num_attention_heads)
        if architecture == "llama" and ".attn_k." in ours:
            data = permute(data, config.num_key_value_heads)
        if architecture == "gemma3" and "norm" in ours:
            data = data + 1
        add_tensor(writer, ours, data, kind)
    for name, data in (tensors or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def add_tensor(writer: gguf.GGUFWriter, name: str, data: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    # As llama.cpp does: vectors stay in float32.
    if data.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, np.ascontiguousarray(data, dtype=np.float32))
    else:
        packed = gguf.quants.quantize(np.ascontiguousarray(data, dtype=np.float32), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)


def add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """A byte-level vocabulary of three control tokens and single characters."""
    # In the byte alphabet a space is spelled like this.
    words = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "\u0120",
        *(chr(code) for code in range(33, 33 + vocab_size - 6)),
    ]
    words += ["ab", "\u0120a"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_token_merges(["a b", "\u0120 a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
