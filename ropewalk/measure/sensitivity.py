"""Does far text move what is predicted? Distance between next-token distributions when something before is replaced.

`byod-sensitivity` is BYOD's long-range sensitivity (Jain et al. 2023, arXiv:2306.13651) as its repository runs it: the last
three sentences of a passage of at least six, the first two replaced by the first two of another passage (the one before
it in a shuffled list), the last one as it is; Jensen-Shannon divergence in nats between the two next-token distributions at
every token of the last sentence, probabilities floored at 1e-14; the mean over positions, then over passages, and the
standard error over passages. Pairs are read one by one, so nothing is padded. The number of tokens of the last sentence is
counted with the special tokens that the tokenizer adds, as there. Ours differs in the data: the user's texts cut into
passages (`data.sentences`), and our rule for sentences in place of NLTK's. "Long range" is two sentences.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropewalk.core.errors import TextError
from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.data.sentences import passages
from ropewalk.measure import statistics
from ropewalk.measure.comparison import Subject, unread
from ropewalk.measure.forward import Forward
from ropewalk.measure.probes import BYOD, Passages
from ropewalk.measure.rows import NOTHING, Rows
from ropewalk.measure.settings import Settings
from ropewalk.measure.statistics import Estimate, student
from ropewalk.measure.windows import effort

FLOOR = 1e-14
LETTERS_PER_TOKEN = 4
"""Of English text, roughly: for progress alone."""
NUM_SENTENCES, NUM_SWAPPED = 3, 2
"""Sentences read of a passage, and how many of them are replaced: the published numbers."""


def jensen_shannon(logits: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats, float32 [N], of the distributions of logits [N, V], probabilities floored."""
    p, q = (torch.softmax(x, dim=-1).float() + FLOOR for x in (logits, other))
    middle = (0.5 * (p + q)).log()
    return 0.5 * ((p * (p.log() - middle)).sum(-1) + (q * (q.log() - middle)).sum(-1))


@torch.inference_mode()
def divergence(forward: Forward, hidden: Tensor, other: Tensor) -> NDArray[np.float64]:
    """`jensen_shannon` of hidden states [N, D], chunk by chunk."""
    parts = [
        jensen_shannon(forward.logits(hidden[rows]), forward.logits(other[rows])).cpu()
        for rows in forward.chunks(hidden.shape[0])
    ]
    return torch.cat(parts).double().numpy()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One passage's end with its own sentences before it, and with another's."""

    document: str
    last: str
    own: str
    other: str


def pairs(texts: dict[str, str], *, seed: int, most: int) -> list[Pair]:
    """The pairs of all passages of all texts (document name to text), shuffled, at most `most`."""
    found = [(name, passage) for name, text in texts.items() for passage in passages(text)]
    order = np.random.default_rng(seed).permutation(len(found))
    made = []
    # Index -1 is the last of the list, as published.
    for place, index in enumerate(order):
        (name, passage), (_, before) = found[index], found[order[place - 1]]
        if len(passage) > NUM_SENTENCES + NUM_SWAPPED:
            kept = passage[-(NUM_SENTENCES - NUM_SWAPPED) :]
            own, other = " ".join(passage[-NUM_SENTENCES:]), " ".join([*before[:NUM_SWAPPED], *kept])
            made.append(Pair(document=name, last=passage[-1], own=own, other=other))
    return made[:most]


def score_pair(forward: Forward, tokenizer: Any, pair: Pair, put_on: Any) -> float | None:
    """The mean divergence over the last sentence's tokens, nats; None where that has fewer than two."""
    own, other, last = (tokenizer(text, verbose=False)["input_ids"] for text in (pair.own, pair.other, f" {pair.last}"))
    num = len(last)
    if num < 2 or min(len(own), len(other)) < num + 1:
        return None
    read = []
    for ids in (own, other):
        with put_on(len(ids)):
            read.append(forward.hidden(torch.tensor(ids))[-(num + 1) : -1])
    return float(divergence(forward, *read).mean())


def check_pairs(probe: Passages, subject: Subject, documents: Sequence[Document], settings: Settings) -> None:
    """Raises `TextError` where the texts have no two passages to exchange sentences."""
    if len(_pairs(probe, subject, documents, settings)) < 2:
        raise TextError(
            "byod-sensitivity needs two passages of more than 100 words and six sentences, and the texts have fewer; "
            "give texts of sentences with --text"
        )


def _pairs(probe: Passages, subject: Subject, documents: Sequence[Document], settings: Settings) -> list[Pair]:
    texts = {d.name: subject.tokenizer.decode(d.ids[d.prefix.size :].tolist()) for d in documents}
    return pairs(texts, seed=settings.seed, most=probe.examples)


def outstanding(probe: Passages, subject: Subject, documents: Sequence[Document], settings: Settings, run: Run) -> float:
    """Relative cost of what is not on disk."""
    todo = unread(subject, BYOD, documents, run)
    made = _pairs(probe, subject, documents, settings) if todo else []
    return sum(_cost([pair for pair in made if pair.document == document.name]) for document, _ in todo)


def _cost(made: Sequence[Pair]) -> float:
    """Relative cost of pairs, by their letters: to count tokens the tokenizer would have to read everything twice."""
    return sum(effort(len(text) // LETTERS_PER_TOKEN) for pair in made for text in (pair.own, pair.other))


def run_pairs(
    probe: Passages, subject: Subject, documents: Sequence[Document], settings: Settings, run: Run, progress: Progress
) -> None:
    """A cell of each method and document: float32 [num_pairs], NaN where a last sentence was too short."""
    made = _pairs(probe, subject, documents, settings)
    for document, label in unread(subject, BYOD, documents, run):
        mine = [pair for pair in made if pair.document == document.name]
        scores = np.full(len(mine), np.nan, dtype=np.float32)
        with progress.task(f"{BYOD} {label} on {document.name}", _cost(mine)):
            for index, pair in enumerate(mine):
                score = score_pair(subject.forward, subject.tokenizer, pair, partial(subject.put_on, label))
                scores[index] = np.nan if score is None else score
                progress.at((index + 1) / len(mine))
        run.save(BYOD, label, document.name, scores)


def pair_rows(rows: Rows) -> list[Measurement]:
    """The published mean and standard error of every method."""
    made = []
    for label in rows.labels:
        cells = list(rows.series(BYOD, label).values())
        scores = np.concatenate([np.zeros(0), *cells])
        scores = scores[~np.isnan(scores)]
        if scores.size:
            made.append(rows.row("sensitivity", BYOD, "nats", label, _published(scores, len(cells))))
        elif cells:
            empty = rows.row("sensitivity", BYOD, "nats", label, NOTHING)
            made.append(dataclasses.replace(empty, note="every last sentence has fewer than two tokens"))
    return made


def _published(scores: NDArray[np.float64], num_documents: int) -> Estimate:
    # The standard deviation is over n and not n - 1, as published.
    error = float(scores.std() / np.sqrt(scores.size))
    told = scores.size >= statistics.MIN_CLUSTERS
    half = student(scores.size) * error if told else 0.0
    mean = float(scores.mean())
    return Estimate(
        value=mean, n=scores.size, num_clusters=scores.size, num_tokens=0, stderr=error if told else None,
        ci_low=mean - half if told else None, ci_high=mean + half if told else None,
        note=f"mean over {counted(scores.size, 'passage')} of {counted(num_documents, 'document')}, passages as the unit as "
        "published"
        + ("" if told else ": too few for an interval"),
    )  # fmt: skip
