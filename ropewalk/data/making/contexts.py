"""The long text of an item: a stretch around its span, or its document with others beside it, up to a length in true tokens.

What is counted is the whole conversation as the chat template writes it, by the tokenizer that will be tuned. Since tokens
join where texts meet, the room is taken anew with less of it until the whole fits.

A document longer than the room is shown as a stretch of whole sentences that holds the span at a drawn place; a shorter one
whole, at a drawn place among other documents, of which the last shows its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.data.making.settings import Settings
from ropewalk.data.making.texts import Span, Texts, stripped
from ropewalk.data.making.wording import Wordings
from ropewalk.data.reading.records import Message, UnreadableError
from ropewalk.data.tokens import Encoder

LEAST = 64
"""Tokens below which no further document is shown."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is shown of one document: [low, high) in characters."""

    text: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class Context:
    """The text of one item, and where the span lies in the conversation."""

    pieces: tuple[Piece, ...]
    num_tokens: int
    """Of the whole conversation."""
    span: tuple[int, int]
    """[low, high) in its tokens."""

    def to_dict(self, texts: Texts) -> dict[str, Any]:
        """JSON form, documents by file and record."""
        shown = []
        for piece in self.pieces:
            text = texts.items[piece.text]
            shown.append(
                {"document": piece.text, "file": text.file, "record": text.record, "characters": [piece.low, piece.high]}
            )
        depth = self.span[0] / max(1, self.num_tokens - 1)
        return {"num_tokens": self.num_tokens, "span_tokens": list(self.span), "depth": round(depth, 4), "pieces": shown}


class Contexts:
    """Texts around spans, for one tokenizer and one length."""

    def __init__(self, texts: Texts, encoder: Encoder, wordings: Wordings, settings: Settings) -> None:
        self.texts, self.encoder, self.wordings, self.settings = texts, encoder, wordings, settings

    def around(self, span: Span, question: str, answer: str, seed: Sequence[int]) -> Context:
        """The text for a question. Raises `UnreadableError` where none fits, or the template does not keep it as it is."""
        room = self.settings.length - self._num_tokens(self.conversation((), span, question, answer))
        for _ in range(8):
            pieces = self._drawn(span, room, np.random.default_rng([*seed, 6]))
            if not pieces:
                break
            messages = self.conversation(pieces, span, question, answer)
            num_tokens = self._num_tokens(messages)
            if num_tokens <= self.settings.length:
                return Context(pieces=pieces, num_tokens=num_tokens, span=self._place(span, pieces, messages))
            room -= num_tokens - self.settings.length + 8
        raise UnreadableError("the length has no room for span, question and answer", broken=False)

    def conversation(
        self, pieces: Sequence[Piece], span: Span, question: str, answer: str
    ) -> tuple[Message, Message]:  # fmt: skip
        """The item itself."""
        content = self.wordings.say("conversation", text=self.shown(pieces, span)[0], question=question)
        return Message(role="user", content=content), Message(role="assistant", content=answer)

    def shown(self, pieces: Sequence[Piece], span: Span, *, gap: bool = False) -> tuple[str, int]:
        """The text of an item, several documents under headings, and the character where its span begins.

        With `gap` the span is left out of it.
        """
        found, place = "", 0
        for number, piece in enumerate(pieces, start=1):
            found += "\n\n" if found else ""
            found += self.wordings.say("heading", number=str(number)) + "\n\n" if len(pieces) > 1 else ""
            content = self.texts.items[piece.text].content
            part = content[piece.low : piece.high]
            if piece.text == span.text:
                place = len(found) + span.low - piece.low
                if gap:
                    before, after = content[piece.low : span.low].rstrip(), content[span.high : piece.high].lstrip()
                    part, place = f"{before}\n\n{after}", len(found) + len(before)
            found += part
        return found, place

    def without(self, span: Span, context: Context, num_tokens: int) -> tuple[str, int]:
        """The text without its span, of a longer one the tokens nearest to the gap; how many tokens that are."""
        whole, place = self.shown(context.pieces, span, gap=True)
        starts = self.texts.starts_of(whole)
        if starts.size - 1 <= num_tokens:
            return whole.strip(), int(starts.size - 1)
        middle = int(np.searchsorted(starts[:-1], place))
        low = max(0, min(middle - num_tokens // 2, starts.size - 1 - num_tokens))
        return whole[starts[low] : starts[low + num_tokens]].strip(), num_tokens

    def _drawn(self, span: Span, room: int, rng: np.random.Generator) -> tuple[Piece, ...]:
        """Pieces of about `room` tokens; none where the span alone has more."""
        num_tokens = self.texts.items[span.text].num_tokens
        if num_tokens > room:
            piece = self._stretch(span, room, rng)
            return () if piece is None else (piece,)
        own = Piece(text=span.text, low=0, high=len(self.texts.items[span.text].content))
        others = self._others(span.text, room - num_tokens, rng) if self.settings.distractors else []
        others.insert(int(rng.integers(len(others) + 1)), own)
        return tuple(self._tight(piece) for piece in others)

    def _stretch(self, span: Span, room: int, rng: np.random.Generator) -> Piece | None:
        """At most `room` tokens of whole sentences around a span."""
        starts = self.texts.starts(span.text)
        first, last = (int(np.searchsorted(starts[:-1], edge)) for edge in (span.low, span.high))
        if last - first > room:
            return None
        low = int(rng.integers(max(0, last - room), min(first, starts.size - 1 - room) + 1))
        edges = self.texts.edges(span.text)
        inside = edges[(edges >= starts[low]) & (edges <= starts[low + room])]
        begin = min((int(edge) for edge in inside[inside <= span.low]), default=span.low)
        end = max((int(edge) for edge in inside[inside >= span.high]), default=span.high)
        return self._tight(Piece(text=span.text, low=begin, high=end))

    def _others(self, own: int, room: int, rng: np.random.Generator) -> list[Piece]:
        """Other documents in a drawn order until the room is full; the last one is cut after a sentence."""
        found = []
        for index in rng.permutation(len(self.texts.items)).tolist():
            heading = 16
            if room - heading < LEAST:
                break
            if index == own:
                continue
            text = self.texts.items[index]
            high = len(text.content)
            if text.num_tokens > room - heading:
                limit, edges = self.texts.starts(index)[room - heading], self.texts.edges(index)
                high = int(edges[edges <= limit].max())
            if high > 0:
                found.append(Piece(text=index, low=0, high=high))
                room -= min(text.num_tokens, room) + heading
        return found

    def _tight(self, piece: Piece) -> Piece:
        low, high = stripped(self.texts.items[piece.text].content, piece.low, piece.high)
        return Piece(text=piece.text, low=low, high=high)

    def _num_tokens(self, messages: Sequence[Message]) -> int:
        with self.texts.lock:
            return int(self.encoder.encode(tuple(messages)).ids.size)

    def _place(self, span: Span, pieces: Sequence[Piece], messages: Sequence[Message]) -> tuple[int, int]:
        """Where the span lies, in tokens of the written conversation."""
        with self.texts.lock:
            whole = self.encoder.written(messages)
        shown, place = self.shown(pieces, span)
        at = whole.find(shown)
        if at < 0:
            raise UnreadableError("the chat template does not keep the text as it is", broken=False)
        low = at + place
        edges = np.searchsorted(self.texts.starts_of(whole)[:-1], [low, low + span.high - span.low])
        return int(edges[0]), int(edges[1])
