"""A long chat about one topic after another: which was the first?

Each topic is opened and closed by a fixed phrase, between them stands what people said of it. A topic takes about 650
tokens, as in the original, so 5, 10, 15, 20 and 25 topics come to 3k, 6k, 10k, 13k and 16k tokens; where the length asks
for more than there are topics, each takes more. Short conversations on one topic are joined. The last one is cut where
the length ends.

Conversations are the user's (`conversations`: records of `topic` and `turns`, a turn a text or an object with `text` or
`content`), else those of the package chitchat-dataset (MIT) if it is installed. Nothing is downloaded.

Structure and counts: LongEval's topics (LongChat, 2023); the header names no number, which would change as a haystack
grows. Its judge was a model; here the rule is `label`: the topic is named and no other. The wording is our own.
"""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.tasks import words
from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.lines import remark
from ropewalk.data.tasks.task import Ask, Haystack, Question, Task, too_short

OPENING = {
    "measure": "What follows is the record of a long evening. A guest and a host talk of one topic after another.\n",
    "train": "Two people spoke for hours, subject upon subject. This is what was taken down.\n",
}
SPEAKERS = {"measure": ("Guest", "Host"), "train": ("One", "Other")}
BEGIN = {
    "measure": "Guest: I would like to talk about this: {topic}.\nHost: Gladly.\n",
    "train": "One: Our next subject is {topic}.\nOther: Go on.\n",
}
END = {"measure": "Guest: Thank you, enough of that. To another topic.\n", "train": "One: Leave it there.\n"}
QUESTION = {
    "measure": "\n\nThe record ends here. Question: Which topic was the very first that guest and host talked about?\n",
    "train": "\n\nThat was all. With what subject did the two begin?\n",
}
START = {"measure": "Answer: The first topic was this:", "train": "They began with"}
TOPIC_TOKENS = 650
"""Of a topic, where there are enough of them."""
BUDGET = 50
"""Tokens of a generated answer, as in the original."""
NUM_CANDIDATES = 25
"""Topics that the true one is ranked among, at most."""
FREE = 16
"""Tokens said of the last topic, at the least."""
Conversations = Mapping[str, Sequence[Sequence[str]]]
"""Topic to conversations, each a row of turns."""


class Topics(Task):
    """The first of many topics of a chat."""

    id = "topics"
    family = "retrieval"
    summary = "the first topic of a long chat about many"
    source = "LongEval topics (LongChat, 2023), structure and counts; own wording, rule by label"
    plants = False
    grows = True
    needs = ("conversations",)
    scoring = "generate"

    def build(self, ask: Ask) -> Haystack:
        """As many topics as the length holds."""
        encoder, split = ask.encoder, ask.split
        talks = read_conversations(ask.sources.get("conversations"))
        order = self._order(ask, talks)
        answers = [encoder.ids(f" {topic}") for topic in order]
        asked = encoder.question(QUESTION[split], START[split])
        tail = int(asked.size) + max(BUDGET, *(int(answer.size) for answer in answers))
        opening = np.concatenate([encoder.head, encoder.ids(OPENING[split])])
        wanted = [length - tail for length in ask.lengths]
        least = max(TOPIC_TOKENS, -(-wanted[-1] // len(order)))
        pieces, starts, at = [opening], list[int](), int(opening.size)
        for topic in order:
            if at <= wanted[-1] or len(starts) < 2:
                pieces.append(_talk(ask, topic, talks[topic], least))
                starts.append(at)
                at += int(pieces[-1].size)
        begins = [start + int(_begin(ask, topic).size) + FREE for start, topic in zip(starts, order, strict=False)]
        if wanted[0] < begins[1]:
            raise too_short(ask.lengths[0], begins[1] + tail, "two topics")
        if at < wanted[-1]:
            raise TextError(
                f"the conversations on {len(order)} topics fill {at} tokens, expected {wanted[-1]}; "
                "give more of them or smaller --lengths"
            )
        # No stage ends where a topic is being named: one length begins later instead, a growing one ends sooner.
        cuts = [next((s for s, b in zip(starts, begins, strict=True) if s < cut < b), cut) for cut in wanted]
        nums = [sum(start < cut for start in starts) for cut in cuts]
        if len(cuts) == 1 and (rest := wanted[0] - cuts[0]):
            pieces.insert(1, remark(encoder, rest))
            starts, cuts = [start + rest for start in starts], wanted
        questions = [
            Question(
                key=order[0],
                references=(order[0],),
                question=asked,
                answer=answers[0],
                candidates=tuple(answers[:num][:NUM_CANDIDATES]),
                labels=tuple(order[:num]),
                position=starts[0],
                depth=starts[0] / cut,
                stage=stage,
                rule="label",
                budget=BUDGET,
            )
            for stage, (cut, num) in enumerate(zip(cuts, nums, strict=True))
        ]
        return Haystack(
            context=np.concatenate(pieces)[: cuts[-1]], questions=tuple(questions), seed=ask.seed, head=encoder.head,
            lengths=tuple(cut + tail for cut in cuts), cuts=tuple(cuts), num_needles=tuple(nums),
        )  # fmt: skip

    def guess(self, question: Question) -> float:
        """Any topic of the chat."""
        return 1 / len(question.labels)

    def _order(self, ask: Ask, talks: Conversations) -> list[str]:
        """The split's topics in an order of the seed, the same for every length."""
        known = words.dealt(sorted(talks), ask.split)
        if len(known) < 2:
            raise InputError(
                f"got conversations on {len(talks)} topics, {len(known)} of them for the split {ask.split}, expected two; "
                f"give conversations on {words.TRAIN_EVERY + 1} topics or more"
            )
        return [known[i] for i in ask.rng(self.id).permutation(len(known))]


def _begin(ask: Ask, topic: str) -> Ids:
    return ask.encoder.ids(BEGIN[ask.split].format(topic=topic))


def _talk(ask: Ask, topic: str, talks: Sequence[Sequence[str]], least: int) -> Ids:
    """One topic from its opening to its end, conversations on it joined until it has `least` tokens."""
    pieces = [_begin(ask, topic)]
    order = ask.rng("topics", topic).permutation(len(talks))
    for index, turn in enumerate(turn for number in order for turn in talks[number]):
        if sum(int(piece.size) for piece in pieces) >= least:
            break
        pieces.append(ask.encoder.ids(f"{SPEAKERS[ask.split][index % 2]}: {turn}\n"))
    return np.concatenate([*pieces, ask.encoder.ids(END[ask.split])])


def read_conversations(given: Any) -> Conversations:
    """Conversations by topic: those handed in, else the package's. Raises `InputError` where there are none.

    What was read already is given back as it is, so that a run reads its file once.
    """
    if given is None:
        return package_conversations()
    if isinstance(given, Mapping):
        return given
    talks: dict[str, list[list[str]]] = {}
    for number, record in enumerate(given, start=1):
        topic, turns = (record.get("topic"), record.get("turns")) if isinstance(record, Mapping) else (None, None)
        if not isinstance(topic, str) or not _label(topic) or not isinstance(turns, list) or not turns:
            raise InputError(
                f"conversation {number} has no topic or no turns; expected a record of topic (a text) and turns (a list)"
            )
        talks.setdefault(_label(topic), []).append([_turn(turn, number) for turn in turns])
    return talks


@lru_cache(maxsize=1)
def package_conversations() -> Conversations:
    """Those of chitchat-dataset, if it is installed; its prompts are the topics."""
    spec = importlib.util.find_spec("chitchat_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "topics are made from conversations, got none; give a JSON file of records with topic and turns, "
            "or pip install chitchat-dataset"
        )
    path = Path(spec.submodule_search_locations[0]) / "dataset.json"
    talks: dict[str, list[list[str]]] = {}
    for chat in json.loads(path.read_text(encoding="utf-8")).values():
        if topic := _label(chat.get("prompt") or ""):
            turns = [_plain(" ".join(message["text"] for message in messages)) for messages in chat["messages"]]
            talks.setdefault(topic, []).append([turn for turn in turns if turn])
    return talks


def _turn(turn: Any, number: int) -> str:
    """A turn's text."""
    if isinstance(turn, Mapping):
        turn = turn.get("text", turn.get("content"))
    if not isinstance(turn, str):
        raise InputError(
            f"conversation {number} has a turn without text; expected a text, or an object with text or content"
        )
    return _plain(turn)


def _plain(text: str) -> str:
    """One line."""
    return " ".join(text.split())


def _label(topic: str) -> str:
    """A topic as it is named: no full stop inside, for the rule reads up to the first one; no remark in brackets."""
    return _plain(re.sub(r"\([^)]*\)|\.", " ", topic)).strip(" ,;:!?")


TASKS = (Topics(),)
