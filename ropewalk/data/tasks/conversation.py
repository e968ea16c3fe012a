"""Repeat the second poem about the sea: of several answers to one and the same request, the one that is asked for.

A reader asks a writer for small pieces, each of a kind and about a topic. Some requests are made four times, word for
word, and every time another piece is written. The question names the request and a number, so finding the words of the
request is not enough: their occurrences have to be counted. The answer begins with a tag that the question gives, then
comes the piece.

Structure and rule: MRCR (Michelangelo, arXiv:2409.12640; its second version has 2, 4 or 8 occurrences): 0 unless the tag
comes first, else difflib's ratio. Pieces are drawn from small grammars of ours, so no model has to write them; they are
shorter than the original's (about 70 tokens) and use no style beside kind and topic.

What a guess is worth by the rule (a test measures it): repeating any piece at random 0.03, any of the four that the request
fits 0.31. The original states 0.01 and 0.27. The second counts as a guess, since the words of the question suffice for it.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.data.tasks import words
from ropewalk.data.tasks.distractors import spare_depths
from ropewalk.data.tasks.encoding import Ids, encode
from ropewalk.data.tasks.lines import lay
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task

OPENING = {
    "measure": "A reader asks a writer for small pieces. At the end one of them is wanted again.\n",
    "train": "These are somebody's wishes and what was written for them. Something will have to be copied.\n",
}
EXCHANGE = {
    "measure": "Reader: Please write a {kind} about {topic}.\nWriter: {piece}\n",
    "train": "Wish: One {kind} on {topic}, if you can.\nText: {piece}\n",
}
QUESTION = {
    "measure": "Reader: First write {tag}, then once more the {ordinal} {kind} about {topic}, word for word.\n",
    "train": "Wish: Put {tag} in front of the {ordinal} {kind} on {topic} and copy it whole.\n",
}
START = {"measure": "Writer:", "train": "Text:"}
ORDINALS = ("first", "second", "third", "fourth")
NUM_SAME = len(ORDINALS)
"""How often a request that is asked about is made."""
ORDER = (0, 1, 2, 1, 2, 1, 2, 3)
"""Lines of a grammar in a piece: beyond 200 characters, where difflib leaves frequent letters out of account."""
TAG_LENGTH = 12
LETTERS = string.ascii_letters + string.digits
GUESS = 0.31
"""Ratio of any of the pieces that a request fits, the right one among them."""


def _sections() -> dict[str, list[list[str]]]:
    """For each heading of grammars.txt its lines, each a list of alternatives."""
    text = files("ropewalk.data.tasks").joinpath("grammars.txt").read_text(encoding="utf-8")
    sections = (section.split("]\n", 1) for section in text.split("\n[")[1:])
    return {kind: [line.split(" | ") for line in lines.strip().splitlines()] for kind, lines in sections}


GRAMMARS = _sections()
TOPICS = tuple(topic for line in GRAMMARS.pop("topic") for topic in line)
KINDS = tuple(GRAMMARS)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the writer."""

    kind: str
    topic: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """A request with what was written, and which time it was made: 0 is the first."""

    request: Request
    piece: str
    time: int = 0


class Conversation(Task):
    """One of several answers to the same request, to be repeated."""

    id = "conversation"
    family = "conversation"
    summary = "repeat the i-th of several answers to one request in a long dialogue"
    source = "MRCR (arXiv:2409.12640), structure and rule; dialogue and wording our own"
    grows = True
    scoring = "generate"

    def build(self, ask: Ask) -> Haystack:
        """A dialogue with requests made four times; which time is asked about follows from the depth."""
        encoder, split = ask.encoder, ask.split
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        depths = (*ask.depths, *spare_depths(rng, ask.depths, -len(ask.depths) % NUM_SAME))
        planted, others = _planted(rng, split, len(depths) * len(ask.lengths))
        asks = [_question(ask, rng, planted, index) for index in range(len(planted))]
        laid = lay(
            encoder, np.concatenate([encoder.head, encoder.ids(OPENING[split])]), _fillers(ask, self.id, others),
            [_exchange(ask, written) for written in planted], lengths=ask.lengths, depths=depths,
            tail=max(q.question.size + max(answer.size for answer in q.candidates) for q in asks),
            what=f"{len(depths)} requests and another",
        )  # fmt: skip
        questions = [
            replace(
                asks[rank],
                position=laid.placed[rank],
                depth=laid.placed[rank] / laid.cuts[stage],
                asked_depth=ask.depths[index],
                stage=stage,
            )
            for (stage, index), rank in laid.asked.items()
            if index < len(ask.depths)
        ]
        return Haystack(
            context=laid.context, questions=tuple(questions), lengths=laid.lengths, seed=ask.seed, head=encoder.head,
            cuts=laid.cuts, num_needles=tuple(laid.num_planted(stage) for stage in range(len(laid.cuts))),
        )  # fmt: skip

    def guess(self, question: Question) -> float:
        """Any of the pieces that the request fits: as alike words are worth something, more than one in four."""
        return GUESS


def write(rng: np.random.Generator, request: Request, split: Split) -> str:
    """A piece from the grammar of its kind."""
    stock = {"a": words.dealt(words.ADJECTIVES, split), "n": words.dealt(words.NOUNS, split), "t": (request.topic,)}
    text = " ".join(_one(rng, GRAMMARS[request.kind][line]) for line in ORDER)
    piece = re.sub(r"\{(.)\}", lambda place: _one(rng, stock[place[1]]), text)
    # The grammars say "a" before every word.
    piece = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", piece)
    return piece[0].upper() + piece[1:]


def _one(rng: np.random.Generator, ways: Sequence[str]) -> str:
    return ways[int(rng.integers(len(ways)))]


def _planted(rng: np.random.Generator, split: Split, num: int) -> tuple[list[Written], list[Request]]:
    """`num` requests, four of each, two of them taking turns; and the requests that are left for the rest."""
    pool = [Request(kind=kind, topic=topic) for kind in words.dealt(KINDS, split) for topic in words.dealt(TOPICS, split)]
    pool = [pool[i] for i in rng.permutation(len(pool))]
    num_groups = num // NUM_SAME
    if num_groups >= len(pool):
        raise InputError(
            f"there are {len(pool)} different requests, got {num_groups} to ask about; give fewer --depths or --lengths"
        )
    order: list[int] = []
    for group in range(0, num_groups, 2):
        pair = [index for index in (group, group + 1) if index < num_groups] * NUM_SAME
        order += [pair[i] for i in rng.permutation(len(pair))]
    planted: list[Written] = []
    for index, group in enumerate(order):
        piece = write(rng, pool[group], split)
        while any(piece == written.piece for written in planted):
            piece = write(rng, pool[group], split)
        planted.append(Written(request=pool[group], piece=piece, time=order[:index].count(group)))
    return planted, pool[num_groups:]


def _fillers(ask: Ask, task: str, requests: list[Request]) -> Iterator[Ids]:
    """Other requests without an end."""
    rng = ask.rng(task, "others")
    while True:
        request = requests[rng.integers(len(requests))]
        yield _exchange(ask, Written(request=request, piece=write(rng, request, ask.split)))


def _exchange(ask: Ask, written: Written) -> Ids:
    told = EXCHANGE[ask.split].format(kind=written.request.kind, topic=written.request.topic, piece=written.piece)
    return encode(ask.encoder.tokenizer, told)


def _question(ask: Ask, rng: np.random.Generator, planted: list[Written], index: int) -> Question:
    """The question about one planted request. Its candidates are all pieces that the request fits, behind the same tag."""
    encoder, asked = ask.encoder, planted[index]
    tag = "".join(rng.choice(list(LETTERS), size=TAG_LENGTH))
    told = QUESTION[ask.split].format(
        tag=tag, ordinal=ORDINALS[asked.time], kind=asked.request.kind, topic=asked.request.topic
    )
    head = encoder.ids(f" {tag}")
    same = [asked, *(other for other in planted if other.request == asked.request and other is not asked)]
    answers = [np.concatenate([head, encoder.ids(f" {written.piece}")]) for written in same]
    return Question(
        key=f"{ORDINALS[asked.time]} {asked.request.kind} about {asked.request.topic}",
        references=(tag, asked.piece),
        question=encoder.question(told, START[ask.split]),
        answer=answers[0],
        spans=((0, int(head.size)), (int(head.size), int(answers[0].size))),
        candidates=tuple(answers),
        rule="ratio",
    )


TASKS = (Conversation(),)
