"""Which activations a layer keeps for its backward pass: all of them, its input alone, or its input and attention's outputs.

Checkpointing (arXiv:1604.06174) runs each layer a second time in the backward pass. At long rows most of that second time
is attention, whose output is one row of numbers for each token, no larger than the layer's input. The selective form
(arXiv:2205.05198, section 5, which recomputes attention alone; here it is the other way round, since the kernels keep no
scores) saves the outputs of attention's kernel and runs everything else again.

Given up: other operators to keep; saved outputs that wait in main memory, since offloading packs a layer's input alone.
"""

from functools import partial
from typing import Any

import torch

from ropewalk.core.errors import UnsupportedError
from ropewalk.tune.settings import Settings

ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
"""Kernels behind torch's `scaled_dot_product_attention`, by the device and the version that has them."""


def kept_operators() -> list[Any]:
    """Attention's kernels of this torch. Raises `UnsupportedError` where none is known."""
    found = [getattr(torch.ops.aten, name).default for name in ATTENTION if hasattr(torch.ops.aten, name)]
    if not found:
        raise UnsupportedError(f"torch {torch.__version__} has no attention kernel that is known; say --checkpoint whole")
    return found


def enable(model: Any, settings: Settings) -> None:
    """Puts checkpointing on a transformers model, as the settings say; nothing where all activations are kept."""
    if not settings.checkpoint_every:
        return
    chosen: dict[str, Any] = {"use_reentrant": False}
    if settings.checkpoint == "selective":
        from torch.utils.checkpoint import create_selective_checkpoint_contexts

        chosen["context_fn"] = partial(create_selective_checkpoint_contexts, kept_operators())
    model.activation_checkpointing_enable(
        activation_checkpointing_kwargs=chosen, every_n_layers=settings.checkpoint_every, offload=settings.offload
    )
