"""What a chat template writes of a conversation, and what it marks as answers.

Of several templates that a tokenizer has by name the one called `default` is used, as transformers does.

Some templates write today's date (`strftime_now`: Llama 3.2, gpt-oss), so that a run that goes on tomorrow would
make other tokens. transformers hands them a clock that cannot be set. So a macro of the same name is put in front, with what
one stated day is in each format that the template spells; it is plain Jinja, and hides the clock wherever it is asked.

Given up: formats that a template puts together while it runs; a conversation that comes to one is refused. The time of day,
which is midnight.
"""

import datetime
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ropewalk.core.errors import InputError
from ropewalk.data.reading.records import REFUSED, Message, UnreadableError


@dataclass(frozen=True, kw_only=True, eq=False)
class ChatTemplate:
    """The chat template of a tokenizer, or one in its place."""

    tokenizer: Any
    given: str | None = None
    """In place of the tokenizer's own."""
    date: str | None = None
    """The day that it writes as today, as 2026-01-31; really today where none is said."""

    @functools.cached_property
    def text(self) -> str:
        """The template as it is used. Raises `InputError` where there is none."""
        own = chosen(self.tokenizer, self.given)
        if own:
            return own if self.date is None else dated(own, self.date)
        names = getattr(self.tokenizer, "chat_template", None)
        if isinstance(names, Mapping) and names:
            raise InputError(
                f"there are conversations, and none of the tokenizer's chat templates ({', '.join(names)}) is called "
                "default; give one with --chat-template FILE"
            )
        raise InputError(
            "there are conversations, and the tokenizer has no chat template; give one with --chat-template FILE, "
            "or a tokenizer of a chat model"
        )

    def written(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        """A conversation as the chat template writes it, with the opening of an answer if so asked."""
        options = {"chat_template": self.text, "tokenize": False, "add_generation_prompt": opened}
        with _refusals():
            return str(self.tokenizer.apply_chat_template(_turns(messages), **options))

    @functools.cached_property
    def marked(self) -> bool:
        """Whether the template marks answers where it can be told.

        What is written inside a block that is kept before it is put out (a macro) has no place yet when the mark is met.
        """
        marks = [found.start() for found in re.finditer(r"{%[-+]?\s*generation\b", self.text)]
        return bool(marks) and not any(_held_back(self.text[:mark]) for mark in marks)

    def marks(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as the chat template writes it, and [low, high) in characters of what it marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        with _refusals():
            written, places = render_jinja_template(
                conversations=[_turns(messages)],
                chat_template=self.text,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        return str(written[0]), [(int(low), int(high)) for low, high in places[0]]


def chosen(tokenizer: Any, given: str | None) -> str | None:
    """The template that is used: the one given, else the tokenizer's own, of several the one called `default`."""
    found = given or getattr(tokenizer, "chat_template", None)
    found = found.get("default") if isinstance(found, Mapping) else found
    return found if isinstance(found, str) and found else None


def writes_date(template: str | None) -> bool:
    """Whether a template asks what day it is."""
    return template is not None and re.search(r"\bstrftime_now\b", template) is not None


def dated(template: str, date: str) -> str:
    """A template that writes this day as today; any other one as it is."""
    if not writes_date(template):
        return template
    day = datetime.datetime.fromisoformat(date)
    formats = {found[2] for found in re.finditer(r"strftime_now\(\s*(?:format\s*=\s*)?(['\"])([^'\"\\]*)\1\s*\)", template)}
    days = json.dumps({format: day.strftime(format) for format in sorted(formats)})
    # The line break ends the macro's line, and is no part of what is written: templates are read with `trim_blocks`.
    return (
        f"{{%- macro strftime_now(format) -%}}{{%- set days = {days} -%}}{{{{- days[format] if format in days else "
        f'raise_exception("asks for the date in a format that it does not spell") -}}}}{{%- endmacro %}}\n{template}'
    )


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


@contextmanager
def _refusals() -> Iterator[None]:
    """Templates refuse what they cannot write (two turns of the user in a row) in words of their own."""
    from jinja2.exceptions import TemplateError, TemplateSyntaxError

    try:
        yield
    except TemplateSyntaxError as error:
        # No fault of any record. Lines are not counted: a day may have been put in front.
        lines = (error.source or "").splitlines()[error.lineno - 1 :] or [""]
        raise InputError(
            f"the chat template is no Jinja ({error.message} In: {lines[0].strip()[:80]}); mend it, or give another with "
            "--chat-template FILE"
        ) from error
    except (TemplateError, TypeError, ValueError) as error:
        raise UnreadableError(REFUSED, str(error).partition("\n")[0][:120]) from error


def _held_back(before: str) -> bool:
    """Whether the blocks that are open at the end of a part of a template include one that holds back what it writes."""
    opened = re.findall(r"{%[-+]?\s*(?:(?:macro|call|filter)\b|set\s+[\w.]+\s*(?:\||[-+]?%}))", before)
    return len(opened) > len(re.findall(r"{%[-+]?\s*end(?:macro|call|filter|set)\b", before))
