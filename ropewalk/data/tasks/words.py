"""Words that keys are made of, dealt to the two splits so that neither ever uses the other's."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TypeVar

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.data.tasks.task import Split

Word = TypeVar("Word")


def _listed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adjectives and nouns of keys.txt."""
    lines = files("ropewalk.data.tasks").joinpath("keys.txt").read_text(encoding="utf-8").split("\n", 1)[1]
    adjectives, nouns = lines.split("\n\n")
    return tuple(adjectives.split()), tuple(nouns.split())


ADJECTIVES, NOUNS = _listed()
TRAIN_EVERY = 4
"""One word of so many goes to the split `train`."""


def dealt(words: Sequence[Word], split: Split) -> tuple[Word, ...]:
    """The words of one split."""
    train = split == "train"
    return tuple(word for index, word in enumerate(words) if (index % TRAIN_EVERY == 0) == train)


def num_pairs(split: Split) -> int:
    """How many different keys a split has."""
    return len(dealt(ADJECTIVES, split)) * len(dealt(NOUNS, split))


def pairs(rng: np.random.Generator, num: int, split: Split) -> list[str]:
    """`num` different adjective-noun keys, such as `amber heron`. Raises `InputError` where there are not so many."""
    adjectives, nouns = dealt(ADJECTIVES, split), dealt(NOUNS, split)
    if num > len(adjectives) * len(nouns):
        raise InputError(f"there are {len(adjectives) * len(nouns)} different keys, got {num} needles; give fewer --depths")
    drawn = rng.choice(len(adjectives) * len(nouns), size=num, replace=False)
    return [f"{adjectives[i // len(nouns)]} {nouns[i % len(nouns)]}" for i in drawn]
