"""Rules on generated text: equal to what the originals' own code gave for the same answers."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ropewalk.data.tasks.scoring import RULES, score

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/tasks/scores.json").read_text(encoding="utf-8"))
COMPARED = ("all", "any", "first-integer", "last-integer", "label", "rouge-l")
CASES = [pytest.param(rule, *case, id=f"{rule}: {case[0][:20]!r}") for rule in COMPARED for case in GOLDEN[rule]]


@pytest.mark.parametrize(("rule", "answer", "references", "original"), CASES)
def test_a_score_is_the_originals(rule, answer, references, original):
    # RULER rounds percent to two places.
    assert score(rule, answer, references, GOLDEN["labels"]) == pytest.approx(original, abs=5.1e-5)


@pytest.mark.parametrize("rule", COMPARED)
def test_the_compared_answers_tell_right_from_wrong(rule):
    scores = [case[2] for case in GOLDEN[rule]]
    assert max(scores) > 0.9
    assert min(scores) < 0.1


def subsequence(one, other):
    """The longest common subsequence by trying every choice of words."""
    for size in range(min(len(one), len(other)), 0, -1):
        if set(combinations(one, size)) & set(combinations(other, size)):
            return size
    return 0


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_rouge_l_is_its_definition(answer, reference):
    common = subsequence(answer, reference)
    expected = 2 * common / (len(answer) + len(reference))
    assert score("rouge-l", " ".join(answer), [" ".join(reference)]) == pytest.approx(expected)


def test_rouge_l_takes_the_best_reference_and_agrees_with_the_package():
    assert score("rouge-l", "a b c", ["x", "a b c d"]) == pytest.approx(6 / 7)
    scorer = RougeScorer(["rougeL"])
    assert score("rouge-l", "A b, c", ["a c b"]) == pytest.approx(scorer.score("a c b", "A b, c")["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("rule", "answer", "references", "expected"),
    [
        ("starts-with", "\n Amber heron, I think", ["amber Heron"], 1),
        ("starts-with", "the amber heron", ["amber heron"], 0),
        ("ratio", "abc the same", ["abc", "the same"], 1), ("ratio", "the same", ["abc", "the same"], 0),
        ("ratio", "so abc the same", ["abc", "the same"], 0), ("all", "none", ["a", "b"], 0),
    ],
)  # fmt: skip
def test_rules_without_an_original_here(rule, answer, references, expected):
    assert score(rule, answer, references) == expected


def test_a_label_inside_the_right_one_does_not_count_against_it():
    assert score("label", "It was Anna.", ["Anna"], ["Ann", "Anna"]) == 1
    assert score("label", "It was Anna.", ["Ann"], ["Ann", "Anna"]) == 0


@given(st.sampled_from(sorted(RULES)), st.text(max_size=60), st.text("0123456789", min_size=1, max_size=5))
def test_any_answer_is_scored_from_0_to_1(rule, answer, reference):
    references = [reference, reference]
    assert 0 <= score(rule, answer, references) <= 1
