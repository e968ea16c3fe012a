"""The passkey: five digits in sentences that repeat and mean nothing.

Structure: landmark attention (arXiv:2305.16300) and InfiniteBench (arXiv:2402.13718): repeated noise, a key of five
digits said twice in its line, a generated answer is right when its first run of digits is the key. There the haystack
holds one key; where several depths are asked for, this one holds as many, so each key belongs to a named door, and does
so also where it is alone, so that both are the same question.
"""

from collections.abc import Mapping
from itertools import repeat

import numpy as np

from ropewalk.data.tasks.lines import lay
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task
from ropewalk.data.tasks.templates import Wording, wording
from ropewalk.data.tasks.words import pairs

OWN: Mapping[Split, Wording] = {
    "measure": Wording(
        opening="Most of this text is idle talk, but it gives the pass key of a door. Find it and remember it.\n\n",
        question="\n\nWhat is the pass key of the {query} door?\n", start="The pass key of the {query} door is",
        needle="The pass key of the {key} door is {value}. Keep {value} in mind.",
        noise="Clouds drift over the hill. The kettle is on. We walk to the well. We walk home again. Nothing is new.",
    ),
    "train": Wording(
        opening="Hardly anything here matters, save for the number that opens a chest.\n\n",
        question="\n\nWhich number opens the {query} chest?\n", start="The {query} chest opens with",
        needle="The {key} chest opens with {value}, only with {value}.",
        noise="Snow falls on the roofs. A lamp is lit. The cat turns around. The clock is slow. Evening comes.",
    ),
}  # fmt: skip
BUDGET = 16
"""Tokens of room for the answer: more than five digits take."""
NUM_CANDIDATES = 5


class Passkey(Task):
    """A key of five digits in repeated noise."""

    id = "passkey"
    family = "retrieval"
    summary = "a pass key of five digits, in sentences that repeat"
    source = "landmark attention (arXiv:2305.16300), InfiniteBench (arXiv:2402.13718); own wording"
    grows = True

    def build(self, ask: Ask) -> Haystack:
        """What is planted does not depend on the length, so that lengths are compared on the same questions."""
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        num_asked = len(ask.depths) * len(ask.lengths)
        num = max(num_asked, NUM_CANDIDATES)
        keys = pairs(rng, num, ask.split)
        values = [str(value) for value in rng.choice(90000, size=num, replace=False) + 10000]
        asks = [encoder.question(words.question.format(query=key), words.start.format(query=key)) for key in keys]
        answers = [encoder.ids(f" {value}") for value in values]
        rooms = [int(q.size) + max(BUDGET, int(a.size)) for q, a in zip(asks, answers, strict=True)]
        lines = [encoder.ids(words.needle.format(key=k, value=v) + "\n") for k, v in zip(keys, values, strict=True)]
        noise = f"{words.noise}\n"
        opening = np.concatenate([encoder.head, encoder.ids(words.opening)])
        laid = lay(
            encoder, opening, repeat(encoder.ids(noise)), lines[:num_asked], lengths=ask.lengths,
            tail=max(rooms[:num_asked]), depths=ask.depths, what=f"{len(ask.depths)} pass keys", filling=noise,
        )  # fmt: skip
        questions = []
        for (stage, index), needle in laid.asked.items():
            others = [i for i in rng.permutation(num) if i != needle][: NUM_CANDIDATES - 1]
            questions.append(
                Question(
                    key=keys[needle], references=(values[needle],), question=asks[needle], answer=answers[needle],
                    candidates=(answers[needle], *(answers[i] for i in others)), position=laid.placed[needle],
                    depth=laid.placed[needle] / laid.cuts[stage], asked_depth=ask.depths[index], stage=stage,
                    rule="first-integer", budget=BUDGET,
                )
            )  # fmt: skip
        return Haystack(
            context=laid.context, questions=tuple(questions), lengths=laid.lengths, seed=ask.seed, head=encoder.head,
            cuts=laid.cuts, num_needles=laid.all_planted, wording=words.name,
        )  # fmt: skip


TASKS = (Passkey(),)
