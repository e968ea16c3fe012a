"""Questions of a set that the user hands in, each answered by one document among many.

Structure: RULER (arXiv:2404.06654) section 3, question answering: the document that holds the answer, other documents of
its article first, then documents of other questions, in an order drawn by the seed and numbered; 32 tokens of room; right
when one of the answers stands in what is generated. RULER repeats documents where they run out, the asked one too; here
that is refused.

A set is a file: SQuAD's JSON (`data`, `paragraphs`, `qas`), a JSON list, or JSON lines, of records with `question`,
`answers` (a list, SQuAD's `{"text": [...]}`, or one `answer`) and `context`: the document, or a list of documents that
hold the answer together. A `title` says which article a document belongs to.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
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


@cache
def read_questions(path: Path) -> QuestionSet:
    """The questions of a file. Raises `InputError` where a record lacks something, saying which."""
    try:
        text = path.read_text(encoding="utf-8")
        try:
            told = json.loads(text)
        except ValueError:
            told = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON or JSON lines ({error}); expected a question set") from error
    records = told if isinstance(told, list) else list(_squad(told)) if isinstance(told, dict) and "data" in told else [told]
    questions = tuple(_asked(path, number, record) for number, record in enumerate(records, start=1))
    answered = tuple(one for one in questions if one.answers and one.question)
    if not answered:
        raise InputError(f"{path} has no question with an answer in its {len(questions)} records; expected at least one")
    return QuestionSet(questions=answered, documents={document: one.title for one in questions for document in one.gold})


def _squad(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """SQuAD's nested form as flat records. Paragraphs without a question stay as documents."""
    for article in told["data"]:
        for paragraph in article.get("paragraphs", []):
            base = {"title": article.get("title", ""), "context": paragraph.get("context")}
            yield {**base, "question": "", "answers": []}
            for one in paragraph.get("qas", []):
                if not one.get("is_impossible"):
                    yield {**base, "question": one.get("question"), "answers": [a["text"] for a in one.get("answers", [])]}


def _asked(path: Path, number: int, record: Any) -> Asked:
    """A record, its spellings made one."""
    if not isinstance(record, dict):
        raise InputError(f"record {number} of {path} is a {type(record).__name__}, expected an object")
    answers, gold = _texts(record.get("answers", record.get("answer"))), _texts(record.get("context"))
    for name, right in (
        ("question", isinstance(record.get("question"), str)), ("answers", answers is not None), ("context", bool(gold))
    ):  # fmt: skip
        if not right:
            raise InputError(f"record {number} of {path} has no {name} that can be read; expected text or a list of texts")
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
        """The question does not depend on the length; nor do the documents, of which as many are taken as fit."""
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        given = question_set(ask)
        rng, questions = ask.rng(self.id), dealt(given.questions, ask.split)
        if not questions:
            raise InputError(
                f"got {len(given.questions)} questions, none of them for the split {ask.split}; give more of them"
            )
        one = questions[int(rng.integers(0, len(questions)))]
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


def question_set(ask: Ask) -> QuestionSet:
    """What the user handed in: a set, or the path of one."""
    given = ask.sources.get("questions")
    if given is None:
        raise InputError("qa asks the questions of a set of yours; give --questions FILE")
    return given if isinstance(given, QuestionSet) else read_questions(Path(given))


def others(rng: np.random.Generator, given: QuestionSet, one: Asked) -> Sequence[str]:
    """All other documents: those of the same article first."""
    documents = [document for document in sorted(given.documents) if document not in one.gold]
    mixed = [documents[i] for i in rng.permutation(len(documents))]
    return sorted(mixed, key=lambda document: not one.title or given.documents[document] != one.title)


TASKS = (QuestionAnswering(),)
