"""A record of lines, each with a key and a number: which number is noted in line KEY?

Four tasks, one for each kind of key: adjective and noun (`lines-words`), the line's own index (`lines-index`), a code of
six letters (`lines-code`), a UUID (`lines-uuid`). Indices and codes go up from line to line, as they do in the original,
so what is asked at a depth differs from length to length; words and UUIDs are the same questions at every length.

Structure, counts and rule: LongEval's lines (LongChat, 2023): a header, numbers from 1 to 50000, one line asked, right if
the last integer of the answer is its number. The original draws the line uniformly; here it is the one at the depth
asked. The wording is our own. A generated answer may go two tokens beyond the right one: enough to show that its number
ends there, too little to name another.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, product
from typing import ClassVar

import numpy as np

from ropewalk.data.tasks import words
from ropewalk.data.tasks.distractors import rivals, uuid
from ropewalk.data.tasks.encoding import Ids, encode
from ropewalk.data.tasks.lines import Laid, lay
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task
from ropewalk.data.tasks.templates import Wording, wording

OWN: dict[Split, Wording] = {
    "measure": Wording(
        opening="Below is a record. Each of its lines has a key and a number. Keep the number of every line in mind.\n",
        needle="line {key}: the noted number is {value}",
        question="The record has ended. Which number is noted in line {query}?\n",
        start="Answer: The number noted in line {query} is",
    ),
    "train": Wording(
        opening="The following lines were noted at a counter, one number under every name. You will be asked for one.\n",
        needle="entry {key} reads {value}",
        question="That was all. What does entry {query} read?\n",
        start="It reads, entry {query}:",
    ),
}
ANSWER = " {value}"
NUM_VALUES = 50_000
LETTERS = "ABCDEF"
CODE_LENGTH = 6
NUM_CANDIDATES = 5
"""Numbers the true one is ranked among, itself included."""
MORE = 2
"""Tokens that a generated answer may go beyond the right one."""
NUM_TRIED = 64
"""Rising keys whose questions are encoded to know how long a question is."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line."""

    key: str
    value: str


class Records(Task):
    """Numbers of a record's lines, asked by key."""

    family = "retrieval"
    source = "LongEval lines (LongChat, 2023); own wording"
    grows = True
    rising: ClassVar[bool] = False
    """Whether keys go up from line to line, so that a line's key depends on where it stands."""

    def build(self, ask: Ask) -> Haystack:
        """As many lines as the length holds."""
        rng = self._rng(ask, "planted")
        num = 0 if self.rising else len(ask.depths) * len(ask.lengths)
        planted = [Record(key=key, value=number(rng)) for key in islice(self.keys(ask), num)]
        samples = planted or [Record(key=key, value=str(NUM_VALUES)) for key in islice(self.keys(ask), NUM_TRIED)]
        asked, tail = [self._question(ask, record, []) for record in samples], 0
        # Questions differ in length, and which are asked depends on the room they leave; a second round is rarely needed.
        while (need := max(_size(question) for question in asked)) > tail:
            tail, told = need, list[Record]()
            laid = lay(
                ask.encoder, np.concatenate([ask.encoder.head, ask.encoder.ids(self._words(ask).opening)]),
                self._fillers(ask, told, num), [self._line(ask, record) for record in planted], lengths=ask.lengths,
                tail=tail, depths=() if self.rising else ask.depths, what=f"{len(ask.depths) + NUM_CANDIDATES} lines",
                min_fillers=NUM_CANDIDATES + (len(ask.depths) if self.rising else 0),
            )  # fmt: skip
            asked = self._asked(ask, laid, planted, told)
        return Haystack(
            context=laid.context, questions=tuple(asked), lengths=laid.lengths, seed=ask.seed, head=ask.encoder.head,
            cuts=laid.cuts, num_needles=tuple(laid.num_lines(stage) for stage in range(len(laid.cuts))),
            wording=self._words(ask).name,
        )  # fmt: skip

    @abstractmethod
    def keys(self, ask: Ask) -> Iterator[str]:
        """The keys of a haystack: first those planted, then the others; or all, rising."""

    def _rng(self, ask: Ask, name: str) -> np.random.Generator:
        """What is planted does not depend on the length, so that lengths are compared on the same questions."""
        return ask.rng(self.id, name, *(round(depth * 1_000_000) for depth in ask.depths))

    def _fillers(self, ask: Ask, told: list[Record], num: int) -> Iterator[Ids]:
        """The lines that are not planted, noted in `told`."""
        rng = self._rng(ask, "others")
        for key in islice(self.keys(ask), num, None):
            told.append(Record(key=key, value=number(rng)))
            yield self._line(ask, told[-1])

    def _asked(self, ask: Ask, laid: Laid, planted: Sequence[Record], told: Sequence[Record]) -> list[Question]:
        """A question for every depth of every stage."""
        rng, questions = self._rng(ask, "rivals"), []
        for stage, cut in enumerate(laid.cuts):
            for index, depth in enumerate(ask.depths):
                if self.rising:
                    line = laid.nearest(stage, depth)
                    record, position = told[line], laid.starts[line]
                else:
                    rank = laid.asked[stage, index]
                    record, position = planted[rank], laid.placed[rank]
                held = told[: max(laid.num_lines(stage) - laid.num_planted(stage), NUM_CANDIDATES)]
                others = rivals(rng, record.value, [other.value for other in held], NUM_CANDIDATES - 1)
                questions.append(
                    replace(
                        self._question(ask, record, others),
                        position=position,
                        depth=position / cut,
                        asked_depth=depth,
                        stage=stage,
                    )
                )
        return questions

    def _words(self, ask: Ask) -> Wording:
        return wording(ask, self.id, OWN)

    def _line(self, ask: Ask, record: Record) -> Ids:
        told = self._words(ask).needle.format(key=record.key, value=record.value)
        return encode(ask.encoder.tokenizer, f"{told}\n")

    def _question(self, ask: Ask, record: Record, others: Sequence[str]) -> Question:
        encoder, told = ask.encoder, self._words(ask)
        answers = [encoder.ids(ANSWER.format(value=value)) for value in (record.value, *others)]
        return Question(
            key=record.key,
            references=(record.value,),
            question=encoder.question(told.question.format(query=record.key), told.start.format(query=record.key)),
            answer=answers[0],
            candidates=tuple(answers),
            rule="last-integer",
            budget=int(answers[0].size) + MORE,
        )


class Words(Records):
    """Keys of an adjective and a noun."""

    id = "lines-words"
    summary = "the number of one line of a long record, by a key of two words"

    def keys(self, ask: Ask) -> Iterator[str]:
        """All pairs of the split's words, in an order of the seed."""
        num = words.num_pairs(ask.split)
        return (pair.replace(" ", "-") for pair in words.pairs(self._rng(ask, "keys"), num, ask.split))


class Index(Records):
    """Keys that count the lines."""

    id = "lines-index"
    summary = "the number of one line of a long record, by the line's index"
    rising = True

    def keys(self, ask: Ask) -> Iterator[str]:
        """1, 2, 3 and so on."""
        return map(str, count(1))


class Code(Records):
    """Keys of six letters."""

    id = "lines-code"
    summary = "the number of one line of a long record, by a code of six letters"
    rising = True

    def keys(self, ask: Ask) -> Iterator[str]:
        """AAAAAA, AAAAAB and so on."""
        return map("".join, product(LETTERS, repeat=CODE_LENGTH))


class Uuid(Records):
    """Keys that are UUIDs."""

    id = "lines-uuid"
    summary = "the number of one line of a long record, by a UUID"

    def keys(self, ask: Ask) -> Iterator[str]:
        """As many as are asked for."""
        rng = self._rng(ask, "keys")
        while True:
            yield uuid(rng)


def number(rng: np.random.Generator) -> str:
    """A value of a line."""
    return str(rng.integers(1, NUM_VALUES + 1))


def _size(question: Question) -> int:
    """Tokens of a question with its longest answer."""
    return int(question.question.size) + max(question.room, *(int(answer.size) for answer in question.candidates))


TASKS = (Words(), Index(), Code(), Uuid())
