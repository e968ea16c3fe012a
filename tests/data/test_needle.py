"""Haystacks: exact lengths, seeded, needles where they are said to be."""

import numpy as np
import pytest
from characters import Characters

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.tasks import needle
from ropewalk.data.tasks.encoding import Encoder
from ropewalk.data.tasks.task import Ask, find_task

FILLER = np.asarray(Characters()("The sea was calm. A gull cried over the bay. " * 400)["input_ids"])
NO_PREFIX = np.zeros(0, dtype=np.int64)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


def build(length=2000, depths=DEPTHS, seed=0, prefix=NO_PREFIX, filler=FILLER):
    encoder = Encoder(tokenizer=Characters(), prefix=prefix)
    return find_task("needle").build(Ask(encoder=encoder, lengths=(length,), depths=depths, seed=seed, filler=filler))


@pytest.mark.parametrize("length", [1500, 2000, 2777])
def test_the_longest_prompt_is_exactly_the_length(length):
    stack = build(length)
    sizes = [stack.context.size + q.question.size + q.answer.size for q in stack.questions]
    assert stack.length == length
    assert max(sizes) <= length
    assert max(sizes) >= length - 12


def test_each_needle_lies_where_it_says_and_depths_are_near_what_was_asked():
    stack, tokenizer = build(), Characters()
    for asked, q in zip(DEPTHS, stack.questions, strict=True):
        line = "\n" + needle.OWN["measure"].needle.format(key=q.key, value=q.references[0]) + "\n"
        size = len(line)
        assert tokenizer.decode(stack.context[q.position : q.position + size].tolist()) == tokenizer.decode(
            tokenizer(line)["input_ids"]
        )
        assert abs(q.depth - asked) < 0.06


def test_needles_follow_the_end_of_a_sentence():
    stack, tokenizer = build(), Characters()
    for q in stack.questions:
        assert tokenizer.decode([int(stack.context[q.position - 1])]) in (".", "\x1f", "\n")


def test_seeds_draw_different_haystacks_and_lengths_the_same_questions():
    assert np.array_equal(build(seed=3).context, build(seed=3).context)
    assert not np.array_equal(build(seed=3).context, build(seed=4).context)
    values = [q.references[0] for q in build(seed=3).questions]
    assert values == [q.references[0] for q in build(seed=3, length=2001).questions]
    assert set(values).isdisjoint(q.references[0] for q in build(seed=4).questions)
    assert build(seed=3, depths=(0.1,)).questions[0].references != build(seed=3, depths=(0.9,)).questions[0].references


def test_candidates_are_the_true_value_and_four_others():
    for depths in (DEPTHS, (0.5,)):
        for q in build(depths=depths).questions:
            assert len(q.candidates) == needle.NUM_CANDIDATES
            assert np.array_equal(q.candidates[0], q.answer)
            assert len({c.tobytes() for c in q.candidates}) == needle.NUM_CANDIDATES


def test_a_single_needle_has_no_other_value_in_its_context():
    stack = build(depths=(0.5,))
    text = Characters().decode(stack.context.tolist())
    assert text.count("code of the") == 1


def test_the_bos_token_comes_first():
    stack = build(prefix=np.array([1]))
    assert stack.context[0] == 1
    assert stack.length == 2000


def test_no_room_says_the_smallest_length():
    with pytest.raises(TextError, match="leave no room for 5 needles; the smallest length is") as caught:
        build(length=300)
    smallest = int(str(caught.value).rsplit(" ", 1)[1])
    assert build(length=smallest).length == smallest
    with pytest.raises(TextError, match="leave no room"):
        build(length=smallest - 1)


def test_short_filler_and_too_many_needles_are_refused():
    with pytest.raises(TextError, match="the filler has 100 tokens, expected at least"):
        build(filler=FILLER[:100])
    with pytest.raises(InputError, match="different keys, got 20000 needles; give fewer --depths"):
        build(depths=tuple(np.linspace(0, 1, 20000)))
