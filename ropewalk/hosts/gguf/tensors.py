"""Which tensor of a GGUF file becomes which of a transformers model, and what shape it must have.

A small table for each part of a layer instead of a mapping by patterns: a tensor that is missing, left over or of the
wrong shape is found before anything is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.engines.llamacpp import FACTOR_TENSORS, Family, family_of
from ropewalk.hosts.gguf.header import Header

IGNORED = (*FACTOR_TENSORS, "rope_freqs", "blk.0.attn_rot_embd")
"""Carried by the config, or old files' copies of what the config says."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one GGUF tensor becomes."""

    name: str
    """In the transformers model."""
    shape: tuple[int, ...]
    num_heads: int | None = None
    """Heads whose rows llama.cpp reordered, where it did."""
    added: float = 0.0
    """What llama.cpp's converter added to the weights."""

    def order(self) -> NDArray[np.int64] | None:
        """Which row of the file each row of the model is, int64 [rows]; None where the order is the same.

        llama.cpp rotates neighbours (2i, 2i+1) for this architecture, transformers (i, i + d/2).
        """
        if self.num_heads is None:
            return None
        rows = np.arange(self.shape[0]).reshape(self.num_heads, -1, 2)
        return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)


def targets(header: Header, config: Mapping[str, Any]) -> dict[str, Target]:
    """GGUF tensor name to what it becomes, in the file's order, every shape checked.

    Raises `SourceError` where a tensor is missing or has another shape, `UnsupportedError` where one is left over.
    """
    family = family_of(header.metadata)
    wanted = _outer(config, family)
    for layer in range(config["num_hidden_layers"]):
        # Asked in time: a broken count of layers must not be walked to its end.
        if f"blk.{layer}.attn_norm.weight" not in header.tensors:
            raise SourceError(
                f"GGUF file {header.path} lacks tensor blk.{layer}.attn_norm.weight, expected "
                f"{config['num_hidden_layers']} layers; get the file anew"
            )
        wanted |= _layer(layer, config, family)
    for name, target in wanted.items():
        tensor = header.tensors.get(name)
        if tensor is None:
            raise SourceError(f"GGUF file {header.path} lacks tensor {name}, which its architecture has; get it anew")
        if tensor.shape != target.shape:
            raise SourceError(
                f"GGUF tensor {name} has shape {tensor.shape}, expected {target.shape} by the file's own metadata; "
                "get the file anew"
            )
    left = [name for name in header.tensors if name not in wanted and name not in IGNORED]
    if left:
        raise UnsupportedError(
            f"GGUF file {header.path} has {len(left)} tensors that a {family.model_type} model has no place for, such "
            f"as {left[0]!r}; take the original checkpoint"
        )
    return {name: wanted[name] for name in header.tensors if name in wanted}


def _outer(config: Mapping[str, Any], family: Family) -> dict[str, Target]:
    table = (config["vocab_size"], config["hidden_size"])
    added = 1.0 if family.gemma else 0.0
    wanted = {
        "token_embd.weight": Target(name="model.embed_tokens.weight", shape=table),
        "output_norm.weight": Target(name="model.norm.weight", shape=table[1:], added=added),
    }
    if not config["tie_word_embeddings"]:
        wanted["output.weight"] = Target(name="lm_head.weight", shape=table)
    return wanted


def _layer(layer: int, config: Mapping[str, Any], family: Family) -> dict[str, Target]:
    wanted: dict[str, Target] = {}

    def add(key: str, name: str, *shape: int, num_heads: int | None = None, added: float = 0.0) -> None:
        target = Target(name=f"model.layers.{layer}.{name}", shape=shape, num_heads=num_heads, added=added)
        wanted[f"blk.{layer}.{key}"] = target

    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rows = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
    reordered = {"q": heads, "k": kv_heads} if family.permuted else {}
    for part, num_rows in rows.items():
        add(f"attn_{part}.weight", f"self_attn.{part}_proj.weight", num_rows, hidden, num_heads=reordered.get(part))
        if family.qkv_bias or config.get("attention_bias"):
            add(f"attn_{part}.bias", f"self_attn.{part}_proj.bias", num_rows, num_heads=reordered.get(part))
    add("attn_output.weight", "self_attn.o_proj.weight", hidden, rows["q"])
    if config.get("attention_bias"):
        add("attn_output.bias", "self_attn.o_proj.bias", hidden)
    for part, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
        add(f"ffn_{part}.weight", f"mlp.{part}_proj.weight", *shape)
        if config.get("mlp_bias"):
            add(f"ffn_{part}.bias", f"mlp.{part}_proj.bias", shape[0])
    added = 1.0 if family.gemma else 0.0
    for key, name in _norms(family).items():
        add(f"{key}.weight", f"{name}.weight", hidden, added=added)
    if family.head_norms:
        for part in ("q", "k"):
            add(f"attn_{part}_norm.weight", f"self_attn.{part}_norm.weight", head_dim, added=added)
    return wanted


def _norms(family: Family) -> dict[str, str]:
    if family.gemma:
        return {
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
    return {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
