"""A cache is read on, stood back at, and left as it was."""

import families
import numpy as np
import pytest
import torch

from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.forward import Forward

FAMILIES = ["llama", "gemma3", "deepseek-v3", "qwen3.5"]


def tensors(cache: Prefilled) -> list[torch.Tensor]:
    return [value for layer in cache.cache.layers for value in vars(layer).values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_leaves_the_cache_as_it_was(family, fixed):
    cache = Prefilled(Forward(families.model(family)))
    cache.read_context(fixed.context)
    before = tensors(cache)
    copies = [value.clone() for value in before]
    with cache.branch():
        first = cache.read(fixed.questions[0].question)
    with cache.branch():
        again = cache.read(fixed.questions[0].question)
    assert torch.equal(first, again)
    assert cache.num_read == fixed.context.size
    for one, other, copy in zip(before, tensors(cache), copies, strict=True):
        assert one is other, "put back, not copied"
        assert torch.equal(one, copy)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt-neox", "olmo3", "gpt-oss", "smollm3"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_equal_one_forward(family, chunk, fixed):
    forward = Forward(families.model(family))
    context = fixed.context[:150]
    whole, parts = Prefilled(forward), Prefilled(forward, whole=10, chunk=chunk)
    whole.read_context(context)
    parts.read_context(context)
    asked = fixed.questions[0].question
    torch.testing.assert_close(whole.read(asked), parts.read(asked), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_stands_at_its_cut(family, fixed):
    """A view of the whole, or read as far: what follows reads as if nothing else had been read."""
    forward = Forward(families.model(family))
    cuts, asked = (100, 130, 300), fixed.questions[1].question
    cache = Prefilled(forward)
    stood = []
    for index in cache.stages(fixed.context, cuts):
        assert cache.num_read == cuts[index]
        stood.append(cache.read(asked))
    for cut, hidden in zip(cuts, stood, strict=True):
        alone = forward.hidden(torch.from_numpy(np.concatenate([fixed.context[:cut], asked])))[cut:]
        torch.testing.assert_close(hidden, alone, atol=2e-4, rtol=1e-3)


def test_a_sliding_cache_is_not_stood_back_at(fixed):
    cache = Prefilled(Forward(families.model("gemma3")))
    cache.read_context(fixed.context)
    with pytest.raises(AssertionError, match="forgotten"), cache.branch(at=100):
        pass
    assert cache.num_read == fixed.context.size
