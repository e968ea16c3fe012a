"""Retrieval maps: every task, at every length and depth, by every method.

A cell is one method reading one haystack: at one length, or (mode `grow`) at all of them. Its samples are appended in
one write, and each says how many the cell has, so that a half-written cell is known and asked again. A cell is a pure
function of its spec, the plans and the texts. Whether a cell is asked at all may hang on a sequential stop, which depends
on the samples of the haystacks before it and so is the same after a resume.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from ropewalk.core.errors import TextError
from ropewalk.core.progress import Progress
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.data.tasks.encoding import EMPTY, Encoder
from ropewalk.data.tasks.task import Ask, Haystack, Task, find_task
from ropewalk.measure.answering.answer import Answer
from ropewalk.measure.answering.answer import Scoring as Scored
from ropewalk.measure.sequential import Stop
from ropewalk.measure.settings import ALONE, GROW, MULTIKEY, NO_CONTEXT, SINGLE, STAND_ALONE, MapSettings
from ropewalk.measure.windows import effort

KEPT_TOKENS = 2**23
"""Tokens of the haystacks that are kept for the next method, 64 MB of ids."""


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

    def keeps_whole(self, cell: Cell) -> bool:
        """Whether cropping crops nothing of this cell, so that its answers are those of the uncropped."""

    def begin(self, cell: Cell, haystack: Haystack, scoring: Scored) -> bool:
        """Takes a cell in before its turn, and says whether the next one may come too."""

    def drop(self, cell: Cell) -> None:
        """Forgets a cell that was taken in and is not wanted any more."""

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

    @cached_property
    def encoder(self) -> Encoder:
        """Pieces as ids, in the template of the run; one for the whole run, since it keeps what it encoded."""
        return Encoder(tokenizer=self.tokenizer, prefix=self._prefix(), template=self.settings.template)

    def build(self, cell: Cell) -> Haystack:
        """A cell's haystack. Raises `TextError` where a length leaves no room or no text long enough is there.

        Methods read the same haystacks one after another, so the last ones are kept.
        """
        key = (cell.task, cell.lengths, cell.index, cell.depths)
        found = self._kept.pop(key, None) or self._build(cell)
        self._kept[key] = found
        while len(self._kept) > 1 and sum(kept.context.size for kept in self._kept.values()) > KEPT_TOKENS:
            del self._kept[next(iter(self._kept))]
        if cell.protocol != STAND_ALONE:
            return found
        checked = [cell.lengths.index(n) for n in self.settings.checked_of(cell.task) if n in cell.lengths]
        return replace(found, questions=tuple(question for question in found.questions if question.stage in checked))

    @cached_property
    def _kept(self) -> dict[tuple[Any, ...], Haystack]:
        """Haystacks, the last one used last."""
        return {}

    def _build(self, cell: Cell) -> Haystack:
        document = self.document(cell)
        ask = Ask(
            encoder=self.encoder,
            lengths=cell.lengths,
            depths=cell.depths,
            seed=self.seed * 1_000_003 + cell.index,
            series=self.seed,
            index=cell.index,
            filler=EMPTY if document is None else document.ids[document.prefix.size :],
            sources=self.sources,
        )
        return find_task(cell.task).build(ask)

    def document(self, cell: Cell) -> Document | None:
        """Haystacks take the documents in turn, so that no single text decides."""
        return self.documents[cell.index % len(self.documents)] if self.documents else None

    def template(self, haystack: Haystack) -> str:
        """What the rows say of a haystack's form: its template, and whose words they are if not ours."""
        return self.settings.template + ("" if haystack.wording == "own" else f", {haystack.wording}")

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
            for lengths in _stages(task, protocol, settings):
                for label in settings.methods:
                    yield from _haystacks(task, label, protocol, lengths, settings)
        yield from _haystacks(task, settings.untouched, NO_CONTEXT, settings.lengths_of(name)[:1], settings)
        if settings.check_branches and task.plants:
            yield from _checks(task, settings)


def _checks(task: Task, settings: MapSettings) -> Iterator[Cell]:
    """One haystack of each way of branching, to be asked by stand-alone prompts too."""
    found: dict[tuple[int, ...], None] = {}
    for protocol in _protocols(task, settings):
        if protocol in (MULTIKEY, GROW):
            stages = _stages(task, protocol, settings)
            found |= dict.fromkeys(s for s in stages if set(s) & set(settings.checked_of(task.id)))
    for lengths in found:
        yield Cell(
            label=settings.untouched, task=task.id, protocol=STAND_ALONE, lengths=lengths, index=0, depths=settings.depths
        )


def rehearsed(settings: MapSettings, num_documents: int) -> Iterator[Cell]:
    """The cells whose haystacks show what can be refused: lengths, depths and texts decide that, not who reads them.

    The last haystack is one of them, since what is drawn without repeats may run out.
    """
    seen = set()
    for cell in cells(settings):
        last = cell.index == settings.num_haystacks - 1
        place = (cell.task, cell.lengths, cell.depths, cell.index % max(1, num_documents), last)
        if place not in seen:
            seen.add(place)
            yield cell


def without_room(prompts: Prompts) -> tuple[tuple[str, int], ...]:
    """Tasks, and the lengths that nobody named in which they cannot be built."""
    settings, found = prompts.settings, list[tuple[str, int]]()
    for name in settings.tasks:
        kept = [length for length in settings.lengths if length not in settings.inside]
        for length in reversed(settings.inside):
            trial = replace(
                settings, methods=(settings.untouched,), tasks=(name,), lengths=tuple(sorted([*kept, length])), inside=()
            )
            if _fits(prompts, trial, length):
                kept.append(length)
            else:
                found.append((name, length))
    return tuple(found)


def _fits(prompts: Prompts, trial: MapSettings, length: int) -> bool:
    """Whether haystacks of a length can be built; of those that grow the first is tried, which holds all lengths."""
    try:
        for cell in cells(trial):
            if length in cell.lengths and (cell.protocol != GROW or cell.index == 0):
                prompts.build(cell)
    except TextError:
        return False
    return True


def _protocols(task: Task, settings: MapSettings) -> list[str]:
    """How a task is asked in each mode; a task with one question per haystack can grow or is asked in one way."""
    names = {"fixed": MULTIKEY, "grow": GROW, "single": SINGLE}
    if not task.plants:
        names = {"fixed": ALONE, "grow": GROW if task.grows else ALONE, "single": ALONE}
    found = dict.fromkeys(names[mode] for mode in settings.modes)
    return [protocol for protocol in found if protocol != GROW or task.grows]


def _stages(task: Task, protocol: str, settings: MapSettings) -> list[tuple[int, ...]]:
    """The lengths of each haystack: all in one that grows."""
    lengths = settings.lengths_of(task.id)
    return [lengths] if protocol == GROW else [(length,) for length in lengths]


def _haystacks(task: Task, label: str, protocol: str, lengths: tuple[int, ...], settings: MapSettings) -> Iterator[Cell]:
    groups: list[tuple[float, ...]] = [settings.depths] if task.plants else [()]
    if protocol == SINGLE:
        groups = [(depth,) for depth in settings.depths]
    for index in range(settings.num_haystacks):
        for depths in groups:
            yield Cell(label=label, task=task.id, protocol=protocol, lengths=lengths, index=index, depths=depths)


def run_map(reader: Reader, prompts: Prompts, run: Run, progress: Progress, *, base: Iterable[dict[str, Any]] = ()) -> None:
    """Every cell of the map that is not on disk yet. `base` are an earlier run's samples of the untouched model.

    A reader may take cells in before their turn. What is written does not hang on that: cells are written in their order,
    and one that the sequential stop rules out when its turn comes is not written at all.
    """
    drop_halves(run)
    samples = run.samples()
    done = {str(s["cell"]) for s in samples}
    stop = Stop(prompts.settings, [*base, *samples])
    todo = (cell for cell in cells(prompts.settings) if cell.key not in done and not stop.decided(cell))
    for cell, haystack, scoring in _begun(reader, prompts, todo, samples):
        if stop.decided(cell):
            reader.drop(cell)
            continue
        with progress.task(f"{cell.task} {cell.protocol} {cell.length} {cell.label}", effort(cell.length)):
            began = time.monotonic()
            answers, seconds = _copied(reader, prompts.settings, cell, samples), None
            if answers is None:
                answers = reader.answers(cell, haystack, scoring, progress)
                seconds = (time.monotonic() - began) / len(answers)
        new = _samples(cell, haystack, answers, prompts, reader.engine, seconds)
        run.append("samples.jsonl", new)
        samples += new
        stop.add(new)


def _begun(
    reader: Reader, prompts: Prompts, todo: Iterable[Cell], samples: Sequence[dict[str, Any]]
) -> Iterator[tuple[Cell, Haystack, Scored]]:
    """Cells in their order with their haystacks, begun as early as the reader wants them."""
    waiting: deque[tuple[Cell, Haystack, Scored]] = deque()
    for cell in todo:
        haystack = prompts.build(cell)
        waiting.append((cell, haystack, prompts.settings.scoring_of(find_task(cell.task).scoring)))
        # A twin's answers are copied, and may not be there yet.
        if not _is_copy(reader, prompts.settings, cell) and reader.begin(*waiting[-1]):
            continue
        yield waiting.popleft()
    yield from waiting


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


def _is_copy(reader: Reader, settings: MapSettings, cell: Cell) -> bool:
    """Whether cropping crops nothing here."""
    return cell.label != settings.untouched and len(cell.lengths) == 1 and reader.keeps_whole(cell)


def _copied(reader: Reader, settings: MapSettings, cell: Cell, samples: Sequence[dict[str, Any]]) -> list[Answer] | None:
    """The untouched model's answers to the same prompts, where cropping crops nothing."""
    if not _is_copy(reader, settings, cell):
        return None
    twin = replace(cell, label=settings.untouched)
    found = [Answer.from_dict(s) for s in samples if s["cell"] == twin.key]
    same = f"identical to {settings.untouched}: nothing is cropped"
    return [replace(answer, note="; ".join(filter(None, (answer.note, same)))) for answer in found] or None


def _samples(
    cell: Cell, haystack: Haystack, answers: Sequence[Answer], prompts: Prompts, engine: str, seconds: float | None
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
            "template": prompts.template(haystack),
            "engine": engine,
            "seconds": seconds,
            **answer.to_dict(),
        }
        for question, answer in zip(haystack.questions, answers, strict=True)
    ]
