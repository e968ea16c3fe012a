"""What our attention refuses: layers that want more than causal attention, and ids and masks that say nothing."""

from typing import Any

import pytest
import torch
from attention_models import ids, windowed
from torch import Tensor

from ropewalk.attention.registered import put_on
from ropewalk.core.errors import InputError, UnsupportedError


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_layers_of_another_kind_are_refused_before_the_first_step(family: str) -> None:
    model = windowed(family)
    before = model.config._attn_implementation
    with pytest.raises(UnsupportedError, match=f"{family} has layers of the kind sliding_attention"), put_on(model):
        pass
    assert model.config._attn_implementation == before


def test_a_window_narrower_than_the_row_is_refused() -> None:
    model = windowed("mistral")
    with put_on(model):
        assert model(ids(1, 4)).logits.isfinite().all()
        with pytest.raises(UnsupportedError, match=r"not plain causal|window of 4 tokens"):
            model(ids(1, 9))


def test_a_family_without_sdpa_is_refused_before_the_first_step() -> None:
    model = windowed("gemma2", layer_types=["full_attention"] * 2, sliding_window=64)
    with pytest.raises(UnsupportedError, match=r"gemma2 has no sdpa attention .*--attention own"), put_on(model):
        pass


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("s_aux", torch.zeros(4), "attention sinks"),
        ("softcap", 30.0, "soft-capping of logits"),
        ("cu_seq_lens_q", torch.tensor([0, 4, 9]), "cumulative lengths in place of document_ids"),
        ("sliding_window", 3, "a window of 3 tokens"),
        ("is_causal", False, "attention to what comes after|not plain causal"),
    ],
)
def test_keywords_that_would_be_left_out_are_refused(model: Any, keyword: str, value: Any, words: str) -> None:
    with put_on(model), pytest.raises(UnsupportedError, match=words):
        model(ids(1, 9), use_cache=False, **{keyword: value})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"document_ids": torch.zeros(1, 8, dtype=torch.int64)}, r"document_ids has the shape \(1, 8\)"),
        ({"document_ids": torch.tensor([[0, 0, 1, 1, 0, 0]])}, "document_ids fall inside a row"),
        ({"attention_mask": torch.tensor([[1, 1, 0, 0, 1, 1]])}, "attention_mask has a hole inside a document"),
        ({"attention_mask": torch.ones(1, 1, 6, 6, dtype=torch.bool)}, "4D attention mask"),
    ],
)
def test_broken_ids_and_masks_are_refused(model: Any, given: dict[str, Tensor], words: str) -> None:
    with put_on(model), pytest.raises(InputError, match=words):
        model(ids(1, 6), use_cache=False, **given)
