"""A byte-level tokenizer with ChatML, and pieces that join across a turn's border."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}"
)
MARKED_INSIDE = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
"""The end marker is not part of what is marked."""
IN_MACRO = (
    "{% macro turn(message) %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}\n{% endmacro %}"
    "{% for message in messages %}{{ turn(message) }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Marks in a macro, whose places nobody can tell while it runs."""
FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content if loop.last else 'gone' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes every turn but the last in another way than when it was the last."""

LATEST_ASKED = (
    "{% set asked = namespace(at=-1) %}{% for message in messages %}{% if message.role == 'user' %}"
    "{% set asked.at = loop.index0 %}{% endif %}{% endfor %}"
)
THOUGHTFUL = (
    LATEST_ASKED + "{% for message in messages %}{% set said = message.content %}{% set thought = '' %}"
    "{% if message.role == 'assistant' and '</think>' in said %}{% set thought = said.split('</think>')[0] %}"
    "{% set thought = thought.split('<think>')[-1].strip() %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.index0 > asked.at and (loop.last or thought) %}"
    "<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ said }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A block of thoughts, empty where there are none, in the last answer alone; earlier thoughts are left out."""
IN_QUESTION = (
    LATEST_ASKED + "{% set system = messages[0].content if messages[0].role == 'system' else none %}"
    "<s>{% for message in messages %}{% if message.role == 'user' %}[ask]"
    "{{ ' ' + system if system is not none and loop.index0 == asked.at }} {{ message.content | trim }}[/ask]"
    "{% elif message.role == 'assistant' %} {{ message.content | trim }}<|im_end|>{% endif %}{% endfor %}"
)
"""The system prompt stands in the last question, and an answer has no opening of its own."""
ENDS_OTHERWISE = CHATML.replace("<|im_end|>", "{{ '<s>' if loop.last and message.role == 'assistant' else '<|im_end|>' }}")
OPENS_OTHERWISE = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
ENDS_TWICE = CHATML.replace("{% if add_gen", "{% if not add_generation_prompt %}<s>{% endif %}{% if add_gen")
"""One more mark behind the last turn alone."""
OPENS_THOUGHTFUL = THOUGHTFUL.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
DEAF = CHATML.replace("{{ message.content }}", "{% if message.role != 'user' %}{{ message.content }}{% endif %}")
TWICE = CHATML.replace("{{ message.content }}", "{{ message.content }}{{ '' if loop.last else message.content }}")
TODAY = "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y') }}.<|im_end|>\n" + CHATML


def chat_tokenizer(template: str | None = CHATML, *, trimmed: bool | None = None) -> Any:
    """Bytes, two newlines as one token, and the marks of ChatML.

    With `trimmed` also a word with the space before it, which a trimmed token's place leaves out (GPT-NeoX, RoBERTa).
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline, word = "Ċ", "ĠS"
    vocabulary = {"<s>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    for piece in (*alphabet, newline + newline, "ab", *([] if trimmed is None else [word])):
        vocabulary[piece] = len(vocabulary)
    merges = [(newline, newline), ("a", "b"), *([] if trimmed is None else [("Ġ", "S")])]
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if trimmed is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trimmed)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = template
    return wrapped


@contextmanager
def on_day(monkeypatch: pytest.MonkeyPatch, day: str) -> Iterator[None]:
    """A day that is today, for us and for the clock that transformers hands to templates."""
    from transformers.utils import chat_template_utils

    from ropewalk.data import tokens

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls.fromisoformat(day)

    class Calendar(datetime.date):
        @classmethod
        def today(cls) -> "Calendar":
            return cls.fromisoformat(day)

    with monkeypatch.context() as patch:
        patch.setattr(chat_template_utils, "datetime", Clock)
        patch.setattr(tokens, "datetime", SimpleNamespace(date=Calendar), raising=False)
        yield
