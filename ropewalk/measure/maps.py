"""Retrieval maps: every task, at every length and depth, by every method.

A cell is one method reading one haystack: at one length, or (mode `grow`) at all of them. Its samples are appended in
one write, and each says how many the cell has, so that a half-written cell is known and asked again. A cell is a pure
function of its spec, the plans and the texts. Whether a cell is asked at all may hang on a sequential stop, which depends
on the samples of the haystacks before it and so is the same after a resume.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from ropewalk.core.progress import Progress
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.data.tasks.encoding import EMPTY, Encoder
from ropewalk.data.tasks.task import Ask, Haystack, Task, find_task
from ropewalk.measure.answering.answer import Answer
from ropewalk.measure.answering.answer import Scoring as Scored
from ropewalk.measure.sequential import Stop
from ropewalk.measure.settings import ALONE, GROW, MULTIKEY, NO_CONTEXT, NONE, SINGLE, STAND_ALONE, MapSettings
from ropewalk.measure.windows import effort


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method reading one haystack."""

    label: str
    task: str
    protocol: str
    lengths: tuple[int, ...]
    index: int
    """Of the haystack; the same for every method, so that methods are compared on the same prompts."""
    depths: tuple[float, ...]

    @property
    def key(self) -> str:
        """What makes two cells the same; stands in each sample."""
        return json.dumps([self.label, self.task, self.protocol, self.lengths, self.index, self.depths])

    @property
    def length(self) -> int:
        """The longest."""
        return self.lengths[-1]


class Reader(Protocol):
    """Whoever answers a haystack's questions: a live model with plans, or a server."""

    engine: str

    def answers(self, cell: Cell, haystack: Haystack, scoring: Scored, progress: Progress) -> list[Answer]:
        """Answers in the order of the questions."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What haystacks are made of: a tokenizer, the documents, and what the user handed in."""

    tokenizer: Any
    documents: Sequence[Document]
    settings: MapSettings
    sources: dict[str, Any]
    seed: int

    def encoder(self) -> Encoder:
        """Pieces as ids, in the template of the run."""
        return Encoder(tokenizer=self.tokenizer, prefix=self._prefix(), template=self.settings.template)

    def build(self, cell: Cell) -> Haystack:
        """A cell's haystack. Raises `TextError` where a length leaves no room or no text long enough is there."""
        document = self.document(cell)
        ask = Ask(
            encoder=self.encoder(),
            lengths=cell.lengths,
            depths=cell.depths,
            seed=self.seed * 1_000_003 + cell.index,
            filler=EMPTY if document is None else document.ids[document.prefix.size :],
            sources=self.sources,
        )
        return find_task(cell.task).build(ask)

    def document(self, cell: Cell) -> Document | None:
        """Haystacks take the documents in turn, so that no single text decides."""
        return self.documents[cell.index % len(self.documents)] if self.documents else None

    def _prefix(self) -> Any:
        if self.documents:
            return self.documents[0].prefix
        from ropewalk.data.documents import tokenize

        return tokenize("a b c", self.tokenizer, "").prefix


def cells(settings: MapSettings) -> Iterator[Cell]:
    """Every cell, the untouched model and the shortest length first: what is short is what others are held against."""
    for name in settings.tasks:
        task = find_task(name)
        for protocol in _protocols(task, settings):
            stages = [settings.lengths] if protocol == GROW else [(length,) for length in settings.lengths]
            for lengths in stages:
                for label in settings.methods:
                    yield from _haystacks(task, label, protocol, lengths, settings)
        shortest = settings.lengths[:1]
        yield from _haystacks(task, NONE, NO_CONTEXT, shortest, settings)
        if settings.check_branches and task.plants and "fixed" in settings.modes:
            yield Cell(label=NONE, task=name, protocol=STAND_ALONE, lengths=shortest, index=0, depths=settings.depths)


def _protocols(task: Task, settings: MapSettings) -> list[str]:
    """How a task is asked in each mode; a task with one question per haystack knows one way only."""
    if not task.plants:
        return [ALONE]
    found = [{"fixed": MULTIKEY, "grow": GROW, "single": SINGLE}[mode] for mode in settings.modes]
    return [protocol for protocol in found if protocol != GROW or task.grows]


def _haystacks(task: Task, label: str, protocol: str, lengths: tuple[int, ...], settings: MapSettings) -> Iterator[Cell]:
    groups: list[tuple[float, ...]] = [settings.depths] if task.plants else [()]
    if protocol == SINGLE:
        groups = [(depth,) for depth in settings.depths]
    for index in range(settings.num_haystacks):
        for depths in groups:
            yield Cell(label=label, task=task.id, protocol=protocol, lengths=lengths, index=index, depths=depths)


def run_map(reader: Reader, prompts: Prompts, run: Run, progress: Progress) -> None:
    """Every cell of the map that is not on disk yet."""
    drop_halves(run)
    samples = run.samples()
    done = {str(s["cell"]) for s in samples}
    stop = Stop(prompts.settings, samples)
    for cell in cells(prompts.settings):
        if cell.key in done or stop.decided(cell):
            continue
        haystack = prompts.build(cell)
        scoring = prompts.settings.scoring_of(find_task(cell.task).scoring)
        with progress.task(f"{cell.task} {cell.protocol} {cell.length} {cell.label}", effort(cell.length)):
            began = time.monotonic()
            answers, note = _same_as_none(reader, cell, samples), "identical to none: nothing is cropped"
            if answers is None:
                answers, note = reader.answers(cell, haystack, scoring, progress), ""
            seconds = (time.monotonic() - began) / len(answers)
        new = _samples(cell, haystack, answers, prompts, reader.engine, seconds, note or None)
        run.append("samples.jsonl", new)
        samples += new
        stop.add(new)


def drop_halves(run: Run) -> None:
    """Takes the samples of half-written cells out, so that no answer counts twice."""
    samples = run.samples()
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample["cell"]] = counts.get(sample["cell"], 0) + 1
    whole = [s for s in samples if counts[s["cell"]] == s["cell_size"]]
    if len(whole) != len(samples):
        run.rewrite("samples.jsonl", whole)


def outstanding(settings: MapSettings, run: Run) -> float:
    """Cost of the cells that are not on disk."""
    done = {str(s["cell"]) for s in run.samples()}
    return sum(effort(cell.length) for cell in cells(settings) if cell.key not in done)


def _same_as_none(reader: Reader, cell: Cell, samples: Sequence[dict[str, Any]]) -> list[Answer] | None:
    """The untouched model's answers to the same prompts, where cropping crops nothing."""
    keeps = getattr(reader, "keeps_whole", None)
    if cell.label == NONE or len(cell.lengths) > 1 or keeps is None or not keeps(cell):
        return None
    twin = Cell(
        label=NONE, task=cell.task, protocol=cell.protocol, lengths=cell.lengths, index=cell.index, depths=cell.depths
    )
    found = [_answer(s) for s in samples if s["cell"] == twin.key]
    return found or None


def _answer(sample: dict[str, Any]) -> Answer:
    return Answer(**{f.name: sample[f.name] for f in fields(Answer)})


def _samples(
    cell: Cell, haystack: Haystack, answers: Sequence[Answer], prompts: Prompts, engine: str, seconds: float,
    note: str | None,
) -> list[dict[str, Any]]:  # fmt: skip
    document = prompts.document(cell)
    return [
        {
            "cell": cell.key,
            "cell_size": len(answers),
            "method": cell.label,
            "protocol": cell.protocol,
            "task": cell.task,
            "asked_length": cell.lengths[question.stage],
            "length": answer.num_prompt_tokens + int(question.answer.size),
            "haystack": cell.index,
            "seed": haystack.seed,
            "asked_depth": question.asked_depth,
            "depth": question.depth,
            "position": question.position,
            "distance": None if question.position is None else haystack.cuts[question.stage] - question.position,
            "num_needles": haystack.num_needles[question.stage] if haystack.num_needles else None,
            "key": question.key,
            "references": list(question.references),
            "guess": find_task(cell.task).guess(question),
            "document": None if document is None else document.name,
            "template": prompts.settings.template + ("" if haystack.wording == "own" else f", {haystack.wording}"),
            "engine": engine,
            "seconds": seconds,
            "note": note,
            **answer.to_dict(),
        }
        for question, answer in zip(haystack.questions, answers, strict=True)
    ]
