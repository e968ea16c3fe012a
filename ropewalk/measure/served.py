"""A server as a reader of haystacks: the same prompts as a local model's, sent one by one, read by the same rules.

The ids of a prompt are sent where the server takes ids; else the text whose encoding gives the very same ids back, and a
tokenizer that has none is refused. A trial before the run finds out which, with the tokens counted.

`exact` means what it means everywhere, that greedy decoding begins with the answer: by ids where the server says those of
its answer, else by text, leading white space on either side left out (an answer that is cut into tokens in another way then
counts too). A log-probability of a given answer and a rank are not to be had by this protocol. A question with several
references is always decoded and scored by its task's rule: after a wrong reference nothing can be forced.

Questions of one haystack follow each other, the first of each stage alone, so that whoever keeps a prefix reads a context
once. The next haystacks are begun while fewer questions than may be asked at once are under way. Which answer comes first
changes nothing: answers are handed over in the order of the questions.

Given up: reading a prompt's likelihood with vLLM's `prompt_logprobs`, which turns its prefix cache off.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ropewalk.core.errors import HostError, InputError
from ropewalk.core.progress import Progress
from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.scoring import score
from ropewalk.data.tasks.task import Haystack, Question
from ropewalk.hosts.served import EXACT, Completion, Prompt, RefusedError
from ropewalk.measure.answering.answer import Answer, Scoring
from ropewalk.measure.answering.local import crop
from ropewalk.measure.maps import Cell
from ropewalk.measure.settings import NO_CONTEXT

UNSAID = "decoded by a server, which gives no log-probability or rank of an answer"
UNCOUNTED = "the server does not count prompt tokens, so a prompt that it cut would not show"
SEVERAL = "several references, found by the task's rule"


class Completes(Protocol):
    """What a reader needs of a server."""

    def complete(self, prompt: Prompt, num_new: int, extra: Mapping[str, Any] | None = None) -> Completion:
        """The greedy continuation of a prompt."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a server wants to be asked."""

    by_ids: bool
    extra: Mapping[str, Any]
    """What is said beyond the protocol."""


def find_manner(server: Completes, tokenizer: Any, ids: Ids) -> Manner:
    """Tries a short prompt by ids, then as text, each first with what goes beyond the protocol.

    Raises `HostError` or `RefusedError` where none works.
    """
    failed: RefusedError | HostError | None = None
    for by_ids in (True, False):
        for extra in (EXACT, {}):
            manner = Manner(by_ids=by_ids, extra=extra)
            try:
                server.complete(prompt_of(ids, tokenizer, by_ids=by_ids), 1, extra)
            except (RefusedError, HostError) as error:
                # Of what went wrong, wrong counts say most.
                failed = failed if isinstance(failed, HostError) else error
            else:
                return manner
    assert failed is not None
    raise failed


def prompt_of(ids: Ids, tokenizer: Any, *, by_ids: bool) -> Prompt:
    """A prompt as a server wants it. Raises `InputError` where no text gives the ids back."""
    sent = tuple(int(token) for token in ids)
    return Prompt(ids=sent, text=None if by_ids else as_text(ids, tokenizer))


def as_text(ids: Ids, tokenizer: Any) -> str:
    """The text that encodes to `ids` as a server encodes it, special tokens in front included."""
    # A server puts BOS in front by itself where the tokenizer does.
    for part in (ids, ids[1:]):
        text = str(tokenizer.decode(part.tolist(), clean_up_tokenization_spaces=False))
        back = np.asarray(tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)
        if np.array_equal(back, ids):
            return text
    raise InputError(
        f"this server takes text alone, and no text gives the {ids.size} tokens of a prompt back with this tokenizer; "
        "serve the model with vLLM or llama.cpp, which take token ids"
    )


class ServedReader:
    """Answers by whatever a server computes."""

    def __init__(
        self, server: Completes, tokenizer: Any, manner: Manner, *, keep_last: Mapping[str, int], concurrency: int = 1,
        engine: str = "server",
    ) -> None:  # fmt: skip
        """`keep_last` is what each cropping label reads, tokens; a label that is not in it reads all."""
        self.server, self.tokenizer, self.manner, self.engine = server, tokenizer, manner, engine
        self.keep_last, self.concurrency = keep_last, concurrency
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="asking")
        self._begun: dict[str, list[Future[Answer]]] = {}

    def keeps_whole(self, cell: Cell) -> bool:
        """Whether cropping crops nothing of this cell: the server is asked the very same then."""
        kept = self.keep_last.get(cell.label)
        return kept is not None and cell.length <= kept

    def begin(self, cell: Cell, haystack: Haystack, scoring: Scoring) -> bool:
        """Sends a cell's questions on their way; True where the cells behind the first leave room for more."""
        questions = list(haystack.questions)
        places: list[Future[Answer]] = [Future() for _ in questions]
        stages = [[i for i, q in enumerate(questions) if q.stage == s] for s in range(len(haystack.cuts))]
        stages = [stage for stage in stages if stage]

        def ask(index: int, then: Callable[[], None]) -> None:
            """One question; what waits for it is sent on its way afterwards."""
            if places[index].cancelled():
                return
            try:
                answer = self.answer(cell, haystack, questions[index], scoring)
            except BaseException as error:
                # Whoever waits for any answer of this cell is told.
                for place in places:
                    with suppress(InvalidStateError):
                        place.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    places[index].set_result(answer)
                then()

        def ask_stage(number: int) -> None:
            """The first question of a stage, then its others beside the next stage."""
            if number == len(stages):
                return
            first, *others = stages[number]

            def then() -> None:
                for index in others:
                    self._pool.submit(ask, index, lambda: None)
                ask_stage(number + 1)

            self._pool.submit(ask, first, then)

        self._begun[cell.key] = places
        ask_stage(0)
        return sum(len(waiting) for waiting in list(self._begun.values())[1:]) < self.concurrency - 1

    def answers(self, cell: Cell, haystack: Haystack, scoring: Scoring, progress: Progress) -> list[Answer]:
        """Answers in the order of the questions."""
        if cell.key not in self._begun:
            self.begin(cell, haystack, scoring)
        places = self._begun[cell.key]
        found = []
        for index, place in enumerate(places):
            found.append(place.result())
            progress.at((index + 1) / len(places))
        del self._begun[cell.key]
        return found

    def drop(self, cell: Cell) -> None:
        """Forgets a cell that was begun and is not wanted."""
        for place in self._begun.pop(cell.key, []):
            place.cancel()

    def close(self) -> None:
        """Takes no more questions. Those under way end with their server."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- one question -------------------------------------------------------------------------------------------------

    def answer(self, cell: Cell, haystack: Haystack, question: Question, scoring: Scoring) -> Answer:
        """One question of a cell."""
        ids = np.concatenate([self.context(cell, haystack, question), question.question])
        several = len(question.spans) > 1
        scoring = "generate" if several else scoring
        num_new = (question.budget if scoring == "generate" else 0) or int(question.answer.size)
        prompt = prompt_of(ids, self.tokenizer, by_ids=self.manner.by_ids)
        said = self.server.complete(prompt, num_new, self.manner.extra)
        notes = [UNSAID, SEVERAL if several else "", "" if said.counted else UNCOUNTED]
        exact = begins_with(said, question, self.tokenizer)
        generated = scoring == "generate"
        return Answer(
            exact=exact,
            found=score(question.rule, said.text, question.references, question.labels) if generated else float(exact),
            logprob=None,
            rank=None,
            num_candidates=None,
            first_choice=said.text.strip()[:200],
            text=said.text if generated else None,
            num_prompt_tokens=int(ids.size),
            scoring=scoring,
            note="; ".join(note for note in notes if note),
        )

    def context(self, cell: Cell, haystack: Haystack, question: Question) -> Ids:
        """What is read before a question."""
        if cell.protocol == NO_CONTEXT:
            return haystack.head
        return crop(haystack, question.stage, self.keep_last.get(cell.label))


def begins_with(said: Completion, question: Question, tokenizer: Any) -> bool:
    """Whether an answer begins with the right one: by ids where they are known, else by text."""
    if said.ids is not None:
        return said.ids[: question.answer.size] == tuple(int(token) for token in question.answer)
    wanted = str(tokenizer.decode(question.answer.tolist(), clean_up_tokenization_spaces=False)).strip()
    return said.text.lstrip().startswith(wanted)


def rehearse(cell: Cell, haystack: Haystack, reader: ServedReader) -> None:
    """Everything of a cell that can be refused before it is asked: prompts that no text gives back."""
    if not reader.manner.by_ids:
        for question in haystack.questions:
            ids = np.concatenate([reader.context(cell, haystack, question), question.question])
            as_text(ids, reader.tokenizer)
