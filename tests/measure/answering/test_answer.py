"""What an answer says of a reading: exact, found, rank."""

import json

import numpy as np
import pytest
import torch

from ropewalk.data.tasks.task import Question
from ropewalk.measure.answering.answer import Answer, Reading, answered
from ropewalk.measure.answering.local import answer_alone
from ropewalk.measure.forward import Forward


class Parrot(Forward):
    """A `Forward` whose hidden states are logits: it always expects the token after the one it read."""

    device = torch.device("cpu")
    vocabulary = 128

    def __init__(self, expects):
        self.expects = expects
        self.model = None

    def hidden(self, ids):
        out = torch.zeros(ids.shape[0], 128)
        for row, token in enumerate(ids.tolist()):
            out[row, self.expects.get(token, 0)] = 50.0
        return out

    def _logits(self, hidden):
        return hidden


def question(characters, value, others, **changes):
    ids = lambda text: np.asarray(characters(text)["input_ids"])  # noqa: E731
    candidates = (ids(value), *(ids(o) for o in others)) if others else ()
    return Question(
        key="k", references=(value,), depth=0.5, position=0, question=ids("?"), answer=ids(value), candidates=candidates,
        **changes,
    )  # fmt: skip


def test_exact_rank_and_guess(characters):
    ids = lambda text: characters(text)["input_ids"]  # noqa: E731
    chain = ids("?12")
    knows = Parrot({chain[0]: chain[1], chain[1]: chain[2]})
    right = answer_alone(knows, characters, np.asarray(ids("x")), question(characters, "12", ["34", "56"]))
    assert (right.exact, right.rank, right.num_candidates, right.first_choice) == (True, 1, 3, "12")
    assert (right.found, right.num_prompt_tokens, right.text) == (1.0, 2, None)
    wrong = answer_alone(knows, characters, np.asarray(ids("x")), question(characters, "34", ["12", "56"]))
    assert (wrong.exact, wrong.rank, wrong.found) == (False, 3, 0.0)
    assert wrong.first_choice[0] == "1"


def test_nothing_is_ranked_without_candidates(characters):
    answer = answer_alone(Parrot({}), characters, np.zeros(1, dtype=np.int64), question(characters, "12", []))
    assert (answer.rank, answer.num_candidates) == (None, None)


@pytest.mark.parametrize(
    ("choices", "found", "exact"),
    [("12,34", 1.0, True), ("12;34", 1.0, False), ("13,34", 0.5, False), ("13,35", 0.0, False)],
)
def test_found_is_the_share_of_references_whose_tokens_are_all_first_choices(characters, choices, found, exact):
    """What stands between references belongs to the whole answer alone."""
    asked = question(characters, "12,34", [], spans=((0, 2), (3, 5)))
    reading = Reading(logprobs=(-1.0,), choices=np.asarray(characters(choices)["input_ids"]))
    answer = answered(asked, reading, characters, 7)
    assert (answer.found, answer.exact) == (found, exact)


def test_ties_count_against_the_answer(characters):
    asked = question(characters, "12", ["34", "56"])
    reading = Reading(logprobs=(-1.0, -1.0, -2.0), choices=asked.answer)
    assert answered(asked, reading, characters, 7).rank == 2


@pytest.mark.parametrize(("said", "found"), [("it is 12", 1.0), ("it is 13", 0.0)])
def test_found_follows_the_rule_where_text_is_generated(characters, said, found):
    asked = question(characters, "12", ["34"])
    reading = Reading(logprobs=(-1.0, -2.0), choices=asked.answer, generated=np.asarray(characters(said)["input_ids"]))
    answer = answered(asked, reading, characters, 7)
    assert (answer.found, answer.text, answer.scoring, answer.exact) == (found, said, "generate", True)


def test_round_trip_among_other_columns(characters):
    answer = answered(
        question(characters, "12", []),
        Reading(logprobs=(-1.0,), choices=np.asarray([3, 4])), characters, 7,
    )  # fmt: skip
    row = json.loads(json.dumps({"cell": "x", **answer.to_dict()}))
    assert Answer.from_dict(row) == answer


def test_rules_read_no_special_tokens_and_know_the_labels(characters):
    characters.all_special_ids = [100]
    asked = question(characters, "attic", [], rule="label", labels=("attic", "barn"))
    for said, found in (("attic.", 1.0), ("attic or barn.", 0.0)):
        ids = [*characters(said)["input_ids"][:3], 100, *characters(said)["input_ids"][3:]]
        answer = answered(asked, Reading(logprobs=(-1.0,), choices=asked.answer, generated=np.array(ids)), characters, 7)
        assert (answer.text, answer.found) == (said, found)
