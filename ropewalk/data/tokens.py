"""Documents as token ids, with which of them are learned.

A text is tokenized as the tokenizer does by default, and ends with its end-of-text token. Where it spells a special token
(`<|im_end|>` in a page about chat models) that stays text: as a token it would end a document or forge a turn.

A conversation is written out by the chat template and tokenized whole, once; what is learned are the tokens that begin
inside a turn of the assistant, its end marker included. Where such a turn begins and ends is what the template itself says:
by its `generation` marks where it has them, else by writing out the conversation up to the turn, with the opening of an
answer, and up to its end. A conversation whose earlier turns the template writes in another way once more follow is left
out: no mask would be exact. So is one that spells a special token, which nothing tells from those that the template writes.

Of the marks only their places in the text are taken, and not transformers' mask of tokens: that one asks which token holds a
mark's first character and which its last, and where none does (a tokenizer whose tokens leave out the space before a word),
it drops all later answers, or learns everything that follows.

Who spells special tokens on purpose asks for them as tokens, in both kinds.

Given up: tokenizing turn by turn, which gives other tokens where two turns meet, and so also keeping such a conversation.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        # Before anything is refused by it: a tokenizer without a template is not this conversation's fault.
        self.check(tuple(messages))
        if not self.prompt_loss and not any(message.role == "assistant" and message.learned for message in messages):
            raise UnreadableError("no answer to learn from", broken=False)
        if messages[0].role == "assistant":
            raise UnreadableError("begins with an answer", broken=False)
        whole, ranges = self._ranges(messages)
        taken = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(taken["input_ids"], dtype=np.int64)
        begins = _begins(np.asarray(taken["offset_mapping"], dtype=np.int64).reshape(-1, 2))
        learned = np.full(ids.size, self.prompt_loss)
        for low, high in ranges:
            learned[(low <= begins) & (begins < high)] = not self.prompt_loss
        return Tokens(ids=ids, learned=learned)

    def _ranges(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The written conversation, and [low, high) in it of the answers to learn; with `prompt_loss` of those not to."""
        answers = [message for message in messages if message.role == "assistant"]
        every = all(message.learned for message in answers)
        if self.prompt_loss and every:
            return self.written(messages), []
        if self._marked:
            whole, found = self._marks(messages)
        else:
            whole = self.written(messages)
            found = self.answers(messages, whole)
        if every:
            return whole, found
        if len(found) != len(answers):
            raise UnreadableError("the chat template marks only some answers, and not all are to be learned", broken=False)
        chosen = zip(answers, found, strict=True)
        return whole, [place for message, place in chosen if message.learned is not self.prompt_loss]

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

    @property
    def _marked(self) -> bool:
        """Whether the template marks answers where it can be told.

        What is written inside a block that is kept before it is put out (a macro) has no place yet when the mark is met.
        """
        template = self._template()
        marks = [found.start() for found in re.finditer(r"{%[-+]?\s*generation\b", template)]
        return bool(marks) and not any(_held_back(template[:mark]) for mark in marks)

    def _marks(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as the chat template writes it, and [low, high) in characters of what it marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        with _refusals():
            written, places = render_jinja_template(
                conversations=[_turns(messages)],
                chat_template=self._template(),
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        return str(written[0]), [(int(low), int(high)) for low, high in places[0]]

    def written(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        """A conversation as the chat template writes it, with the opening of an answer if so asked."""
        options = {"chat_template": self.chat_template, "tokenize": False, "add_generation_prompt": opened}
        with _refusals():
            return str(self.tokenizer.apply_chat_template(_turns(messages), **options))

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
        # Such data were once masked by transformers.
        said += ["marks by offsets"] if said[1] and not self.prompt_loss and self._marked else []
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


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


@contextmanager
def _refusals() -> Iterator[None]:
    """Templates refuse what they cannot write (two turns of the user in a row) in words of their own."""
    from jinja2.exceptions import TemplateError

    try:
        yield
    except (TemplateError, TypeError, ValueError) as error:
        raise UnreadableError("refused by the chat template", str(error).partition("\n")[0][:120]) from error


def _held_back(before: str) -> bool:
    """Whether the blocks that are open at the end of a part of a template include one that holds back what it writes."""
    opened = re.findall(r"{%[-+]?\s*(?:(?:macro|call|filter)\b|set\s+[\w.]+\s*(?:\||[-+]?%}))", before)
    return len(opened) > len(re.findall(r"{%[-+]?\s*end(?:macro|call|filter|set)\b", before))


def _begins(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[num_tokens] Where each token begins. One that is nothing but space may be trimmed to its end; it follows the last."""
    begins, ends = offsets[:, 0], offsets[:, 1]
    return np.where(begins == ends, np.append(0, ends[:-1])[: begins.size], begins)


def special_tokens_of(tokenizer: Any) -> set[str]:
    """How the tokenizer's special tokens are spelled: those with a role, and all that are added as special."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    named = getattr(tokenizer, "all_special_tokens", [])
    return {token for token in (*named, *(each.content for each in added if each.special)) if token}
