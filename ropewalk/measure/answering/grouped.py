"""Attention under a tree's mask, without repeating the keys and values that heads share.

Given a mask, transformers' `sdpa` function repeats shared keys and values for every head before it calls torch, since
torch's CUDA kernels take either a mask or groups. Beside a long context and for a few tokens that copy is most of the work:
for 11 tokens after 8,192 of SmolLM2 in bfloat16, one core, 3.9 ms a layer against 1.4.

Few tokens are folded: the heads of a group become more rows of one head, and any kernel with a mask takes that. Many tokens
are left to torch's own groups on a CPU, whose kernel takes both, and to transformers elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

GROUPED = "ropewalk_grouped"
"""The name in transformers' registry."""
FEW = 64
"""Tokens up to which heads are folded: the mask is repeated then, and must stay small."""


@contextmanager
def grouped(config: Any) -> Iterator[None]:
    """Layers of a model with this text config call our function where they called `sdpa`; a mask must be 4D and additive."""
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = _registered()
    try:
        yield
    finally:
        config._attn_implementation = before


def _registered() -> str:
    from transformers import AttentionInterface

    if GROUPED not in AttentionInterface._global_mapping:
        AttentionInterface.register(GROUPED, forward)
    return GROUPED


def forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, dropout: float = 0.0,
    scaling: float | None = None, **others: Any,
) -> tuple[Tensor, Any]:  # fmt: skip
    """Query [B, H, N, D], key and value [B, G, T, D], mask [B or 1, 1, N, T]; [B, N, H, D] like transformers' own."""
    heads, shared = query.shape[1], key.shape[1]
    plain = attention_mask is not None and attention_mask.shape[1] == 1 and others.get("position_bias") is None
    few = query.shape[2] <= FEW
    if attention_mask is None or not plain or heads == shared or not (few or query.device.type == "cpu"):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        whole: tuple[Tensor, Any] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return whole
    attend = torch.nn.functional.scaled_dot_product_attention
    if few:
        rows = query.reshape(query.shape[0], shared, -1, query.shape[-1])
        mask = attention_mask.repeat(1, 1, heads // shared, 1)
        out = attend(rows, key, value, attn_mask=mask, scale=scaling).reshape(*query.shape[:3], value.shape[-1])
    else:
        out = attend(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None
