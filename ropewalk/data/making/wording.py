"""What a writer is told, in our own words, and what is taken of its replies.

Wordings are templates with names in braces; a file of the user's may replace any of them, say for another language. Every
item carries the hash of all wordings. A reply is taken as a small model gives it: the first line that says something,
without the label, the quotes and the thoughts that it puts around.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ropewalk.core.errors import InputError, near
from ropewalk.data.documents import read_text

WORDINGS: Mapping[str, str] = {
    "question": (
        "Here are some lines of a longer text.\n\n{span}\n\nWrite one question that these lines answer in a few words. Ask "
        "about one definite fact, and name the people or things you ask about, so that someone who has only the question "
        "knows what is meant. Do not speak of the lines or the text. Write the question and nothing else."
    ),
    "answer": (
        "{text}\n\nAnswer the question by what stands above, in as few words as you can. If it is not said there, write: "
        "not stated\n\nQuestion: {question}\nAnswer:"
    ),
    "again": (
        "Somebody asks: {question}\n\nLook for it in these lines.\n\n{text}\n\nReply with the shortest answer that is "
        "right, and with the two words not stated where the lines do not give it."
    ),
    "alone": (
        "Answer by what you know, in as few words as you can. If you do not know, write: not stated\n\n"
        "Question: {question}\nAnswer:"
    ),
    "rephrase": (
        "Question: {question}\n\nAsk for the very same thing in other words. Keep every name and every number. Write the "
        "new question and nothing else."
    ),
    "statement": (
        "Question: {question}\nAnswer: {answer}\n\nMake one sentence of the two that states the answer and keeps every name "
        "and number of the question. Write the sentence and nothing else."
    ),
    "self-verification": "In the following sentence x stands for a number. Which number is x?\n{hidden}",
    "fobar": (
        "In the following question x stands for a number, and the right answer to it is: {answer}\n{hidden}\n"
        "Which number is x?"
    ),
    "heading": "Text {number}",
    "conversation": "{text}\n\nAnswer the following by what stands above.\n\n{question}",
    "not stated": "not stated",
}
"""The first six are prompts for the writer, the next two questions of rewriting, the last three parts of an item."""
NUMBERED = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
"""A number that stands by itself: not the 2 of CO2."""
NAMES = re.compile(r"\{(\w+)\}")
LABEL = re.compile(
    r"^\s*(?:\*\*)?(?:new |final )?(?:question|answer|sentence|statement|[qa])(?:\*\*)?\s*[:：]\s*", re.IGNORECASE
)
THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
POINTING = re.compile(
    r"\b(?:the|this|these|that|those|first|last|given) (?:lines?|passage|text|excerpt|paragraph|author|document|question)\b"
    r"|\b(?:this|these|that|those|given) (?:sentences?|statements?|quotes?|phrases?|words?|context|story)\b"
    r"|\b(?:mentioned|described|given|stated|shown) (?:above|below|here)\b",
    re.IGNORECASE,
)
"""Words by which a question speaks of the lines it was made from, which mean nothing inside a long text."""
QUOTES = "\"'“”‘’*` "
MARKS = ("?", "？", "؟")


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """Templates by name."""

    templates: Mapping[str, str] = field(default_factory=lambda: dict(WORDINGS))

    @classmethod
    def read(cls, path: str | Path) -> "Wordings":
        """Ours with those of a JSON object in their place. Raises `InputError` for a name or a place that is unknown."""
        try:
            found = json.loads(read_text(path))
        except ValueError as error:
            raise InputError(
                f"{path} is no JSON ({error}); expected an object of wordings, such as {{'question': ...}}"
            ) from error
        if not isinstance(found, dict) or not all(isinstance(value, str) and value.strip() for value in found.values()):
            raise InputError(f"{path} is no JSON object of texts; expected wordings by name, such as {{'question': ...}}")
        for name, template in found.items():
            if name not in WORDINGS:
                raise InputError(f"{path} has a wording {name!r} that nobody uses; {near(name, WORDINGS)}")
            wanted, got = (set(NAMES.findall(text)) for text in (WORDINGS[name], template))
            if wanted != got:
                raise InputError(
                    f"the wording {name!r} of {path} has places for {', '.join(sorted(got)) or 'nothing'}, expected "
                    f"{', '.join('{' + place + '}' for place in sorted(wanted)) or 'none'}"
                )
        return cls(templates={**WORDINGS, **found})

    def say(self, name: str, **places: str) -> str:
        """A wording with its places filled. What fills them is never read as a template."""
        return NAMES.sub(lambda found: places[found.group(1)], self.templates[name])

    @property
    def sha256(self) -> str:
        """Of all wordings."""
        return hashlib.sha256(json.dumps(dict(self.templates), sort_keys=True).encode()).hexdigest()


def first_line(reply: str) -> str:
    """The first line of a reply that says something, without label and quotes."""
    text = THOUGHTS.sub("", reply).rpartition("</think>")[2]
    for line in text.splitlines():
        said = LABEL.sub("", line).strip().strip(QUOTES).strip()
        if said:
            return said
    return ""


def is_question(line: str) -> bool:
    """Whether a line asks, in more than two words or letters."""
    return line.endswith(MARKS) and (len(line.split()) > 2 or not line.isascii())
