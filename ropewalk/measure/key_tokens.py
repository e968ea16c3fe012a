"""LongPPL: perplexity of the tokens that need a long context, so that the many that do not cannot hide the loss of it.

Fang et al. 2024, "What is Wrong with Perplexity for Long-context Language Modeling?" (arXiv:2410.23771).
For token i, an evaluator model p0, all tokens before it l_i, and the last K to K + d of them s_i:

    gain(i) = log p0(x_i | l_i) - log p0(x_i | s_i)     key(i) = gain(i) > alpha and log p0(x_i | l_i) > beta
    LongPPL = exp(-sum key(i) log p(x_i | l_i) / sum key(i))

with alpha = 2, beta = -2, d = 1024 as published. Windows of K + d tokens begin every d tokens, read as they stand (no BOS is
put in front), and score their last d. The evaluator here is the untouched model, or another method of the run, and K its old
window: a key token needs more than the old window. An untouched model that reads beyond its window badly finds few; then
give a smaller `context`, or as `evaluator` a method that reads better. The mask is kept in the run: `longppl-keys/`.

Against the authors' package: evaluator and subject share a tokenizer, so tokens are marked and not characters; where one
character is several tokens the package scores all of them when one is key. Memory: hidden states and a chunk of logits, one
window at a time. Given up: the correction for selecting tokens by the same model that is scored; compare plans with it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ropewalk.core.errors import LengthError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.measure import statistics
from ropewalk.measure.comparison import Subject, unread
from ropewalk.measure.forward import Forward
from ropewalk.measure.probes import LONGPPL, KeyTokens, check_evaluator
from ropewalk.measure.rows import NOTHING, Arrays, Rows, exponential
from ropewalk.measure.settings import Settings
from ropewalk.measure.statistics import Estimate
from ropewalk.measure.windows import Window, effort, windows_effort

KEYS = "longppl-keys"
"""Kind of the evaluator's arrays: float32 [2, T-1], whether a token is key, and its NLL under the short context."""
ENOUGH = 500
"""Key tokens below which a LongPPL is called too few."""


def short_windows(length: int, context: int, shared: int) -> list[Window]:
    """The windows of the short contexts: each reads `context` tokens and scores the `shared` after them."""
    starts = range(0, length - context, shared)
    return [Window(begin=s, low=s + context, end=min(s + context + shared, length)) for s in starts]


def mark(long: NDArray[np.float32], short: NDArray[np.float32], probe: KeyTokens) -> NDArray[np.bool_]:
    """Which tokens are key, from their NLL [N] under the long and the short context (NaN where there is no short one)."""
    return np.asarray((short - long > probe.alpha) & (-long > probe.beta))


def short_nll(forward: Forward, ids: torch.Tensor, windows: list[Window], progress: Progress) -> NDArray[np.float32]:
    """NLL [T-1] under the short contexts; NaN before the first."""
    nll = np.full(ids.shape[0] - 1, np.nan, dtype=np.float32)
    for index, window in enumerate(windows):
        part = ids[window.begin : window.end]
        hidden = forward.hidden(part)[-window.num_scored - 1 : -1]
        nll[window.low - 1 : window.end - 1] = forward.nll(hidden, part[-window.num_scored :]).numpy()
        progress.at((index + 1) / len(windows))
    return nll


def context_of(probe: KeyTokens, settings: Settings, window: int) -> int:
    """K, tokens. Raises `LengthError` where no token can be key."""
    context = probe.context or window
    # The first short window is the beginning of the text itself, so nothing in it can gain.
    if settings.length <= context + probe.shared:
        raise LengthError(
            f"longppl finds no token within the first {context} + {probe.shared} (its context and shared), and the length "
            f"is {settings.length}; give a longer --length, or smaller ones (longppl:context=...,shared=...)"
        )
    return context


def check(probe: KeyTokens, subject: Subject, settings: Settings) -> None:
    """Raises `InputError` where the probe cannot be run on this subject."""
    context_of(probe, settings, subject.window)
    check_evaluator(probe.evaluator, tuple(label for label in subject.plans if subject.keeps(label) is None))


def not_by_prefix(subject: Subject, document: Document, run: Run) -> list[str]:
    """The methods that `prefix` did not read whole and whose reading of a document is not on disk."""
    return [label for _, label in unread(subject, LONGPPL, [document], run) if subject.by_length(label)]


def outstanding(probe: KeyTokens, subject: Subject, documents: Sequence[Document], settings: Settings, run: Run) -> float:
    """Relative cost of what is not on disk."""
    windows = short_windows(settings.length, context_of(probe, settings, subject.window), probe.shared)
    unmarked = sum(not run.has(KEYS, probe.evaluator, document.name) for document in documents)
    whole = sum(len(not_by_prefix(subject, document, run)) for document in documents)
    return unmarked * windows_effort(windows) + whole * effort(settings.length)


def run_key_tokens(
    probe: KeyTokens, subject: Subject, document: Document, settings: Settings, run: Run, progress: Progress
) -> None:
    """The mask of a document, and the NLL of the methods that `prefix` did not read whole."""
    ids = torch.from_numpy(document.ids[: settings.length])
    for label in not_by_prefix(subject, document, run):
        with (
            progress.task(f"{LONGPPL} {label} on {document.name}", effort(settings.length)),
            subject.put_on(label, settings.length),
        ):
            hidden = subject.forward.hidden(ids, tick=progress.at)
            run.save(LONGPPL, label, document.name, subject.forward.nll(hidden[:-1], ids[1:]).numpy())
    label = probe.evaluator
    if run.has(KEYS, label, document.name):
        return
    windows = short_windows(settings.length, context_of(probe, settings, subject.window), probe.shared)
    with (
        progress.task(f"{LONGPPL} key tokens by {label} on {document.name}", windows_effort(windows)),
        subject.put_on(label, settings.length),
    ):
        short = short_nll(subject.forward, ids, windows, progress)
    long = run.load(LONGPPL if subject.by_length(label) else "nll", label, document.name)
    run.save(KEYS, label, document.name, np.stack([mark(long, short, probe), short]).astype(np.float32))


def key_token_rows(probe: KeyTokens, rows: Rows) -> list[Measurement]:
    """LongPPL of every method that reads a whole text, and how many tokens are key."""
    masks = {name: array[0] > 0.5 for name, array in rows.series(KEYS, probe.evaluator).items()}
    if not masks:
        return []
    context = context_of(probe, rows.settings, rows.window)
    where = {"position_low": context, "position_high": rows.settings.length, "reference": probe.evaluator}
    note = _note(probe, rows, context)
    count = sum(int(m.sum()) for m in masks.values())
    told = Estimate(
        value=float(count), n=len(masks), num_clusters=len(masks), num_tokens=sum(m.size for m in masks.values()),
        stderr=None, ci_low=None, ci_high=None, note="a count",
    )  # fmt: skip
    made = [rows.row("longppl_key_tokens", LONGPPL, "tokens", probe.evaluator, told, note=note, **where)]
    for label in rows.labels:
        nll = rows.series(LONGPPL if label in rows.by_length else "nll", label)
        if label in rows.crops or not all(name in nll for name in masks):
            continue
        found = estimate(nll, masks)
        if found is None:
            why = f"no token is key, so there is nothing to score; {note}"
            made.append(dataclasses.replace(rows.row(LONGPPL, LONGPPL, "perplexity", label, NOTHING, **where), note=why))
        else:
            few = f"too few: {count} key tokens, under {ENOUGH}; " if count < ENOUGH else ""
            made.append(rows.row(LONGPPL, LONGPPL, "perplexity", label, exponential(found), note=f"{few}{note}", **where))
    return made


def estimate(nll: Arrays, masks: dict[str, NDArray[np.bool_]]) -> Estimate | None:
    """Mean NLL of the key tokens, pooled by their counts. Clusters: documents, or stretches of 512 tokens of the text."""
    kept = [nll[name][mask] for name, mask in masks.items() if mask.any()]
    if not kept:
        return None
    if len(kept) >= statistics.MIN_DOCUMENTS:
        return statistics.mean(kept, seed=0)
    stretches = []
    for name, mask in masks.items():
        places = np.flatnonzero(mask)
        for stretch in np.unique(places // statistics.BLOCK):
            stretches.append(nll[name][places[places // statistics.BLOCK == stretch]].astype(np.float64))
    note = f"within-document: t over {len(stretches)} stretches of {statistics.BLOCK} tokens that hold key tokens"
    return dataclasses.replace(statistics.clusters_mean(stretches, note=note), n=len(kept))


def _note(probe: KeyTokens, rows: Rows, context: int) -> str:
    beyond = "" if rows.settings.length <= rows.window or probe.evaluator != "none" else ", itself read beyond its window"
    return (
        f"key by {probe.evaluator}{beyond}; short context {context} to {context + probe.shared} tokens, "
        f"alpha {probe.alpha:g}, beta {probe.beta:g}"
    )
