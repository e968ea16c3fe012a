"""Associations: the question shares no word with its needle, and one person of several fits it."""

import re

import numpy as np
import pytest
from test_far_tasks import FILLER, build, prompt, text

from ropewalk.core.errors import InputError
from ropewalk.data.tasks import words
from ropewalk.data.tasks.association import FACTS, NUM_PEOPLE, PARTS, QUESTION, START, WORDINGS, Association, names

EMPTY_WORDS = re.findall(
    r"\w+",
    """a an the and or of in on at to for from with by is are was that this it its who which what one all every than but so
    nothing something again""",
)
"""Words without a content of their own."""
SPLITS = ("measure", "train")


def content(sentence):
    """Stems of the words that mean something: endings off, the first six letters at most."""
    found = {re.sub(r"('s|ing|ed|er|es|s|e)$", "", word) for word in re.findall(r"[a-z]+(?:'s)?", sentence.lower())}
    return {stem[:6] for stem in found if stem not in EMPTY_WORDS and len(stem) > 2}


def clashes(fact, split):
    said, asked = WORDINGS[split][fact.kind]
    told = content(said.format(name="", clue=fact.clue))
    return told & content(QUESTION.format(asked=asked.format(meaning=fact.meaning)) + START[split])


@pytest.mark.parametrize("split", SPLITS)
def test_a_needle_shares_no_word_with_its_question(split):
    assert [(fact.clue, fact.meaning, common) for fact in FACTS if (common := clashes(fact, split))] == []


@pytest.mark.parametrize("split", SPLITS)
def test_a_needle_shares_no_word_with_what_others_are_asked(split):
    """Else a question could be answered by the words of a wrong person."""
    meanings = {fact.meaning: content(fact.meaning) for fact in FACTS}
    for fact in words.dealt(FACTS, split):
        said = content(WORDINGS[split][fact.kind][0].format(name="", clue=fact.clue))
        assert [meaning for meaning, stems in meanings.items() if stems & said] == [], fact


def test_the_check_of_words_finds_what_it_looks_for():
    assert content("Which person lives in Chile?") & content("The person's house")
    assert content("a weaver") & content("weaves a web")
    assert not content("Who is in the house?") & content("It is the one of all")


def test_there_are_enough_and_each_means_one_thing():
    assert len(FACTS) >= 40
    assert len({fact.clue for fact in FACTS}) == len({fact.meaning for fact in FACTS}) == len(FACTS)
    for split in SPLITS:
        assert {fact.kind for fact in words.dealt(FACTS, split)} == set(WORDINGS[split])
        assert len(names(split)) >= len(words.dealt(FACTS, split))
    assert set(names("measure")).isdisjoint(names("train"))
    assert set(WORDINGS["measure"].values()).isdisjoint(WORDINGS["train"].values())
    assert len(set(names("measure"))) == len(names("measure"))


def test_no_name_is_part_of_another():
    for split in SPLITS:
        told = names(split)
        assert [(one, other) for one in told for other in told if one != other and one in other] == []
    assert all(part.isascii() for parts in PARTS for part in parts)


@pytest.mark.parametrize("depths", [(0.5,), (0.2, 0.8), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)])
@pytest.mark.parametrize("lengths", [(5000,), (5000, 8000)])
def test_the_person_asked_for_is_the_one_of_whom_it_is_said(depths, lengths):
    clues = {fact.meaning: (fact.clue, fact.kind) for fact in FACTS}
    stack = build(Association(), lengths, depths=depths)
    assert len(stack.questions) == len(depths) * len(lengths)
    for question in stack.questions:
        clue, kind = clues[question.key]
        said = WORDINGS["measure"][kind][0].format(name=question.references[0], clue=clue)
        told = prompt(stack, question)
        assert told.count(f"\n{said[0].upper()}{said[1:]}\n") == 1
        assert text(stack.context[question.position :])[1:].lower().startswith(said.lower())
        assert question.key in text(question.question)
        people = [text(candidate).strip() for candidate in question.candidates]
        assert people[0] == question.references[0]
        assert len(set(people)) == NUM_PEOPLE
        assert all(told.count(name) == 1 for name in people)
        assert Association().guess(question) == 1 / NUM_PEOPLE


def test_a_single_depth_stands_among_others_that_nobody_asks_for():
    stack = build(Association(), (5000,), depths=(0.5,))
    assert (len(stack.questions), stack.num_needles) == (1, (NUM_PEOPLE,))
    assert stack.questions[0].depth == pytest.approx(0.5, abs=0.05)


def test_more_needles_than_associations_are_refused():
    with pytest.raises(InputError, match=r"there are \d+ associations, got 200 needles; give fewer --depths"):
        build(Association(), (40_000,), depths=tuple(np.linspace(0, 1, 200)), filler=np.tile(FILLER, 3))
