"""Things to hide and to ask for: keys, numbers, UUIDs and names, each drawn once and dealt to one of the two splits.

RULER draws with replacement; here what was drawn does not come back within a haystack, so that a question has one answer.
"""

import uuid
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from string import ascii_lowercase, ascii_uppercase
from typing import Literal

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.data.tasks.task import Split
from ropewalk.data.tasks.words import ADJECTIVES, NOUNS, TRAIN_EVERY, dealt

Kind = Literal["word", "number", "UUID"]


@cache
def common_words(split: Split) -> tuple[str, ...]:
    """The words of vocabulary.txt that belong to a split. Those that keys.txt deals are left out."""
    lines = files("ropewalk.data.tasks").joinpath("vocabulary.txt").read_text(encoding="utf-8").split("\n", 1)[1]
    taken = {*ADJECTIVES, *NOUNS}
    return dealt([word for word in dict.fromkeys(lines.split()) if word not in taken], split)


def _once(make: Callable[[], str]) -> Iterator[str]:
    """What `make` gives, without what it gave before."""
    seen: set[str] = set()
    while True:
        if (made := make()) not in seen:
            seen.add(made)
            yield made


def draw(rng: np.random.Generator, kind: Kind, split: Split) -> Iterator[str]:
    """Different keys or values of a kind, as many as there are."""
    if kind == "word":
        return _compounds(rng, split)
    return _numbers(rng) if kind == "number" else _uuids(rng)


def take(stock: Iterator[str], num: int) -> list[str]:
    """`num` of them. Raises `InputError` where there are not so many."""
    taken = list(islice(stock, num))
    if len(taken) < num:
        raise InputError(f"there are {len(taken)} different keys, got {num} needles; give fewer --depths or --lengths")
    return taken


def _compounds(rng: np.random.Generator, split: Split) -> Iterator[str]:
    """Keys of an adjective and a common word, such as `amber-ladder`."""
    adjectives, others = dealt(ADJECTIVES, split), common_words(split)
    for drawn in rng.permutation(len(adjectives) * len(others)):
        yield f"{adjectives[drawn // len(others)]}-{others[drawn % len(others)]}"


def _numbers(rng: np.random.Generator, digits: int = 7) -> Iterator[str]:
    return _once(lambda: str(rng.integers(10 ** (digits - 1), 10**digits)))


def _uuids(rng: np.random.Generator) -> Iterator[str]:
    return _once(lambda: str(uuid.UUID(bytes=rng.bytes(16), version=4)))


def names(rng: np.random.Generator, split: Split, size: int, *, upper: bool = True) -> Iterator[str]:
    """Random letters in a row. The first letter says the split."""
    letters = ascii_uppercase if upper else ascii_lowercase
    first = [letter for index, letter in enumerate(letters) if (index % TRAIN_EVERY == 0) == (split == "train")]

    def one() -> str:
        rest = rng.integers(0, len(letters), size=size - 1)
        return first[int(rng.integers(0, len(first)))] + "".join(letters[i] for i in rest)

    return _once(one)
