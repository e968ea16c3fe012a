"""The first-sentence probe, by likelihood: does a model still have, at the end of a text, what it began with?

Llama 2 Long (arXiv:2309.16039, section 4.1) asks for a text's first sentence and scores ROUGE-L; a model of two million
parameters that was never taught to answer cannot be asked. Here the text's first tokens come again after its end, behind a
blank line; the first `CUE` of them are given, and what follows is scored. Beside it the same tokens come after the same text
without its beginning, in whose place stand as many tokens of what would have come after the text's end. The
difference of the two NLLs is what the model has from the beginning: 0 where it cannot reach it.

Given up: an answer in words. Kept: the farthest thing there is, in text of the kind that was trained on, at every length.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.miniature.corpus import Ids
from experiments.miniature.sizes import Sizes
from ropewalk.core.errors import InputError
from ropewalk.measure.forward import Forward

CUE, SCORED = 8, 24
"""Tokens of the beginning that are given, and those that are scored."""
STARTS = (0, 400)
"""Where in a document texts begin: two for each, which share a document and so are averaged before anything else."""
Found = NDArray[np.float32]
"""[num_documents, num_lengths, 3]: NLL with the beginning in the text, NLL without it, share of right first choices."""


def lengths(sizes: Sizes) -> tuple[int, ...]:
    """From the trained window on, doubling."""
    return tuple(sizes.window * 2**k for k in range(int(np.log2(sizes.longest // sizes.window)) + 1))


def first_sentence(model: Any, tokenizer: Any, documents: Mapping[str, Ids], sizes: Sizes) -> Found:
    """The probe at every length, for the plan that the model carries."""
    forward, blank = Forward(model), np.asarray(tokenizer("\n\n")["input_ids"], dtype=np.int64)
    out = np.zeros((len(documents), len(lengths(sizes)), 3), dtype=np.float32)
    for row, ids in zip(out, documents.values(), strict=True):
        for place, length in zip(row, lengths(sizes), strict=True):
            found = [one(forward, ids.astype(np.int64), start, length, blank) for start in STARTS]
            place[:] = np.mean(found, axis=0)
    return out


def saved(found: Found, sizes: Sizes, length: int) -> NDArray[np.float64]:
    """Nats a token that the beginning saves at a length, for each document; higher is better."""
    place = found[:, lengths(sizes).index(length)].astype(np.float64)
    difference: NDArray[np.float64] = place[:, 1] - place[:, 0]
    return difference


def texts(ids: NDArray[np.int64], start: int, length: int, blank: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Two texts of `length` tokens, alike but for their beginning: one begins with its last tokens, the other does not."""
    again = ids[start : start + CUE + SCORED]
    size = length - again.size - blank.size
    if start + size + again.size > ids.size:
        raise InputError(
            f"a document has {ids.size} tokens, and the probe at {length} needs {start + size + again.size}; "
            "raise least_bytes"
        )
    rest, other = ids[start + again.size : start + size], ids[start + size : start + size + again.size]
    return [np.concatenate([beginning, rest, blank, again]) for beginning in (again, other)]


def one(forward: Forward, ids: NDArray[np.int64], start: int, length: int, blank: NDArray[np.int64]) -> tuple[float, ...]:
    """NLL with and without the beginning, and how many first choices are right with it, for one text."""
    scores: list[float] = []
    right = 0.0
    for index, text in enumerate(texts(ids, start, length, blank)):
        whole = torch.from_numpy(text)
        hidden = forward.hidden(whole)[-SCORED - 1 : -1]
        targets = whole[-SCORED:]
        scores.append(float(forward.nll(hidden, targets).mean()))
        if index == 0:
            with torch.inference_mode():
                right = float((forward.logits(hidden).argmax(1) == targets).float().mean())
    return (*scores, right)
