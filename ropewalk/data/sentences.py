"""Sentences and passages of a text, by a rule of ours: no download, no language model, the same on every machine.

A sentence ends at a full stop, question or exclamation mark (with its closing quotes and brackets) that whitespace and
something like a beginning follow, or at the marks of Chinese and Japanese, or at an empty line. Others use NLTK's trained
Punkt; ours cuts at abbreviations that Punkt knows ("Dr. Smith"), which costs a short sentence here and there.
"""

import itertools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENDS = re.compile(r"(?<=[.!?])([\"'”’)\]]*)\s+(?=[\"'“‘(\[]?[^\Wa-z_])|(?<=[。！？])|\n\s*\n")
PASSAGE_WORDS, PASSAGE_SENTENCES = 100, 6
"""A passage has more words than this, and is not cut before it has as many sentences."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped; none is empty."""
    return [part for low, high in spans(text) if (part := text[low:high].strip())]


def spans(text: str) -> list[tuple[int, int]]:
    """[low, high) of each sentence, the whitespace before it included as tokenizers do, so that they cover the text."""
    edges = [0, *(found.start() if found[1] is None else found.end(1) for found in ENDS.finditer(text)), len(text)]
    return [(low, high) for low, high in itertools.pairwise(edges) if high > low]


def passages(text: str) -> list[list[str]]:
    """Paragraphs of more than `PASSAGE_WORDS` words as lists of sentences; long ones are cut after whole sentences."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        taken: list[str] = []
        num_words = 0
        for sentence in sentences(" ".join(paragraph.split())):
            taken.append(sentence)
            num_words += len(sentence.split())
            if num_words > PASSAGE_WORDS and len(taken) >= PASSAGE_SENTENCES:
                found.append(taken)
                taken, num_words = [], 0
        if num_words > PASSAGE_WORDS:
            found.append(taken)
    return found


def token_sentences(tokenizer: Any, ids: NDArray[np.int64]) -> list[tuple[int, int]]:
    """[low, high) in tokens of each sentence of token ids; a token across two sentences belongs to the first."""
    kinds, where = np.unique(ids, return_inverse=True)
    names = tokenizer.convert_ids_to_tokens([int(kind) for kind in kinds])
    texts = tokenizer.batch_decode([[int(kind)] for kind in kinds])
    # Decoded alone, a SentencePiece token loses the space before its word.
    texts = [f" {t}" if str(n).startswith("▁") and not t.startswith(" ") else t for n, t in zip(names, texts, strict=True)]
    pieces = [texts[index] for index in where]
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    edges = [int(np.searchsorted(starts[:-1], low)) for low, _ in spans("".join(pieces))]
    edges = [*dict.fromkeys(edges), ids.size]
    return [(low, high) for low, high in itertools.pairwise(edges) if high > low]
