"""What a stock model really does with positions, seen from outside: which layers rotate, how, and what they can see.

The modeling module's own `eager_attention_forward` and `apply_rotary...` functions are wrapped for one forward. A rotation
belongs to the attention call that follows it.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

LENGTH = 80
"""Tokens of the probing text: beyond every window of the tiny models."""


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function and what it was called with."""


@dataclass
class Seen:
    """One forward of a model."""

    scalings: dict[int, set[float]] = field(default_factory=dict)
    """Layer to what q.k was multiplied with."""
    visible: dict[int, int] = field(default_factory=dict)
    """Layer to the number of keys that the last query sees."""
    rotated: set[int] = field(default_factory=set)
    calls: dict[int, Call] = field(default_factory=dict)
    """Layer to its last rotation, to be called again."""

    def pairs(self, layer: int, rotary_dim: int) -> str:
        """The layout in a layer: which input dimension ends up in the same outputs as the first one."""
        function, arguments, words = self.calls[layer]
        first, neighbour, half = (_support(function, arguments, words, i) for i in (0, 1, rotary_dim // 2))
        if rotary_dim == 2:
            return "either"
        assert (first == neighbour) != (first == half), "no pair found for the first dimension"
        return "interleaved" if first == neighbour else "half"


def _support(function: Callable[..., Any], arguments: tuple[Any, ...], words: dict[str, Any], index: int) -> tuple[int, ...]:
    basis = torch.zeros_like(arguments[0])
    basis[..., index] = 1.0
    out = function(basis, *arguments[1:], **words)
    out = (out[0] if isinstance(out, tuple) else out).abs().flatten(0, -2).amax(dim=0)
    return tuple(int(i) for i in torch.nonzero(out > 1e-9).flatten())


def watch(model: nn.Module, monkeypatch: pytest.MonkeyPatch, tokens: torch.Tensor) -> Seen:
    """Runs `model` on `tokens` [1, T] once and says what was seen."""
    seen = Seen()
    pending: list[tuple[object, Call]] = []
    layers = {id(part): int(found[0]) for path, part in model.named_modules() if (found := re.findall(r"\d+", path))}
    module = sys.modules[type(model).__module__]
    with monkeypatch.context() as patch:
        eager = getattr(module, "eager_attention_forward", None)

        def attention(layer: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **words: Any) -> Any:
            index = layers[id(layer)]
            seen.scalings.setdefault(index, set()).add(float(words["scaling"]))
            if attention_mask is not None:
                seen.visible[index] = int((attention_mask[0, 0, -1] > -1.0).sum())
            if pending:
                seen.rotated.add(index)
                # An indexer beside the attention rotates too, in a layout of its own.
                seen.calls[index] = next((call for owner, call in pending if owner is layer), pending[-1][1])
                pending.clear()
            return eager(layer, query, key, value, attention_mask, **words)

        def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
            def rotation(*arguments: Any, **words: Any) -> Any:
                pending.append((sys._getframe(1).f_locals.get("self"), (function, arguments, words)))
                return function(*arguments, **words)

            return rotation

        if eager is not None:
            patch.setattr(module, "eager_attention_forward", attention)
        for name in dir(module):
            if name.startswith("apply_rotary"):
                patch.setattr(module, name, wrapped(getattr(module, name)))
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
    return seen
