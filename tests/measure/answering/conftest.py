"""Haystacks that every tiny model can be asked."""

import numpy as np
import pytest

from ropewalk.data.tasks.encoding import EMPTY, Encoder
from ropewalk.data.tasks.task import Ask, Haystack, find_task

DEPTHS = (0.1, 0.5, 0.9)


def needles(characters, *lengths: int) -> Haystack:
    """A haystack of needles at three depths of each length."""
    filler = np.random.default_rng(5).integers(3, 100, 4000)
    encoder = Encoder(tokenizer=characters, prefix=EMPTY)
    return find_task("needle").build(Ask(encoder=encoder, lengths=lengths, depths=DEPTHS, seed=1, filler=filler))


@pytest.fixture
def fixed(characters) -> Haystack:
    return needles(characters, 600)


@pytest.fixture
def growing(characters) -> Haystack:
    return needles(characters, 500, 700, 900)
