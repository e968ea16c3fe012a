"""Checkpoint folders of any size that take no room: real headers and indexes over sparse files."""

import json
import struct
from pathlib import Path
from typing import Any

LLAMA_70B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "dtype": "bfloat16",
}
"""The shape of Llama 3 70B."""
SHARD_BYTES = 5 * 10**9


def tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """Name to shape of every tensor of a Llama."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": [config["vocab_size"], width]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        found |= {f"{layer}.self_attn.{name}_proj.weight": [width, width] for name in "qo"}
        found |= {f"{layer}.self_attn.{name}_proj.weight": [keys, width] for name in "kv"}
        found |= {f"{layer}.mlp.{name}_proj.weight": [inner, width] for name in ("gate", "up")}
        found |= {f"{layer}.mlp.down_proj.weight": [width, inner]}
        found |= {f"{layer}.{name}_layernorm.weight": [width] for name in ("input", "post_attention")}
    return {**found, "model.norm.weight": [width], "lm_head.weight": [config["vocab_size"], width]}


def shards(config: dict[str, Any]) -> list[dict[str, list[int]]]:
    """The tensors, in files of at most five gigabytes of bfloat16."""
    files: list[dict[str, list[int]]] = [{}]
    room = SHARD_BYTES
    for name, shape in tensors(config).items():
        size = num_bytes(shape)
        if size > room and files[-1]:
            files.append({})
            room = SHARD_BYTES
        files[-1][name] = shape
        room -= size
    return files


def num_bytes(shape: list[int]) -> int:
    """Of a bfloat16 tensor."""
    count = 2
    for n in shape:
        count *= n
    return count


def write_sparse(folder: Path, config: dict[str, Any]) -> int:
    """Writes config, index and shards with whole headers and no data; the bytes that the tensors would take."""
    folder.mkdir(parents=True)
    files, placed, total = shards(config), {}, 0
    for number, held in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for tensor, shape in held.items():
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + num_bytes(shape)]}
            end += num_bytes(shape)
            placed[tensor] = name
        raw = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + end)
        total += end
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return total
