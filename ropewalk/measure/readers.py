"""A live model as a reader of haystacks: each cell's plan is put on, the questions are asked, the plan is taken off."""

from dataclasses import replace

import numpy as np

from ropewalk.core.errors import MethodError
from ropewalk.core.progress import Progress
from ropewalk.data.tasks.task import Haystack
from ropewalk.measure.answering.answer import Answer, Scoring
from ropewalk.measure.answering.local import answer_all, answer_alone
from ropewalk.measure.comparison import Subject
from ropewalk.measure.maps import Cell
from ropewalk.measure.settings import GROW, NO_CONTEXT, STAND_ALONE


class LocalReader:
    """Answers by the model in this process."""

    engine = "transformers"

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def check(self, cell: Cell) -> None:
        """Raises `MethodError` where a cell would share a prefix that each of its lengths reads differently."""
        if cell.protocol == GROW and self.subject.by_length(cell.label):
            raise MethodError(
                f"{cell.label} reads every length with frequencies of its own, so one growing haystack cannot serve all "
                "lengths; use --mode fixed"
            )

    def keeps_whole(self, cell: Cell) -> bool:
        """Whether cropping crops nothing of this cell, so that its answers are the untouched model's."""
        kept = self.subject.keeps(cell.label)
        return kept is not None and cell.length <= kept and not self.subject.geometry.from_origin

    def begin(self, cell: Cell, haystack: Haystack, scoring: Scoring) -> bool:
        """Nothing is done before its turn: one model reads one haystack at a time."""
        return False

    def drop(self, cell: Cell) -> None:
        """Nothing was begun."""

    def answers(self, cell: Cell, haystack: Haystack, scoring: Scoring, progress: Progress) -> list[Answer]:
        """Answers in the order of the questions; without any context for that control."""
        subject = self.subject
        if cell.protocol == NO_CONTEXT:
            alone = without_context(haystack)
            if alone is not None:
                return answer_all(subject.forward, subject.tokenizer, alone, scoring=scoring)
            return [
                answer_alone(subject.forward, subject.tokenizer, haystack.head, question, scoring=scoring)
                for question in haystack.questions
            ]
        if cell.protocol == STAND_ALONE:
            # Only whether it answers is compared with its branch, so nothing is ranked: a prompt for each question.
            bare = [replace(question, candidates=()) for question in haystack.questions]
            return [
                answer_alone(
                    subject.forward, subject.tokenizer, haystack.context[: haystack.cuts[question.stage]], question,
                    scoring=scoring,
                )
                for question in bare
            ]  # fmt: skip
        with subject.put_on(cell.label, haystack.length):
            return answer_all(
                subject.forward, subject.tokenizer, haystack, scoring=scoring, keep_last=subject.keeps(cell.label),
                tick=progress.at,
            )  # fmt: skip


def without_context(haystack: Haystack) -> Haystack | None:
    """The questions alone, as one haystack: what all begin with is its context, so the ids are a prompt's own.

    None where they begin with nothing alike: there is no cache to branch from.
    """
    asked = [question.question for question in haystack.questions]
    shared = 0
    while shared < min(ids.size for ids in asked) - 1 and len({int(ids[shared]) for ids in asked}) == 1:
        shared += 1
    if not haystack.head.size + shared:
        return None
    context = np.concatenate([haystack.head, asked[0][:shared]])
    questions = tuple(replace(question, question=question.question[shared:], stage=0) for question in haystack.questions)
    return replace(haystack, context=context, questions=questions, cuts=(int(context.size),), lengths=haystack.lengths[:1])
