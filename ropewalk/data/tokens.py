"""Documents as token ids, with which of them are learned.

A text is tokenized as the tokenizer does by default, and ends with its end-of-text token. Where it spells a special token
(`<|im_end|>` in a page about chat models) that stays text: as a token it would end a document or forge a turn.

A conversation is written out by the chat template and tokenized whole, once; what is learned are the tokens that begin
inside a turn of the assistant, its end marker included. Where such a turn begins and ends is what the template itself says:
by its `generation` marks where it has them, else by writing out the conversation up to the turn, with the opening of an
answer, and up to its end. A conversation whose earlier turns the template writes in another way once more follow is left
out: no mask would be exact. So is one that spells a special token, which nothing tells from those that the template writes.

Who spells special tokens on purpose asks for them as tokens, in both kinds.

Given up: tokenizing turn by turn, which gives other tokens where two turns meet, and so also keeping such a conversation.
"""

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
from ropewalk.data.reading.records import Content, Message, UnreadableError


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

    def encode(self, content: Content) -> Tokens:
        """The tokens of one document. Raises `UnreadableError` where nothing is learned from it."""
        words = [content] if isinstance(content, str) else [message.content for message in content]
        spelled = next(filter(None, map(self.spelled, words)), "")
        if isinstance(content, str):
            made = self._text(content, plain=bool(spelled) and not self.special_tokens)
        elif spelled and not self.special_tokens:
            raise UnreadableError(f"holds the special token {spelled}", broken=False)
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
        if not self.prompt_loss and not any(message.role == "assistant" for message in messages):
            raise UnreadableError("no answer to learn from", broken=False)
        if messages[0].role == "assistant":
            raise UnreadableError("begins with an answer", broken=False)
        if not self.prompt_loss and self._marks():
            return self._by_marks(messages)
        whole = self.written(messages)
        taken = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(taken["input_ids"], dtype=np.int64)
        if self.prompt_loss:
            return Tokens(ids=ids, learned=np.ones(ids.size, dtype=np.bool_))
        begins = np.asarray(taken["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 0]
        learned = np.zeros(ids.size, dtype=np.bool_)
        for low, high in self.answers(messages, whole):
            learned |= (low <= begins) & (begins < high)
        return Tokens(ids=ids, learned=learned)

    def answers(self, messages: Sequence[Message], whole: str) -> list[tuple[int, int]]:
        """[low, high) in characters of each turn of the assistant in the written conversation, end markers included."""
        found = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.written(messages[:index], opened=True)
            after = self.written(messages[: index + 1])
            if not (whole.startswith(before) and whole.startswith(after) and len(before) <= len(after)):
                raise UnreadableError("the chat template does not write out turns one after another")
            # What separates turns is nobody's answer: generation ends before it.
            found.append((len(before), len(after.rstrip())))
        return found

    def _marks(self) -> bool:
        return "generation %}" in self._template() or "generation -%}" in self._template()

    def _by_marks(self, messages: Sequence[Message]) -> Tokens:
        taken = self._applied(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = (np.asarray(taken[key], dtype=np.int64) for key in ("input_ids", "assistant_masks"))
        return Tokens(ids=ids, learned=mask.astype(np.bool_))

    def written(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        """A conversation as the chat template writes it, with the opening of an answer if so asked."""
        return str(self._applied(messages, tokenize=False, add_generation_prompt=opened))

    def _applied(self, messages: Sequence[Message], **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(turns, chat_template=self.chat_template, **options)
        except (TemplateError, TypeError, ValueError) as error:
            # Templates refuse what they cannot write (two turns of the user in a row) in words of their own.
            raise UnreadableError("refused by the chat template", str(error).partition("\n")[0][:120]) from error

    def _template(self) -> str:
        chosen = self.chat_template or getattr(self.tokenizer, "chat_template", None)
        if not isinstance(chosen, str) or not chosen:
            raise InputError(
                "there are conversations, and the tokenizer has no chat template; give one with --chat-template FILE, "
                "or a tokenizer of a chat model"
            )
        return chosen

    def check(self, content: Content) -> None:
        """Raises `InputError` where no conversation at all could be encoded."""
        if isinstance(content, str):
            return
        self._template()
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError("conversations need a fast tokenizer, which knows where its tokens stand; give tokenizer.json")

    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer and of what is done with it."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(sorted(self.tokenizer.get_vocab().items()))
        said = [content, self.chat_template or getattr(self.tokenizer, "chat_template", None), self.prompt_loss, self.end]
        said += [] if self.special_tokens else ["spelled tokens are text"]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()

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


def special_tokens_of(tokenizer: Any) -> set[str]:
    """How the tokenizer's special tokens are spelled: those with a role, and all that are added as special."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    named = getattr(tokenizer, "all_special_tokens", [])
    return {token for token in (*named, *(each.content for each in added if each.special)) if token}
