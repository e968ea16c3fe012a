"""Keyed needles in the user's own text: "what is the code of the amber heron locker?".

A haystack is filler from a real text with k needles put in at given depths, each a key and a five-digit value. With
several needles the others are distractors (RULER calls this multikey); with one it is the classic needle, and the
distractors' values are drawn but never shown.

The wording is our own. Structure: RULER (arXiv:2404.06654) niah_multikey, and the passkey of arXiv:2305.16300.
"""

from collections.abc import Sequence

import numpy as np

from ropewalk.data.tasks import words
from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.planting import layout, plant, sentence_ends
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, check_filler, too_short
from ropewalk.data.tasks.templates import Wording

OWN: dict[Split, Wording] = {
    "measure": Wording(
        opening="Some lines in the text below give the codes of lockers. Remember them.\n\n",
        needle="The code of the {key} locker is {value}.",
        question="\n\nQuestion: What is the code of the {query} locker?\n",
        start="Answer: The code of the {query} locker is",
    ),
    "train": Wording(
        opening="While you read, take note of every parcel's number.\n\n",
        needle="Parcel {key} carries the number {value}.",
        question="\n\nWhich number does parcel {query} carry?\n",
        start="It carries the number",
    ),
}
ANSWER = " {value}"
NUM_CANDIDATES = 5
"""Values the true one is ranked among, itself included; the guess rate of the rank is its inverse."""
FREE = 16
"""Tokens of text per needle, at the least."""


class Needle(Task):
    """Needles in the user's own text."""

    id = "needle"
    family = "retrieval"
    summary = "five-digit codes hidden in your text, asked by key"
    source = "RULER (arXiv:2404.06654) niah_multikey; own wording"
    grows = True
    needs = ("text",)

    def build(self, ask: Ask) -> Haystack:
        """A haystack in `ask.filler`, a stretch of which is drawn by the seed."""
        encoder, num_asked = ask.encoder, len(ask.depths) * len(ask.lengths)
        # What is planted does not depend on the length, so that lengths are compared on the same questions.
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        num = max(num_asked, NUM_CANDIDATES)
        keys = words.pairs(rng, num, ask.split)
        values = [str(v) for v in rng.choice(90000, size=num, replace=False) + 10000]
        wording = OWN[ask.split]
        needles = [
            encoder.ids("\n" + wording.needle.format(key=k, value=v) + "\n") for k, v in zip(keys, values, strict=True)
        ][:num_asked]
        asks = [encoder.question(wording.question.format(query=k), wording.start.format(query=k)) for k in keys]
        answers = [encoder.ids(ANSWER.format(value=v)) for v in values]
        opening = np.concatenate([encoder.head, encoder.ids(wording.opening)])
        tail = max(q.size for q in asks[:num_asked]) + max(a.size for a in answers)
        size = max(n.size for n in needles)
        self._check(ask, opening, needles, tail)
        cuts = [length - tail for length in ask.lengths]
        plan = layout(cuts, ask.depths, opening=int(opening.size), size=int(size))
        begin = int(ask.rng(self.id, "filler", *ask.lengths).integers(0, ask.filler.size - cuts[-1] + 1))
        context, placed = plant(
            ask.filler[begin : begin + cuts[-1]], needles[: len(plan.positions)], plan.positions, opening=opening,
            cuts=cuts, ends=sentence_ends(encoder.tokenizer, ask.filler),
        )  # fmt: skip
        questions = []
        for (stage, index), needle in plan.asked.items():
            others = [i for i in rng.permutation(num) if i != needle][: NUM_CANDIDATES - 1]
            questions.append(
                Question(
                    key=keys[needle],
                    references=(values[needle],),
                    question=asks[needle],
                    answer=answers[needle],
                    candidates=(answers[needle], *(answers[i] for i in others)),
                    position=placed[needle],
                    depth=placed[needle] / cuts[stage],
                    asked_depth=ask.depths[index],
                    stage=stage,
                )
            )
        counts = tuple(sum(position < cut for position in placed) for cut in cuts)
        return Haystack(
            context=context, questions=tuple(questions), lengths=ask.lengths, seed=ask.seed, head=encoder.head,
            cuts=tuple(cuts), num_needles=counts,
        )  # fmt: skip

    @staticmethod
    def _check(ask: Ask, opening: Ids, needles: Sequence[Ids], tail: int) -> None:
        """Raises `TextError` where the shortest length leaves no room, or the filler is too short."""
        first = needles[: len(ask.depths)]
        smallest = int(opening.size) + tail + sum(int(n.size) + FREE for n in first)
        if ask.lengths[0] < smallest:
            raise too_short(ask.lengths[0], smallest, f"{len(first)} needles")
        check_filler(ask, ask.length - tail - int(opening.size))


TASKS = (Needle(),)
