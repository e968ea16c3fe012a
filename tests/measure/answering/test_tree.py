"""The tree: its mask, its groups, its limits, and where it is not used."""

import families
import numpy as np
import pytest
import torch

from ropewalk.data.tasks.task import Question
from ropewalk.measure import forward as forwards
from ropewalk.measure.answering import tree as trees
from ropewalk.measure.answering.answer import branches
from ropewalk.measure.answering.local import answer_all, read_one
from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.answering.tree import Branch, Tree, fits, pack, read_tree, score
from ropewalk.measure.forward import Forward


def question(*sizes: int) -> Question:
    """Of a question's size, its answer's, and its other candidates'; the candidates begin alike."""
    first, *answers = sizes
    ids = [np.concatenate([[9], np.arange(20 * (i + 1), 20 * (i + 1) + size - 1)]) for i, size in enumerate(answers)]
    return Question(key="", references=(), question=np.arange(3, 3 + first), answer=ids[0], candidates=tuple(ids))


def test_every_token_sees_its_own_branch_and_nothing_else():
    asked = [question(2, 3, 2), question(1, 1, 3)]
    tree = Tree(asked, [Branch(question=0, candidates=[0, 1]), Branch(question=1, candidates=[0, 1])])
    assert tree.offsets.tolist() == [0, 1, 2, 3, 2, 0, 1, 2]
    assert tree.ids.tolist() == [3, 4, 9, 20, 9, 3, 9, 40]
    seen = tree.mask(1, 0, torch.zeros(0)) == 0
    expected = """
        1 1.......
        1 11......
        1 111.....
        1 1111....
        1 11..1...
        1 .....1..
        1 .....11.
        1 .....111
    """
    assert ["".join("1" if v else "." for v in row) for row in seen.tolist()] == [
        line.strip().replace(" ", "") for line in expected.strip().splitlines()
    ]
    tree.decoded(0, 0)
    tree.decoded(1, 0)
    tree.decoded(0, 1)
    assert tree.offsets[-3:].tolist() == [2, 1, 3]
    seen = tree.mask(0, 8, torch.zeros(0)) == 0
    assert ["".join("1" if v else "." for v in row) for row in seen.tolist()] == [
        "11......1..", ".....1...1.", "11......1.1",
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 5, 8, 12, 20, 1000])
def test_groups_hold_every_branch_once_and_keep_the_limit(limit):
    asked = [question(4, 3, 3, 5), question(2, 2), question(6, 4, 4)]
    groups = list(pack(asked, limit))
    found = [(part.question, which) for group in groups for part in group for which in part.candidates]
    assert found == [(i, which) for i, q in enumerate(asked) for which in range(len(branches(q)))]
    for group in groups:
        size = Tree(asked, group).ids.size
        assert size <= limit or sum(len(part.candidates) for part in group) == 1
    assert len(list(pack(asked, 1000))) == 1


@pytest.mark.parametrize("limit", [1, 40, 90])
@pytest.mark.parametrize("family", ["llama", "deepseek-v3"])
def test_small_trees_equal_one_large_one(family, limit, fixed, monkeypatch):
    cache = Prefilled(Forward(families.model(family)))
    cache.read_context(fixed.context)
    budgets, ends = [5, 2, 7], frozenset({2})
    large = read_tree(cache, fixed.questions, budgets=budgets, ends=ends)
    monkeypatch.setattr(trees, "MAX_TOKENS", limit)
    small = read_tree(cache, fixed.questions, budgets=budgets, ends=ends)
    assert cache.num_read == fixed.context.size
    for one, other in zip(large, small, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.choices.tolist() == other.choices.tolist()
        assert one.generated is not None
        assert other.generated is not None
        assert one.generated.tolist() == other.generated.tolist()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_bfloat16_is_near_one_by_one(attention, fixed):
    """The mask is in the model's dtype. A wrong one would be off by far more than the dtype."""
    model = families.model("llama", attention=attention).to(torch.bfloat16)
    cache = Prefilled(Forward(model))
    cache.read_context(fixed.context)
    assert fits(cache)
    for asked, reading in zip(fixed.questions, read_tree(cache, fixed.questions), strict=True):
        alone = read_one(cache, asked, None)
        assert reading.logprobs == pytest.approx(alone.logprobs, rel=0.03)


def test_the_cache_is_left_as_it_was(fixed):
    cache = Prefilled(Forward(families.model("llama")))
    cache.read_context(fixed.context)
    before = [(layer.keys, layer.values) for layer in cache.cache.layers]
    read_tree(cache, fixed.questions, budgets=[4, 4, 4])
    for (keys, values), layer in zip(before, cache.cache.layers, strict=True):
        assert layer.keys is keys
        assert layer.values is values


def test_the_head_runs_over_rows_that_predict_something_only(fixed, monkeypatch):
    forward = Forward(families.model("llama"))
    rows = []
    whole = forward.log_probabilities
    monkeypatch.setattr(forward, "log_probabilities", lambda hidden: rows.append(hidden.shape[0]) or whole(hidden))
    cache = Prefilled(forward)
    cache.read_context(fixed.context)
    read_tree(cache, fixed.questions)
    assert sum(rows) == sum(1 + sum(answer.size - 1 for answer in branches(q)) for q in fixed.questions)


def test_score_in_chunks_equals_log_softmax(monkeypatch):
    forward = Forward(families.model("llama"))
    hidden = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    rows, answers = [np.array([8, 1, 2]), np.array([8, 5])], [np.array([3, 4, 5]), np.array([6, 7])]
    logp = torch.log_softmax(forward.logits(hidden), dim=1).detach()
    expected = [float(logp[[8, 1, 2], [3, 4, 5]].sum()), float(logp[[8, 5], [6, 7]].sum())]
    for bytes_ in (1, 4 * 128 * 2, 1 << 20):
        monkeypatch.setattr(forwards, "CHUNK_BYTES", bytes_)
        values, first = score(forward, hidden, rows, answers)
        assert values == pytest.approx(expected, abs=1e-5)
        assert first[[1, 2, 5, 8]].tolist() == logp.argmax(1)[[1, 2, 5, 8]].tolist()


@pytest.mark.parametrize("family", ["gemma3", "gpt-oss", "qwen3.5"])
def test_models_that_a_tree_would_misread_branch_one_by_one(family):
    assert not fits(Prefilled(Forward(families.model(family))))


def test_a_temperature_that_counts_in_the_cache_is_not_read_as_a_tree():
    model = families.model("llama")
    assert fits(Prefilled(Forward(model)))
    model.config.attn_temperature_tuning = True
    assert not fits(Prefilled(Forward(model)))


def test_a_model_that_ignores_the_mask_is_found_out(monkeypatch):
    """The proof is of the model as it is, not of its name."""
    model = families.model("llama", attention="sdpa")
    body, forward = model.model, Forward(model)
    whole = body.forward
    monkeypatch.setattr(body, "forward", lambda attention_mask=None, **rest: whole(**rest))
    assert not fits(Prefilled(forward))


def test_a_wrong_mask_would_show(fixed, characters, monkeypatch):
    """That the equality tests can fail: branches that see one another answer otherwise."""
    forward = Forward(families.model("llama"))
    right = answer_all(forward, characters, fixed)
    fits(Prefilled(forward))
    monkeypatch.setattr(Tree, "mask", lambda self, num, low, like: torch.zeros(self.ids.size, num + self.ids.size))
    wrong = answer_all(forward, characters, fixed)
    assert max(abs(a.logprob - b.logprob) for a, b in zip(right, wrong, strict=True)) > 1e-2
