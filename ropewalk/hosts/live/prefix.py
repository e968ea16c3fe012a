"""A trained prefix on a live model: keys and values that stand before every text, whoever calls the model.

PEFT puts them in from the `forward` of its own wrapper, so everything that calls the model inside it (a chunked loss, a
likelihood, a generation of ours) goes without, and nothing says so: the loss then has no gradient at all. Here a hook on the
decoder puts them in, in training and in reading alike, so that both compute the same. No `forward` is replaced; the hook
stays as long as the model does, as merged weights do.

Positions count from the prefix's end: the text's token i turns by i + P, as PEFT's own path has it. So a text of
length - P tokens fills a plan. Masks get room for the prefix, which every token sees.

Given up: caches of a fixed size, which have no room for it, and saving the model: the folder it came from is its form.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.core.errors import UnsupportedError

Layers = Sequence[tuple[Tensor, Tensor]]
"""For each layer keys and values [B, G, P, D]."""


class Prefix:
    """A forward hook of a decoder."""

    def __init__(self, model: Any, layers: Callable[[int], Layers], num_tokens: int) -> None:
        """`layers` makes the prefix of a batch: from parameters in training, from numbers in reading."""
        self.config, self.layers, self.num_tokens = model.config, layers, num_tokens

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The decoder's arguments with the prefix in its cache."""
        # Some families call their decoder with token ids by place.
        kwargs = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        given = next(one for one in (kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if one is not None)
        past = kwargs.get("past_key_values")
        if past is None or past.get_seq_length() == 0:
            past = self._filled(past, given.shape[0])
        told = {**kwargs, "past_key_values": past}
        if kwargs.get("position_ids") is not None:
            told["position_ids"] = kwargs["position_ids"] + self.num_tokens
        mask = kwargs.get("attention_mask")
        if mask is not None:
            told["attention_mask"] = self._mask(mask)
        return (), told

    def _filled(self, cache: Any, batch: int) -> Any:
        """A cache that has the prefix and nothing else."""
        from transformers import DynamicCache

        if cache is None:
            cache = DynamicCache(config=self.config)
        if not isinstance(cache, DynamicCache):
            raise UnsupportedError(
                f"a trained prefix needs a cache that grows, got a {type(cache).__name__}; generate with the default cache"
            )
        for index, (keys, values) in enumerate(self.layers(batch)):
            cache.update(keys, values, index)
        return cache

    def _mask(self, mask: Any) -> Tensor:
        """Room for the prefix at the left: ones where a mask says what is real, zeros where it is added to logits."""
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
            raise UnsupportedError("a trained prefix needs an attention mask with 2 or 4 dimensions; leave it out")
        seen = not mask.is_floating_point()
        room = torch.full((*mask.shape[:-1], self.num_tokens), seen, dtype=mask.dtype, device=mask.device)
        return torch.cat([room, mask], dim=-1)


def put_prefix(dressed: Any, *, trains: bool) -> Any:
    """Puts the prefix of PEFT's wrapper on the model inside it and returns that model. With `trains` every forward asks the
    wrapper anew, so gradients flow."""
    model, config = dressed.get_base_model(), dressed.active_peft_config
    num_tokens = config.num_virtual_tokens
    if trains:
        hook = Prefix(model, lambda batch: _layers(dressed.get_prompt(batch)), num_tokens)
    else:
        with torch.no_grad():
            fixed = [(keys.clone(), values.clone()) for keys, values in _layers(dressed.get_prompt(1))]
        hook = Prefix(
            model, lambda batch: [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in fixed], num_tokens
        )
    model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    return model


def _layers(cache: Any) -> Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]
