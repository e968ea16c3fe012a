"""A cache layer with room at its end, so that reading a few tokens on copies them alone and not the context.

transformers' own `DynamicLayer` makes a new tensor at every step. Decoding 20 tokens after 8,192 so copies the context 20
times, which on SmolLM2 costs more than attending to it. Here the first tokens after a context move it once into tensors with
`ROOM` more places, and later ones are written into those.

What was read may be forgotten (`Prefilled.branch` puts the attributes back): the places behind the view are then written
again. Whoever makes the view shorter while somebody else needs the rest says `keep`, and the next tokens go elsewhere.

Given up: room from the beginning, since a context alone is read far more often than decoded after.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 128
"""Places beyond those that are needed at once."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values [B, H, T, D] as views of tensors that may have more places."""

    room: tuple[Tensor, Tensor] | None = None
    """The tensors whose first places `keys` and `values` are."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes keys and values [B, H, N, D] in; those of all that was read [B, H, T + N, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = int(self.get_seq_length())
        if not held:
            self.keys, self.values = key_states.contiguous(), value_states.contiguous()
            return self.keys, self.values
        end = held + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < end:
            self.room = (_roomy(self.keys, end + ROOM), _roomy(self.values, end + ROOM))
        for places, states in zip(self.room, (key_states, value_states), strict=True):
            places[..., held:end, :] = states
        self.keys, self.values = (places[..., :end, :] for places in self.room)
        return self.keys, self.values

    def keep(self) -> None:
        """What lies behind the view is somebody's: the next tokens go elsewhere."""
        self.room = None


def _roomy(held: Tensor, size: int) -> Tensor:
    """A tensor of `size` places that begins with what is `held`."""
    places = torch.empty(*held.shape[:-2], size, held.shape[-1], dtype=held.dtype, device=held.device)
    places[..., : held.shape[-2], :] = held
    return places
