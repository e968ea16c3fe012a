"""What a task is: haystacks with questions, made from (split, seed, length, depth) and nothing else.

One file per task family makes `Task` classes; `tasks()` knows them all. A task never sees a model: it makes token ids, says
what counts as right, and the measuring room asks. Haystacks of one seed plant the same things at every length, so that
lengths are compared on the same questions, and what one split draws the other never does.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np

from ropewalk.core.errors import InputError, TextError, near
from ropewalk.data.tasks.encoding import EMPTY, Encoder, Ids

Split = Literal["measure", "train"]
Rule = Literal["all", "any", "first-integer", "last-integer", "starts-with", "label", "rouge-l", "ratio"]
"""How a generated answer is scored; `scoring.py` says what each does."""
FAMILIES = ("retrieval", "tracing", "aggregation", "association", "conversation")
MODULES = (
    "needle", "passkey", "niah", "tracing", "aggregation", "answers",
    "key_value", "records", "topics", "first_sentence", "association", "conversation",
)  # fmt: skip
"""Files of this folder that hold tasks, in the order of the listing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One question to a haystack, as ids."""

    key: str
    """What is asked for, for people."""
    references: tuple[str, ...]
    """The answers looked for."""
    question: Ids
    """What follows the context, up to where the answer begins."""
    answer: Ids
    """A right answer, to be read teacher-forced."""
    spans: tuple[tuple[int, int], ...] = ()
    """Where each reference's tokens lie in `answer` [low, high); empty means that the whole answer is the one reference."""
    candidates: tuple[Ids, ...] = ()
    """Answers to rank among, the true one first; empty where nothing is ranked."""
    position: int | None = None
    """Index of the needle's first token in the context; None where the answer is not in one place."""
    depth: float | None = None
    """Position over the tokens of the context (of its stage)."""
    asked_depth: float | None = None
    stage: int = 0
    """Index of the cut at which it is asked."""
    rule: Rule = "all"
    labels: tuple[str, ...] = ()
    """All answers that might be given: the rule `label` wants the reference and none of the others."""
    budget: int = 0
    """Tokens that an answer may take when it is generated; 0 stands for the answer's own."""

    @property
    def room(self) -> int:
        """Tokens kept free for the answer."""
        return max(int(self.answer.size), self.budget)


@dataclass(frozen=True, kw_only=True, eq=False)
class Haystack:
    """One context with its questions. A prompt is `context[: cuts[stage]]` followed by a question's ids."""

    context: Ids
    """Begins with the encoder's head."""
    questions: tuple[Question, ...]
    lengths: tuple[int, ...]
    """For each stage the longest prompt with the room for its answer, tokens."""
    seed: int
    head: Ids
    """What `context` begins with whatever is cropped: BOS, chat head."""
    cuts: tuple[int, ...] = ()
    """Where each stage's context ends; empty means one stage, the whole context."""
    num_needles: tuple[int, ...] = ()
    """Needles in each stage's context."""
    wording: str = "own"
    """Whose words stand around the haystack: our own, or the name of a package or file."""

    def __post_init__(self) -> None:
        if not self.cuts:
            object.__setattr__(self, "cuts", (int(self.context.size),))

    @property
    def length(self) -> int:
        """Of the last stage."""
        return self.lengths[-1]

    def at(self, stage: int) -> list[Question]:
        """The questions of one stage."""
        return [question for question in self.questions if question.stage == stage]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """Everything that shapes one haystack."""

    encoder: Encoder
    lengths: tuple[int, ...]
    """One length, or the stages of a growing haystack, rising."""
    depths: tuple[float, ...] = ()
    """One needle each, 0..1; tasks that plant nothing take none."""
    seed: int
    """The haystack's own number: run seed and index together."""
    series: int | None = None
    """Seed of the run, for what all its haystacks draw from together; None for a haystack by itself."""
    index: int = 0
    """Of the haystack in its run."""
    split: Split = "measure"
    filler: Ids = field(default_factory=lambda: EMPTY)
    """Ids of real text without special tokens; empty where the user gave none."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """What the user hands in: question sets, conversations, templates."""

    @property
    def length(self) -> int:
        """Of the last stage."""
        return self.lengths[-1]

    @property
    def grows(self) -> bool:
        """Whether there are several stages."""
        return len(self.lengths) > 1

    def rng(self, *names: str | int) -> np.random.Generator:
        """A stream of its own for each purpose, split and seed; the same on every machine."""
        return self._stream(self.seed, names)

    def turn(self, num: int, *names: str | int) -> int | None:
        """Which of `num` things this haystack takes: each once in a run, in an order of its seed; None beyond the last."""
        order = self._stream(self.seed if self.series is None else self.series, (*names, "series")).permutation(num)
        return int(order[self.index]) if self.index < num else None

    def _stream(self, seed: int, names: Sequence[str | int]) -> np.random.Generator:
        text = "|".join(str(name) for name in (self.split, *names))
        return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")])


class Task(ABC):
    """A maker of haystacks. Subclasses say what they are in class attributes and implement `build`."""

    id: ClassVar[str]
    family: ClassVar[str]
    summary: ClassVar[str]
    """One line, for the listing."""
    source: ClassVar[str]
    """The paper and table or section whose structure, counts and rule it keeps; the wording is ours."""
    plants: ClassVar[bool] = True
    """Whether it takes depths; tasks that do not have one question per haystack."""
    grows: ClassVar[bool] = False
    """Whether it can be asked at several stages of one context."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the user must hand in: `text`, `questions`, `conversations`."""
    scoring: ClassVar[Literal["forced", "generate"]] = "forced"
    """What is scored where the user does not say."""

    @abstractmethod
    def build(self, ask: Ask) -> Haystack:
        """A haystack of exactly `ask.lengths`. Raises `TextError` where a length is too small, saying the smallest."""

    def guess(self, question: Question) -> float:
        """The share that a guesser gets right of `exact`: 0 where the answer is drawn from very many."""
        return 0.0


def tasks() -> dict[str, Task]:
    """All tasks by id."""
    found = {}
    for module in MODULES:
        for task in import_module(f"ropewalk.data.tasks.{module}").TASKS:
            found[task.id] = task
    return found


def find_task(name: str) -> Task:
    """A task by its id. Raises `InputError` with the near ones."""
    known = tasks()
    if name not in known:
        raise InputError(f"unknown task {name!r}; {near(name, known)}; --tasks help lists them")
    return known[name]


def check_filler(ask: Ask, room: int) -> None:
    """Raises `TextError` where the filler cannot fill `room` tokens."""
    if not ask.filler.size:
        raise TextError("this task hides its needles in a text of yours; give --text FILE")
    if ask.filler.size < room:
        raise TextError(
            f"the filler has {ask.filler.size} tokens, expected at least {room} for a haystack of {ask.length}; "
            "give a longer text or smaller --lengths"
        )


def too_short(length: int, smallest: int, what: str) -> TextError:
    """The error for a length that leaves no room."""
    return TextError(f"{length} tokens leave no room for {what}; the smallest length is {smallest}")
