"""How far back does text still move what is predicted? BYOD's sensitivity (`sensitivity.py`) swept over the distance.

`sensitivity-by-distance` takes the long text itself: one sentence early in it is replaced by as many tokens of other text,
so nothing after it moves, and the Jensen-Shannon divergence is read at the first sentence that begins k tokens or more after
it. Attention is causal, so one pass of the changed text serves every k. The control compares the text with itself read
again and must be 0. The sweep is ours; BYOD (arXiv:2306.13651) measures two sentences back only.

Given up: what a late change does to a near sentence of the same text; k is always counted from an early sentence. Plans that
depend on the length read each text with the plan of its whole length.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ropewalk.core.errors import LengthError, TextError
from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.data.sentences import token_sentences
from ropewalk.measure import statistics
from ropewalk.measure.comparison import Subject, unread
from ropewalk.measure.effective import grid
from ropewalk.measure.forward import Forward
from ropewalk.measure.probes import BY_DISTANCE, ByDistance
from ropewalk.measure.rows import NOTHING, Rows
from ropewalk.measure.sensitivity import divergence
from ropewalk.measure.settings import Settings
from ropewalk.measure.statistics import Estimate
from ropewalk.measure.windows import effort

LONGEST_SENTENCE = 128
"""Tokens of a sentence that are compared: code and tables have sentences without an end."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """One sentence replaced, and the sentence that is compared at each distance."""

    low: int
    replacement: NDArray[np.int64]
    targets: tuple[tuple[int, int] | None, ...]
    """[low, high) in tokens for each distance; None where the text ends before."""


def distances(probe: ByDistance, settings: Settings) -> tuple[int, ...]:
    """The distances, tokens. Raises `LengthError` where not even the shortest fits."""
    found = grid(probe.shortest, settings.length // 2)
    if not found:
        raise LengthError(
            f"sensitivity-by-distance begins at a distance of {probe.shortest} tokens and goes to half the length, "
            f"got a length of {settings.length}; give a longer --length, or a smaller shortest"
        )
    return found


def swaps(probe: ByDistance, tokenizer: Any, documents: Sequence[Document], place: int, settings: Settings) -> list[Swap]:
    """The swaps of document `place`: early sentences, evenly, each replaced by as many tokens from another text."""
    document = documents[place]
    found = token_sentences(tokenizer, document.ids[: settings.length])
    front = document.prefix.size
    whole = [(low, min(high, low + LONGEST_SENTENCE)) for low, high in found[:-1] if high - low >= 2]
    early = [(low, high) for low, high in whole if low > front and high <= settings.length // 4] or whole[1:2]
    chosen = sorted({int(i) for i in np.linspace(0, len(early) - 1, min(probe.swaps, len(early))).round()})
    rng = np.random.default_rng([settings.seed, place])
    made = []
    for low, high in (early[index] for index in chosen):
        targets = tuple(
            next(((a, b) for a, b in whole if a >= high + distance), None) for distance in distances(probe, settings)
        )
        taken = _other_text(tokenizer, documents, place, low, high, settings.length, rng)
        if taken is not None and any(targets):
            made.append(Swap(low=low, replacement=taken, targets=targets))
    return made


def _other_text(
    tokenizer: Any, documents: Sequence[Document], place: int, low: int, high: int, length: int, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """As many tokens as the sentence has, from the start of a drawn sentence: of the next document, else of this one."""
    num, alone = high - low, len(documents) == 1
    ids = documents[(place + 1) % len(documents)].ids[:length]
    starts = [a for a, _ in token_sentences(tokenizer, ids) if a + num <= ids.size and (not alone or abs(a - low) >= num)]
    own = documents[place].ids[low:high]
    starts = [a for a in starts if not np.array_equal(ids[a : a + num], own)]
    if not starts:
        return None
    first = int(rng.choice(starts))
    return np.asarray(ids[first : first + num])


def check_distance(probe: ByDistance, subject: Subject, documents: Sequence[Document], settings: Settings) -> None:
    """Raises `InputError` where the probe cannot be run: too short a length, or a text without sentences."""
    distances(probe, settings)
    for place, document in enumerate(documents):
        if not swaps(probe, subject.tokenizer, documents, place, settings):
            raise TextError(
                f"sensitivity-by-distance finds no sentence to replace in {document.name}; "
                "give a text of sentences, or a longer --length"
            )


def cost(probe: ByDistance, settings: Settings) -> float:
    """Relative cost of a cell: the text, the text again, and the text with each sentence replaced."""
    return (2 + probe.swaps) * effort(settings.length)


def run_distance(
    probe: ByDistance, subject: Subject, documents: Sequence[Document], settings: Settings, run: Run, progress: Progress
) -> None:
    """A cell of each method and document: float32 [2, 1 + num_swaps, num_distances], divergences and tokens compared.

    The first row is the control: the text against itself, read again.
    """
    for place, document in enumerate(documents):
        todo = unread(subject, BY_DISTANCE, [document], run)
        made = swaps(probe, subject.tokenizer, documents, place, settings) if todo else []
        for _, label in todo:
            with (
                progress.task(f"{BY_DISTANCE} {label} on {document.name}", cost(probe, settings)),
                subject.put_on(label, settings.length),
            ):
                cell = _swept(subject.forward, document.ids[: settings.length], made, progress)
            run.save(BY_DISTANCE, label, document.name, cell)


def _swept(forward: Forward, ids: NDArray[np.int64], made: list[Swap], progress: Progress) -> NDArray[np.float32]:
    own = forward.hidden(torch.from_numpy(ids))
    cell = np.full((2, 1 + len(made), len(made[0].targets)), np.nan, dtype=np.float32)
    for index in range(1 + len(made)):
        swap = made[max(0, index - 1)]
        changed = ids.copy()
        if index:
            changed[swap.low : swap.low + swap.replacement.size] = swap.replacement
        other = forward.hidden(torch.from_numpy(changed))
        for column, target in enumerate(swap.targets):
            if target is not None:
                rows = slice(target[0] - 1, target[1] - 1)
                cell[0, index, column] = divergence(forward, own[rows], other[rows]).mean()
                cell[1, index, column] = target[1] - target[0]
        progress.at((index + 1) / (1 + len(made)))
    return cell


def distance_rows(probe: ByDistance, rows: Rows) -> list[Measurement]:
    """The mean divergence at each distance (in `length`), and the control."""
    made = []
    for label in rows.labels:
        cells = [cell.astype(np.float64) for cell in rows.series(BY_DISTANCE, label).values()]
        if not cells:
            continue
        for column, distance in enumerate(distances(probe, rows.settings)):
            found = _estimate([cell[:, 1:, column] for cell in cells])
            note = f"length is the distance in tokens; text of {rows.settings.length} tokens"
            if found is None:
                empty = rows.row("sensitivity", BY_DISTANCE, "nats", label, NOTHING, length=distance)
                made.append(dataclasses.replace(empty, note=f"no sentence stands so far behind a replaced one; {note}"))
            else:
                made.append(rows.row("sensitivity", BY_DISTANCE, "nats", label, found, length=distance, note=note))
        control = np.concatenate([cell[0, 0] for cell in cells])
        tokens = int(np.nansum([np.nansum(cell[1, 0]) for cell in cells]))
        worst = Estimate(
            value=float(np.nanmax(control)), n=len(cells), num_clusters=len(cells), num_tokens=tokens, stderr=None,
            ci_low=None, ci_high=None, note="control: largest divergence of the text from itself, read twice; 0 is right",
        )  # fmt: skip
        made.append(rows.row("sensitivity_control", BY_DISTANCE, "nats", label, worst))
    return made


def _estimate(cells: list[NDArray[np.float64]]) -> Estimate | None:
    """From arrays [2, num_swaps] of one distance: documents are the unit where there are five, else the swaps."""
    kept = [cell[:, ~np.isnan(cell[0])] for cell in cells]
    kept = [cell for cell in kept if cell.shape[1]]
    if not kept:
        return None
    tokens = int(sum(cell[1].sum() for cell in kept))
    if len(kept) >= statistics.MIN_DOCUMENTS:
        found = statistics.mean([cell[0] for cell in kept], seed=0)
    else:
        values = np.concatenate([cell[0] for cell in kept])
        note = f"within-document: t over {counted(values.size, 'replaced sentence')} in {counted(len(kept), 'document')}"
        found = statistics.clusters_mean([np.array([value]) for value in values], note=note)
    return dataclasses.replace(found, num_tokens=tokens)
