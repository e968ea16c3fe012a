"""Shared prefill against stand-alone prompts, in float32, and what an answer says."""

import families
import numpy as np
import pytest
import torch

from ropewalk.data.tasks.encoding import EMPTY, Encoder
from ropewalk.data.tasks.task import Ask, Question, find_task
from ropewalk.measure.forward import Forward
from ropewalk.measure.retrieval import Prefilled, answer_all, answer_alone

DEPTHS = (0.1, 0.5, 0.9)
FAMILIES = ["llama", "gpt-neox", "gemma3", "olmo3", "gpt-oss", "smollm3", "deepseek-v3", "qwen3.5"]


@pytest.fixture
def stack(characters):
    filler = np.random.default_rng(5).integers(3, 100, 4000)
    encoder = Encoder(tokenizer=characters, prefix=EMPTY)
    return find_task("needle").build(Ask(encoder=encoder, lengths=(600,), depths=DEPTHS, seed=1, filler=filler))


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_equal_stand_alone_prompts(family, stack, characters):
    """Sliding windows and recurrent states included: what a branch reads is forgotten wholly."""
    forward = Forward(families.model(family))
    shared = answer_all(forward, characters, stack)
    for question, answer in zip(stack.questions, shared, strict=True):
        alone = answer_alone(forward, characters, stack.context, question)
        assert answer.logprob == pytest.approx(alone.logprob, abs=1e-4)
        assert (answer.exact, answer.rank) == (alone.exact, alone.rank)


def test_crop_reads_only_the_last_tokens(stack, characters):
    forward = Forward(families.model("llama"))
    cropped = answer_all(forward, characters, stack, keep_last=200)
    tail = stack.length - stack.context.size
    alone = answer_alone(forward, characters, stack.context[-(200 - tail) :], stack.questions[2])
    assert cropped[2].logprob == pytest.approx(alone.logprob, abs=1e-4)
    whole = answer_all(forward, characters, stack, keep_last=10_000)
    assert whole == answer_all(forward, characters, stack)


def test_a_branch_leaves_the_cache_as_it_was(stack):
    forward = Forward(families.model("gemma3"))
    cache = Prefilled(forward, stack.context)
    with cache.branch():
        first = cache.read(stack.questions[0].question)
    with cache.branch():
        again = cache.read(stack.questions[0].question)
    assert torch.equal(first, again)
    assert cache.num_read == stack.context.size


class Parrot:
    """A stand-in for `Forward` whose hidden states are logits: it always expects the token after the one it read."""

    device = torch.device("cpu")

    def __init__(self, expects):
        self.expects = expects

    def hidden(self, ids):
        out = torch.zeros(ids.shape[0], 128)
        for row, token in enumerate(ids.tolist()):
            out[row, self.expects.get(token, 0)] = 50.0
        return out

    def logits(self, hidden):
        return hidden


def question(characters, value, others):
    ids = lambda text: np.asarray(characters(text)["input_ids"])  # noqa: E731
    return Question(
        key="k", references=(value,), depth=0.5, position=0, question=ids("?"), answer=ids(value),
        candidates=(ids(value), *(ids(o) for o in others)),
    )  # fmt: skip


def test_exact_rank_and_guess(characters):
    ids = lambda text: characters(text)["input_ids"]  # noqa: E731
    chain = ids("?12")
    knows = Parrot({chain[0]: chain[1], chain[1]: chain[2]})
    right = answer_alone(knows, characters, np.asarray(ids("x")), question(characters, "12", ["34", "56"]))
    assert (right.exact, right.rank, right.num_candidates, right.first_choice) == (True, 1, 3, "12")
    wrong = answer_alone(knows, characters, np.asarray(ids("x")), question(characters, "34", ["12", "56"]))
    assert (wrong.exact, wrong.rank) == (False, 3)
    assert wrong.first_choice[0] == "1"
