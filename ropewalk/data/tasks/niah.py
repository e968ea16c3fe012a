"""RULER's eight needle tasks: one needle, one among others, many values of one key, many keys at once.

A needle gives a key a value. The haystack is repeated noise (single-1), the user's text (single-2 and 3, multikey-1,
multivalue, multiquery), or other needles and nothing else (multikey-2 and 3). With several depths every asked needle is
planted, and so each is a distractor of the others: the protocol says so. Where every line is a needle, a value is
ranked among those of other lines of its stage. Keys are two words (RULER: from a much larger
list) or a UUID, values seven digits or a UUID; a key never stands twice in a haystack.

Structure, counts, room of 128 tokens and rule: RULER (arXiv:2404.06654), section 3 and its `synthetic.yaml`. Other than
there, lengths are exact and depths can be asked for. In multivalue the values are asked for in the order of the text, and
in multiquery the keys in the order of the question, so that the answer can also be read teacher-forced; RULER takes any
order, and so does the rule on generated text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import ClassVar, Literal

import numpy as np

from ropewalk.data.tasks.distractors import rivals, spare_depths
from ropewalk.data.tasks.encoding import Encoder, Ids, encode
from ropewalk.data.tasks.lines import Laid, lay, listing
from ropewalk.data.tasks.planting import layout, plant, sentence_ends
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, check_filler, too_short
from ropewalk.data.tasks.templates import Wording, wording
from ropewalk.data.tasks.vocabulary import Kind, draw, take

NOISE = "The rain has stopped. The road is dry again. A cart goes by. Nobody looks up. It is quiet in the square."
BUDGET = 128
"""Tokens of room for the answer."""
NUM_CANDIDATES = 5
"""Values the true one is ranked among, itself included."""
NUM_SEVERAL = 4
"""Keys of multikey-1 and multiquery, values of multivalue."""
FREE = 16
"""Tokens of text per needle, at the least."""


def own(kind: Kind, several: Literal["", "values", "keys"] = "") -> dict[Split, Wording]:
    """Our wording for each split."""
    measure = {
        "": (f"What is the access {kind} of vault {{query}}?", f"The access {kind} of vault {{query}} is"),
        "values": (
            f"What are all the access {kind}s of vault {{query}}, in the order of the text?",
            f"The access {kind}s of vault {{query}} are",
        ),
        "keys": (f"What are the access {kind}s of vaults {{query}}?", f"The access {kind}s of vaults {{query}} are"),
    }[several]
    train = {
        "": (f"Which {kind} was stuck on the {{query}} parcel?", f"On the {{query}} parcel was stuck the {kind}"),
        "values": (
            f"Name each {kind} that was stuck on the {{query}} parcel, first to last.",
            f"On the {{query}} parcel were stuck the {kind}s",
        ),
        "keys": (f"Which {kind}s were stuck on the parcels {{query}}?", f"On the parcels {{query}} were stuck the {kind}s"),
    }[several]
    return {
        "measure": Wording(
            opening=f"Somewhere below it is said which access {kind} a vault has. Keep it in mind for later.\n\n",
            question=f"\n\nQuestion: {measure[0]}\n", start=f"Answer: {measure[1]}", noise=NOISE,
            needle=f"Vault {{key}} has the access {kind} {{value}}.",
        ),
        "train": Wording(
            opening=f"A clerk stuck a {kind} on parcels and wrote it down in between. You will need it.\n\n",
            question=f"\n\nNow tell: {train[0]}\n", start=f"Told: {train[1]}",
            noise="Bees are out. The gate stands open. Two dogs sleep. Somebody hums. The bread is not yet done.",
            needle=f"The clerk stuck {kind} {{value}} on the {{key}} parcel.",
        ),
    }  # fmt: skip


class Niah(Task):
    """One value for each key; as many keys are asked for as there are depths."""

    family = "retrieval"
    grows = True
    source = "RULER (arXiv:2404.06654) section 3; own wording"
    haystack: ClassVar[Literal["noise", "text", "needles"]]
    keys: ClassVar[Kind] = "word"
    values: ClassVar[Kind] = "number"
    num_keys: ClassVar[int] = 1
    """Keys in the haystack, at the least."""

    def build(self, ask: Ask) -> Haystack:
        """What is planted does not depend on the length, so that lengths are compared on the same questions."""
        encoder, words = ask.encoder, wording(ask, self.id, own(self.values))
        rng = ask.rng(self.id, *(round(depth * 1_000_000) for depth in ask.depths))
        depths = (*ask.depths, *spare_depths(rng, ask.depths, max(0, self.num_keys - len(ask.depths))))
        num = max(len(depths) * len(ask.lengths), NUM_CANDIDATES)
        stock = draw(rng, self.keys, ask.split), draw(rng, self.values, ask.split)
        keys, values = take(stock[0], num), take(stock[1], num)
        asks = [encoder.question(words.question.format(query=key), words.start.format(query=key)) for key in keys]
        answers = [encoder.ids(f" {value}") for value in values]
        pairs = list(zip(keys, values, strict=True))[: len(depths) * len(ask.lengths)]
        tail = max(int(asks[i].size) + max(BUDGET, int(answers[i].size)) for i in asked(ask, depths, len(pairs)))
        held: list[str] = []
        laid = put(ask, self.haystack, words, pairs, depths, tail, stock, held)
        questions = []
        for (stage, index), needle in laid.asked.items():
            if index >= len(ask.depths):
                continue
            if self.haystack == "needles":
                ranked = [encoder.ids(f" {value}") for value in in_lines(rng, laid, stage, values, needle, held)]
            else:
                ranked = [answers[i] for i in rng.permutation(num) if i != needle][: NUM_CANDIDATES - 1]
            questions.append(
                Question(
                    key=keys[needle],
                    references=(values[needle],),
                    question=asks[needle],
                    answer=answers[needle],
                    candidates=(answers[needle], *ranked),
                    position=laid.placed[needle],
                    depth=laid.placed[needle] / laid.cuts[stage],
                    asked_depth=ask.depths[index],
                    stage=stage,
                    budget=BUDGET,
                )
            )
        found = haystack(ask, words, laid, questions)
        if self.haystack == "needles":
            return replace(found, num_needles=tuple(laid.num_lines(stage) for stage in range(len(laid.cuts))))
        return found


def in_lines(
    rng: np.random.Generator, laid: Laid, stage: int, values: Sequence[str], needle: int, held: Sequence[str]
) -> list[str]:
    """Values of other lines of a stage: planted ones, and those of `held`, which the other lines hold in their order."""
    planted = [values[i] for i, start in enumerate(laid.placed) if start < laid.cuts[stage]]
    others = [*planted, *held[: laid.num_lines(stage) - laid.num_planted(stage)]]
    return rivals(rng, values[needle], others, NUM_CANDIDATES - 1)


def asked(ask: Ask, depths: Sequence[float], num: int) -> list[int]:
    """Which of `num` planted needles may be asked for: all where the haystack grows, else those at the asked depths."""
    if ask.grows:
        return list(range(num))
    order = sorted(range(num), key=depths.__getitem__)
    return [rank for rank, index in enumerate(order) if index < len(ask.depths)]


def haystack(ask: Ask, words: Wording, laid: Laid, questions: Sequence[Question]) -> Haystack:
    """A laid context with its questions."""
    return Haystack(
        context=laid.context, questions=tuple(questions), lengths=laid.lengths, seed=ask.seed, head=ask.encoder.head,
        cuts=laid.cuts, num_needles=laid.all_planted, wording=words.name,
    )  # fmt: skip


def put(
    ask: Ask, kind: Literal["noise", "text", "needles"], words: Wording, pairs: Sequence[tuple[str, str]],
    depths: Sequence[float], tail: int, stock: tuple[Iterator[str], Iterator[str]], held: list[str],
) -> Laid:  # fmt: skip
    """Needles for `pairs` of keys and values in a haystack of a kind.

    `stock` are the keys and values of the others; values are noted in `held` as they are drawn.
    """
    encoder = ask.encoder
    opening = np.concatenate([encoder.head, encoder.ids(words.opening)])
    told = [words.needle.format(key=key, value=value) for key, value in pairs]
    what = f"{len(depths)} needles"
    if kind == "text":
        return _in_text(ask, opening, [encoder.ids(f" {line}") for line in told], depths, tail, what)
    if kind == "noise":
        noise = f"{words.noise}\n"
        fillers: Iterator[Ids] = repeat(encoder.ids(noise))
        return lay(
            encoder, opening, fillers, [encoder.ids(f"{line}\n") for line in told], lengths=ask.lengths, tail=tail,
            depths=depths, what=what, filling=noise,
        )  # fmt: skip
    return lay(
        encoder, opening, _others(encoder, words, stock, held), [encoder.ids(f"{line}\n") for line in told],
        lengths=ask.lengths, tail=tail, depths=depths, min_fillers=NUM_CANDIDATES - 1,
        what=f"{what} and {NUM_CANDIDATES - 1} others",
    )  # fmt: skip


def _others(encoder: Encoder, words: Wording, stock: tuple[Iterator[str], Iterator[str]], held: list[str]) -> Iterator[Ids]:
    """Needles that nobody asks for; their values are noted in `held`."""
    for key, value in zip(*stock, strict=False):
        held.append(value)
        yield encode(encoder.tokenizer, words.needle.format(key=key, value=value) + "\n")


def _in_text(ask: Ask, opening: Ids, needles: Sequence[Ids], depths: Sequence[float], tail: int, what: str) -> Laid:
    """Needles after the ends of sentences in a stretch of the user's text, which the seed draws."""
    size = max(int(needle.size) for needle in needles)
    smallest = int(opening.size) + tail + len(depths) * (size + FREE)
    if ask.lengths[0] < smallest:
        raise too_short(ask.lengths[0], smallest, what)
    check_filler(ask, ask.length - tail - int(opening.size))
    cuts = tuple(length - tail for length in ask.lengths)
    plan = layout(cuts, depths, opening=int(opening.size), size=size)
    begin = int(ask.rng("filler", *ask.lengths).integers(0, ask.filler.size - (cuts[-1] - opening.size) + 1))
    context, placed = plant(
        ask.filler[begin : begin + cuts[-1]], needles[: len(plan.positions)], plan.positions, opening=opening,
        cuts=cuts, ends=sentence_ends(ask.encoder.tokenizer, ask.filler),
    )  # fmt: skip
    return Laid(
        context=context, cuts=cuts, lengths=ask.lengths, starts=tuple(placed), placed=tuple(placed), asked=plan.asked
    )  # fmt: skip


class Single1(Niah):
    """A needle in noise."""

    id = "niah-single-1"
    summary = "a number for a key, in repeated noise"
    haystack = "noise"


class Single2(Niah):
    """A needle in a text."""

    id = "niah-single-2"
    summary = "a number for a key, in your text"
    haystack = "text"
    needs = ("text",)


class Single3(Single2):
    """A long value."""

    id = "niah-single-3"
    summary = "a UUID for a key, in your text"
    values = "UUID"


class Multikey1(Single2):
    """Four keys in a text, one of them asked for."""

    id = "niah-multikey-1"
    summary = "a number for one key of at least four, in your text"
    num_keys = NUM_SEVERAL


class Multikey2(Niah):
    """A haystack wholly of needles."""

    id = "niah-multikey-2"
    summary = "a number for a key, where every line is a needle"
    haystack = "needles"


class Multikey3(Multikey2):
    """The same with UUIDs for keys and values."""

    id = "niah-multikey-3"
    summary = "a UUID for a UUID, where every line is a needle"
    keys = "UUID"
    values = "UUID"


class Several(Task):
    """Four needles in a text and one question that asks for all their values."""

    family = "retrieval"
    plants = False
    needs = ("text",)
    source = "RULER (arXiv:2404.06654) section 3; own wording"
    several: ClassVar[Literal["values", "keys"]]

    def build(self, ask: Ask) -> Haystack:
        """A haystack in the user's text, with one question."""
        encoder, words = ask.encoder, wording(ask, self.id, own("number", self.several))
        rng, one_key = ask.rng(self.id), self.several == "values"
        stock = draw(rng, "word", ask.split), draw(rng, "number", ask.split)
        values = take(stock[1], NUM_SEVERAL)
        keys = take(stock[0], 1) * NUM_SEVERAL if one_key else take(stock[0], NUM_SEVERAL)
        order = range(NUM_SEVERAL) if one_key else [int(i) for i in rng.permutation(NUM_SEVERAL)]
        asked = keys[:1] if one_key else [keys[i] for i in order]
        query = ", and ".join([", ".join(asked[:-1]), asked[-1]]) if len(asked) > 1 else asked[0]
        between = ["", *[words.between] * (NUM_SEVERAL - 1)]
        answer, spans = listing(encoder, list(zip(between, (values[i] for i in order), strict=True)))
        question = encoder.question(words.question.format(query=query), words.start.format(query=query))
        tail = int(question.size) + max(BUDGET, int(answer.size))
        depths = sorted(spare_depths(rng, (), NUM_SEVERAL))
        laid = put(ask, "text", words, list(zip(keys, values, strict=True)), depths, tail, stock, [])
        asking = Question(
            key=query, references=tuple(values[i] for i in order), question=question, answer=answer, spans=spans,
            budget=BUDGET,
        )  # fmt: skip
        return haystack(ask, words, laid, [asking])


class Multivalue(Several):
    """Four values of one key."""

    id = "niah-multivalue"
    summary = "all four numbers of one key, in your text"
    several = "values"


class Multiquery(Several):
    """Four keys asked for together."""

    id = "niah-multiquery"
    summary = "the numbers of four keys asked for together, in your text"
    several = "keys"


TASKS = (Single1(), Single2(), Single3(), Multikey1(), Multikey2(), Multikey3(), Multivalue(), Multiquery())
