"""Variable tracking: a value goes from name to name in noise, and all names that hold it are asked for.

Structure, counts, room of 30 tokens and rule: RULER (arXiv:2404.06654) section 3: one chain of four hops, so five names
of five letters, in the order of the chain at random lines of repeated noise; before it one worked example with names of
three letters. RULER finds the example's noise by a search up to 500 tokens; here it is a fixed number of lines.
"""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise, repeat

import numpy as np

from ropewalk.data.tasks.encoding import Ids, encode
from ropewalk.data.tasks.lines import lay, listing
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task
from ropewalk.data.tasks.templates import Wording, wording
from ropewalk.data.tasks.vocabulary import names

OWN: Mapping[Split, Wording] = {
    "measure": Wording(
        opening="Below, boxes are filled, some with what another box holds. Follow what goes where.\n\n",
        question="\nQuestion: Which boxes hold the number {query}?\n",
        start="Answer: The number {query} is held by {num} boxes:",
        needle="BOX {key} = {value}", link="BOX {key} = BOX {previous}", between="",
        noise="The tide is out. The nets are dry. A boat lies on its side. Two men talk. The wind is low.",
    ),
    "train": Wording(
        opening="Some workers are paid directly, others get what a fellow worker gets. See who gets what.\n\n",
        question="\nTell: Who gets the pay {query}?\n", start="Told: The pay {query} goes to {num} of them:",
        needle="PAY {key}: {value}", link="PAY {key}: LIKE {previous}", between="",
        noise="Grass grows on the wall. The bell has rung. Children run past. The well is deep. Noon is near.",
    ),
}  # fmt: skip
BUDGET = 30
"""Tokens of room for the answer."""
NUM_HOPS = 4
LETTERS = 5
EXAMPLE_LETTERS = 3
EXAMPLE_NOISE = 10
"""Lines of noise in the worked example."""


class VariableTracking(Task):
    """One chain of four hops."""

    id = "variable-tracking"
    family = "tracing"
    summary = "all five names that hold a value which is handed on four times, in repeated noise"
    source = "RULER (arXiv:2404.06654) section 3; own wording"
    plants = False

    def build(self, ask: Ask) -> Haystack:
        """The chain and the example do not depend on the length; where the chain's lines stand is drawn in depths."""
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        rng = ask.rng(self.id)
        chain = list(islice(names(rng, ask.split, LETTERS), NUM_HOPS + 1))
        value, other = (str(number) for number in rng.choice(90000, size=2, replace=False) + 10000)
        noise = f"{words.noise}\n"
        example = self._example(rng, ask, words, other)
        opening = np.concatenate([encoder.head, example, encoder.ids(words.opening)])
        question = encoder.question(words.question.format(query=value), words.start.format(query=value, num=NUM_HOPS + 1))
        between = ["", *[words.between] * NUM_HOPS]
        answer, spans = listing(encoder, list(zip(between, chain, strict=True)))
        tail = int(question.size) + max(BUDGET, int(answer.size))
        lines = [encode(encoder.tokenizer, f"{line}\n") for line in told(words, chain, value)]
        laid = lay(
            encoder, opening, repeat(encoder.ids(noise)), lines, lengths=ask.lengths, tail=tail,
            depths=sorted(rng.random(NUM_HOPS + 1)), what="a chain of five lines and its example",
            min_fillers=NUM_HOPS + 1, filling=noise,
        )  # fmt: skip
        asking = Question(key=value, references=tuple(chain), question=question, answer=answer, spans=spans, budget=BUDGET)
        return Haystack(
            context=laid.context, questions=(asking,), lengths=laid.lengths, seed=ask.seed, head=encoder.head,
            num_needles=(len(chain),), wording=words.name,
        )  # fmt: skip

    @staticmethod
    def _example(rng: np.random.Generator, ask: Ask, words: Wording, value: str) -> Ids:
        """A small haystack with its question and answer."""
        chain = list(islice(names(rng, ask.split, EXAMPLE_LETTERS), NUM_HOPS + 1))
        lines = [words.noise] * EXAMPLE_NOISE
        places = sorted(int(place) for place in rng.choice(EXAMPLE_NOISE, size=len(chain), replace=False))
        for moved, (place, line) in enumerate(zip(places, told(words, chain, value), strict=True)):
            lines.insert(place + moved, line)
        text = words.opening + "\n".join(lines) + words.question.format(query=value)
        text += words.start.format(query=value, num=len(chain)) + "".join(f" {name}" for name in chain)
        return encode(ask.encoder.tokenizer, f"{text}\n\n")


def told(words: Wording, chain: Sequence[str], value: str) -> list[str]:
    """The lines of a chain: the first name gets the value, each other one what the name before it has."""
    links = [words.link.format(key=key, previous=previous) for previous, key in pairwise(chain)]
    return [words.needle.format(key=chain[0], value=value), *links]


TASKS = (VariableTracking(),)
