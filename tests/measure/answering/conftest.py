"""Haystacks that every tiny model can be asked."""

import dataclasses

import numpy as np
import pytest

from ropewalk.data.tasks.encoding import EMPTY, Encoder
from ropewalk.data.tasks.task import Ask, Haystack, find_task

DEPTHS = (0.1, 0.5, 0.9)


def needles(characters, *lengths: int) -> Haystack:
    """A haystack of needles at three depths of each length, three candidates each."""
    filler = np.random.default_rng(5).integers(3, 100, 4000)
    encoder = Encoder(tokenizer=characters, prefix=EMPTY)
    stack = find_task("needle").build(Ask(encoder=encoder, lengths=lengths, depths=DEPTHS, seed=1, filler=filler))
    asked = tuple(dataclasses.replace(question, candidates=question.candidates[:3]) for question in stack.questions)
    return dataclasses.replace(stack, questions=asked)


@pytest.fixture
def fixed(characters) -> Haystack:
    return needles(characters, 480)


@pytest.fixture
def growing(characters) -> Haystack:
    return needles(characters, 480, 560, 700)
