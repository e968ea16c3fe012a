"""Grouped attention under a mask equals transformers' own, which repeats keys and values."""

from types import SimpleNamespace

import families
import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ropewalk.measure.answering import grouped as room
from ropewalk.measure.answering.grouped import FEW, GROUPED, forward, grouped

MODULE = SimpleNamespace(num_key_value_groups=3, is_causal=True)


def tensors(num: int, dtype: torch.dtype, batch: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(num)
    query = torch.randn(batch, 6, num, 16, dtype=dtype)
    key, value = (torch.randn(batch, 2, 40 + num, 16, dtype=dtype) for _ in range(2))
    hidden = torch.rand(batch, 1, num, 40 + num) < 0.3
    return query, key, value, torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num", [1, 5, FEW, FEW + 1])
def test_equals_the_repeating_one(num, dtype, batch):
    query, key, value, mask = tensors(num, dtype, batch)
    ours, _ = forward(MODULE, query, key, value, mask, scaling=0.2)
    theirs, _ = sdpa_attention_forward(MODULE, query, key, value, mask, scaling=0.2)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("num", [5, FEW + 1])
def test_the_mask_is_heeded(num):
    query, key, value, mask = tensors(num, torch.float32)
    ours, _ = forward(MODULE, query, key, value, mask)
    without, _ = forward(MODULE, query, key, value, torch.zeros_like(mask))
    assert (ours - without).abs().max() > 0.1


def test_what_it_does_not_know_goes_to_transformers(monkeypatch):
    query, key, value, mask = tensors(5, torch.float32)
    for changed in (None, mask.expand(1, 6, -1, -1).clone()):
        ours, _ = forward(MODULE, query, key, value, changed)
        theirs, _ = sdpa_attention_forward(MODULE, query, key, value, changed)
        assert torch.equal(ours, theirs)


def test_the_config_says_what_it_said_before_even_after_an_error():
    config = families.model("llama", attention="sdpa").config.get_text_config()
    assert config._attn_implementation == "sdpa"

    def failing() -> None:
        with grouped(config):
            assert config._attn_implementation == GROUPED
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert config._attn_implementation == "sdpa"


def test_other_attentions_stay_what_they_are():
    config = SimpleNamespace(_attn_implementation="eager")
    with grouped(config):
        assert config._attn_implementation == "eager"


def test_a_tree_calls_it(fixed, monkeypatch):
    """Else the repeating one would be called and nobody would see it."""
    from ropewalk.measure.answering.prefilled import Prefilled
    from ropewalk.measure.answering.tree import read_tree
    from ropewalk.measure.forward import Forward

    called = []

    def counted(*args, **kwargs):
        called.append(args[1].shape)
        return forward(*args, **kwargs)

    with grouped(families.model("llama", attention="sdpa").config.get_text_config()):
        monkeypatch.setitem(AttentionInterface._global_mapping, GROUPED, counted)
    cache = Prefilled(Forward(families.model("llama", attention="sdpa")))
    cache.read(fixed.context)
    read_tree(cache, fixed.questions)
    assert called, room.__name__
