"""Retrieval from far context: one prefill of a haystack, every question on its cache (protocol `multikey-branch`).

With causal attention and frequencies that do not depend on the length, the cache of a context does not depend on what
follows it, so k questions cost one prefill and k short branches, and equal k stand-alone prompts (tested in float32). Plans
that depend on the length are put on at the prompt's length, which is the same for all of a haystack's questions.

Answers are teacher-forced: `exact` is true when every token of the answer is the model's first choice, which holds exactly
when greedy decoding would begin with the answer. `logprob` is the answer's log-probability, `rank` its place among the
candidates (1 = best). Graded numbers tell methods apart where a small model never answers exactly.

`crop` reads only the last tokens that fit the trained length, question and answer included.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropewalk.data.tasks.task import Haystack, Question
from ropewalk.measure.forward import Forward, Tick, layers_ticking


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a model answers one question, teacher-forced."""

    exact: bool
    logprob: float
    """Of the whole answer, nats."""
    rank: int
    """Among the candidates, 1 is best; ties count against the answer."""
    num_candidates: int
    first_choice: str
    """The model's first choice at each answer position, decoded: for people to look at."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "exact": self.exact,
            "logprob": self.logprob,
            "rank": self.rank,
            "num_candidates": self.num_candidates,
            "first_choice": self.first_choice,
        }


def answer_all(
    forward: Forward, tokenizer: Any, haystack: Haystack, *, keep_last: int | None = None, tick: Tick | None = None
) -> list[Answer]:
    """Answers to a haystack's questions from one prefill. With `keep_last`, only that many last tokens are read."""
    context = haystack.context
    if keep_last is not None:
        tail = haystack.length - context.size
        kept = max(1, keep_last - tail - haystack.head.size)
        if kept + haystack.head.size < context.size:
            context = np.concatenate([haystack.head, context[-kept:]])
    cache = Prefilled(forward, context, tick=tick)
    return [answer_one(forward, tokenizer, question, cache) for question in haystack.questions]


def answer_alone(forward: Forward, tokenizer: Any, context: NDArray[np.int64], question: Question) -> Answer:
    """The same without sharing anything: a stand-alone prompt for every candidate. The naive twin, and for `no-context`."""
    scores, first = [], ""
    exact = False
    for index, candidate in enumerate(question.candidates):
        ids = np.concatenate([context, question.question, candidate])
        hidden = forward.hidden(_tensor(ids))[-candidate.size - 1 : -1]
        score, choices = _score(forward, hidden, candidate)
        scores.append(score)
        if index == 0:
            exact, first = bool((choices == candidate).all()), tokenizer.decode(choices.tolist())
    return _answer(scores, exact, first)


def answer_one(forward: Forward, tokenizer: Any, question: Question, cache: "Prefilled") -> Answer:
    """One question on a prefilled cache: the question is read once, each candidate on top of it."""
    with cache.branch():
        last = cache.read(question.question)[-1:]
        scores, first = [], ""
        exact = False
        for index, candidate in enumerate(question.candidates):
            with cache.branch():
                rest = cache.read(candidate[:-1]) if candidate.size > 1 else last[:0]
            score, choices = _score(forward, torch.cat([last, rest]), candidate)
            scores.append(score)
            if index == 0:
                exact, first = bool((choices == candidate).all()), tokenizer.decode(choices.tolist())
    return _answer(scores, exact, first)


class Prefilled:
    """A cache that holds a context, and can be read on from and taken back.

    Taking back puts the layers' own tensors back instead of cropping: `update` makes new tensors, so the old ones are
    whole. It works for sliding-window and recurrent layers too, whose caches cannot be cropped.
    """

    def __init__(self, forward: Forward, context: NDArray[np.int64], *, tick: Tick | None = None) -> None:
        from transformers import DynamicCache

        self.forward = forward
        self.cache = DynamicCache(config=forward.model.config)
        self.num_read = 0
        with layers_ticking(forward.body, tick):
            self.read(context)

    @torch.inference_mode()
    def read(self, ids: NDArray[np.int64]) -> Tensor:
        """Reads `ids` on from where the cache stands; last hidden states [N, D]."""
        device = self.forward.device
        positions = torch.arange(self.num_read, self.num_read + ids.size, device=device)[None]
        out = self.forward.body(
            input_ids=_tensor(ids).to(device)[None], past_key_values=self.cache, position_ids=positions, use_cache=True
        )
        self.num_read += int(ids.size)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    @contextmanager
    def branch(self) -> Iterator[None]:
        """What is read inside is forgotten at the end."""
        num_read = self.num_read
        states = [_state(layer) for layer in self.cache.layers]
        try:
            yield
        finally:
            for layer, state in zip(self.cache.layers, states, strict=True):
                layer.__dict__.clear()
                layer.__dict__.update(state)
            self.num_read = num_read


def _state(layer: Any) -> dict[str, Any]:
    """A layer's attributes; containers of states (recurrent layers write into them in place) are copied."""
    return {key: copy.deepcopy(v) if isinstance(v, list | dict) else v for key, v in vars(layer).items()}


def _score(forward: Forward, hidden: Tensor, candidate: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
    """Log-probability of a candidate, nats, and the first choices, from the hidden states [A, D] that predict it."""
    with torch.inference_mode():
        logp = torch.log_softmax(forward.logits(hidden), dim=1)
        picked = logp.gather(1, _tensor(candidate).to(logp.device)[:, None])
        return float(picked.sum()), logp.argmax(1).cpu().numpy()


def _answer(scores: list[float], exact: bool, first: str) -> Answer:
    better = sum(score >= scores[0] for score in scores[1:])
    return Answer(exact=exact, logprob=scores[0], rank=1 + better, num_candidates=len(scores), first_choice=first.strip())


def _tensor(ids: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids))
