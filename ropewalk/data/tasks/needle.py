"""Keyed needles in real filler: "with which code does the amber locker open?".

A haystack is filler from a real text with k needles put in at given depths, each a key and a five-digit value. With several
needles the others are distractors (RULER calls this multikey); with one it is the classic passkey, and the distractors'
values are drawn but never shown. Everything is made of token ids, so a prompt's length is exact and a stand-alone prompt is
the very same ids as one that shares a prefix.

The wording is our own. Structure: RULER (arXiv:2404.06654) niah_multikey, and the passkey of arXiv:2305.16300.
Given up: needles are moved back to the end of a sentence where one is near, so depths are near, not at, what was asked; the
true depth is recorded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import TextError

Ids = NDArray[np.int64]
KEYS = (
    "amber", "birch", "cobalt", "dune", "ember", "fjord", "garnet", "hazel", "indigo", "juniper", "kelp", "lotus",
    "maple", "nickel", "olive", "pearl", "quartz", "russet", "sable", "topaz", "umber", "violet", "walnut", "yarrow",
    "acorn", "basalt", "cedar", "damson", "elder", "flint", "ginger", "heather",
)  # fmt: skip
OPENING = "Some lines in the text below give the codes of lockers. Remember them.\n\n"
NEEDLE = "\nThe code of the {key} locker is {value}.\n"
QUESTION = "\n\nQuestion: What is the code of the {key} locker?\nAnswer: The code of the {key} locker is"
ANSWER = " {value}"
SEARCH_BACK = 64
"""Tokens looked back for the end of a sentence."""
NUM_CANDIDATES = 5
"""Values the true one is ranked among, itself included; the guess rate is its inverse."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One needle's question, as ids."""

    key: str
    value: str
    depth: float
    """True depth: position of the needle's first token over the context's tokens."""
    position: int
    """Index of the needle's first token in the context."""
    question: Ids
    answer: Ids
    candidates: tuple[Ids, ...]
    """Answers to rank among: the true one first, then other values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Haystack:
    """One context with its questions. A prompt is `context` followed by a question's ids."""

    context: Ids
    questions: tuple[Question, ...]
    length: int
    """Longest prompt with its answer, tokens: what the model really reads."""
    seed: int
    prefix: Ids
    """[0] or [1]: the BOS token that `context` begins with, where the tokenizer puts one."""


def encode(tokenizer: Any, text: str) -> Ids:
    """Ids of a piece of text, nothing put in front."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)


def build(tokenizer: Any, filler: Ids, *, length: int, depths: tuple[float, ...], seed: int, prefix: Ids) -> Haystack:
    """A haystack whose longest prompt, answer included, is exactly `length` tokens.

    `filler` are ids of real text without special tokens; a stretch of it is drawn by `seed`. `depths` in 0..1, one needle
    each. Raises `TextError` where the length leaves no room, or the filler is too short.
    """
    # What is planted does not depend on the length, so that lengths are compared on the same questions.
    rng = np.random.default_rng([seed, *(round(depth * 1_000_000) for depth in depths)])
    num = max(len(depths), NUM_CANDIDATES)
    if num > len(KEYS):
        raise TextError(f"a haystack has at most {len(KEYS)} needles, got {len(depths)} depths")
    keys = [KEYS[i] for i in rng.permutation(len(KEYS))[:num]]
    values = [str(v) for v in rng.choice(90000, size=num, replace=False) + 10000]
    needles = [encode(tokenizer, NEEDLE.format(key=k, value=v)) for k, v in zip(keys, values, strict=True)][: len(depths)]
    questions = [encode(tokenizer, QUESTION.format(key=k)) for k in keys]
    answers = [encode(tokenizer, ANSWER.format(value=v)) for v in values]
    opening = np.concatenate([prefix, encode(tokenizer, OPENING)])
    tail = max(q.size for q in questions[: len(depths)]) + max(a.size for a in answers)
    room = length - tail - opening.size - sum(n.size for n in needles)
    if room < 16 * len(depths):
        smallest = length - room + 16 * len(depths)
        raise TextError(f"{length} tokens leave no room for {len(depths)} needles; the smallest length is {smallest}")
    if filler.size < room:
        raise TextError(f"the filler has {filler.size} tokens, expected at least {room} for a haystack of {length}")
    begin = int(np.random.default_rng([seed, length]).integers(0, filler.size - room + 1))
    context, positions = _plant(filler[begin : begin + room], needles, depths, sentence_ends(tokenizer, filler), opening)
    made = []
    for index, depth_position in enumerate(positions):
        others = [i for i in rng.permutation(num) if i != index][: NUM_CANDIDATES - 1]
        made.append(
            Question(
                key=keys[index],
                value=values[index],
                depth=depth_position / context.size,
                position=depth_position,
                question=questions[index],
                answer=answers[index],
                candidates=(answers[index], *(answers[i] for i in others)),
            )
        )
    return Haystack(context=context, questions=tuple(made), length=context.size + tail, seed=seed, prefix=prefix)


def sentence_ends(tokenizer: Any, filler: Ids) -> set[int]:
    """The token ids in `filler` after which a sentence or line has ended."""
    kinds = np.unique(filler)
    texts = tokenizer.batch_decode([[int(kind)] for kind in kinds])
    return {int(kind) for kind, text in zip(kinds, texts, strict=True) if text.endswith((".", "\n", ".\n"))}


def _plant(
    filler: Ids, needles: list[Ids], depths: tuple[float, ...], ends: set[int], opening: Ids
) -> tuple[Ids, list[int]]:
    """The context, and the index of each needle's first token in it."""
    cuts = []
    for depth in depths:
        cut = min(filler.size, max(0, round(depth * filler.size)))
        back = next((c for c in range(cut, max(0, cut - SEARCH_BACK), -1) if int(filler[c - 1]) in ends), cut)
        cuts.append(back)
    order = np.argsort(cuts, kind="stable")
    pieces, positions, at, last = [opening], [0] * len(depths), opening.size, 0
    for index in order:
        piece = filler[last : cuts[index]]
        positions[index] = at + piece.size
        pieces += [piece, needles[index]]
        at += piece.size + needles[index].size
        last = cuts[index]
    pieces.append(filler[last:])
    return np.concatenate(pieces), positions
