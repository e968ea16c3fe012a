"""GGUF files of any architecture with a few random tensors: enough for everything that reads headers, without a model."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYERS, DIM, TRAINED = 8, 64, 4096
KEYS: dict[str, dict[str, Any]] = {
    "llama": {"expert_count": 8, "expert_used_count": 2},
    "qwen2moe": {"expert_count": 8, "expert_used_count": 2, "rope.freq_base": 1000000.0},
    "falcon": {"rope.freq_base": None},
    "stablelm": {"rope.dimension_count": 16},
    "phi2": {"rope.dimension_count": 32},
    "gptneox": {"rope.dimension_count": 16},
    "phi3": {"attention.sliding_window": 2047},
    "gemma2": {"attention.sliding_window": 512},
    "gemma3": {"attention.sliding_window": 512, "rope.freq_base": 1000000.0},
    "gpt-oss": {"attention.sliding_window": 128, "rope.freq_base": 150000.0},
    "olmo2": {"attention.sliding_window": 512},
    "qwen35": {"full_attention_interval": 4, "rope.dimension_count": 16},
    "deepseek2": {
        "attention.key_length": 576, "attention.key_length_mla": 192, "attention.value_length": 512,
        "attention.head_count_kv": 1, "attention.kv_lora_rank": 512,
    },
}  # fmt: skip
"""What a file of an architecture has beside, or instead of, what every file has; None takes a key out."""


def write_synthetic(
    path: Path, architecture: str, keys: dict[str, Any] | None = None, factors: dict[str, np.ndarray] | None = None
) -> Path:
    """A file of `architecture`: `keys` go below it, `factors` are tensors of divisors by their whole name."""
    writer = gguf.GGUFWriter(path, architecture)
    content: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": TRAINED,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": DIM,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": DIM,
        **KEYS.get(architecture, {}),
        **(keys or {}),
    }
    for key, value in content.items():
        if value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](f"{architecture}.{key}", value)
    draw = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", draw.standard_normal((96, 256), dtype=np.float32))
    for name, data in (factors or {}).items():
        writer.add_tensor(name, np.asarray(data, dtype=np.float32))
    for layer in range(2):
        # An odd number of bytes shows a padding that is wrong; a quantised tensor one that is looked into.
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", draw.standard_normal(255, dtype=np.float32).astype(np.float16))
        rows = gguf.quants.quantize(draw.standard_normal((8, 256), dtype=np.float32), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"blk.{layer}.attn_q.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
