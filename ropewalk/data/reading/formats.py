"""What one record holds: a text, or a conversation in one of the forms that are about.

Known without being told: `text`; OpenAI's `messages` and LMSYS-Chat's `conversation` (role and content), ShareGPT's
`conversations` (from and value), Alpaca's `instruction`, `input` and `output`. Any other field is named by the user.

Given up: parts that are no text (pictures, calls of tools): such a conversation is left out whole and counted, since one
without them is another conversation.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ropewalk.data.reading.records import Content, Message, UnreadableError

FIELDS = ("text", "messages", "conversation", "conversations")
ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "tool": "tool",
}  # fmt: skip
"""Every data set's word for who speaks, and ours."""


def recognise(record: Any, field: str | None = None) -> Content:
    """The content of one record. Raises `UnreadableError` with the reason."""
    if not isinstance(record, Mapping):
        raise UnreadableError("no object", f"it is {_kind(record)}")
    if field is None:
        found = [name for name in FIELDS if name in record]
        found += ["instruction"] if {"instruction", "output"} <= record.keys() else []
        if len(found) != 1:
            what = "more than one field to read" if found else "no field that is known"
            raise UnreadableError(what, f"it has {listed(found or record)}; say which with --field")
        field = found[0]
    if field not in record:
        raise UnreadableError(f"no field {field!r}", f"it has {listed(record) or 'none'}")
    if field == "instruction" and "output" in record:
        return _alpaca(record)
    value = record[field]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return tuple(_turn(turn) for turn in value)
    raise UnreadableError(f"field {field!r} is neither text nor turns", f"it is {_kind(value)}")


def listed(names: Iterable[Any], most: int = 8) -> str:
    """Names for a sentence: the first ones, short, and without what would move a terminal's cursor."""
    said = [ascii(str(name))[1:-1][:40] if not str(name).isprintable() else str(name)[:40] for name in names]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")


def _alpaca(record: Mapping[str, Any]) -> Content:
    """The input under the instruction, as one turn of the user."""
    parts = [record["instruction"], record.get("input") or "", record["output"]]
    wrong = [part for part in parts if not isinstance(part, str)]
    if wrong:
        raise UnreadableError("a field of an instruction is not text", f"it is {_kind(wrong[0])}")
    if not parts[2].strip():
        raise UnreadableError("an answer that is empty", broken=False)
    question = "\n\n".join(part for part in parts[:2] if part.strip())
    return (Message(role="user", content=_text(question)), Message(role="assistant", content=_text(parts[2])))


def _turn(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise UnreadableError("a turn that is no object", f"it is {_kind(turn)}")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise UnreadableError("a turn of unknown role", f"it is {role!r:.40}; known are {', '.join(sorted(ROLES))}")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise UnreadableError("a turn that calls tools")
    text = _text(_joined(content))
    if ROLES[role] == "assistant" and not text.strip():
        # Learning from it is learning to say nothing.
        raise UnreadableError("an answer that is empty", broken=False)
    return Message(role=ROLES[role], content=text)


def _joined(content: Any) -> str:
    """A turn's text; OpenAI writes it as a list of parts too."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UnreadableError("a turn that is not text", f"it is {_kind(content)}")
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
