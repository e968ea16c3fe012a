"""What a model answers to one question, and what of it counts as right.

Two ways to score, under two names. `forced`: the answer's tokens are read, not generated, which costs one short branch
however long the answer is. `generate`: the model decodes greedily and the task's rule reads its text. `exact`, `logprob` and
`rank` are teacher-forced under both, so that rows of the two can stand side by side; `found` and `text` follow the scoring.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.task import Question

Scoring = Literal["forced", "generate"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a model answers one question."""

    exact: bool
    """Every token of the answer is the first choice: greedy decoding would begin with it."""
    found: float
    """Share of the references held: by first choices under `forced`, by the task's rule under `generate`."""
    logprob: float | None
    """Of the whole answer, nats; None where whoever answers does not say it."""
    rank: int | None
    """Among the candidates, 1 is best; ties count against the answer. None where nothing is ranked."""
    num_candidates: int | None
    first_choice: str
    """The model's first choice at each answer position, decoded: for people to look at."""
    text: str | None = None
    """What was generated, up to the end token; None under `forced`."""
    num_prompt_tokens: int
    """Context and question, as read."""
    scoring: Scoring = "forced"
    note: str | None = None
    """What a number could not be had for, and what else its row should say."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """From a mapping that holds the JSON form, among other things perhaps."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What was read off the model for one question, whichever way it was asked."""

    logprobs: tuple[float, ...]
    """Of the answer and of every candidate beside it, nats."""
    choices: Ids
    """The first choice at each token of the answer."""
    generated: Ids | None = None
    """Greedy tokens, the end token not included; None where nothing was generated."""


def branches(question: Question) -> tuple[Ids, ...]:
    """The answers to read after a question: the true one, then the others it is ranked among."""
    return (question.answer, *question.candidates[1:])


def answered(question: Question, reading: Reading, tokenizer: Any, num_prompt_tokens: int) -> Answer:
    """A reading in words and shares."""
    right = reading.choices == question.answer
    text = None if reading.generated is None else _text(reading.generated, tokenizer)
    better = sum(other >= reading.logprobs[0] for other in reading.logprobs[1:])
    return Answer(
        exact=bool(right.all()),
        found=_held(question, right) if text is None else _ruled(question, text),
        logprob=reading.logprobs[0],
        rank=1 + better if question.candidates else None,
        num_candidates=len(question.candidates) or None,
        first_choice=tokenizer.decode(reading.choices.tolist()).strip(),
        text=text,
        num_prompt_tokens=num_prompt_tokens,
        scoring="forced" if text is None else "generate",
    )


def _text(ids: Ids, tokenizer: Any) -> str:
    """What was generated, without special tokens: the rules expect none."""
    special = set(getattr(tokenizer, "all_special_ids", ()))
    return str(tokenizer.decode([token for token in ids.tolist() if token not in special]))


def _held(question: Question, right: NDArray[np.bool_]) -> float:
    """The share of references whose tokens are all first choices."""
    spans = question.spans or ((0, int(question.answer.size)),)
    return sum(bool(right[low:high].all()) for low, high in spans) / len(spans)


def _ruled(question: Question, text: str) -> float:
    """What the task's rule makes of a generated text."""
    from ropewalk.data.tasks.scoring import score

    return float(score(question.rule, text, question.references, question.labels))
