"""Whether a model takes a trained prefix: seen on its layers without weights, before any data are read.

A prefix is keys and values of the shape in which a model keeps its own. What a config says of that is not always so:
GPT-NeoX shares no keys whatever is written there, and latent attention keeps keys and values of two sizes. So one token goes
through the layers on the meta device, where there are shapes and no numbers, and a cache notes what it is given.

Given up: layers behind one that cannot run without numbers, as in some mixtures of experts. `recipes` looks again, with the
weights.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ropewalk.core.errors import UnsupportedError
from ropewalk.tune import adapters
from ropewalk.tune.settings import Settings


class Noting(DynamicCache):  # type: ignore[misc]
    """A cache that notes the shapes of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        """Of keys and values, in the order of the layers."""

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What a layer hands over, noted."""
        self.shapes.append((tuple(keys.shape), tuple(values.shape)))
        found: tuple[Tensor, Tensor] = super().update(keys, values, *args, **kwargs)
        return found


def check_prefix(skeleton: Any, settings: Settings) -> None:
    """Raises `UnsupportedError` where a model on the meta device has layers that take no prefix."""
    config = adapters.prefix(skeleton, settings)
    heads = config.num_attention_heads
    expected = (1, heads, 1, config.token_dim // heads)
    for keys, values in shapes(skeleton):
        if (keys, values) != (expected, expected):
            raise UnsupportedError(
                f"{type(skeleton).__name__} keeps keys and values of a shape that a prefix is not known for (heads x size: "
                f"keys {keys[1]} x {keys[-1]}, values {values[1]} x {values[-1]}, expected {heads} x {expected[-1]}); say "
                "--recipe longlora"
            )


def shapes(skeleton: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of the keys and values of one token, of as many layers as run without numbers."""
    cache = Noting()
    try:
        with torch.no_grad():
            skeleton(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device="meta"), past_key_values=cache, use_cache=True
            )  # fmt: skip
    except Exception:
        # Whatever a layer wants of a number, and by whichever error: the shapes before it are known.
        return cache.shapes
    return cache.shapes
