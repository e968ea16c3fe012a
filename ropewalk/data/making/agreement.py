"""When two answers agree, and when a reply gives an answer away: rules that can be looked into, no judge.

F1 over words is SQuAD's measure (Rajpurkar et al., arXiv:1606.05250): articles left out, case and punctuation aside. Two
answers agree where they have the same numbers and the same negations, and F1 is high enough or one holds the other whole
("1802" and "it was 1802"). Letters of Chinese and Japanese count as words, since no space parts them.

A reply gives an answer away where it has the answer's numbers and most of those of its words that the question does not say
itself. That is stricter than agreement, since a long reply may hold a short answer.

Given up: synonyms, numbers in words, and negation in languages other than English. They cost items, or rarely let a
wrong one through; either shows in `drafts.jsonl`, where every reply stands.
"""

import re
from collections import Counter

WORDS = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|[^\W_぀-ヿ㐀-鿿豈-﫿]+(?:['’][^\W_]+)?")
NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
ARTICLES = ("a", "an", "the")
NEGATIONS = ("no", "not", "never", "none", "neither", "nor", "without", "cannot")


def words(text: str) -> list[str]:
    """The words of a text, case folded; numbers without their commas, no articles."""
    plain = NUMBERS.sub(lambda found: found.group().replace(",", ""), text.casefold())
    return [word for word in WORDS.findall(plain) if word not in ARTICLES]


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, without their commas."""
    return Counter(found.replace(",", "") for found in NUMBERS.findall(text))


def f1(one: str, other: str) -> float:
    """SQuAD's F1 of two answers, 0 to 1."""
    left, right = words(one), words(other)
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def agree(one: str, other: str, threshold: float) -> bool:
    """Whether two answers to one question say the same."""
    left, right = words(one), words(other)
    if not left or not right or numbers(one).keys() != numbers(other).keys() or _denies(left) != _denies(right):
        return False
    return f1(one, other) >= threshold or _holds(left, right) or _holds(right, left)


def gives_away(reply: str, question: str, answer: str, threshold: float) -> bool:
    """Whether a reply holds what an answer says beyond its question."""
    new, said = own_words(question, answer), set(words(reply))
    if not new or numbers(answer).keys() - numbers(question).keys() - numbers(reply).keys():
        return False
    return sum(word in said for word in new) / len(new) >= threshold


def own_words(question: str, answer: str) -> set[str]:
    """The words of an answer that its question does not say."""
    return set(words(answer)) - set(words(question))


def _denies(said: list[str]) -> bool:
    return any(word in NEGATIONS or word.endswith(("n't", "n’t")) for word in said)


def _holds(long: list[str], short: list[str]) -> bool:
    size = len(short)
    return any(long[at : at + size] == short for at in range(len(long) - size + 1))
