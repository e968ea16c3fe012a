"""A cache that holds a context, is read on from, and is taken back.

With causal attention the keys and values of a context do not depend on what follows, so a question is asked by reading on
and is forgotten by putting the layers' own tensors back: `update` makes new tensors or writes behind the old ones (`room`),
so those are whole, and nothing is copied. This holds for sliding windows and recurrent states too, whose caches cannot be
cropped.

Where every layer keeps all it has read, the cache of a text holds those of all its beginnings. A growing haystack is then
read whole, in one forward on the fast causal path, and each stage is a view of it; other models stop at each stage's end.

What was given up: contexts beyond `WHOLE` are read in chunks, on the slower path with a mask, to bound the memory.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ropewalk.data.tasks.encoding import Ids
from ropewalk.measure.answering.grouped import grouped
from ropewalk.measure.forward import Forward, Tick, layers_ticking

WHOLE = {"sdpa": 32768, "eager": 4096}
"""Tokens of a context read in one forward, by attention; eager attention holds a square of them for every head."""
CHUNK = 2048
"""Tokens of each forward where a context is longer than that."""


class Prefilled:
    """A cache and how many tokens it has read."""

    def __init__(self, forward: Forward, *, whole: int | None = None, chunk: int = CHUNK) -> None:
        """An empty one. `whole` overrides the length from which contexts are read in chunks of `chunk`."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        from ropewalk.measure.answering.room import RoomyLayer

        self.forward = forward
        self.cache = DynamicCache(config=forward.model.config)
        self.num_read = 0
        self.attention = str(forward.model.config.get_text_config()._attn_implementation)
        self.whole = WHOLE.get(self.attention, WHOLE["sdpa"]) if whole is None else whole
        self.chunk = chunk
        self.is_plain = bool(self.cache.layers) and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        """Whether every layer keeps all tokens and nothing else: then the cache of a text holds those of its beginnings."""
        if self.is_plain:
            self.cache.layers = [RoomyLayer() for _ in self.cache.layers]

    @property
    def like(self) -> Tensor:
        """A tensor whose dtype and device the attention of this model works in; only after something was read."""
        return self.cache.layers[0].keys  # type: ignore[no-any-return]

    @torch.inference_mode()
    def read(self, ids: Ids, *, positions: Ids | None = None, mask: Tensor | None = None) -> Tensor:
        """Reads `ids` on from where the cache stands; last hidden states [N, D].

        `positions` and `mask` [N, num_read + N], additive, are for ids that do not simply follow one another.
        """
        device = self.forward.device
        if positions is None:
            positions = np.arange(self.num_read, self.num_read + ids.size)
        with nullcontext() if mask is None else grouped(self.forward.model.config.get_text_config()):
            out = self.forward.body(
                input_ids=tensor(ids).to(device)[None],
                attention_mask=None if mask is None else mask[None, None],
                position_ids=tensor(positions).to(device)[None],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.num_read += int(ids.size)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    def read_context(self, ids: Ids, *, tick: Tick | None = None) -> None:
        """Reads a long text on, whole or in chunks. `tick` is told the share that is done."""
        size = ids.size if ids.size <= self.whole else self.chunk
        for low in range(0, ids.size, max(1, size)):
            part = ids[low : low + size]
            with layers_ticking(self.forward.body, _part(tick, low, int(part.size), int(ids.size))):
                self.read(part)

    def stages(self, context: Ids, cuts: Sequence[int], *, tick: Tick | None = None) -> Iterator[int]:
        """Stands at each of the rising `cuts` of `context` in turn, for an empty cache; yields the index of the cut."""
        if self.is_plain:
            self.read_context(context[: cuts[-1]], tick=tick)
        for index, cut in enumerate(cuts):
            if not self.is_plain:
                step = context[self.num_read : cut]
                self.read_context(step, tick=_part(tick, self.num_read, int(step.size), cuts[-1]))
            with self.branch(at=cut):
                yield index

    @contextmanager
    def branch(self, *, at: int | None = None) -> Iterator[None]:
        """What is read inside is forgotten at the end. With `at`, a plain cache stands at its first `at` tokens."""
        num_read = self.num_read
        states = [_state(layer) for layer in self.cache.layers]
        try:
            if at is not None and at < num_read:
                self._stand(at)
            yield
        finally:
            for layer, state in zip(self.cache.layers, states, strict=True):
                layer.__dict__.clear()
                layer.__dict__.update(state)
            self.num_read = num_read

    def _stand(self, at: int) -> None:
        """Views of the first `at` tokens."""
        assert self.is_plain, "what a sliding or recurrent layer has forgotten cannot be had back"
        # A trained prefix stands before what was read.
        end = at + self.cache.get_seq_length() - self.num_read
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[..., :end, :], layer.values[..., :end, :]
            layer.keep()
        self.num_read = at


def tensor(ids: Ids) -> Tensor:
    """Ids as torch knows them."""
    return torch.from_numpy(np.ascontiguousarray(ids))


def _state(layer: Any) -> dict[str, Any]:
    """A layer's attributes; containers of states (recurrent layers write into them in place) are copied."""
    return {key: copy.deepcopy(v) if isinstance(v, list | dict) else v for key, v in vars(layer).items()}


def _part(tick: Tick | None, low: int, num: int, total: int) -> Callable[[float], None] | None:
    """`tick` for a part of the work: tokens [low, low + num) of `total`."""
    return None if tick is None else lambda share: tick((low + share * num) / total)
