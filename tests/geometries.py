"""Small models as a method sees them: no weights, only positions."""

from dataclasses import replace
from typing import Any

import numpy as np

from ropewalk.core.geometry import Geometry, Group, geometric


def group(*, base: float, rotary_dim: int, head_dim: int | None = None, label: str = "all", **fields: Any) -> Group:
    """One group of plain layers; `fields` override."""
    vector = geometric(base, rotary_dim)
    values: dict[str, Any] = {
        "label": label,
        "layers": (0, 1),
        "position": "rope",
        "head_dim": head_dim or rotary_dim,
        "rotary_dim": rotary_dim,
        "base": base,
        "inv_freq": vector,
        "softmax_scale": (head_dim or rotary_dim) ** -0.5,
        "origin_inv_freq": vector,
    }
    return Group(**{**values, **fields})


def geometry(*groups: Group, length: int, **fields: Any) -> Geometry:
    """A plain model of `groups` that was trained on `length` tokens; `fields` override."""
    values: dict[str, Any] = {
        "model_type": "llama",
        "scheme": "default",
        "original_length": length,
        "trained_length": length,
        "declared_length": length,
        "lineage": "plain",
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 2,
        "head_dim": groups[0].head_dim,
        "groups": groups,
    }
    return Geometry(**{**values, **fields})


LLAMA2 = geometry(group(base=1e4, rotary_dim=128), length=4096)
SMOLLM2 = geometry(group(base=1e5, rotary_dim=64), length=8192)
PARTIAL = geometry(group(base=1e4, rotary_dim=32, head_dim=128), length=2048)
MLA = geometry(group(base=1e4, rotary_dim=64, head_dim=192, temperature_on="logits"), length=4096)
CLAMPED = geometry(group(base=1e4, rotary_dim=128), length=65536)
SHORT = geometry(group(base=1e4, rotary_dim=64), length=128)
ODD = geometry(group(base=31_415.9, rotary_dim=96), length=3000)
WINDOWED = geometry(
    group(base=1e6, rotary_dim=64, label="full_attention"),
    group(base=1e4, rotary_dim=64, label="sliding_attention", window=512),
    group(base=1e4, rotary_dim=64, label="none", position="none", inv_freq=None, origin_inv_freq=None),
    length=8192,
)
PLAIN = {
    "llama2": LLAMA2,
    "smollm2": SMOLLM2,
    "partial": PARTIAL,
    "mla": MLA,
    "clamped": CLAMPED,
    "short": SHORT,
    "odd": ODD,
    "windowed": WINDOWED,
}


def stretched(plain: Geometry, lineage: str, *, factor: int = 4, attention_factor: float = 1.1) -> Geometry:
    """`plain` after a stretch by `factor` that leaves a vector of its own: interpolated where it turns slowly."""
    groups = []
    for old in plain.groups:
        if old not in plain.extended_groups:
            groups.append(old)
            continue
        assert old.inv_freq is not None
        index = np.arange(old.inv_freq.size)
        current = np.where(index < old.inv_freq.size // 2, old.inv_freq, old.inv_freq / factor)
        groups.append(replace(old, inv_freq=current, attention_factor=attention_factor, logit_scale=1.2))
    trained_length = plain.trained_length * factor
    return replace(
        plain,
        groups=tuple(groups),
        lineage=lineage,
        scheme="yarn",
        trained_length=trained_length,
        declared_length=trained_length,
    )
