"""A JSON object of random UUIDs: which value belongs to this key?

The plainest retrieval there is: no word of it means anything, every pair looks like every other, and the pair that is
asked stands at the depth asked. There are as many pairs as the length holds; Lost in the Middle had 75, 140 and 300,
which come to about 4k, 8k and 16k tokens of Llama.

Structure and rule: Lost in the Middle (arXiv:2307.03172, section 3), right if the answer holds the value in whatever
case. The wording is our own. The object's last pair is in the question, so that it can be closed at every stage of a
growing one; that pair is never asked, where the original asks any.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ropewalk.data.tasks.distractors import rivals, uuid
from ropewalk.data.tasks.encoding import Ids, encode
from ropewalk.data.tasks.lines import lay
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task
from ropewalk.data.tasks.templates import Wording, wording

FIRST, LINE, LAST = "{\n", ' "{key}": "{value}",\n', ' "{key}": "{value}"\n}}\n'
OWN: dict[Split, Wording] = {
    "measure": Wording(
        opening="The JSON object below maps keys to values. At its end you are asked for one of its values.\n",
        question='Question: Which value has the key "{query}"?\n',
        start='Answer: "{query}":',
    ),
    "train": Wording(
        opening="Here is a table of identifiers, written as JSON. Look one of them up when it has ended.\n",
        question='Look up "{query}".\n',
        start='Found: "{query}":',
    ),
}
ANSWER = ' "{value}"'
NUM_CANDIDATES = 5
"""Values the true one is ranked among, itself included."""


class KeyValue(Task):
    """Values of a JSON object, asked by key."""

    id = "key-value"
    family = "retrieval"
    summary = "the value of one key of a long JSON object of random UUIDs"
    source = "Lost in the Middle (arXiv:2307.03172), key-value retrieval; own wording"
    grows = True

    def build(self, ask: Ask) -> Haystack:
        """An object of as many pairs as the length holds."""
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        pairs = [(uuid(rng), uuid(rng)) for _ in range(len(ask.depths) * len(ask.lengths))]
        last = encoder.ids(LAST.format(key=uuid(rng), value=uuid(rng)))
        asks = [
            np.concatenate([last, encoder.question(words.question.format(query=k), words.start.format(query=k))])
            for k, _ in pairs
        ]
        answers = [encoder.ids(ANSWER.format(value=v)) for _, v in pairs]
        # UUIDs differ in tokens; what is ranked takes no more room than what is asked.
        room = max(int(answer.size) for answer in answers)
        values: list[str] = []
        laid = lay(
            encoder, np.concatenate([encoder.head, encoder.ids(words.opening)]), self._others(ask, values),
            [encoder.ids(LINE.format(key=k, value=v)) for k, v in pairs], lengths=ask.lengths, depths=ask.depths,
            tail=max(int(q.size) for q in asks) + room, first=encoder.ids(FIRST),
            min_fillers=NUM_CANDIDATES - 1, what=f"{len(ask.depths)} pairs and {NUM_CANDIDATES} others",
        )  # fmt: skip
        questions = []
        for (stage, index), rank in laid.asked.items():
            key, value = pairs[rank]
            held = laid.num_lines(stage) - laid.num_planted(stage)
            others = rivals(rng, value, values[: max(held, NUM_CANDIDATES - 1)], held)
            ranked = (ids for ids in (encode(encoder.tokenizer, ANSWER.format(value=v)) for v in others) if ids.size <= room)
            questions.append(
                Question(
                    key=key,
                    references=(value,),
                    question=asks[rank],
                    answer=answers[rank],
                    candidates=(answers[rank], *islice(ranked, NUM_CANDIDATES - 1)),
                    position=laid.placed[rank],
                    depth=laid.placed[rank] / laid.cuts[stage],
                    asked_depth=ask.depths[index],
                    stage=stage,
                )
            )
        return Haystack(
            context=laid.context, questions=tuple(questions), lengths=laid.lengths, seed=ask.seed, head=encoder.head,
            cuts=laid.cuts, num_needles=tuple(laid.num_lines(stage) for stage in range(len(laid.cuts))),
            wording=words.name,
        )  # fmt: skip

    def _others(self, ask: Ask, values: list[str]) -> Iterator[Ids]:
        """Pairs without an end; their values are noted in `values`."""
        rng = ask.rng(self.id, "others")
        while True:
            values.append(uuid(rng))
            yield encode(ask.encoder.tokenizer, LINE.format(key=uuid(rng), value=values[-1]))


TASKS = (KeyValue(),)
