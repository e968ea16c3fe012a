"""Counting tasks: the words that stand most often in a list, and in a coded text. The whole context is the answer's place.

Common words: a numbered list in which ten words stand 30 times and all others 3 times (6 and 1 where the length is below
4096), after a worked example with 40 words at 10 and 3 (20 words at 3 and 1); 120 tokens of room. Frequent words: made-up
words of six letters whose k-th stands n k^-2 / zeta(2) times, rounded down; the first is dots and not asked for, the next
three are; there is a word in the vocabulary for every 50 tokens; 50 tokens of room. Source: RULER (arXiv:2404.06654)
section 3.

Other than there, lists are as long as fit, and the rest is filled by a remark. Beyond the words of our list (about 1,900
in the split `measure`) all words are pairs of them, where RULER goes over to a longer list.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError
from ropewalk.data.tasks.encoding import Encoder, Ids, encode
from ropewalk.data.tasks.lines import listing, remark
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, too_short
from ropewalk.data.tasks.templates import Wording, wording
from ropewalk.data.tasks.vocabulary import common_words, names

COMMON: Mapping[Split, Wording] = {
    "measure": Wording(
        opening="Here is a numbered list of words. Some words stand in it far more often than the rest; note which.\n",
        question="\nQuestion: Which 10 words stand most often in this list?\n",
        start="Answer: These 10 words stand most often:",
    ),
    "train": Wording(
        opening="Words were drawn from a bag and put back. A few came up again and again. Watch for them.\n",
        question="\nTell: Which 10 words came up most?\n", start="Told: What came up most were",
    ),
}  # fmt: skip
FREQUENT: Mapping[Split, Wording] = {
    "measure": Wording(
        opening="This text is in a made-up language. Count how often each of its words stands there; dots are not words.\n",
        question="\nQuestion: Which three words stand most often in it, the most frequent first? Leave out the dots.\n",
        start="Answer: The three words that stand most often are", between="",
    ),
    "train": Wording(
        opening="Signals came in, and a row of dots when there was nothing. Which signals came most?\n",
        question="\nTell: Name the three signals that came most, beginning with the top one, without the dots.\n",
        start="Told: Most came", between="",
    ),
}  # fmt: skip
NUM_COMMON = 10
SHORT = 4096
"""Below this length words stand less often, and the example is smaller."""
TIMES = {False: (30, 3), True: (6, 1)}
"""How often a common word and another one stands in the list; True: below `SHORT`."""
EXAMPLE = {False: (40, 10, 3), True: (20, 3, 1)}
"""Words of the worked example, and how often its common ones and the others stand."""
LEAST_WORDS = 2 * NUM_COMMON
"""Different words in a list, at the least."""
COMMON_BUDGET = 120
FREQUENT_BUDGET = 50
CODED_LETTERS = 6
NUM_FREQUENT = 3
TOKENS_PER_CODED = 50
"""Tokens of length for each word of the coded vocabulary."""
DOTS = "..."
ZETA = math.pi**2 / 6
LEAST_CODED = math.ceil(ZETA / (1 / 16 - 1 / 25))
"""From so many coded words on the fourth stands more often than the fifth."""
LEAST_VOCABULARY = math.isqrt(math.floor(LEAST_CODED / ZETA)) + 1
"""More words than stand at all in a text of `LEAST_CODED`, so that the smallest text is the same at every length."""


class CommonWords(Task):
    """The ten words that stand most often."""

    id = "common-words"
    family = "aggregation"
    summary = "the ten words that stand most often in a numbered list"
    source = "RULER (arXiv:2404.06654) section 3, common words extraction; own wording"
    plants = False
    scoring = "generate"

    def build(self, ask: Ask) -> Haystack:
        """The common words do not depend on the length, as long as the list's words suffice."""
        encoder, words, short = ask.encoder, wording(ask, self.id, COMMON), ask.length < SHORT
        listed, rng = common_words(ask.split), ask.rng(self.id)
        drawn = [listed[i] for i in rng.permutation(len(listed))]
        opening = np.concatenate(
            [encoder.head, self._example(ask, words, drawn[: EXAMPLE[short][0]]), encoder.ids(words.opening)]
        )
        question = encoder.question(words.question, words.start)
        rest, (often, seldom) = drawn[EXAMPLE[False][0] :], TIMES[short]
        for stock in (rest, pairs_of(rng, rest)):
            common = stock[:NUM_COMMON]
            answer, spans = listing(encoder, [(f" {i}.", word) for i, word in enumerate(common, start=1)])
            room = ask.length - int(question.size) - max(COMMON_BUDGET, int(answer.size))
            num, smallest = fitting(encoder, stock, room - int(opening.size), often, seldom)
            if smallest > room - int(opening.size):
                need = ask.length - room + int(opening.size) + smallest
                raise too_short(ask.length, need, "the list and its example")
            if num < len(stock):
                break
        if num == len(stock):
            raise InputError(f"common-words has {num} words, too few for {ask.length} tokens; give smaller --lengths")
        items = shuffled(ask.rng(self.id, "order", ask.length), common * often + stock[NUM_COMMON:num] * seldom)
        context = filled(encoder, opening, numbered(encoder, items), room)
        asking = Question(
            key="common words", references=tuple(common), question=question, answer=answer, spans=spans, budget=COMMON_BUDGET
        )
        return Haystack(
            context=context, questions=(asking,), lengths=ask.lengths, seed=ask.seed, head=encoder.head, wording=words.name
        )

    def _example(self, ask: Ask, words: Wording, drawn: list[str]) -> Ids:
        """A small list with its question and answer."""
        _, often, seldom = EXAMPLE[ask.length < SHORT]
        items = shuffled(ask.rng(self.id, "example"), drawn[:NUM_COMMON] * often + drawn[NUM_COMMON:] * seldom)
        said = [" ".join(f"{i}. {word}" for i, word in enumerate(some, start=1)) for some in (items, drawn[:NUM_COMMON])]
        text = f"{words.opening}{said[0]}{words.question}{words.start} {said[1]}\n\n"
        return encode(ask.encoder.tokenizer, text)


class FrequentWords(Task):
    """The three coded words that stand most often."""

    id = "frequent-words"
    family = "aggregation"
    summary = "the three made-up words that stand most often, counts falling with the square of the rank"
    source = "RULER (arXiv:2404.06654) section 3, frequent words extraction; own wording"
    plants = False

    def build(self, ask: Ask) -> Haystack:
        """The asked words do not depend on the length; the vocabulary does."""
        encoder, words = ask.encoder, wording(ask, self.id, FREQUENT)
        size = max((ask.length - FREQUENT_BUDGET) // TOKENS_PER_CODED, LEAST_VOCABULARY)
        vocabulary = [DOTS, *islice(names(ask.rng(self.id), ask.split, CODED_LETTERS, upper=False), size - 1)]
        asked = vocabulary[1 : NUM_FREQUENT + 1]
        opening = np.concatenate([encoder.head, encoder.ids(words.opening)])
        question = encoder.question(words.question, words.start)
        answer, spans = listing(encoder, [("" if word == asked[0] else words.between, word) for word in asked])
        room = ask.length - int(question.size) - max(FREQUENT_BUDGET, int(answer.size))
        coded = [encode(encoder.tokenizer, f" {word}") for word in vocabulary]
        sizes, free = np.array([ids.size for ids in coded]), room - int(opening.size)
        num = most(sizes, free)
        if num < LEAST_CODED:
            need = ask.length - free + int(counts(LEAST_CODED, size) @ sizes)
            raise too_short(ask.length, need, "a coded text whose first words differ in number")
        ranks = np.repeat(np.arange(size), counts(num, size))
        order = ask.rng(self.id, "order", ask.length).permutation(ranks)
        context = filled(encoder, opening, [coded[rank] for rank in order], room)
        asking = Question(
            key="frequent words",
            references=tuple(asked),
            question=question,
            answer=answer,
            spans=spans,
            budget=FREQUENT_BUDGET,
        )
        return Haystack(
            context=context, questions=(asking,), lengths=ask.lengths, seed=ask.seed, head=encoder.head, wording=words.name
        )


def counts(num: int, size: int) -> NDArray[np.int64]:
    """How often each of `size` words stands in a text of nominally `num`: Zeta(2) counts, rounded down."""
    return np.asarray(num * np.arange(1, size + 1, dtype=np.float64) ** -2 / ZETA).astype(np.int64)


def most(sizes: NDArray[np.int64], free: int) -> int:
    """The largest `num` whose words take at most `free` tokens."""
    low, high = 0, max(2 * free, 1)
    while low < high:
        middle = (low + high + 1) // 2
        if int(counts(middle, sizes.size) @ sizes) <= free:
            low = middle
        else:
            high = middle - 1
    return low


def shuffled(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    """In another order."""
    return [items[i] for i in rng.permutation(len(items))]


def pairs_of(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    """Words made of two of the list, for lengths at which the list ends: twenty for each word."""
    partners = [rng.permutation(len(words)) for _ in range(20)]
    return list(dict.fromkeys(f"{words[i]}-{words[j]}" for order in partners for i, j in enumerate(order) if i != j))


def numbered(encoder: Encoder, items: Sequence[str]) -> list[Ids]:
    """A numbered list, number and word apart, so that its size does not depend on the order."""
    return [piece for i, item in enumerate(items, start=1) for piece in (encoder.ids(f" {i}."), encoder.ids(f" {item}"))]


def fitting(encoder: Encoder, stock: Sequence[str], free: int, often: int, seldom: int) -> tuple[int, int]:
    """How many words of `stock` fit into a list, the first `NUM_COMMON` often, and how many tokens `LEAST_WORDS` take."""
    used, entries, least = 0, 0, 0
    for num, word in enumerate(stock):
        times = often if num < NUM_COMMON else seldom
        used += times * int(encoder.ids(f" {word}").size)
        used += sum(int(encoder.ids(f" {entries + i}.").size) for i in range(1, times + 1))
        entries += times
        if num + 1 == LEAST_WORDS:
            least = used
        if used > free and num >= LEAST_WORDS:
            return num, least
    return len(stock), least


def filled(encoder: Encoder, opening: Ids, parts: Sequence[Ids], size: int) -> Ids:
    """A context of `size` tokens: the opening, a remark cut to fit, and all the parts."""
    rest = size - int(opening.size) - sum(int(part.size) for part in parts)
    return np.concatenate([opening, remark(encoder, rest), *parts])


TASKS = (CommonWords(), FrequentWords())
