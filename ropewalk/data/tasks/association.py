"""Who lives in France, where the text only says who can walk to the Eiffel Tower: a needle that its question shares no word with.

A needle retrieved by its key measures copying; models pass it far beyond the length at which they still understand. Here the
question names what the needle means (a country, a trade, a pastime, an animal), not what it says, so the model has to know
one more thing to find it. At least five people are planted, asked or not, for with one the odd sentence is the answer.

What was given up: nothing keeps the user's own text from speaking of France. Names are invented, so none is in it by chance.
Structure and rule: NoLiMa (arXiv:2502.05167), a person's name asked by a latent association, right if the answer holds the
name. Facts and wording are our own.
"""

from importlib.resources import files

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.data.tasks import words
from ropewalk.data.tasks.distractors import spare_depths
from ropewalk.data.tasks.planting import layout, plant, sentence_ends
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, check_filler, too_short

OPENING = {
    "measure": "In the text below some lines speak of people. Keep them in mind.\n\n",
    "train": "Here and there the following text has a line on somebody. Remember those lines.\n\n",
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
FIRST = (
    "Bar Bel Bran Cal Cor Dar Del Dor Fal Fen Gar Gil Hal Hol Jas Jor Kal Kel Lan Lor Mar Mel Mor Nal Nor Pel Per Quil "
    "Ral Ros Sel Sor Tal Tes Tor Val Ver Wil Yor Zel"
).split()
LAST = "bek dane drin fa gad ka lo mund nix po quor rith sa stow tivo vane wyn zeb".split()
"""Names are a first and a last part, invented so that they tell of no country and stand in no book."""


def _listed() -> tuple[tuple[str, str, str], ...]:
    """Kind, clue and meaning of every line of associations.txt."""
    found, kind = [], ""
    for line in files("ropewalk.data.tasks").joinpath("associations.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        elif " = " in line and not line.startswith("#"):
            clue, meaning = line.split(" = ")
            found.append((kind, clue, meaning))
    return tuple(found)


ASSOCIATIONS = _listed()


def facts(split: Split) -> tuple[tuple[str, str, str], ...]:
    """The associations of one split: kind, clue, meaning."""
    listed = tuple("|".join(fact) for fact in ASSOCIATIONS)
    kinds = [tuple(fact.split("|")) for fact in words.dealt(listed, split)]
    return tuple((kind, clue, meaning) for kind, clue, meaning in kinds)


def names(split: Split) -> list[str]:
    """The names of one split."""
    return [first + last for first in words.dealt(FIRST, split) for last in words.dealt(LAST, split)]


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
        encoder, wordings = ask.encoder, WORDINGS[ask.split]
        # What is planted does not depend on the length, so that lengths are compared on the same questions.
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        people, known = rng.permutation(names(ask.split)), facts(ask.split)
        known = tuple(known[i] for i in rng.permutation(len(known)))
        depths = (*ask.depths, *spare_depths(rng, ask.depths, NUM_PEOPLE - len(ask.depths)))
        needles, asks = [], []
        for (kind, clue, meaning), name in zip(known, people, strict=False):
            said, asked = wordings[kind]
            line = said.format(name=name, clue=clue)
            needles.append(encoder.ids(f"\n{line[0].upper()}{line[1:]}\n"))
            asks.append(encoder.question(QUESTION.format(asked=asked.format(meaning=meaning)), START[ask.split]))
        answers = [encoder.ids(ANSWER.format(name=name)) for name in people[: len(needles)]]
        opening = np.concatenate([encoder.head, encoder.ids(OPENING[ask.split])])
        tail = max(q.size for q in asks) + max(a.size for a in answers)
        size = max(int(n.size) for n in needles)
        smallest = int(opening.size) + tail + len(depths) * (size + FREE)
        if ask.lengths[0] < smallest:
            raise too_short(ask.lengths[0], smallest, f"{len(depths)} needles")
        check_filler(ask, ask.length - tail - int(opening.size))
        cuts = [length - tail for length in ask.lengths]
        plan = layout(cuts, depths, opening=int(opening.size), size=size)
        if len(plan.positions) > len(needles):
            raise InputError(
                f"there are {len(needles)} associations, got {len(plan.positions)} needles; give fewer --depths or --lengths"
            )
        begin = int(ask.rng(self.id, "filler", *ask.lengths).integers(0, ask.filler.size - cuts[-1] + 1))
        context, placed = plant(
            ask.filler[begin : begin + cuts[-1]], needles[: len(plan.positions)], plan.positions, opening=opening,
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
                        key=known[needle][2],
                        references=(str(people[needle]),),
                        question=asks[needle],
                        answer=answers[needle],
                        candidates=(answers[needle], *(answers[i] for i in others)),
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
        """One of the people at random: more where a stage holds more of them, so this is the most it can be."""
        return 1 / len(question.candidates)


TASKS = (Association(),)
