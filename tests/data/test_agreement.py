"""The rules by which a made item is kept, answer by answer."""

import pytest

from ropewalk.data.making.agreement import agree, f1, gives_away


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Paris", "paris.", True),
        ("the lamp", "A lamp", True),
        ("1802", "It was finished in 1802.", True),
        ("1,802 ships", "1802 ships", True),
        ("1802", "1803", False),
        ("in July 1802", "in July 1803", False),
        ("three red lamps on the pier", "red lamps on the pier", True),
        ("it is allowed", "it is not allowed", False),
        ("he didn't", "he did", False),
        ("a lamp", "the keeper's daughter", False),
        ("灯塔守人", "灯塔守人。", True),
        ("灯塔", "海鸥", False),
        ("lamp", "", False),
        ("the", "a", False),
        ("art", "the party", False),
    ],
)
def test_two_answers_agree_by_rule(one: str, other: str, same: bool) -> None:
    assert agree(one, other, 0.6) is agree(other, one, 0.6) is same


def test_f1_is_that_of_words() -> None:
    # Two of three words shared with two of four.
    assert f1("red lamp there", "red lamp over here") == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert f1("lamp lamp", "lamp") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("reply", "answer", "given"),
    [
        ("The lighthouse is red, I believe, as all of them are.", "red", True),
        ("The lighthouse is red.", "The lighthouse is red", True),
        ("I do not know what colour the lighthouse is.", "The lighthouse is red", False),
        ("It is the lighthouse.", "lighthouse", False),
        ("It has 12 windows.", "12", True),
        ("It has 13 windows.", "12 windows", False),
        ("not stated", "red", False),
    ],
)
def test_a_reply_gives_an_answer_away_by_the_words_the_question_lacks(reply: str, answer: str, given: bool) -> None:
    assert gives_away(reply, "What colour is the lighthouse?", answer, 0.6) is given
