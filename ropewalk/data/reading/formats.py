"""What one record holds: a text, or a conversation in one of the forms that are about.

Known without being told: `text`; OpenAI's `messages` and LMSYS-Chat's `conversation` (role and content), ShareGPT's
`conversations` (from and value); and pairs: Alpaca's `instruction`, `input` and `output`, TRL's `prompt` and `completion`
(texts or turns), `question` and `answer`. Any other field is named by the user. Who names the first half of a pair means the
pair: nobody learns from questions alone.

A record that is whole but says more than turns of text (pictures, calls of tools, an unknown role, reasoning beside an
answer, a list of tools) is left out whole and counted, since without them it is another conversation; it is not broken. A
system prompt and a history that stand beside the turns are put before them, where it is plain how. A question whose context
stands beside it is such a record too.

Given up: learning from such records; writing the words that ask for a translation, which are the user's to choose.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ropewalk.data.reading.records import Content, Message, UnreadableError

CONVERSATIONS = ("messages", "conversation", "conversations")
FIELDS = ("text", *CONVERSATIONS)
PAIRS = {"instruction": "output", "prompt": "completion", "question": "answer"}
"""What is asked, and what is learned."""
CONTEXT = ("context", "contexts", "passage", "passages", "document", "documents", "choices", "options", "image", "images")
"""What a question may need that stands beside it."""
TRANSLATION = "translation"
MEND = "name the one text with --field, or write a question and its answer as instruction and output"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""What a turn says before its answer, which few templates write."""
ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "tool": "tool",
}  # fmt: skip
"""Every data set's word for who speaks, and ours."""


def recognise(record: Any, field: str | None = None) -> Content:
    """The content of one record. Raises `UnreadableError` with the reason."""
    if not isinstance(record, Mapping):
        raise UnreadableError("no object", f"it is {_kind(record)}")
    named = field is not None
    if field is None:
        known = [name for name in FIELDS if name in record]
        known += [asked for asked, learned in PAIRS.items() if {asked, learned} <= record.keys()]
        # A table has every column in every row; what is null is not there, unless nothing else is.
        told = [name for name in known if record[name] is not None and record[PAIRS.get(name, name)] is not None]
        found = told or known[:1]
        if not found and TRANSLATION in record:
            raise _untold_translation(record[TRANSLATION])
        if len(found) != 1:
            what = "more than one field to read" if found else "no field that is known"
            mend = "say which with --field" if found else MEND
            raise UnreadableError(what, f"it has {listed(found or record) or 'none'}; {mend}")
        field = found[0]
    if field not in record:
        raise UnreadableError(f"no field {field!r}", f"it has {listed(record) or 'none'}")
    if field in PAIRS and PAIRS[field] in record:
        return _pair(record, field)
    value = _unpacked(record[field], field, named=named) if field in CONVERSATIONS else record[field]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        turns = tuple(_turn(turn) for turn in value)
        return (*_before(record, turns), *turns) if turns else turns
    if field == TRANSLATION:
        raise _untold_translation(value)
    raise UnreadableError(f"field {field!r} is neither text nor turns", f"it is {_kind(value)}")


def has_known(names: Iterable[str]) -> bool:
    """Whether any field that is known is among these."""
    there = set(names)
    return not there.isdisjoint(FIELDS) or any({asked, learned} <= there for asked, learned in PAIRS.items())


def _untold_translation(value: Any) -> UnreadableError:
    """Two texts say neither which is to be made of which, nor in what words it is asked for."""
    languages = f"it has {listed(value)}; " if isinstance(value, Mapping) and value else ""
    mend = "write the question, such as 'Translate from German to English: ...', as instruction, and the answer as output"
    return UnreadableError("a translation that nothing asks for", languages + mend)


def _unpacked(value: Any, field: str, *, named: bool) -> Any:
    """The turns of a conversation, which a column of texts holds as JSON. Only whoever names the field may mean its text."""
    if not isinstance(value, str) or (named and not value.lstrip().startswith(("[", "{"))):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        more = "" if named else f"; read it as text with --field {field}"
        raise UnreadableError(f"field {field!r} holds no turns", f"it is text that is no JSON list{more}")
    return found


def listed(names: Iterable[Any], most: int = 8) -> str:
    """Names for a sentence: the first ones, short, and without what would move a terminal's cursor."""
    said = [ascii(str(name))[1:-1][:40] if not str(name).isprintable() else str(name)[:40] for name in names]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")


def _before(record: Mapping[str, Any], turns: tuple[Message, ...]) -> list[Message]:
    """The turns that a record says beside its conversation. Raises `UnreadableError` for what is not put into turns here."""
    for name in ("tools", "functions"):
        if _says(record.get(name)):
            raise UnreadableError("a record with tools", f"in its field {name!r}", broken=False)
    found = []
    system, history = record.get("system"), record.get("history")
    if _says(system):
        said = [turn.content for turn in turns if turn.role == "system"]
        if not isinstance(system, str) or (said and said != [system]):
            raise UnreadableError("a record with a system prompt that is not its turn's", broken=False)
        found += [] if said else [Message(role="system", content=_text(system))]
    if _says(history):
        for pair in history if isinstance(history, list) and not turns else [None]:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                raise UnreadableError("a record with a history that is no pairs of texts before it", broken=False)
            found += [_said("user", pair[0]), _said("assistant", pair[1])]
    return found


def _says(value: Any) -> bool:
    """Whether a field holds anything: tables have every field in every row, and write nothing in several ways."""
    return bool(value) and not (isinstance(value, str) and value.strip() in ("", "[]", "{}", "null"))


def _pair(record: Mapping[str, Any], field: str) -> tuple[Message, ...]:
    """What is asked as turns of the user, and what is learned as the answer."""
    asked, answer = _both_unpacked(record[field], record[PAIRS[field]])
    if isinstance(asked, list) and isinstance(answer, list):
        # Earlier answers belong to what is asked.
        turns = (*(replace(_turn(turn), prompt=True) for turn in asked), *(_turn(turn) for turn in answer))
        return (*_before(record, turns), *turns)
    more = record.get("input") if field == "instruction" else None
    parts = [asked, "" if more is None else more, answer]
    wrong = [part for part in parts if not isinstance(part, str)]
    if wrong:
        raise UnreadableError(f"a field of {_an(field)} is not text", f"it is {_kind(wrong[0])}")
    beside = [name for name in CONTEXT if _says(record.get(name))] if field == "question" else []
    if beside:
        mend = "write both as instruction"
        raise UnreadableError("a question with its context beside it", f"in its field {beside[0]!r}; {mend}", broken=False)
    question = "\n\n".join(part for part in parts[:2] if part.strip())
    return (*_before(record, ()), _said("user", question), _said("assistant", answer))


def _both_unpacked(asked: Any, answer: Any) -> tuple[Any, Any]:
    """Two lists of turns that a table holds as JSON; anything else as it is, since a text may quote a turn."""
    if not (isinstance(asked, str) and isinstance(answer, str) and asked.lstrip()[:1] == answer.lstrip()[:1] == "["):
        return asked, answer
    try:
        found = json.loads(asked), json.loads(answer)
    except (ValueError, RecursionError):
        return asked, answer
    turns = all(isinstance(turn, Mapping) and {"role", "from"} & turn.keys() for turns in found for turn in turns)
    return found if turns else (asked, answer)


def _an(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _turn(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise UnreadableError("a turn that is no object", f"it is {_kind(turn)}")
    role, content = (_first(turn, *names) for names in (("role", "from"), ("content", "value")))
    if not isinstance(role, str) or role not in ROLES:
        known = f"it is {role!r:.40}; known are {', '.join(sorted(ROLES))}"
        raise UnreadableError("a turn of unknown role", known, broken=not isinstance(role, str))
    if turn.get("tool_calls") or turn.get("function_call"):
        raise UnreadableError("a turn that calls tools", broken=False)
    if any(_says(turn.get(name)) for name in REASONING):
        raise UnreadableError("a turn with its reasoning beside it", broken=False)
    weight = turn.get("weight")
    if ROLES[role] == "assistant" and weight not in (None, 0, 1):
        raise UnreadableError("a turn with a weight that is neither 0 nor 1", f"it is {weight!r:.40}", broken=False)
    return _said(ROLES[role], _joined(content), learned=weight in (None, 1))


def _first(turn: Mapping[str, Any], *names: str) -> Any:
    """The first of some fields that holds anything but null, as a table holds what a turn does not have."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _said(role: str, content: str, *, learned: bool = True) -> Message:
    if role == "assistant" and not content.strip():
        # Learning from it is learning to say nothing.
        raise UnreadableError("an answer that is empty", broken=False)
    return Message(role=role, content=_text(content), learned=learned or role != "assistant")


def _joined(content: Any) -> str:
    """A turn's text; OpenAI writes it as a list of parts too."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        # A picture or a sound, as OpenAI writes them, is a whole part; anything else is nobody's format.
        whole = all(isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in parts)
        raise UnreadableError("a turn that is not text", f"it is {_kind(content)}", broken=not whole)
    return "".join(str(text) for text in texts)


def _text(text: str) -> str:
    """The text itself, if it can be written as UTF-8: JSON can spell half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadableError("a lone surrogate", f"at character {error.start}") from error
    return text


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
