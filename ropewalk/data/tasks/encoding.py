"""Pieces of a prompt as token ids, with the template they stand in.

A prompt is made by putting ids together, never by encoding the whole text: lengths are exact, and a question on a shared
context is the very same ids as its stand-alone prompt. What was given up: at the joints a tokenizer might have merged two
pieces' characters into one token; every piece of ours begins or ends at a line break or a space, where few do.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError

Ids = NDArray[np.int64]
Template = Literal["raw", "chat"]
MARK = "\u241f\u241e"
"""Stands for the user's text while a chat template is taken apart."""
EMPTY: Ids = np.zeros(0, dtype=np.int64)


def encode(tokenizer: Any, text: str) -> Ids:
    """Ids of a piece of text, nothing put in front."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A tokenizer with the template of the run. Pieces are encoded once."""

    tokenizer: Any
    prefix: Ids
    """[0] or [1]: the BOS token, where the tokenizer puts one in front of a text."""
    template: Template = "raw"
    head: Ids = field(init=False)
    """What stands before the user's text: BOS, and the chat template's head."""
    tail: Ids = field(init=False)
    """What stands between the question and the answer: nothing, or the chat template's tail."""
    _known: dict[str, Ids] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises `InputError` where a chat template is asked for and the tokenizer has none that can be taken apart."""
        head, tail = self.prefix, EMPTY
        if self.template == "chat":
            before, after = _parts(self.tokenizer)
            head, tail = encode(self.tokenizer, before), encode(self.tokenizer, after)
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "tail", tail)

    def ids(self, text: str) -> Ids:
        """Ids of a piece. Raises `InputError` where the ids do not decode to the text again."""
        if text not in self._known:
            ids = encode(self.tokenizer, text)
            back = self.tokenizer.decode(ids.tolist())
            if back.strip() != text.strip():
                raise InputError(
                    f"this tokenizer gives {back[:60]!r} back for {text[:60]!r}, so no task can be made of its tokens; "
                    "use a tokenizer whose round trip is exact"
                )
            self._known[text] = ids
        return self._known[text]

    def question(self, text: str, start: str) -> Ids:
        """Ids of a question followed by the start of its answer, the chat tail in between."""
        return np.concatenate([self.ids(text), self.tail, self.ids(start)]) if self.tail.size else self.ids(text + start)


def _parts(tokenizer: Any) -> tuple[str, str]:
    """A chat template's text before and after one user message, with the start of the assistant's turn."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the tokenizer has no chat template; use --template raw")
    whole = tokenizer.apply_chat_template([{"role": "user", "content": MARK}], tokenize=False, add_generation_prompt=True)
    before, found, after = whole.partition(MARK)
    if not found or MARK in after:
        raise InputError("the chat template does not show the user's text once as it is; use --template raw")
    return before, after
