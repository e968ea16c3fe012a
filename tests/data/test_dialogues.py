"""Chats of topics, and dialogues of which a piece is to be repeated."""

import json
import re
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
import pytest
from test_far_tasks import TALKS, build, prompt, text

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.tasks import topics, words
from ropewalk.data.tasks.conversation import GRAMMARS, GUESS, KINDS, NUM_SAME, ORDINALS, TOPICS, Conversation, Request, write
from ropewalk.data.tasks.topics import Topics, read_conversations

DEPTHS = [(0.5,), (0.1, 0.4, 0.7, 0.9), (0.0, 0.2, 0.4, 0.6, 0.8)]


def turns(stack, question):
    """Request and piece of every exchange of a prompt."""
    told = prompt(stack, question)
    return re.findall(r"Reader: Please write a (\w+ about [^.\n]+)\.\nWriter: (.*)\n", told)


@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("lengths", [(6000,), (6000, 9000)])
def test_the_piece_asked_for_is_the_one_that_its_number_says(depths, lengths):
    stack = build(Conversation(), lengths, depths=depths)
    for question in stack.questions:
        ordinal, request = question.key.split(" ", 1)
        pieces = [piece for asked, piece in turns(stack, question) if asked == request]
        tag, piece = question.references
        assert pieces[ORDINALS.index(ordinal)] == piece
        assert f"write {tag}, then once more the {question.key}, word for word" in text(question.question)
        assert prompt(stack, question).count(tag) == 1
        assert text(question.answer) == f" {tag} {piece}"
        assert text(stack.context[question.position :]).split("\n")[1] == f"Writer: {piece}"
        (low, middle), (_, high) = question.spans
        assert (text(question.answer[low:middle]), text(question.answer[middle:high])) == (f" {tag}", f" {piece}")


@pytest.mark.parametrize("depths", DEPTHS)
def test_what_is_asked_for_was_requested_four_times_and_answered_differently(depths):
    stack = build(Conversation(), (9000,), depths=depths)
    assert stack.num_needles == (-(-len(depths) // NUM_SAME) * NUM_SAME,)
    for question in stack.questions:
        pieces = [piece for asked, piece in turns(stack, question) if asked == question.key.split(" ", 1)[1]]
        assert len(set(pieces)) == len(pieces) == NUM_SAME
        tag = question.references[0]
        assert {text(candidate) for candidate in question.candidates} == {f" {tag} {piece}" for piece in pieces}
        assert Conversation().guess(question) == GUESS > 1 / NUM_SAME


@pytest.mark.parametrize("split", ["measure", "train"])
def test_a_guess_is_worth_what_is_stated(split):
    rng = np.random.default_rng(2)
    kinds, subjects = words.dealt(KINDS, split), words.dealt(TOPICS, split)
    requests = [
        Request(kind=kinds[rng.integers(len(kinds))], topic=subjects[rng.integers(len(subjects))]) for _ in range(120)
    ]
    pairs = [
        (write(rng, one, split), write(rng, one, split), write(rng, other, split))
        for one, other in combinations(requests[:16], 2)
    ]
    same = np.mean([SequenceMatcher(None, one, other).ratio() for one, other, _ in pairs])
    anyone = np.mean([SequenceMatcher(None, one, other).ratio() for one, _, other in pairs])
    assert 1 / NUM_SAME + (1 - 1 / NUM_SAME) * same == pytest.approx(GUESS, abs=0.03)
    assert anyone == pytest.approx(0.04, abs=0.02)


def test_grammars_have_four_lines_and_every_piece_is_long_enough_for_difflib():
    assert {len(lines) for lines in GRAMMARS.values()} == {4}
    assert len(TOPICS) == len(set(TOPICS)) >= 40
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for topic in TOPICS:
            piece = write(rng, Request(kind=kind, topic=topic), "measure")
            assert len(piece) >= 200
            assert topic in piece.lower()
            assert not re.search(r"[{}]|\ba [aeiou]", piece)


def test_more_requests_than_there_are_are_refused():
    with pytest.raises(InputError, match=r"there are \d+ different requests, got 500 to ask about; give fewer --depths"):
        build(Conversation(), (900_000,), depths=tuple(np.linspace(0, 1, 2000)))


@pytest.mark.parametrize("split", ["measure", "train"])
@pytest.mark.parametrize("lengths", [(4000,), (4777,), (2500, 4000, 5200)])
def test_the_first_topic_is_asked_and_the_others_are_labels(lengths, split):
    stack = build(Topics(), lengths, split=split)
    begin = "I would like to talk about this: " if split == "measure" else "Our next subject is "
    for question in stack.questions:
        named = re.findall(rf"{begin}(.*)\.\n", prompt(stack, question))
        assert question.references == (named[0],)
        assert list(question.labels) == named
        assert [text(candidate).strip() for candidate in question.candidates] == named
        assert stack.num_needles[question.stage] == len(named) >= 2
        assert Topics().guess(question) == 1 / len(named)


def test_no_length_cuts_a_topic_off_while_it_is_named():
    for length in range(3000, 3700, 7):
        stack = build(Topics(), (length,))
        named = re.findall(r"talk about this: (.*)\.\nHost: Gladly\.\n", text(stack.context))
        assert text(stack.context).count("Guest: I would") == len(named) == stack.num_needles[0]


def test_short_conversations_on_one_topic_are_joined_and_every_topic_takes_as_much():
    told = text(build(Topics(), (6000,)).context)
    blocks = told.split("Guest: I would like to talk about this: ")[1:-1]
    assert all(topics.TOPIC_TOKENS <= len(block) + 41 <= topics.TOPIC_TOKENS + 150 for block in blocks)


def test_topics_lose_what_the_rule_could_not_read():
    told = read_conversations([{"topic": " The U.S. (and others)  today? ", "turns": ["Hm.\nYes."]}])
    assert told == {"The U S today": [["Hm. Yes."]]}
    assert read_conversations(told) is told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"topic": "bread"}], "conversation 1 has no topic or no turns; expected a record of topic"),
        ([{"turns": ["Hm."]}], "conversation 1 has no topic or no turns"),
        ([{"topic": "?!", "turns": ["Hm."]}], "conversation 1 has no topic or no turns"),
        (["bread"], "conversation 1 has no topic or no turns"),
        (
            [{"topic": "bread", "turns": [{"who": "Ann"}]}],
            "conversation 1 has a turn without text; expected a text, or an object",
        ),
        (TALKS[:1], "got conversations on 1 topics, 0 of them for the split measure, expected two; give conversations on 5"),
    ],
)
def test_conversations_that_cannot_be_used_are_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build(Topics(), (4000,), talks=given)


def test_conversations_that_do_not_fill_the_length_are_refused():
    few = [{"topic": f"number {n}", "turns": ["Yes."]} for n in range(8)]
    with pytest.raises(TextError, match=r"the conversations on 6 topics fill \d+ tokens, expected \d+; give more of them"):
        build(Topics(), (4000,), talks=few)


def test_without_conversations_the_package_is_asked_for(monkeypatch):
    topics.package_conversations.cache_clear()
    monkeypatch.setattr(topics.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"topics are made from conversations, got none; give a JSON file .* or pip install"
    ):
        build(Topics(), (4000,), talks=None)


def test_the_package_is_read_as_it_is_laid_out(monkeypatch, tmp_path):
    """Chats with a prompt, messages grouped by speaker; those without a prompt are left out."""
    chat = {
        "messages": [[{"text": "Hello"}, {"text": "you"}], [{"text": " "}], [{"text": "Hi"}]],
        "prompt": "Mozart or Beethoven?",
    }
    folder = tmp_path / "chitchat_dataset"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "dataset.json").write_text(json.dumps({"one": chat, "two": {**chat, "prompt": None}}), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    topics.package_conversations.cache_clear()
    assert read_conversations(None) == {"Mozart or Beethoven": [["Hello you", "Hi"]]}
    topics.package_conversations.cache_clear()
