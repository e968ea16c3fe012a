"""Who lives in France, where the text says who can walk to the Eiffel Tower: needles that share no word with the question.

A needle retrieved by its key measures copying; models pass it far beyond the length at which they still understand. Here
the question names what the needle means (a country, a trade, a pastime, an animal), not what it says, so the model has to
know one more thing to find it. At least five people are planted, asked or not, for with one the odd sentence is the
answer.

What was given up: nothing keeps the user's own text from speaking of France. Names are invented, so none is in it by
chance. Structure and rule: NoLiMa (arXiv:2502.05167), a person's name asked by a latent association, right if the answer
holds the name. Facts and wording are our own.
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.data.tasks import words
from ropewalk.data.tasks.distractors import spare_depths
from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.planting import layout, plant, sentence_ends
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, check_filler, too_short

OPENING = {
    "measure": "In the text below some lines speak of people. Keep them in mind.\n",
    "train": "Here and there the following text has a line on somebody. Remember those lines.\n",
}
WORDINGS = {
    "measure": {
        "place": ("{name} can walk to {clue} in ten minutes.", "Which person lives in {meaning}?"),
        "trade": ("For {name} the day begins with {clue}.", "Which person works as {meaning}?"),
        "hobby": ("{name} came home late again because of {clue}.", "Which person's pastime is {meaning}?"),
        "animal": ("In the house of {name} something {clue}.", "Which person keeps {meaning}?"),
    },
    "train": {
        "place": ("A postcard from {name} shows {clue}, seen from the balcony.", "Who has a home in {meaning}?"),
        "trade": ("On weekdays {name} thinks of nothing but {clue}.", "Who earns a living as {meaning}?"),
        "hobby": ("All that {name} wants for Sunday is {clue}.", "Who is fond of {meaning}?"),
        "animal": ("The neighbours say that at {name}'s something {clue}.", "Who owns {meaning}?"),
    },
}
"""By split and kind: what is planted, and what is asked. A test holds that the two share no word that means anything."""
QUESTION = "\n\nQuestion: {asked}\n"
START = {"measure": "Answer: The person's name is", "train": "Answer: The one in question is called"}
ANSWER = " {name}"
NUM_PEOPLE = 5
"""Planted at the least, and names that the true one is ranked among."""
FREE = 16
"""Tokens of text per needle, at the least."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is said of a person, and what it means."""

    kind: str
    clue: str
    meaning: str


def _sections() -> dict[str, list[str]]:
    """The lines of associations.txt by their heading."""
    text = files("ropewalk.data.tasks").joinpath("associations.txt").read_text(encoding="utf-8")
    sections = (section.split("]\n", 1) for section in text.split("\n[")[1:])
    return {kind: lines.strip().splitlines() for kind, lines in sections}


SECTIONS = _sections()
FACTS = tuple(
    Fact(kind=kind, clue=line.split(" = ")[0], meaning=line.split(" = ")[1])
    for kind in ("place", "trade", "hobby", "animal")
    for line in SECTIONS[kind]
)
PARTS = tuple(tuple(" ".join(SECTIONS[part]).split()) for part in ("first", "last"))
"""Names are a first and a last part, invented so that they tell of no country and stand in no book."""


def names(split: Split) -> list[str]:
    """The names of one split."""
    return [first + last for first in words.dealt(PARTS[0], split) for last in words.dealt(PARTS[1], split)]


class Association(Task):
    """People asked for by what is not said of them."""

    id = "association"
    family = "association"
    summary = "people in your text, asked by what the line on them means and does not say"
    source = "NoLiMa (arXiv:2502.05167), structure and rule; facts and wording our own"
    grows = True
    needs = ("text",)

    def build(self, ask: Ask) -> Haystack:
        """A haystack in `ask.filler`, a stretch of which is drawn by the seed."""
        encoder = ask.encoder
        # What is planted does not depend on the length, so that lengths are compared on the same questions.
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        depths = (*ask.depths, *spare_depths(rng, ask.depths, NUM_PEOPLE - len(ask.depths)))
        lines = _lines(ask, rng)
        opening = np.concatenate([encoder.head, encoder.ids(OPENING[ask.split])])
        tail = max(int(line.question.size) for line in lines) + max(int(line.answer.size) for line in lines)
        size = max(int(line.needle.size) for line in lines)
        smallest = int(opening.size) + tail + len(depths) * (size + FREE)
        if ask.lengths[0] < smallest:
            raise too_short(ask.lengths[0], smallest, f"{len(depths)} needles")
        check_filler(ask, ask.length - tail - int(opening.size))
        cuts = [length - tail for length in ask.lengths]
        plan = layout(cuts, depths, opening=int(opening.size), size=size)
        if (num := len(plan.positions)) > len(lines):
            raise InputError(f"there are {len(lines)} associations, got {num} needles; give fewer --depths or --lengths")
        begin = int(ask.rng(self.id, "filler", *ask.lengths).integers(0, ask.filler.size - cuts[-1] + 1))
        context, placed = plant(
            ask.filler[begin : begin + cuts[-1]], [line.needle for line in lines[:num]], plan.positions, opening=opening,
            cuts=cuts, ends=sentence_ends(encoder.tokenizer, ask.filler),
        )  # fmt: skip
        counts = tuple(sum(position < cut for position in placed) for cut in cuts)
        questions = []
        for (stage, index), needle in plan.asked.items():
            if index < len(ask.depths):
                # Needles stand in order, so a stage holds the first of them.
                others = [i for i in rng.permutation(counts[stage]) if i != needle][: NUM_PEOPLE - 1]
                questions.append(
                    Question(
                        key=lines[needle].fact.meaning,
                        references=(lines[needle].name,),
                        question=lines[needle].question,
                        answer=lines[needle].answer,
                        candidates=tuple(lines[i].answer for i in (needle, *others)),
                        position=placed[needle],
                        depth=placed[needle] / cuts[stage],
                        asked_depth=ask.depths[index],
                        stage=stage,
                    )
                )
        return Haystack(
            context=context, questions=tuple(questions), lengths=ask.lengths, seed=ask.seed, head=encoder.head,
            cuts=tuple(cuts), num_needles=counts,
        )  # fmt: skip

    def guess(self, question: Question) -> float:
        """One of the people at random. Where a stage holds more of them it is less, so this is the most it can be."""
        return 1 / len(question.candidates)


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One person: what is planted, what is asked, and the answer."""

    fact: Fact
    name: str
    needle: Ids
    question: Ids
    answer: Ids


def _lines(ask: Ask, rng: np.random.Generator) -> list[Line]:
    """All facts of the split in a drawn order, each said of somebody."""
    people, known = rng.permutation(names(ask.split)), words.dealt(FACTS, ask.split)
    lines = []
    for index, name in zip(rng.permutation(len(known)), people, strict=False):
        fact = known[index]
        said, asked = (
            text.format(name=name, clue=fact.clue, meaning=fact.meaning) for text in WORDINGS[ask.split][fact.kind]
        )
        lines.append(
            Line(
                fact=fact,
                name=str(name),
                needle=ask.encoder.ids(f"\n{said[0].upper()}{said[1:]}\n"),
                question=ask.encoder.question(QUESTION.format(asked=asked), START[ask.split]),
                answer=ask.encoder.ids(ANSWER.format(name=name)),
            )
        )
    return lines


TASKS = (Association(),)
