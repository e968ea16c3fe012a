"""Carry each plan onto one live model in turn and measure what it does: the engine behind `compare` and `measure`.

A cell is one method on one document, or one method on one haystack. Each is on disk before the next begins, and rows are
made from what is on disk (`rows.py`), so a run that was killed and resumed ends with the rows of an unbroken one.

One forward per plan and document gives the NLL of every token, and the hidden states of the old window, from which the price
(KL and first-choice agreement against the untouched model) is made without running anything again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.hosts import live
from ropewalk.measure.forward import Forward, divergence
from ropewalk.measure.memory import peak_bytes
from ropewalk.measure.settings import CONTROL, CROP, NONE, Settings
from ropewalk.measure.windows import Window, crop_windows, effort, length_windows


@dataclass(kw_only=True)
class Subject:
    """What is measured: a live model and the plans to put on it."""

    model: Any
    tokenizer: Any
    plans: Mapping[str, Plan]
    """Label to plan; `none` and `crop` among them."""
    geometry: Geometry
    reload: Callable[[], Any] | None = None
    """Loads the same weights in float32, for the control; None where the model is float32 already."""
    forward: Forward = field(init=False)

    def __post_init__(self) -> None:
        self.forward = Forward(self.model)

    @property
    def window(self) -> int:
        """The old window, tokens: what `crop` keeps."""
        return self.geometry.window_length

    def by_length(self, label: str) -> bool:
        """Whether prefixes of one pass would be read with another length's frequencies."""
        return self.geometry.varies if label == NONE else self.plans[label].kind != "static"

    def keeps(self, label: str) -> int | None:
        """How many last tokens a cropping method reads; None for every other."""
        plan = self.plans[label]
        return int(plan.options["keep_last"]) if plan.method == CROP else None

    def put_on(self, label: str, length: int) -> AbstractContextManager[Any]:
        """The plan `label` on the model for a text of `length`; nothing for the untouched model.

        `crop` takes a stretch off that was put on without training: the null hypothesis is the model as it was trained.
        """
        if label == NONE or (self.keeps(label) is not None and not self.geometry.from_origin):
            return nullcontext()
        return live.apply(self.model, self.plans[label].at(length))


def run_cells(subject: Subject, documents: Sequence[Document], settings: Settings, run: Run, progress: Progress) -> None:
    """Every cell that is not on disk yet."""
    for document in documents:
        _likelihood_cells(subject, document, settings, run, progress)


# --- likelihood -------------------------------------------------------------------------------------------------------


def _likelihood_cells(subject: Subject, document: Document, settings: Settings, run: Run, progress: Progress) -> None:
    """All methods on one document: the untouched model first, since prices are paired with it."""
    window = min(subject.window, settings.length)
    reference: Tensor | None = None
    labels = [NONE, CROP] + [label for label in subject.plans if label not in (NONE, CROP)]
    for label in labels:
        if label not in subject.plans or run.has("nll", label, document.name):
            continue
        with progress.task(f"{label} on {document.name}", _cost(subject, label, settings)):
            began = time.monotonic()
            if subject.keeps(label) is not None:
                _crop_cell(subject, label, document, settings, run, progress)
            elif subject.by_length(label):
                _by_length_cell(subject, label, document, settings, run, progress)
            else:
                if label != NONE and reference is None:
                    reference = _reference(subject, document, window)
                hidden = _prefix_cell(subject, label, document, settings, run, progress, reference)
                if label == NONE:
                    reference = hidden[:window].clone()
                    _control_cell(subject, document, settings, run, reference)
        run.note_cell(label, document.name, time.monotonic() - began, peak_bytes())
    if settings.control_tokens and subject.reload is not None and not run.has("price", CONTROL, document.name):
        reference = _reference(subject, document, window) if reference is None else reference
        _control_cell(subject, document, settings, run, reference)


def _reference(subject: Subject, document: Document, window: int) -> Tensor:
    """Hidden states of the untouched model in the old window; made again after a resume."""
    return subject.forward.hidden(torch.from_numpy(document.ids[:window]))


def _prefix_cell(
    subject: Subject,
    label: str,
    document: Document,
    settings: Settings,
    run: Run,
    progress: Progress,
    reference: Tensor | None,
) -> Tensor:
    """One forward over the whole text; NLL of every token and, against `reference`, the price."""
    ids = torch.from_numpy(document.ids[: settings.length])
    with subject.put_on(label, settings.length):
        hidden = subject.forward.hidden(ids, tick=lambda share: progress.at(0.9 * share))
        if reference is not None and label != NONE:
            num = reference.shape[0] - 1
            run.save("price", label, document.name, subject.forward.price(reference[:num], hidden[:num]).numpy())
        progress.at(0.95)
        run.save("nll", label, document.name, subject.forward.nll(hidden[:-1], ids[1:]).numpy())
    return hidden


def _control_cell(subject: Subject, document: Document, settings: Settings, run: Run, reference: Tensor) -> None:
    """The same model in float32 on the first tokens: what difference means nothing."""
    num = min(settings.control_tokens, reference.shape[0])
    if subject.reload is None or num < 2 or run.has("price", CONTROL, document.name):
        return
    ids = torch.from_numpy(document.ids[:num])
    exact = Forward(subject.reload())
    hidden = exact.hidden(ids)
    run.save("nll", CONTROL, document.name, exact.nll(hidden[:-1], ids[1:]).numpy())
    price = divergence(exact, hidden[:-1], subject.forward, reference[: num - 1])
    run.save("price", CONTROL, document.name, price.numpy())


def _crop_cell(subject: Subject, label: str, document: Document, settings: Settings, run: Run, progress: Progress) -> None:
    """A cropping method on the baseline's targets; with a `keep_last` of its own it reads less before them."""
    kept = subject.keeps(label)
    assert kept is not None
    windows = crop_windows(subject.window, settings.length, settings.crop_windows, targets=settings.targets)
    shown = [Window(begin=w.end - kept, low=max(w.low, w.end - kept + 1), end=w.end) for w in windows]
    with subject.put_on(label, kept):
        nll = _score_windows(subject, document, shown, progress, settings.length)
    run.save("nll", label, document.name, nll)


def _by_length_cell(
    subject: Subject, label: str, document: Document, settings: Settings, run: Run, progress: Progress
) -> None:
    windows = length_windows(subject.window, settings.length, settings.crop_windows, targets=settings.targets)
    nll = np.full(settings.length - 1, np.nan, dtype=np.float32)
    for index, window in enumerate(windows):
        with subject.put_on(label, window.end):
            part = _score_windows(subject, document, [window], None, settings.length)
        nll = np.where(np.isnan(part), nll, part)
        progress.at((index + 1) / len(windows))
    run.save("nll", label, document.name, nll)


def _score_windows(
    subject: Subject, document: Document, windows: Sequence[Window], progress: Progress | None, length: int
) -> NDArray[np.float32]:
    """NLL [length-1] with NaN where nothing is scored; later windows win where they score a token again."""
    nll = np.full(length - 1, np.nan, dtype=np.float32)
    for index, window in enumerate(windows):
        nll[window.low - 1 : window.end - 1] = score_window(subject.forward, document, window)
        if progress is not None:
            progress.at((index + 1) / len(windows))
    return nll


def score_window(forward: Forward, document: Document, window: Window) -> NDArray[np.float32]:
    """NLL [num_scored] of a window's scored tokens. A window that begins inside a text begins with the text's BOS."""
    ids = document.ids[window.begin : window.end]
    if window.begin > 0 and document.prefix.size:
        ids = np.concatenate([document.prefix, ids[document.prefix.size :]])
    tokens = torch.from_numpy(np.ascontiguousarray(ids))
    hidden = forward.hidden(tokens)[-window.num_scored - 1 : -1]
    return forward.nll(hidden, tokens[-window.num_scored :]).numpy()


def _cost(subject: Subject, label: str, settings: Settings) -> float:
    kept = subject.keeps(label)
    if kept is not None:
        return settings.crop_windows * effort(min(kept, settings.length))
    if subject.by_length(label):
        windows = length_windows(subject.window, settings.length, settings.crop_windows, targets=settings.targets)
        return sum(effort(w.end) for w in windows)
    return effort(settings.length) + (2 * effort(settings.control_tokens) if label == NONE and subject.reload else 0.0)


def outstanding_cells(
    subject: Subject, documents: Sequence[Document], settings: Settings, run: Run
) -> list[tuple[str, float]]:
    """Label and relative cost of the likelihood cells that are not on disk."""
    return [
        (label, _cost(subject, label, settings))
        for document in documents
        for label in subject.plans
        if not run.has("nll", label, document.name)
    ]


def unread(subject: Subject, kind: str, documents: Sequence[Document], run: Run) -> list[tuple[Document, str]]:
    """The cells of a protocol that are not on disk: documents, each read by every method that does not crop."""
    return [
        (document, label)
        for document in documents
        for label in subject.plans
        if subject.keeps(label) is None and not run.has(kind, label, document.name)
    ]
