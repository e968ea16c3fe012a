"""Documents as token ids, with which of them are learned.

A text is tokenized as the tokenizer does by default, and ends with its end-of-text token. Where it spells a special token
(`<|im_end|>` in a page about chat models) that stays text: as a token it would end a document or forge a turn.

A conversation is written out by the chat template and tokenized whole, once; what is learned are the tokens that begin
inside a turn of the assistant, its end marker included. Where such a turn begins and ends is what the template itself says:
by its `generation` marks where it has them (`chat_template`), else by the words that it writes around the turns (`answers`).
A conversation where that is not certain is left out: no mask would be exact. So is one that spells a special token, which
nothing tells from those that the template writes.

Of the marks only their places in the text are taken, and not transformers' mask of tokens: that one asks which token holds a
mark's first character and which its last, and where none does (a tokenizer whose tokens leave out the space before a word),
it drops all later answers, or learns everything that follows.

Who spells special tokens on purpose asks for them as tokens, in both kinds.

Given up: tokenizing turn by turn, which gives other tokens where two turns meet, and so also keeping such a conversation.
"""

import datetime
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError
from ropewalk.data.answers import answers
from ropewalk.data.chat_template import ChatTemplate, chosen, writes_date
from ropewalk.data.reading.records import UNWRITTEN, Content, Message, UnreadableError


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """One document, tokenized."""

    ids: NDArray[np.int64]
    """[num_tokens]"""
    learned: NDArray[np.bool_]
    """[num_tokens] The first one counts as learned here; a row never does."""
    spelled: str = ""
    """The first special token that the document's own words spell, if they do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A tokenizer, and what is learned of what it makes."""

    tokenizer: Any
    chat_template: str | None = None
    """In place of the tokenizer's own."""
    prompt_loss: bool = False
    """Whether a conversation's prompts are learned too."""
    end: bool = True
    """Whether a text ends with the end-of-text token."""
    special_tokens: bool = False
    """Whether a special token that a text or a turn spells is one."""
    date: str | None = None
    """The day that a chat template writes as today, where it writes one; really today where none is said."""

    @functools.cached_property
    def template(self) -> ChatTemplate:
        """What writes conversations."""
        return ChatTemplate(tokenizer=self.tokenizer, given=self.chat_template, date=self.date)

    def encode(self, content: Content) -> Tokens:
        """The tokens of one document. Raises `UnreadableError` where nothing is learned from it."""
        words = [content] if isinstance(content, str) else [message.content for message in content]
        spelled = next(filter(None, map(self.spelled, words)), "")
        if isinstance(content, str):
            made = self._text(content, plain=bool(spelled) and not self.special_tokens)
        elif spelled and not self.special_tokens:
            raise UnreadableError(f"holds the special token {spelled}", "--special-tokens reads it", broken=False)
        else:
            made = self._conversation(content)
        return replace(made, spelled=spelled)

    def spelled(self, text: str) -> str:
        """The first special token that a text spells, or nothing."""
        found = self._special.search(text)
        return found[0] if found else ""

    @functools.cached_property
    def _special(self) -> re.Pattern[str]:
        """Finds any special token; the longest first, since one may begin as another does."""
        tokens = sorted(special_tokens_of(self.tokenizer), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or "(?!)")

    def _text(self, text: str, *, plain: bool) -> Tokens:
        how = {"split_special_tokens": True} if plain else {}
        ids = list(self.tokenizer(text, verbose=False, **how)["input_ids"])
        end = getattr(self.tokenizer, "eos_token_id", None)
        if self.end and end is not None and ids[-1:] != [end]:
            ids.append(end)
        return Tokens(ids=np.asarray(ids, dtype=np.int64), learned=np.ones(len(ids), dtype=np.bool_))

    def _conversation(self, messages: Sequence[Message]) -> Tokens:
        # Before anything is refused by it: a tokenizer without a template is not this conversation's fault.
        self.check(tuple(messages))
        messages = [self._asked(message) for message in messages]
        if not self.prompt_loss and not any(message.role == "assistant" and message.learned for message in messages):
            raise UnreadableError("no answer to learn from", broken=False)
        if messages[0].role == "assistant":
            raise UnreadableError("begins with an answer", broken=False)
        whole, ranges = self._ranges(messages)
        _check_written(messages, whole)
        taken = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(taken["input_ids"], dtype=np.int64)
        begins = _begins(np.asarray(taken["offset_mapping"], dtype=np.int64).reshape(-1, 2))
        learned = np.full(ids.size, self.prompt_loss)
        for low, high in ranges:
            learned[(low <= begins) & (begins < high)] = not self.prompt_loss
        return Tokens(ids=ids, learned=learned)

    def _asked(self, message: Message) -> Message:
        """An earlier answer of a prompt as what it is: learned with prompts, and not without."""
        mine = message.prompt and message.role == "assistant"
        return replace(message, learned=message.learned and self.prompt_loss) if mine else message

    def _ranges(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The written conversation, and [low, high) in it of the answers to learn; with `prompt_loss` of those not to."""
        turns = [message for message in messages if message.role == "assistant"]
        every = all(message.learned for message in turns)
        if self.prompt_loss and every:
            return self.written(messages), []
        if self.template.marked:
            whole, found = self.template.marks(messages)
        else:
            whole = self.written(messages)
            found = answers(messages, whole, self.template.written, self._special)
        if every:
            return whole, found
        if len(found) != len(turns):
            raise UnreadableError("the chat template marks only some answers, and not all are to be learned", broken=False)
        both = zip(turns, found, strict=True)
        return whole, [place for message, place in both if message.learned is not self.prompt_loss]

    def written(self, messages: Sequence[Message]) -> str:
        """A conversation as the chat template writes it."""
        return self.template.written(messages)

    def on(self, date: str | None) -> "Encoder":
        """The same with the day that a chat template is to write as today; unchanged where it writes none."""
        return replace(self, date=date or datetime.date.today().isoformat()) if self.writes_date else self

    @property
    def writes_date(self) -> bool:
        """Whether conversations are written with the day on which they are."""
        return writes_date(chosen(self.tokenizer, self.chat_template))

    def check(self, content: Content) -> None:
        """Raises `InputError` where no conversation at all could be encoded."""
        if isinstance(content, str):
            return
        _ = self.template.text
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError("conversations need a fast tokenizer, which knows where its tokens stand; give tokenizer.json")

    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer and of what is done with it, but for the day that a chat template writes."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(sorted(self.tokenizer.get_vocab().items()))
        said = [content, self.chat_template or getattr(self.tokenizer, "chat_template", None), self.prompt_loss, self.end]
        said += [] if self.special_tokens else ["spelled tokens are text"]
        # Such data were once masked by transformers.
        said += ["marks by offsets"] if self._marks_learned else []
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()

    @property
    def _marks_learned(self) -> bool:
        return not self.prompt_loss and bool(chosen(self.tokenizer, self.chat_template)) and self.template.marked

    @property
    def special_ids(self) -> dict[str, int | None]:
        """What begins and ends a document and fills a row: a tokenizer's config says it, and not its fingerprint."""
        return {name: getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}

    def vocabulary(self, ids: NDArray[np.int64]) -> str:
        """SHA-256 of what these ids mean: the same for every tokenizer that reads them alike, whatever else it has."""
        names = {index: token for token, index in self.tokenizer.get_vocab().items()}
        return hashlib.sha256(json.dumps([(index, names.get(index)) for index in ids.tolist()]).encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        """What rows are filled up with; nobody learns from it."""
        for name in ("pad_token_id", "eos_token_id"):
            found = getattr(self.tokenizer, name, None)
            # A token that was added to the tokenizer may have no row in the model.
            if found is not None and found < getattr(self.tokenizer, "vocab_size", found + 1):
                return int(found)
        return 0


def _check_written(messages: Sequence[Message], whole: str) -> None:
    """Raises `UnreadableError` for a turn that the template does not write, as one for pictures does with texts.

    Its last word is looked for: what stands before that may be thoughts, which are taken out on purpose.
    """
    for number, message in enumerate(messages, start=1):
        words = message.content.rsplit(maxsplit=1)
        if words and message.role != "tool" and words[-1] not in whole:
            raise UnreadableError(UNWRITTEN, f"turn {number}, of the {message.role}")


def _begins(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[num_tokens] Where each token begins. One that is nothing but space may be trimmed to its end; it follows the last."""
    begins, ends = offsets[:, 0], offsets[:, 1]
    return np.where(begins == ends, np.append(0, ends[:-1])[: begins.size], begins)


def special_tokens_of(tokenizer: Any) -> set[str]:
    """How the tokenizer's special tokens are spelled: those with a role, and all that are added as special."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    named = getattr(tokenizer, "all_special_tokens", [])
    return {token for token in (*named, *(each.content for each in added if each.special)) if token}
