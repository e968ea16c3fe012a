"""A local model answers a haystack's questions: one prefill, each stage's questions as one tree on its cache.

With causal attention and frequencies that do not depend on the length, the cache of a context does not depend on what
follows it, so the questions of all stages cost one prefill and a tree for each stage (protocols `multikey-branch` and
`multikey-grow`), and equal stand-alone prompts (tested in float32).

Plans that change with the length are the caller's business: a haystack of one stage may be read with the plan for its
length on, one that grows must not be read with such a plan.

`crop` reads the head and the last tokens that fit, question and the room for its answer included, in a cache of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.task import Haystack, Question
from ropewalk.measure.answering.answer import Answer, Reading, Scoring, answered, branches
from ropewalk.measure.answering.prefilled import Prefilled, tensor
from ropewalk.measure.answering.tree import first_choices, fits, read_tree, score, upto_end
from ropewalk.measure.forward import Forward, Tick


def answer_all(
    forward: Forward,
    tokenizer: Any,
    haystack: Haystack,
    *,
    scoring: Scoring = "forced",
    keep_last: int | None = None,
    tick: Tick | None = None,
    batch: bool = True,
) -> list[Answer]:
    """Answers in the order of `haystack.questions`.

    With `keep_last`, stages whose prompt is longer read only that many last tokens. Without `batch`, branches are read one
    by one even where a tree would do. `tick` is told the share of the contexts that is read.
    """
    ends = end_tokens(forward, tokenizer) if scoring == "generate" else None
    found: dict[int, Answer] = {}
    contexts = [crop(haystack, stage, keep_last) for stage in range(len(haystack.cuts))]
    done, total = 0, sum(int(part.size) for part in contexts)
    for stages in _sharing(haystack, contexts):
        context, cuts = contexts[stages[-1]], [int(contexts[stage].size) for stage in stages]
        cache = Prefilled(forward)
        weight = sum(cuts)
        for index in cache.stages(context, cuts, tick=_weighed(tick, done / total, weight / total)):
            asked = haystack.at(stages[index])
            readings = read_questions(cache, asked, ends, batch=batch)
            for question, reading in zip(asked, readings, strict=True):
                num = cuts[index] + int(question.question.size)
                found[id(question)] = answered(question, reading, tokenizer, num)
        done += weight
    return [found[id(question)] for question in haystack.questions]


def answer_alone(
    forward: Forward, tokenizer: Any, context: Ids, question: Question, *, scoring: Scoring = "forced"
) -> Answer:
    """The same without sharing anything: a stand-alone prompt for every candidate. The naive twin, and for `no-context`."""
    logprobs, choices = [], question.answer
    for index, answer in enumerate(branches(question)):
        ids = np.concatenate([context, question.question, answer])
        hidden = forward.hidden(tensor(ids))[-answer.size - 1 : -1]
        values, first = score(forward, hidden, [np.arange(answer.size)], [answer])
        logprobs += values
        choices = first if index == 0 else choices
    generated = None
    if scoring == "generate":
        ends, said = end_tokens(forward, tokenizer), list[int]()
        while len(said) < budget(question) and not (said and said[-1] in ends):
            ids = np.concatenate([context, question.question, np.array(said, dtype=np.int64)])
            said.append(int(first_choices(forward, forward.hidden(tensor(ids))[-1:])[0]))
        generated = upto_end(said, ends)
    reading = Reading(logprobs=tuple(logprobs), choices=choices, generated=generated)
    return answered(question, reading, tokenizer, int(context.size + question.question.size))


def read_questions(
    cache: Prefilled, questions: Sequence[Question], ends: frozenset[int] | None, *, batch: bool = True
) -> list[Reading]:
    """All questions where the cache stands, as a tree where that is right. With `ends`, answers are generated too.

    One question that is generated is read by itself: its decoding needs no mask, which is the faster attention.
    """
    single = ends is not None and len(questions) == 1
    if batch and questions and not single and fits(cache):
        budgets = None if ends is None else [budget(question) for question in questions]
        return read_tree(cache, questions, budgets=budgets, ends=ends or frozenset())
    return [read_one(cache, question, ends) for question in questions]


def read_one(cache: Prefilled, question: Question, ends: frozenset[int] | None) -> Reading:
    """One question: read once, each candidate on top of it and forgotten. The naive twin of the tree."""
    logprobs, choices = [], question.answer
    with cache.branch():
        last = cache.read(question.question)[-1:]
        for index, answer in enumerate(branches(question)):
            with cache.branch():
                hidden = torch.cat([last, cache.read(answer[:-1])]) if answer.size > 1 else last
            values, first = score(cache.forward, hidden, [np.arange(answer.size)], [answer])
            logprobs += values
            choices = first if index == 0 else choices
        generated = None if ends is None else _decode(cache, question, int(choices[0]), ends)
    return Reading(logprobs=tuple(logprobs), choices=choices, generated=generated)


def _decode(cache: Prefilled, question: Question, first: int, ends: frozenset[int]) -> Ids:
    """Greedy tokens after a question that the cache has just read."""
    said = [first]
    while len(said) < budget(question) and said[-1] not in ends:
        said.append(int(first_choices(cache.forward, cache.read(np.array(said[-1:])))[0]))
    return upto_end(said, ends)


def budget(question: Question) -> int:
    """Tokens that may be generated."""
    return question.budget or int(question.answer.size)


def end_tokens(forward: Forward, tokenizer: Any) -> frozenset[int]:
    """The tokens at which generation stops: those of the model's generation config, else the tokenizer's."""
    config = getattr(forward.model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ends = getattr(tokenizer, "eos_token_id", None) if ends is None else ends
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def crop(haystack: Haystack, stage: int, keep_last: int | None) -> Ids:
    """The context that a stage reads: all of it, or with `keep_last` head and last tokens where the prompt is longer."""
    context = haystack.context[: haystack.cuts[stage]]
    longest = max((int(q.question.size) + q.room for q in haystack.at(stage)), default=0)
    tail = max(longest, haystack.lengths[stage] - haystack.cuts[stage])
    if keep_last is None or context.size + tail <= keep_last:
        return context
    # A question longer than what is kept is still asked whole, after one token: half a question is none.
    kept = max(1, keep_last - tail - int(haystack.head.size))
    return np.concatenate([haystack.head, context[-kept:]])


def _sharing(haystack: Haystack, contexts: Sequence[Ids]) -> list[list[int]]:
    """Stages that share a cache: those read whole, together; each cropped one by itself."""
    whole = [stage for stage, cut in enumerate(haystack.cuts) if contexts[stage].size == cut]
    return ([whole] if whole else []) + [[stage] for stage in range(len(contexts)) if stage not in whole]


def _weighed(tick: Tick | None, done: float, share: float) -> Tick | None:
    """`tick` for a share of the work, after what is done."""
    return None if tick is None else lambda part: tick(done + share * part)
