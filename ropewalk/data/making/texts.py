"""The user's documents, and the spans they are cut into.

A span is some whole sentences of one document, about as long as asked; what is left at a document's end joins the last one.
A sentence of more than two spans (a list, a page of code) is cut between tokens. The seed puts all spans in an order, so the
first N of them are the beginning of more.

Given up: collections that do not fit into memory as text; they are read whole.
"""

import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import TextError
from ropewalk.data.reading.records import LeftOut, Record, Source, stop_at
from ropewalk.data.sentences import spans as sentence_spans
from ropewalk.data.tokens import special_tokens_of

KEPT = 16
"""Documents whose token offsets are held at once."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One document."""

    source: str
    file: str
    record: int
    """Its line or number in the file, from 1."""
    place: tuple[str, int]
    """The same as a message names it: the file with its path, and the line, 0 for the whole file."""
    content: str
    num_tokens: int

    @property
    def sha256(self) -> str:
        """Of its text."""
        return hashlib.sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a document that is asked about: [low, high) in characters."""

    text: int
    """Which document."""
    low: int
    high: int


class Texts:
    """The documents of all sources, with their tokens; safe for several threads, which a tokenizer is not."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.items: list[Text] = []
        self.left_out: list[LeftOut] = []
        self._starts: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self.lock = threading.RLock()
        self.special = sorted(special_tokens_of(tokenizer))
        """What would end a turn in the middle of a text."""

    def read(self, sources: Sequence[Source], max_broken: int) -> None:
        """Takes every text; names what it does not take. Raises `InputError`, and `TextError` where nothing is left."""
        known: set[str] = set()
        broken: list[LeftOut] = []
        for source in sources:
            self.left_out += source.skipped
            for found in source.records(0, 0):
                left = found if isinstance(found, LeftOut) else self._take(found, source, known)
                if left is not None:
                    self.left_out.append(left)
                    broken += [left] if left.broken else []
                    stop_at(broken, len(broken), max_broken)
        if not self.items:
            first = f"; the first that is left out is {self.left_out[0]}" if self.left_out else ""
            names = ", ".join(source.name for source in sources)
            raise TextError(f"there is no text to ask about in {names}{first}; hand in documents, not conversations")

    def _take(self, found: Record, source: Source, known: set[str]) -> LeftOut | None:
        file, content = source.files[found.file], found.content
        place = source.place(found.file, found.number)
        reason, digest = "", ""
        if not isinstance(content, str):
            reason = "a conversation, not a text"
        else:
            digest = hashlib.sha256(content.encode()).hexdigest()
            within = next((token for token in self.special if token in content), None)
            reason = f"holds the special token {within}" if within else "the same text again" if digest in known else ""
        if reason or not isinstance(content, str):
            return LeftOut(file=place[0], number=place[1], reason=reason)
        known.add(digest)
        num_tokens = self.starts_of(content).size - 1
        self.items.append(
            Text(source=source.name, file=file, record=found.number, place=place, content=content, num_tokens=num_tokens)
        )
        return None

    def starts_of(self, content: str) -> NDArray[np.int64]:
        """[num_tokens + 1] The character at which each token begins, and the end."""
        with self.lock:
            taken = self.tokenizer(content, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = np.asarray(taken["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        return np.append(offsets[:, 0], len(content))

    def starts(self, index: int) -> NDArray[np.int64]:
        """The same of a document, remembered for a while."""
        with self.lock:
            if index not in self._starts:
                self._starts[index] = self.starts_of(self.items[index].content)
            self._starts.move_to_end(index)
            while len(self._starts) > KEPT:
                self._starts.popitem(last=False)
            return self._starts[index]

    def edges(self, index: int) -> NDArray[np.int64]:
        """The characters between which the sentences of a document stand, its beginning and end included."""
        content = self.items[index].content
        return np.asarray([*(low for low, _ in sentence_spans(content)), len(content)], dtype=np.int64)

    def spans(self, span_tokens: int, seed: int) -> list[Span]:
        """All spans of all documents, in the order of a seed. Raises `TextError` where there is none."""
        found = [span for index in range(len(self.items)) for span in self._cut(index, span_tokens)]
        if not found:
            longest = max(text.num_tokens for text in self.items)
            raise TextError(
                f"no document has the {span_tokens // 2} tokens of half a span (the longest has {longest}); hand in longer "
                "documents, or a smaller --span-tokens"
            )
        return [found[place] for place in np.random.default_rng([seed, 5]).permutation(len(found))]

    def _cut(self, index: int, span_tokens: int) -> Iterator[Span]:
        starts, text = self.starts(index), self.items[index]
        if text.num_tokens < span_tokens // 2:
            self.left_out.append(LeftOut(file=text.place[0], number=text.place[1], reason="shorter than half a span"))
            return
        ends = np.searchsorted(starts[:-1], self.edges(index))
        places = [0]
        for end in ends[1:].tolist():
            while end - places[-1] > 2 * span_tokens:
                places.append(places[-1] + span_tokens)
            if end - places[-1] >= span_tokens:
                places.append(end)
        if places[-1] < text.num_tokens:
            joined = len(places) > 1 and text.num_tokens - places[-1] < span_tokens // 2
            places[-1:] = [text.num_tokens] if joined else [places[-1], text.num_tokens]
        for low, high in itertools.pairwise(places):
            span = stripped(text.content, int(starts[low]), int(starts[high]))
            if span[1] > span[0]:
                yield Span(text=index, low=span[0], high=span[1])


def stripped(content: str, low: int, high: int) -> tuple[int, int]:
    """[low, high) without the white space at its ends."""
    part = content[low:high]
    return low + len(part) - len(part.lstrip()), high - len(part) + len(part.rstrip())
