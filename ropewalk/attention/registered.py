"""Attention inside documents, and shifted sparse attention, under names in transformers' registries.

`ropewalk_packed` is causal attention inside the documents of a row. `ropewalk_s2_1024` is shifted sparse too, in groups of
1,024 tokens, while a module is in training mode; in evaluation it is `ropewalk_packed`, because reading is always full
attention. (To read with the training pattern, call the model in training mode under `no_grad`.) Every setting has a name of
its own, which `put_on` makes; so the config always says what is on, and a copied model keeps it.

Documents are told apart by `document_ids` [B, T] among the keywords of the model's forward, never by position ids: positions
that jump inside a document (PoSE, randomized) look like packs to transformers, whose own mask then hides each chunk from the
next. No ids: each row is one document. Padding is a document of its own, by its id or by zeros of a 2D `attention_mask`.
The ids come to the layers as the mask too: some families hand layers no keywords, and all hand them the mask, also when a
checkpointed layer is run again. A layer that gets none of the ids that its model was given is an error.

With keys in a cache and no ids (generation), transformers' own SDPA function and mask are called. Keys before the queries in
training are a trained prefix, which every document sees.

What a layer wants beyond causal attention (a window, sinks, soft-capping, a bias, a mask of its own) is refused by name.
Given up: `output_attentions`, and full-graph compilation where document ids are read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.attention.documents import GIVEN, Ends, EndsOfBatch, noted
from ropewalk.attention.segments import Segments, attend, until
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError, UnsupportedError

PACKED = "ropewalk_packed"
FULL_LAYER = "full_attention"
"""What transformers' `layer_types` calls a layer that sees the whole text."""
OWN_MASKS = frozenset({"doge"})
"""Families whose layers make a mask of their own out of the one that they get."""
REFUSED = {
    "softcap": "soft-capping of logits",
    "s_aux": "attention sinks",
    "position_bias": "a position bias",
    "cache": "a paged cache",
    "cu_seq_lens_q": "cumulative lengths in place of document_ids",
    "output_attentions": "attention weights as output",
}
"""Keywords of an attention function that change its result, and what they ask for."""


def register(shifted: Shifted | None = None) -> str:
    """Puts the name of `shifted`, or else `ropewalk_packed`, into the registries, as often as called, and returns it.

    Raises `InputError` for groups that are a share: a batch does not say of how much.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if shifted is not None and isinstance(shifted.group, float):
        raise InputError(
            f"group is {shifted.group:g}, a share of rows whose length is not said; give a whole number of tokens, or "
            "Shifted(...).at(window)"
        )
    name = PACKED if shifted is None else shifted.name
    if name not in AttentionInterface._global_mapping:
        AttentionInterface.register(name, partial(forward, shifted, EndsOfBatch()))
        AttentionMaskInterface.register(name, mask)
    return name


@contextmanager
def put_on(model: nn.Module, shifted: Shifted | None = None) -> Iterator[nn.Module]:
    """`with put_on(model, Shifted(group=1024)): ...` runs the model's language layers with our attention, and what was there
    before afterwards. Without `shifted` it is attention inside documents only.

    Raises `UnsupportedError` where some layer is not plain causal attention over the whole text, `InputError` for groups
    that are a share.
    """
    host: Any = model
    text = host.config.get_text_config(decoder=True)
    others = sorted({kind for kind in getattr(text, "layer_types", None) or [] if kind != FULL_LAYER})
    if others:
        raise UnsupportedError(
            f"{text.model_type} has layers of the kind {', '.join(others)}, which segments cannot keep apart; tune it with "
            "its own attention (--attention own), one document in a row"
        )
    if text.model_type in OWN_MASKS:
        raise UnsupportedError(
            f"layers of {text.model_type} make a mask of their own for each pair of tokens, and segments have none; tune it "
            "with its own attention (--attention own), one document in a row"
        )
    if not host._supports_sdpa:
        raise UnsupportedError(
            f"{text.model_type} has no sdpa attention in transformers, which segments are run by; tune it with its own "
            "attention (--attention own), one document in a row"
        )
    name, before = register(shifted), implementations(host.config)
    host.set_attn_implementation({**before, own_key(host.config, text): name})
    try:
        if text._attn_implementation != name:
            raise UnsupportedError(
                f"{type(model).__name__} does not take its attention from transformers' registry, so ours cannot be put on; "
                "tune it with its own attention (--attention own), one document in a row"
            )
        with noted(host, host.get_decoder()):
            yield model
    finally:
        host.set_attn_implementation(before)


def implementations(config: Any) -> dict[str, str]:
    """What `config` ("") and the configs in it say of their attention."""
    inner = {key: getattr(config, key, None) for key in config.sub_configs}
    return {"": config._attn_implementation, **{k: c._attn_implementation for k, c in inner.items() if c is not None}}


def own_key(config: Any, text: Any) -> str:
    """Where in `config` the language model's own config lies; "" is the config itself."""
    return next((key for key in config.sub_configs if getattr(config, key, None) is text), "")


def forward(
    shifted: Shifted | None,
    ends_of_batch: EndsOfBatch,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    document_ids: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [B, H, T, D], key and value [B, G, P + T, D], to [B, T, H, D].

    `attention_mask` is what `mask` made of it: None, bool [B, P + T] with False for padding, the document ids [B, T] as
    integers, or [B, 1, T, P + T] beside a cache.
    """
    length, seen = query.shape[2], key.shape[2]
    refuse_more_than_causal(module, others, seen)
    if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.dtype != torch.bool:
        document_ids, attention_mask = attention_mask if document_ids is None else document_ids, None
    if document_ids is None and GIVEN.get() is not None:
        raise UnsupportedError(
            f"{type(module).__name__} was not told the document_ids that its model was given, so documents of a row "
            "would see each other; leave the attention mask out, or tune this model with its own attention "
            "(--attention own), one document in a row"
        )
    four = attention_mask is not None and attention_mask.ndim == 4
    if document_ids is None and seen != length and (four or length == 1):
        return beside_a_cache(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    if four and seen == length:
        raise InputError(
            f"a 4D attention mask came to {type(module).__name__}, from the caller or made by the model itself, "
            "and segments have none; leave it out, or tune a model that makes one with its own attention (--attention own), "
            "one document in a row"
        )
    real = None if attention_mask is None or four else attention_mask[:, seen - length :]
    ends = ends_of_batch(document_ids, real, num_rows=query.shape[0], length=length)
    layer = int(getattr(module, "layer_idx", 0) or 0)
    now = shifted if module.training else None
    cuts = [layout(now, layer % 2, row) for row in ends]
    # Rows whose documents are one group each have one part: the same for all heads, beside rows that have two.
    parts = max(len(cut) for cut in cuts)
    layouts = [cut if len(cut) == parts else cut * parts for cut in cuts]
    return attend(query, key, value, layouts, scale=scaling, dropout=dropout), None


@lru_cache(maxsize=256)
def layout(shifted: Shifted | None, layer: int, ends: Ends) -> tuple[Segments, ...]:
    """The segments of one row, for each part of the heads."""
    return (until(ends),) if shifted is None else shifted.parts(ends, layer)


def refuse_more_than_causal(module: nn.Module, others: dict[str, Any], seen: int) -> None:
    """An error for what the layer asks for and we would leave out."""
    asked = [words for name, words in REFUSED.items() if others.get(name) is not None and others[name] is not False]
    causal = others.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        asked.append("attention to what comes after")
    window = others.get("sliding_window")
    if window is not None and 0 < window < seen:
        asked.append(f"a window of {window} tokens, narrower than the row of {seen},")
    if asked:
        raise UnsupportedError(
            f"{type(module).__name__} asks for {' and '.join(asked)} and segments have none; tune this model with its own "
            "attention (--attention own), one document in a row"
        )


def beside_a_cache(module: nn.Module, *tensors: Tensor | None, **keywords: Any) -> tuple[Tensor, None]:
    """Reading with keys in a cache: transformers' own function."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output, _ = sdpa_attention_forward(module, *tensors, **keywords)
    return output, None


def mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    mask_function: Callable[..., Any] | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **others: Any,
) -> Tensor | None:
    """A mask function of transformers: nothing for rows without padding, and the 2D mask for those with it. Where the model
    was given document ids and no mask, it is those.

    Beside a cache it is the mask that transformers' SDPA takes, but where gradients flow: then the keys before the queries
    are a trained prefix, which needs none.
    """
    kind = getattr(mask_function, "__qualname__", "")
    # A window of 0 is none: Qwen2-MoE makes such a mask for layers that it does not have.
    if use_vmap or "or_masks" in kind or "bidirectional" in kind or (local_size and local_size < kv_length):
        raise UnsupportedError(
            "the model asks for a mask that is not plain causal and segments have none; tune it with its own attention "
            "(--attention own), one document in a row"
        )
    given = GIVEN.get()
    if given is not None and attention_mask is None:
        return given
    if q_length != kv_length and not torch.is_grad_enabled():
        from transformers.masking_utils import sdpa_mask

        if q_length > 1:
            # Without a mask `forward` could not tell a cache with room at its end from a prefix.
            others["allow_is_causal_skip"] = False
        made: Tensor | None = sdpa_mask(
            q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, mask_function=mask_function, **others
        )
        return made
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask
