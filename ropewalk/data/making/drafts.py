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
Row = dict[str, Any]


class DroppedError(Exception):
    """An item that is not kept, with few words why, the same for all that are dropped for this."""


class Drafts:
    """Makes drafts; the same one for the same span whenever it is asked, if the writer gives the same replies."""

    def __init__(self, contexts: Contexts, writing: Writing, wordings: Wordings, settings: Settings) -> None:
        self.contexts, self.writing, self.wordings, self.settings = contexts, writing, wordings, settings

    def draft(self, index: int, span: Span) -> Row:
        """Everything that is made of the span in place `index` of the order."""
        texts = self.contexts.texts
        text = texts.items[span.text]
        first = self._item("question", index, span, lambda row: self._asked(row, span))
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

    def _rewritten(self, name: str, first: Row, index: int, span: Span) -> Row:
        made: Mapping[str, Callable[[Row], None]] = {
            "rephrase": lambda row: self._rephrased(row, first),
            "fobar": lambda row: self._backward(row, "fobar", first["question"], first),
            "self-verification": lambda row: self._backward(row, "self-verification", self._statement(row, first), first),
        }
        return self._item(name, index, span, made[name])

    def _item(self, kind: str, index: int, span: Span, fill: Callable[[Row], None]) -> Row:
        """One item: what `fill` makes of it, and what the checks say."""
        seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed} {index} {kind}".encode()).digest()[:4])
        row: Row = {"kind": kind, "question": None, "answer": None, "seed": seed, "verdict": KEPT, "replies": {}}
        try:
            fill(row)
            self._check(row, index, span)
        except DroppedError as dropped:
            row["verdict"] = str(dropped)
        except UnreadableError as error:
            row["verdict"] = error.reason
        except UnwrittenError as error:
            row |= {"verdict": REFUSED, "detail": str(error)[:300]}
        return row

    def _say(self, row: Row, step: str, name: str, **places: str) -> str:
        """The writer's reply to a wording, as one line; kept whole in the row."""
        seed = (row["seed"] + len(row["replies"])) % 2**31
        said = self.writing.write(self.wordings.say(name, **places), seed)
        said = said if isinstance(said, Written) else Written(text=said)
        row["replies"][step] = said.text
        line = first_line(said.text)
        if said.cut and "\n" not in said.text.strip():
            # What follows a whole first line is not read anyway.
            raise DroppedError(f"{step}: cut before its end")
        if not line:
            raise DroppedError(f"{step}: nothing was written")
        return line

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _asked(self, row: Row, span: Span) -> None:
        """A question and its answer from the span."""
        lines = self._lines(span)
        row["question"] = self._question(self._say(row, "question", "question", span=lines))
        row["answer"] = self._say(row, "answer", "answer", text=lines, question=row["question"])

    def _question(self, line: str) -> str:
        if not is_question(line):
            raise DroppedError("question: not a question")
        if POINTING.search(line):
            raise DroppedError("question: speaks of the lines it was made from")
        return line

    def _rephrased(self, row: Row, first: Row) -> None:
        row["answer"] = first["answer"]
        row["question"] = self._question(self._say(row, "question", "rephrase", question=first["question"]))
        if row["question"].casefold() == first["question"].casefold():
            raise DroppedError("question: the same words again")

    def _statement(self, row: Row, first: Row) -> str:
        return self._say(row, "statement", "statement", question=first["question"], answer=first["answer"])

    def _backward(self, row: Row, kind: str, sentence: str, first: Row) -> None:
        """A question for a number of the question, which its answer does not say."""
        known = NUMBERED.findall(first["answer"])
        found = [each for each in NUMBERED.findall(first["question"]) if each not in known]
        if not found:
            raise DroppedError("question: no number to hide")
        number = re.compile(rf"(?<![\w.,]){re.escape(found[-1])}(?![\w]|[.,]\d)")
        hidden, count = number.subn("x", sentence)
        if not count:
            raise DroppedError("statement: without the number to hide")
        row |= {"answer": found[-1], "question": self.wordings.say(kind, hidden=hidden, answer=first["answer"])}

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _check(self, row: Row, index: int, span: Span) -> None:
        """Fills in the checks. Raises `DroppedError` at the first that fails."""
        question, answer, threshold = row["question"], row["answer"], self.settings.agreement
        if any(token in question + answer for token in self.contexts.texts.special):
            raise DroppedError("answer: holds a special token")
        if self._unstated(answer):
            raise DroppedError("answer: not stated")
        if not own_words(question, answer):
            raise DroppedError("answer: the question says it")
        again = self._say(row, "again", "again", text=self._lines(span), question=question)
        row["f1"] = round(f1(answer, again), 4)
        if self._unstated(again) or not agree(answer, again, threshold):
            raise DroppedError("again: does not agree")
        amid = self._amid(span)
        if amid != self._lines(span):
            found = self._say(row, "amid", "again", text=amid, question=question)
            if self._unstated(found) or not agree(answer, found, threshold):
                raise DroppedError("amid: does not agree")
        alone = self._say(row, "alone", "alone", question=question)
        if gives_away(alone, question, answer, threshold):
            raise DroppedError("alone: known by heart")
        context = self.contexts.around(span, question, answer, [self.settings.seed, index, row["seed"]])
        row["context"] = context.to_dict(self.contexts.texts)
        text, num_read = self.contexts.without(span, context, self.settings.reads(self.writing.longest))
        row["checked_tokens"] = num_read
        if text:
            without = self._say(row, "without", "answer", text=text, question=question)
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
