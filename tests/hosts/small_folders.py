"""Small checkpoints on disk, made without torch: the helper behind the fixture `make_folder`."""

import json
import struct
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
}


def safetensors_bytes(size: int = 16, tensor: str = "w", **changes: Any) -> bytes:
    """A whole safetensors file with one uint8 tensor of `size` bytes."""
    header = {
        "__metadata__": {"format": "pt"},
        tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size], **changes},
    }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


def make_folder_in(parent: Path, name: str = "model", **files: Any) -> Path:
    """Makes a checkpoint folder: files by name, as bytes or JSON; None leaves one out."""
    folder = parent / name
    folder.mkdir()
    content = {"config.json": LLAMA, "model.safetensors": safetensors_bytes(), **files}
    for file, value in content.items():
        if value is None:
            continue
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return folder
