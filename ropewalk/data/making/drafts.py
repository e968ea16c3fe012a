"""One span: a question, an answer, the checks, and the question rewritten. Every reply is kept beside its verdict.

An item is kept where the writer, asked again from the span under another wording, agrees with its answer, and once more from
the span between its neighbours ("What does this mean?" has another answer there); where it does not know the answer from the
question alone; and where the text without the span does not give it. They are asked in the order of their price, and what
has failed is not asked further.

Source: question, answer and self-check from a chunk with the whole document as context: Xiong et al., Effective Long-Context
Scaling (arXiv:2309.16039), 4.3. Rewriting: Yu et al., MetaMath (arXiv:2309.12284), 3.2 (rephrasing), 3.3 (self-verification
and FOBAR). Given up: chains of thought, which MetaMath trains on: an answer here is a short fact.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ropewalk.data.making.agreement import agree, f1, gives_away, own_words, words
from ropewalk.data.making.contexts import Contexts
from ropewalk.data.making.settings import Settings, UnwrittenError, Writing, Written
from ropewalk.data.making.texts import Span
from ropewalk.data.making.wording import NUMBERED, POINTING, Wordings, first_line, is_question
from ropewalk.data.reading.records import UnreadableError

KEPT = "kept"
REFUSED = "refused by the writer"
Json = dict[str, Any]
"""A draft, or an item of one, as `drafts.jsonl` has it."""


class DroppedError(Exception):
    """An item that is not kept, with few words why, the same for all that are dropped for this."""


class Drafts:
    """Makes drafts; the same one for the same span whenever it is asked, if the writer gives the same replies."""

    def __init__(self, contexts: Contexts, writing: Writing, wordings: Wordings, settings: Settings) -> None:
        self.contexts, self.writing, self.wordings, self.settings = contexts, writing, wordings, settings

    def draft(self, index: int, span: Span) -> Json:
        """Everything that is made of the span in place `index` of the order."""
        texts = self.contexts.texts
        text = texts.items[span.text]
        first = self._item("question", index, span, lambda item: self._asked(item, span))
        items = [first]
        if first["verdict"] == KEPT:
            items += [self._rewritten(name, first, index, span) for name in sorted(set(self.settings.rewrites))]
        starts = texts.starts(span.text)[:-1]
        return {
            "index": index,
            "place": span.text,
            "document": {"source": text.source, "file": text.file, "record": text.record, "sha256": text.sha256},
            "span": {
                "characters": [span.low, span.high],
                "tokens": [int(starts.searchsorted(edge)) for edge in (span.low, span.high)],
                "sha256": hashlib.sha256(text.content[span.low : span.high].encode()).hexdigest(),
            },
            "items": items,
        }

    def _rewritten(self, name: str, first: Json, index: int, span: Span) -> Json:
        made: Mapping[str, Callable[[Json], None]] = {
            "rephrase": lambda item: self._rephrased(item, first),
            "fobar": lambda item: self._backward(item, "fobar", first["question"], first),
            "self-verification": lambda item: self._backward(item, "self-verification", self._statement(item, first), first),
        }
        return self._item(name, index, span, made[name])

    def _item(self, kind: str, index: int, span: Span, fill: Callable[[Json], None]) -> Json:
        """One item: what `fill` makes of it, and what the checks say."""
        seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed} {index} {kind}".encode()).digest()[:4])
        item: Json = {"kind": kind, "question": None, "answer": None, "seed": seed, "verdict": KEPT, "replies": {}}
        try:
            fill(item)
            self._check(item, index, span)
        except DroppedError as dropped:
            item["verdict"] = str(dropped)
        except UnreadableError as error:
            item["verdict"] = error.reason
        except UnwrittenError as error:
            item |= {"verdict": REFUSED, "detail": str(error)[:300]}
        return item

    def _say(self, item: Json, step: str, name: str, **places: str) -> str:
        """The writer's reply to a wording, as one line; kept whole in the item."""
        seed = (item["seed"] + len(item["replies"])) % 2**31
        said = self.writing.write(self.wordings.say(name, **places), seed)
        said = said if isinstance(said, Written) else Written(text=said)
        item["replies"][step] = said.text
        line = first_line(said.text)
        if said.cut and "\n" not in said.text.strip():
            # What follows a whole first line is not read anyway.
            raise DroppedError(f"{step}: cut before its end")
        if not line:
            raise DroppedError(f"{step}: nothing was written")
        return line

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _asked(self, item: Json, span: Span) -> None:
        """A question and its answer from the span."""
        lines = self._lines(span)
        item["question"] = self._question(self._say(item, "question", "question", span=lines))
        item["answer"] = self._say(item, "answer", "answer", text=lines, question=item["question"])

    def _question(self, line: str) -> str:
        if not is_question(line):
            raise DroppedError("question: not a question")
        if POINTING.search(line):
            raise DroppedError("question: speaks of the lines it was made from")
        return line

    def _rephrased(self, item: Json, first: Json) -> None:
        item["answer"] = first["answer"]
        item["question"] = self._question(self._say(item, "question", "rephrase", question=first["question"]))
        if item["question"].casefold() == first["question"].casefold():
            raise DroppedError("question: the same words again")

    def _statement(self, item: Json, first: Json) -> str:
        return self._say(item, "statement", "statement", question=first["question"], answer=first["answer"])

    def _backward(self, item: Json, kind: str, sentence: str, first: Json) -> None:
        """A question for a number of the question, which its answer does not say."""
        known = NUMBERED.findall(first["answer"])
        found = [each for each in NUMBERED.findall(first["question"]) if each not in known]
        if not found:
            raise DroppedError("question: no number to hide")
        number = re.compile(rf"(?<![\w.,]){re.escape(found[-1])}(?![\w]|[.,]\d)")
        hidden, count = number.subn("x", sentence)
        if not count:
            raise DroppedError("statement: without the number to hide")
        item |= {"answer": found[-1], "question": self.wordings.say(kind, hidden=hidden, answer=first["answer"])}

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _check(self, item: Json, index: int, span: Span) -> None:
        """Fills in the checks. Raises `DroppedError` at the first that fails."""
        question, answer, threshold = item["question"], item["answer"], self.settings.agreement
        if any(token in question + answer for token in self.contexts.texts.special):
            raise DroppedError("answer: holds a special token")
        if self._unstated(answer):
            raise DroppedError("answer: not stated")
        if not own_words(question, answer):
            raise DroppedError("answer: the question says it")
        again = self._say(item, "again", "again", text=self._lines(span), question=question)
        item["f1"] = round(f1(answer, again), 4)
        if self._unstated(again) or not agree(answer, again, threshold):
            raise DroppedError("again: does not agree")
        amid = self._amid(span)
        if amid != self._lines(span):
            found = self._say(item, "amid", "again", text=amid, question=question)
            if self._unstated(found) or not agree(answer, found, threshold):
                raise DroppedError("amid: does not agree")
        alone = self._say(item, "alone", "alone", question=question)
        if gives_away(alone, question, answer, threshold):
            raise DroppedError("alone: known by heart")
        context = self.contexts.around(span, question, answer, [self.settings.seed, index, item["seed"]])
        item["context"] = context.to_dict(self.contexts.texts)
        text, num_read = self.contexts.without(span, context, self.settings.reads(self.writing.longest))
        item["checked_tokens"] = num_read
        if text:
            without = self._say(item, "without", "answer", text=text, question=question)
            if gives_away(without, question, answer, threshold):
                raise DroppedError("without: stands elsewhere in the text")

    def _lines(self, span: Span) -> str:
        return self.contexts.texts.items[span.text].content[span.low : span.high]

    def _amid(self, span: Span) -> str:
        """A span between its neighbours, each twice as long as it: what a vague question does not find its way in."""
        texts, width = self.contexts.texts, 2 * (span.high - span.low)
        edges = texts.edges(span.text)
        inside = edges[(edges >= span.low - width) & (edges <= span.high + width)].tolist()
        low, high = min([*inside, span.low]), max([*inside, span.high])
        return texts.items[span.text].content[low:high].strip()

    def _unstated(self, line: str) -> bool:
        said = " ".join(words(line))
        return f" {' '.join(words(self.wordings.say('not stated')))} " in f" {said} "
