"""What a source gives: records to learn from, and records that are left out, each with its reason.

Nothing is cleaned silently. A record that cannot be used is *broken* where somebody would want to mend it (a line that is no
JSON, a field that is missing) and counts against a threshold; else (an empty text, a hidden file) it is only named.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ropewalk.core.errors import InputError
from ropewalk.core.terminal import printable


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    learned: bool = True
    """Whether it is learned, if it is an answer."""
    prompt: bool = False
    """Whether it is part of what is asked, whoever says it: an earlier answer of a prompt is learned as prompts are."""


UNTOLD = "the chat template does not show where answers begin and end"
REFUSED = "refused by the chat template"
UNWRITTEN = "the chat template leaves out a turn"
MENDS = {
    UNTOLD: "give one with {% generation %} marks around the answers by --chat-template FILE, mend the records",
    UNWRITTEN: "give one that writes such conversations by --chat-template FILE, mend the records",
    REFUSED: "give one that writes such conversations by --chat-template FILE, mend the records",
}
"""What to do about conversations that only a chat template makes broken."""

Content = str | tuple[Message, ...]
"""A text, or the turns of a conversation."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One document of a source."""

    file: int
    """Which of the source's files it is from."""
    number: int
    """Its line or its number in the file, from 1."""
    content: Content


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What is not learned from, and why."""

    file: str
    number: int
    """Its line or its number in the file, from 1; 0 for the whole file."""
    reason: str
    """Few words, the same for all that are left out for this."""
    detail: str = ""
    broken: bool = False
    """Whether it counts against the threshold."""

    def __str__(self) -> str:
        place = f"{self.file} line {self.number}" if self.number else self.file
        return printable(f"{place}: {self.reason}{f' ({self.detail})' if self.detail else ''}", lines=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        said = {"file": self.file, "line": self.number, "reason": self.reason, "detail": self.detail}
        return {**said, "broken": self.broken}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "LeftOut":
        """What was written so."""
        return cls(
            file=said["file"], number=said["line"], reason=said["reason"], detail=said["detail"], broken=said["broken"]
        )


class UnreadableError(Exception):
    """A record that cannot be used; caught by whoever knows where it stands, and counted."""

    def __init__(self, reason: str, detail: str = "", *, broken: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.broken = broken

    def left_out(self, file: str, number: int) -> LeftOut:
        """The same, with its place."""
        return LeftOut(file=file, number=number, reason=self.reason, detail=self.detail, broken=self.broken)


def stop_at(broken: Sequence[LeftOut], count: int, max_broken: int) -> None:
    """Raises `InputError` where more records are broken than may be."""
    if count > max_broken:
        mend = MENDS.get(broken[0].reason, "mend them")
        raise InputError(
            f"{count} broken records, more than --max-broken {max_broken}; the first is {broken[0]}; {mend}, or give a "
            "higher --max-broken to leave them out"
        )


def nothing_left(left_out: Sequence[LeftOut]) -> str:
    """How a message that there is no document goes on: the first that is left out, a broken one if any is, and its mend."""
    first = next((left for left in left_out if left.broken), next(iter(left_out), None))
    if first is None:
        return "; hand in texts or conversations"
    return f"; the first that is left out is {first}; {MENDS.get(first.reason, 'mend it')}, or hand in others"


class Source(Protocol):
    """What is read as one part of a mix."""

    @property
    def name(self) -> str:
        """What the mix calls it."""

    @property
    def files(self) -> Sequence[str]:
        """Names of its files, in the order in which they are read."""

    @property
    def skipped(self) -> Sequence[LeftOut]:
        """Files that are not read."""

    def check(self) -> Iterator[Record | LeftOut]:
        """What would be left out, and conversations, found without tokenizing."""

    def records(self, file: int, number: int) -> Iterator[Record | LeftOut]:
        """Everything after record `number` of file `file`."""

    def place(self, file: int, number: int) -> tuple[str, int]:
        """How a message names record `number` of file `file`: the file with its path, and the line, 0 for the whole file."""

    def has_prompts(self) -> bool:
        """Whether it has conversations, which have prompts; texts have none."""

    def fingerprint(self) -> list[dict[str, Any]]:
        """What tells whether it has changed: a file's size and hash."""
