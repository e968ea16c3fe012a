"""Likelihood by other people's protocols, run as they run them: `disjoint`, `sliding-press`, `yarn-truncate`, and probes.

Two tools that call different things perplexity cannot be compared, so each protocol has its name in every row and two
means:
`perplexity` weighs every scored token alike, `perplexity_window_mean` is exp of the mean of the windows' means, as
YaRN's repository prints it (a window of 256 tokens weighs as much there as one of 32k).

Protocols with options of their own (`probes.py`) live in modules of their own: `key_tokens`, `repetition`, `sensitivity`.

`yarn-truncate` with a static plan gives the numbers of `prefix` at many times its price; it is here to show that.
"""

from collections.abc import Sequence

import numpy as np

from ropewalk.core.errors import TextError
from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.measure import distance, key_tokens, repetition, sensitivity, statistics
from ropewalk.measure.comparison import Subject, score_window, unread
from ropewalk.measure.probes import BY_DISTANCE, REPEATED, ByDistance, KeyTokens, Passages, RepeatedText
from ropewalk.measure.rows import Rows, exponential
from ropewalk.measure.settings import DISJOINT, SLIDING, Settings
from ropewalk.measure.windows import Window, disjoint_windows, sliding_windows, truncated_windows, windows_effort


def windows_of(protocol: str, settings: Settings, window: int) -> list[Window]:
    """The windows of a protocol over `settings.length` tokens; `window` where the settings name none."""
    size = settings.protocol_window or min(window, settings.length)
    if protocol == DISJOINT:
        return disjoint_windows(settings.length, size)
    if protocol == SLIDING:
        return sliding_windows(settings.length, size, settings.protocol_stride)
    return truncated_windows(settings.length, settings.num_points)


def check_protocols(subject: Subject, documents: Sequence[Document], settings: Settings) -> None:
    """Everything about the protocols that can be refused. Raises `InputError`s."""
    for protocol in settings.protocols:
        windows_of(protocol, settings, subject.window)
    if settings.probes.asked and not documents:
        raise TextError(f"{settings.probes.asked[0].id} reads texts and none was given; say --text FILE")
    for probe in settings.probes.asked:
        match probe:
            case KeyTokens():
                key_tokens.check(probe, subject, settings)
            case RepeatedText():
                repetition.check(probe, subject, settings)
            case Passages():
                sensitivity.check_pairs(probe, subject, documents, settings)
            case ByDistance():
                distance.check_distance(probe, subject, documents, settings)


def outstanding_protocols(subject: Subject, documents: Sequence[Document], settings: Settings, run: Run) -> float:
    """Relative cost of the protocols' cells that are not on disk."""
    costs = {name: windows_effort(windows_of(name, settings, subject.window)) for name in settings.protocols}
    total = sum(cost * len(unread(subject, name, documents, run)) for name, cost in costs.items())
    for probe in settings.probes.asked:
        match probe:
            case KeyTokens():
                total += key_tokens.outstanding(probe, subject, documents, settings, run)
            case RepeatedText():
                total += repetition.cost(settings) * len(unread(subject, REPEATED, documents, run))
            case Passages():
                total += sensitivity.outstanding(probe, subject, documents, settings, run)
            case ByDistance():
                total += distance.cost(probe, settings) * len(unread(subject, BY_DISTANCE, documents, run))
    return total


def run_probes(subject: Subject, documents: Sequence[Document], settings: Settings, run: Run, progress: Progress) -> None:
    """The cells of every probe asked for that are not on disk."""
    for probe in settings.probes.asked:
        match probe:
            case KeyTokens():
                for document in documents:
                    key_tokens.run_key_tokens(probe, subject, document, settings, run, progress)
            case RepeatedText():
                for document in documents:
                    repetition.run_repetition(probe, subject, document, settings, run, progress)
            case Passages():
                sensitivity.run_pairs(probe, subject, documents, settings, run, progress)
            case ByDistance():
                distance.run_distance(probe, subject, documents, settings, run, progress)


def probe_rows(rows: Rows) -> list[Measurement]:
    """The rows of every probe asked for, from what its cells left on disk."""
    made: list[Measurement] = []
    for probe in rows.settings.probes.asked:
        match probe:
            case KeyTokens():
                made += key_tokens.key_token_rows(probe, rows)
            case RepeatedText():
                made += repetition.repetition_rows(probe, rows)
            case Passages():
                made += sensitivity.pair_rows(rows)
            case ByDistance():
                made += distance.distance_rows(probe, rows)
    return made


def run_protocols(subject: Subject, documents: Sequence[Document], settings: Settings, run: Run, progress: Progress) -> None:
    """The cells of every protocol asked for: an array [num_windows, 2] of each window's sum and count of NLL."""
    for protocol in settings.protocols:
        windows = windows_of(protocol, settings, subject.window)
        for document, label in unread(subject, protocol, documents, run):
            sums = np.zeros((len(windows), 2))
            with progress.task(f"{protocol} {label} on {document.name}", windows_effort(windows)):
                for index, window in enumerate(windows):
                    with subject.put_on(label, window.end - window.begin):
                        nll = score_window(subject.forward, document, window)
                    sums[index] = nll.astype(np.float64).sum(), nll.size
                    progress.at((index + 1) / len(windows))
            run.save(protocol, label, document.name, sums.astype(np.float32))
    run_probes(subject, documents, settings, run, progress)


def protocol_rows(rows: Rows) -> list[Measurement]:
    """Both means of every protocol: one row for the text, or for `yarn-truncate` one for each length; and the probes'."""
    made: list[Measurement] = []
    for protocol in rows.settings.protocols:
        windows = windows_of(protocol, rows.settings, rows.window)
        for label in rows.labels:
            sums = list(rows.series(protocol, label).values())
            if not sums:
                continue
            groups = [range(len(windows))] if protocol in (DISJOINT, SLIDING) else [[i] for i in range(len(windows))]
            for group in groups:
                low, high = windows[group[0]].low, windows[group[-1]].end
                cells = np.stack([s[list(group)] for s in sums]).astype(np.float64)
                made += _two_means(rows, protocol, label, cells, low, high)
    return made + probe_rows(rows)


def _two_means(rows: Rows, protocol: str, label: str, cells: np.ndarray, low: int, high: int) -> list[Measurement]:
    """Rows from [documents, windows, 2] sums and counts."""
    num_documents, num_windows = cells.shape[:2]
    total = float(cells[..., 1].sum())
    means = cells[..., 0] / cells[..., 1]
    read = f"{counted(num_windows, 'window')} in each of {counted(num_documents, 'document')}"
    note = f"{read}; no interval is made for this protocol"
    values = {
        "perplexity": float(cells[..., 0].sum() / total),
        "perplexity_window_mean": float(means.mean()),
    }
    made = []
    for metric, value in values.items():
        estimate = statistics.Estimate(
            value=value, n=num_documents, num_clusters=num_documents, num_tokens=int(total), stderr=None, ci_low=None,
            ci_high=None, note=note,
        )  # fmt: skip
        made.append(
            rows.row(
                metric, protocol, "perplexity", label, exponential(estimate), length=high, position_low=low,
                position_high=high,
            )
        )  # fmt: skip
    return made
