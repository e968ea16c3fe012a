"""Where the answers stand in a conversation that a chat template has written, without marks of its own.

An answer begins where the opening ends that the template writes for one to come, and ends with what it writes behind one
that is the last. Most templates write turns one after another: then the conversation up to an answer, opened, and up to its
end are how the whole one begins, and their lengths say where it stands.

Templates that write the last turn, or the last question, in a way of its own break that (an empty block of thoughts in the
last answer alone, as Qwen3 does; the system prompt in the last question). Of these the whole conversation is the only truth.
It is written once more with a mark in the place of each turn; what stands between the marks are the template's own words,
and with the turns put back, each as it stands or with space cut from its edges, they must be the whole again, to the last
character. So it is known where each turn stands. An earlier answer begins behind the opening, or where its own words do if
something else stands there (Qwen3.5 opens with thoughts that it writes for the last answer only). It ends with what a last
answer ends with, or with the special tokens that come first in both (Phi-3 puts one more behind the last). Whatever does not
come out so is refused, and so is a last answer that does not begin with the opening: no model is asked for such a one.

Given up: turns of which the template writes only a part (thoughts taken out of earlier answers), and templates that end an
earlier answer with another token than the last one (gpt-oss): nothing says what of it is the answer. Comparing with a
rendering that says something else in one turn (axolotl, torchtitan) needs no marks, and misses the edge where both begin or
end alike.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from ropewalk.data.reading.records import UNTOLD, Message, UnreadableError

Place = tuple[int, int]
"""[low, high) in characters."""
MARKS = range(0xF0000, 0xFFFFE)
"""Characters that mean nothing to anybody, one for each turn."""


class Write(Protocol):
    """A chat template: a conversation as text, with the opening of an answer if so asked."""

    def __call__(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        """The text."""


def answers(messages: Sequence[Message], whole: str, write: Write, special: re.Pattern[str]) -> list[Place]:
    """Where each turn of the assistant stands in the written conversation, its end marker included.

    `special` finds special tokens.

    Raises `UnreadableError` where that is not certain.
    """
    found: list[Place] = []
    contents: dict[int, Place] | None = None
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        place = _in_turn(messages, index, whole, write)
        if place is None:
            contents = _contents(messages, whole, write) if contents is None else contents
            place = _between(messages, index, whole, contents, write, special)
        found.append(place)
    return found


def _in_turn(messages: Sequence[Message], index: int, whole: str, write: Write) -> Place | None:
    """Where an answer stands if the whole begins as the conversation up to it does, opened and ended."""
    before, after = write(messages[:index], opened=True), write(messages[: index + 1])
    if not (whole.startswith(before) and whole.startswith(after) and len(before) <= len(after)):
        return None
    # What separates turns is nobody's answer: generation ends before it.
    return len(before), len(after.rstrip())


def _contents(messages: Sequence[Message], whole: str, write: Write) -> dict[int, Place]:
    """Where each turn's content stands; not that of a last answer, in which a template may read thoughts."""
    places = [index for index in range(len(messages)) if index < len(messages) - 1 or messages[index].role != "assistant"]
    marks = dict(zip(_marks(whole), places, strict=False))
    replaced = {index: replace(messages[index], content=mark) for mark, index in marks.items()}
    words = write([replaced.get(index, message) for index, message in enumerate(messages)])
    stand = [at for at, letter in enumerate(words) if letter in marks]
    if sorted(marks[words[at]] for at in stand) != places:
        raise UnreadableError(UNTOLD, "it leaves out or repeats a turn")
    edges = [*stand, len(words)]
    at = edges[0]
    found: dict[int, Place] = {}
    for start, end in pairwise(edges):
        index, gap = marks[words[start]], words[start + 1 : end]
        fits = (text for text in _trimmed(messages[index].content) if whole.startswith(text + gap, at))
        text = next(fits, None)
        if text is None:
            raise UnreadableError(UNTOLD, f"it writes turn {index + 1} in another way than other words")
        found[index] = (at, at + len(text))
        at += len(text) + len(gap)
    if at != len(whole) or not whole.startswith(words[: edges[0]]):
        raise UnreadableError(UNTOLD, "what it writes around the turns depends on them")
    return found


def _between(
    messages: Sequence[Message], index: int, whole: str, contents: dict[int, Place], write: Write, special: re.Pattern[str]
) -> Place:
    """Where an answer stands by where its content does, and those before and behind it."""
    if index not in contents:
        raise UnreadableError(UNTOLD, f"turn {index + 1} begins in another way than when it is asked for")
    if index + 1 not in contents:
        raise UnreadableError(UNTOLD, f"nothing says where turn {index + 1} ends and the next one begins")
    (_, begin), (low, high), (follows, _) = contents[index - 1], contents[index], contents[index + 1]
    mark = next(_marks(whole))
    opening = _behind(messages[:index], mark, write, opened=True)
    ending = _behind(messages[: index + 1], mark, write).rstrip()
    shared = _shared(whole[high:follows], ending)
    if shared != ending:
        shared = shared[: max((found.end() for found in special.finditer(shared)), default=0)]
        if not shared:
            raise UnreadableError(UNTOLD, f"turn {index + 1} ends in another way than when it is the last")
    return begin + len(opening) if whole[begin:low].startswith(opening) else low, high + len(shared)


def _behind(messages: Sequence[Message], mark: str, write: Write, *, opened: bool = False) -> str:
    """What the template writes behind the last turn's content."""
    written = write([*messages[:-1], replace(messages[-1], content=mark)], opened=opened)
    if written.count(mark) != 1:
        raise UnreadableError(UNTOLD, f"it leaves out or repeats turn {len(messages)}")
    return written.partition(mark)[2]


def _shared(one: str, other: str) -> str:
    """How both begin."""
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(differing, min(len(one), len(other)))]


def _marks(whole: str) -> Iterator[str]:
    """Characters that the conversation does not have."""
    there = set(whole)
    return filter(lambda mark: mark not in there, map(chr, MARKS))


def _trimmed(content: str) -> list[str]:
    """A content as it stands, and with space or line breaks cut from its edges; the longest first."""
    ways = [content, *(cut(space) for cut in (content.strip, content.lstrip, content.rstrip) for space in (None, "\n"))]
    return sorted(dict.fromkeys(ways), key=len, reverse=True)
