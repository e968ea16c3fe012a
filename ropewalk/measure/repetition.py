"""Does it use what it read long ago? A text that repeats its first stretch, against the same text going on.

Su (kexue.fm/archives/9706 and the table of its repository) measures next-token accuracy on a text of many windows made by
repeating its first window, and on the text as it is. A model that only looks nearby scores equal on both; one that finds the
earlier copy copies it. Here the period is the old window, or shorter; the token before the one to copy stands one period
back, so at a period of the whole window every hit needs a distance beyond it.

Scored are positions from the period to the window (`inside`) and beyond the window, the same positions of both texts. The
pair differs in the tokens themselves (the first stretch again, against new text): it is a difference of two texts at equal
positions and not of two readings of one text; the interval is of that difference. Plans that depend on the length read each
text whole with the plan of its whole length.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropewalk.core.errors import LengthError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.measure import statistics
from ropewalk.measure.comparison import Subject, unread
from ropewalk.measure.forward import Forward
from ropewalk.measure.probes import REPEATED, RepeatedText
from ropewalk.measure.rows import Rows
from ropewalk.measure.settings import Settings
from ropewalk.measure.windows import effort


def repeat(document: Document, period: int, length: int) -> NDArray[np.int64]:
    """`length` tokens: the first `period` of a document again and again, what the tokenizer puts in front only once."""
    front = document.prefix.size
    body = document.ids[front:period]
    times = -(-(length - front) // body.size)
    return np.concatenate([document.ids[:front], np.tile(body, times)])[:length]


@torch.inference_mode()
def nll_and_hits(forward: Forward, ids: Tensor, *, progress: Progress, part: float) -> Tensor:
    """NLL in nats and whether the first choice is right, float32 [2, T-1], of token ids [T], chunk by chunk."""
    hidden = forward.hidden(ids, tick=lambda share: progress.at(part + 0.45 * share))[:-1]
    targets = ids[1:].to(hidden.device)
    out = torch.empty(2, targets.shape[0], dtype=torch.float32)
    for rows in forward.chunks(targets.shape[0]):
        logp = forward.log_probabilities(hidden[rows])
        out[0, rows] = -logp.gather(1, targets[rows, None])[:, 0].cpu()
        out[1, rows] = (logp.argmax(1) == targets[rows]).float().cpu()
    return out


def period_of(probe: RepeatedText, settings: Settings, window: int) -> int:
    """The period, tokens. Raises `LengthError` where nothing would be repeated."""
    period = probe.period or window
    if settings.length <= period + 1:
        raise LengthError(
            f"repeated-text repeats the first {period} tokens, got a length of {settings.length}; "
            f"give a longer --length, or a shorter period (repeated-text:period={max(2, settings.length // 4)})"
        )
    return period


def check(probe: RepeatedText, subject: Subject, settings: Settings) -> None:
    """Raises `InputError` where the probe cannot be run on this subject."""
    period_of(probe, settings, subject.window)


def cost(settings: Settings) -> float:
    """Relative cost of a cell: both texts are read whole."""
    return 2 * effort(settings.length)


def run_repetition(
    probe: RepeatedText, subject: Subject, document: Document, settings: Settings, run: Run, progress: Progress
) -> None:
    """A cell of each method that reads whole texts: float32 [4, T-1], NLL and hits repeated, NLL and hits as it goes on."""
    texts = (repeat(document, period_of(probe, settings, subject.window), settings.length), document.ids[: settings.length])
    for _, label in unread(subject, REPEATED, [document], run):
        with (
            progress.task(f"{REPEATED} {label} on {document.name}", cost(settings)),
            subject.put_on(label, settings.length),
        ):
            read = [
                nll_and_hits(subject.forward, torch.from_numpy(ids), progress=progress, part=index / 2)
                for index, ids in enumerate(texts)
            ]
            run.save(REPEATED, label, document.name, torch.cat(read).numpy())


def repetition_rows(probe: RepeatedText, rows: Rows) -> list[Measurement]:
    """NLL and accuracy of both texts and their difference, inside and beyond the window."""
    period = period_of(probe, rows.settings, rows.window)
    stretches = [(period, min(rows.window, rows.settings.length)), (max(period, rows.window), rows.settings.length)]
    made = []
    for label in rows.labels:
        cells = list(rows.series(REPEATED, label).values())
        for low, high in stretches:
            # The first token of the second copy cannot be told from the text; it follows the period's last.
            if cells and high > low + 1:
                made += _stretch(rows, label, cells, low + 1, high, period)
    return made


def _stretch(
    rows: Rows, label: str, cells: list[NDArray[np.float32]], low: int, high: int, period: int
) -> list[Measurement]:
    cut = [cell[:, low - 1 : high - 1].astype(np.float64) for cell in cells]
    series = {
        ("repeated_nll", "nats/token"): [c[0] for c in cut],
        ("continued_nll", "nats/token"): [c[2] for c in cut],
        ("repetition_gain_nll", "nats/token"): [c[2] - c[0] for c in cut],
        ("repeated_accuracy", "share"): [c[1] for c in cut],
        ("continued_accuracy", "share"): [c[3] for c in cut],
        ("repetition_gain_accuracy", "share"): [c[1] - c[3] for c in cut],
    }
    where: dict[str, Any] = {"position_low": low, "position_high": high, "length": rows.settings.length}
    whole = "; read whole with the plan of the whole length" if label in rows.by_length else ""
    note = f"period {period} tokens; same positions of two texts, the tokens differ{whole}"
    block = statistics.BLOCK if high - low >= statistics.MIN_CLUSTERS * statistics.BLOCK else statistics.SHORT_BLOCK
    return [
        rows.row(
            metric, REPEATED, unit, label, statistics.mean(parts, seed=rows.facts.seed, block=block), note=note, **where
        )
        for (metric, unit), parts in series.items()
    ]
