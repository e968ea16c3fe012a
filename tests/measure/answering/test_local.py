"""Shared prefill against stand-alone prompts, in float32: tree, one by one and alone, for haystacks that grow and do not."""

import dataclasses

import families
import numpy as np
import pytest
from transformers import DynamicCache

from ropewalk.data.tasks.task import Haystack, Question
from ropewalk.measure.answering.local import answer_all, answer_alone, crop
from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.answering.tree import fits
from ropewalk.measure.forward import Forward

FAMILIES = ["llama", "gpt-neox", "gemma3", "olmo3", "gpt-oss", "smollm3", "deepseek-v3", "qwen3.5"]
TREES = {"llama", "gpt-neox", "smollm3", "deepseek-v3"}
"""Families whose layers all keep every token."""


def same(one, other) -> None:
    assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert dataclasses.replace(one, logprob=0.0) == dataclasses.replace(other, logprob=0.0)


def prompts(haystack: Haystack) -> list[tuple[np.ndarray, Question]]:
    return [(haystack.context[: haystack.cuts[q.stage]], q) for q in haystack.questions]


@pytest.mark.parametrize(
    ("family", "attention"), [(family, "eager") for family in FAMILIES] + [(family, "sdpa") for family in sorted(TREES)]
)
def test_tree_and_branches_equal_stand_alone_prompts(family, attention, growing, characters):
    """Sliding windows and recurrent states included: what a branch reads is forgotten wholly."""
    forward = Forward(families.model(family, attention=attention))
    assert fits(Prefilled(forward)) == (family in TREES)
    together = answer_all(forward, characters, growing)
    apart = answer_all(forward, characters, growing, batch=False)
    for tree, branch, (context, question) in zip(together, apart, prompts(growing), strict=True):
        alone = answer_alone(forward, characters, context, question)
        same(tree, alone)
        same(branch, alone)
        assert tree.num_prompt_tokens == context.size + question.question.size


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3.5"])
def test_generated_answers_equal_those_of_stand_alone_prompts(family, fixed, characters):
    """Budgets differ, so branches end at different steps."""
    forward = Forward(families.model(family))
    budgets = (3, 9, 6)
    asked = [dataclasses.replace(q, budget=n) for q, n in zip(fixed.questions, budgets, strict=True)]
    haystack = dataclasses.replace(fixed, questions=tuple(asked))
    together = answer_all(forward, characters, haystack, scoring="generate")
    apart = answer_all(forward, characters, haystack, scoring="generate", batch=False)
    for tree, branch, (context, question) in zip(together, apart, prompts(haystack), strict=True):
        alone = answer_alone(forward, characters, context, question, scoring="generate")
        same(tree, alone)
        same(branch, alone)
        assert tree.scoring == "generate"
        assert 0 < len(tree.text or "") <= question.budget


def test_generation_stops_where_stock_generation_stops(fixed, characters):
    """Made to end at a token that the model does say."""
    model = families.model("llama")
    forward = Forward(model)
    question = dataclasses.replace(fixed.questions[0], budget=12)
    ids = np.concatenate([fixed.context, question.question])
    told = stock(model, ids, 12)
    for end in (None, told[4]):
        model.generation_config.eos_token_id = 127 if end is None else end
        expected = told if end is None else told[: told.index(end)]
        haystack = dataclasses.replace(fixed, questions=(question,))
        for batch in (True, False):
            (answer,) = answer_all(forward, characters, haystack, scoring="generate", batch=batch)
            assert answer.text == characters.decode(expected)


def stock(model, ids: np.ndarray, num: int) -> list[int]:
    import torch

    out = model.generate(
        torch.from_numpy(ids)[None], max_new_tokens=num, do_sample=False, eos_token_id=None, pad_token_id=0,
        past_key_values=DynamicCache(config=model.config),
    )  # fmt: skip
    return out[0, ids.size :].tolist()


def test_crop_reads_only_the_last_tokens(fixed, characters):
    forward = Forward(families.model("llama"))
    cropped = answer_all(forward, characters, fixed, keep_last=200)
    tail = fixed.length - fixed.context.size
    alone = answer_alone(forward, characters, fixed.context[-(200 - tail) :], fixed.questions[2])
    same(cropped[2], alone)
    assert cropped[2].num_prompt_tokens + fixed.questions[2].room <= 200
    whole = answer_all(forward, characters, fixed, keep_last=10_000)
    assert whole == answer_all(forward, characters, fixed)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_crop_of_a_growing_haystack(family, growing, characters):
    """Stages that fit are read whole, each longer one by its last tokens, with the head in front."""
    forward = Forward(families.model(family))
    head = growing.context[:3]
    haystack = dataclasses.replace(growing, head=head)
    answers = answer_all(forward, characters, haystack, keep_last=600)
    for answer, (context, question) in zip(answers, prompts(haystack), strict=True):
        read = context
        if question.stage == 2:
            tail = haystack.lengths[2] - haystack.cuts[2]
            read = np.concatenate([head, context[-(600 - tail - 3) :]])
        same(answer, answer_alone(forward, characters, read, question))
        assert answer.num_prompt_tokens + question.room <= 600


def test_crop_never_reads_more_than_it_keeps(growing):
    for keep_last in range(150, 800, 7):
        for stage in range(3):
            context = crop(growing, stage, keep_last)
            longest = max(q.question.size + q.room for q in growing.at(stage))
            assert context.size + longest <= keep_last
            assert context.size == growing.cuts[stage] or growing.lengths[stage] > keep_last


def test_a_question_longer_than_what_is_kept_is_asked_whole_after_one_token(fixed):
    assert crop(fixed, 0, 40).size == fixed.head.size + 1


def test_ticks_rise_to_one(growing, characters):
    forward = Forward(families.model("gemma3"))
    ticks: list[float] = []
    answer_all(forward, characters, growing, keep_last=600, tick=ticks.append)
    assert ticks == sorted(ticks)
    assert ticks[-1] == pytest.approx(1.0)
