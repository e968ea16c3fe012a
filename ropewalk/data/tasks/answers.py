"""Questions of a set that the user hands in, each answered by one document among many.

Structure: RULER (arXiv:2404.06654) section 3, question answering: the document that holds the answer, other documents of
its article first, then documents of other questions, in an order drawn by the seed and numbered; 32 tokens of room; right
when one of the answers stands in what is generated. RULER repeats documents where they run out, the asked one too; here
that is refused.

A set is records: SQuAD's articles (`paragraphs`, `qas`), or objects with `question`, `answers` (a list, SQuAD's `{"text":
[...]}`, or one `answer`) and `context`: the document, or a list of documents that hold the answer together. A `title`
says which article a document belongs to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.tasks.aggregation import filled
from ropewalk.data.tasks.encoding import Ids, encode
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, too_short
from ropewalk.data.tasks.templates import Wording, wording
from ropewalk.data.tasks.words import dealt

OWN: Mapping[Split, Wording] = {
    "measure": Wording(
        opening="Read these documents; one of them answers the question that follows. Answer briefly.\n\n",
        question="Question: {query}\n", start="Answer:", needle="[Document {index}]\n{document}",
    ),
    "train": Wording(
        opening="A folder of papers comes first, then something is asked about one of them. Be brief.\n\n",
        question="Asked: {query}\n", start="Told:", needle="<Paper {index}>\n{document}",
    ),
}  # fmt: skip
BUDGET = 32
"""Tokens of room for the answer."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question of a set."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    """The documents that the answer is in."""
    title: str = ""
    """The article the gold documents belong to."""


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions, and all documents with their articles."""

    questions: tuple[Asked, ...]
    documents: dict[str, str]
    """Document -> title of its article."""


def questions_of(records: Sequence[Any]) -> QuestionSet:
    """The questions of records. Raises `InputError` where one lacks something, saying which, or none has an answer."""
    flat = [one for record in records for one in _squad(record)]
    questions = tuple(_asked(number, record) for number, record in enumerate(flat, start=1))
    answered = tuple(one for one in questions if one.answers and one.question)
    if not answered:
        raise InputError(
            f"the question set has no question with an answer in its {len(flat)} records; expected at least one"
        )
    return QuestionSet(questions=answered, documents={document: one.title for one in questions for document in one.gold})


def _squad(record: Any) -> Iterator[Any]:
    """An article of SQuAD as flat records, other records as they are. Paragraphs without a question stay as documents."""
    if not isinstance(record, dict) or "paragraphs" not in record:
        yield record
        return
    for paragraph in record["paragraphs"]:
        base = {"title": record.get("title", ""), "context": paragraph.get("context")}
        yield {**base, "question": "", "answers": []}
        for one in paragraph.get("qas", []):
            if not one.get("is_impossible"):
                yield {**base, "question": one.get("question"), "answers": [a["text"] for a in one.get("answers", [])]}


def _asked(number: int, record: Any) -> Asked:
    """A record, its spellings made one."""
    if not isinstance(record, dict):
        raise InputError(f"record {number} of the question set is a {type(record).__name__}, expected an object")
    answers, gold = _texts(record.get("answers", record.get("answer"))), _texts(record.get("context"))
    for name, right in (
        ("question", isinstance(record.get("question"), str)), ("answers", answers is not None), ("context", bool(gold))
    ):  # fmt: skip
        if not right:
            raise InputError(
                f"record {number} of the question set has no {name} that is text or a list of texts; give it one"
            )
    kept = tuple(dict.fromkeys(answer for answer in answers or () if answer.strip()))
    return Asked(question=record["question"], answers=kept, gold=tuple(gold or ()), title=str(record.get("title", "")))


def _texts(value: Any) -> list[str] | None:
    """One text, a list of them, or SQuAD's object with one under `text`; None where it is something else."""
    value = value.get("text") if isinstance(value, dict) else value
    value = [value] if isinstance(value, str) else value
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


class QuestionAnswering(Task):
    """One question, its document, and others."""

    id = "qa"
    family = "association"
    summary = "a question of your set, its document among others of the set"
    source = "RULER (arXiv:2404.06654) section 3, question answering; own wording, your questions"
    plants = False
    needs = ("questions",)
    scoring = "generate"

    def build(self, ask: Ask) -> Haystack:
        """The question does not depend on the length; nor do the documents, of which as many are taken as fit.

        The haystacks of a run ask different questions, for they are counted as independent.
        """
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        given = question_set(ask)
        rng, questions = ask.rng(self.id), dealt(given.questions, ask.split)
        if not questions:
            raise InputError(
                f"got {len(given.questions)} questions, none of them for the split {ask.split}; give more of them"
            )
        turn = ask.turn(len(questions), self.id)
        if turn is None:
            raise InputError(
                f"haystack {ask.index + 1} has no question left of the {len(questions)} for the split {ask.split}, and one "
                "that is asked twice tells nothing more; give more questions or fewer --samples"
            )
        one = questions[turn]
        opening = np.concatenate([encoder.head, encoder.ids(words.opening)])
        question = encoder.question(words.question.format(query=one.question), words.start)
        answer = encode(encoder.tokenizer, f" {one.answers[0]}")
        room = ask.length - int(question.size) - max(BUDGET, int(answer.size))
        chosen = self._chosen(ask, words, [*one.gold, *others(rng, given, one)], len(one.gold), room - int(opening.size))
        order = [chosen[i] for i in ask.rng(self.id, "order", ask.length).permutation(len(chosen))]
        told = [_document(ask, words, index, document) for index, document in enumerate(order, start=1)]
        context = filled(encoder, opening, told, room)
        first = min(order.index(document) for document in one.gold)
        position = int(context.size) - sum(int(ids.size) for ids in told[first:])
        asking = Question(
            key=one.question, references=one.answers, question=question, answer=answer, spans=((0, int(answer.size)),),
            position=position, depth=position / int(context.size), rule="any", budget=BUDGET,
        )  # fmt: skip
        return Haystack(
            context=context, questions=(asking,), lengths=ask.lengths, seed=ask.seed, head=encoder.head,
            num_needles=(len(one.gold),), wording=words.name,
        )  # fmt: skip

    @staticmethod
    def _chosen(ask: Ask, words: Wording, ranked: Sequence[str], num_gold: int, free: int) -> list[str]:
        """The first documents, as many as fit. Raises `TextError` where the gold ones do not, or all of them do."""
        used = 0
        for index, document in enumerate(ranked):
            size = int(_document(ask, words, index + 1, document).size)
            if used + size > free and index >= num_gold:
                return list(ranked[:index])
            used += size
            if index + 1 == num_gold and used > free:
                raise too_short(ask.length, ask.length - free + used, "the document with the answer")
        raise TextError(
            f"the question set's {len(ranked)} documents make a haystack of {ask.length - free + used} tokens, expected at "
            f"least {ask.length}; give more questions or smaller --lengths"
        )


def _document(ask: Ask, words: Wording, index: int, document: str) -> Ids:
    """A numbered document, its parts encoded apart, so that the size of all does not depend on their order."""
    before, after = words.needle.split("{document}")
    parts = (before.format(index=index), document, f"{after}\n\n")
    return np.concatenate([encode(ask.encoder.tokenizer, part) for part in parts])


class _Same:
    """Records told apart by which list they are, so that a set is made of them once."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.records is other.records

    def __hash__(self) -> int:
        return id(self.records)


@lru_cache(maxsize=2)
def _known(same: _Same) -> QuestionSet:
    return questions_of(same.records)


def question_set(ask: Ask) -> QuestionSet:
    """What the user handed in."""
    given = ask.sources.get("questions")
    if given is None:
        raise InputError("qa asks the questions of a set of yours; give --questions FILE")
    return _known(_Same(given))


def others(rng: np.random.Generator, given: QuestionSet, one: Asked) -> Sequence[str]:
    """All other documents: those of the same article first."""
    documents = [document for document in sorted(given.documents) if document not in one.gold]
    mixed = [documents[i] for i in rng.permutation(len(documents))]
    return sorted(mixed, key=lambda document: not one.title or given.documents[document] != one.title)


TASKS = (QuestionAnswering(),)
