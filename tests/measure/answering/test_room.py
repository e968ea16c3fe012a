"""A cache with room: what is written behind a view harms nobody, and decoding copies no context."""

import families
import numpy as np
import pytest
import torch
from transformers import DynamicCache

from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.answering.room import ROOM
from ropewalk.measure.forward import Forward

IDS = np.arange(3, 63, dtype=np.int64)


def held(cache: Prefilled) -> list[torch.Tensor]:
    return [part.clone() for layer in cache.cache.layers for part in (layer.keys, layer.values)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def cache() -> Prefilled:
    return Prefilled(Forward(families.model("llama")))


def test_steps_are_written_into_the_same_tensors_until_they_are_full(cache):
    cache.read(IDS[:20])
    places = []
    for step in range(ROOM + 2):
        cache.read(IDS[step % 50 : step % 50 + 1])
        places.append(cache.cache.layers[0].keys.data_ptr())
    assert len(set(places[: ROOM + 1])) == 1, "a step moved the context"
    assert places[ROOM + 1] != places[0], "the room is without end"


def test_what_is_read_is_what_transformers_own_cache_holds(cache):
    own = DynamicCache(config=cache.forward.model.config)
    for part in (IDS[:20], IDS[20:21], IDS[21:30], IDS[30:31]):
        cache.read(part)
        with torch.inference_mode():
            cache.forward.body(input_ids=torch.from_numpy(part)[None], past_key_values=own, use_cache=True)
    assert same(held(cache), [part for layer in own.layers for part in (layer.keys, layer.values)])


def test_a_stage_that_is_stood_at_leaves_what_lies_behind_it(cache):
    """The cache has room, and a stage's tokens would lie where the rest of the context does."""
    cache.read(IDS[:20])
    cache.read(IDS[20:40])
    before = held(cache)
    with cache.branch(at=25):
        cache.read(IDS[50:60])
        with cache.branch():
            cache.read(IDS[:5])
        cache.read(IDS[40:45])
    assert same(before, held(cache))


def test_a_forgotten_branch_is_written_over_and_the_next_is_read_right(cache):
    cache.read(IDS[:20])
    cache.read(IDS[20:21])
    with cache.branch():
        first = cache.read(IDS[30:40]).clone()
    with cache.branch():
        cache.read(IDS[40:50])
    with cache.branch():
        again = cache.read(IDS[30:40])
    assert torch.equal(first, again)
