"""Answers found in conversations whose turns a template does not write one after another, and refused where they are not."""

import re

import pytest
from chat import (
    DEAF,
    ENDS_OTHERWISE,
    ENDS_TWICE,
    FORGETFUL,
    IN_QUESTION,
    OPENS_OTHERWISE,
    OPENS_THOUGHTFUL,
    THOUGHTFUL,
    TWICE,
    chat_tokenizer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.reading.records import Message, UnreadableError
from ropewalk.data.tokens import Encoder

TOKENIZERS = {template: chat_tokenizer(template) for template in (THOUGHTFUL, IN_QUESTION)}
WORDS = (
    "a",
    "b",
    " ",
    "\n",
    "\n\n",
    "é",
    "<",
    "|",
    "user\n",
    "assistant\n",
    "<think>",
    "[/ask]",
    "\U000f0000",
    "\U000f0001",
)
"""Among them what the templates write, and the marks that are put in the place of turns."""
CONTENT = st.lists(st.sampled_from(WORDS), max_size=5).map("".join)
SYSTEM = st.none() | CONTENT.filter(str.strip)
TRIMMING = THOUGHTFUL.replace("{{ said }}", "{{ said | trim }}")


def conversation(*contents: str, system: str | None = None) -> tuple[Message, ...]:
    """Questions and answers in turn."""
    turns = [Message(role=("user", "assistant")[at % 2], content=content) for at, content in enumerate(contents)]
    return (*([] if system is None else [Message(role="system", content=system)]), *turns)


def learned(template: str, messages: tuple[Message, ...]) -> list[str]:
    """Every stretch that is learned, as text."""
    tokenizer = TOKENIZERS.get(template) or chat_tokenizer(template)
    made = Encoder(tokenizer=tokenizer).encode(messages)
    found: list[list[int]] = [[]]
    for index, is_learned in zip(made.ids.tolist(), made.learned.tolist(), strict=True):
        found[-1:] = [[*found[-1], index]] if is_learned else [found[-1], []] if found[-1] else [[]]
    return [tokenizer.decode(ids) for ids in found if ids]


def test_the_tokens_and_the_mask_of_a_template_that_thinks_last_are_these() -> None:
    """Written out by hand. The opening has no thoughts, so the empty block before the last answer is learned with it."""
    expected = [
        (("<|im_start|>", *"user", "Ċ", "q", "<|im_end|>", "Ċ"), False),
        (("<|im_start|>", *"assistant", "Ċ"), False),
        (("ab", "<|im_end|>"), True),
        (("Ċ", "<|im_start|>", *"user", "ĊĊ", "r", "<|im_end|>", "Ċ"), False),
        (("<|im_start|>", *"assistant", "Ċ"), False),
        ((*"<think>", "ĊĊ", *"</think>", "ĊĊ", "c", "<|im_end|>"), True),
        (("Ċ",), False),
    ]
    made = Encoder(tokenizer=TOKENIZERS[THOUGHTFUL]).encode(conversation("q", "ab", "\nr", "c"))
    pieces = [piece for part, _ in expected for piece in part]
    assert TOKENIZERS[THOUGHTFUL].convert_ids_to_tokens(made.ids.tolist()) == pieces
    assert made.learned.tolist() == [is_learned for part, is_learned in expected for _ in part]


def test_a_last_answer_may_hold_thoughts() -> None:
    messages = conversation("q", "one", "r", "two", "s", "<think>hm</think>\n\nthree")
    thoughts = "<think>\nhm\n</think>\n\nthree"
    assert learned(THOUGHTFUL, messages) == ["one<|im_end|>", "two<|im_end|>", thoughts + "<|im_end|>"]


def test_a_question_may_come_last_and_an_answer_follow_what_a_tool_says() -> None:
    messages = conversation("q", "one", "r")
    assert learned(THOUGHTFUL, messages) == ["one<|im_end|>"]
    tool = (*messages, Message(role="assistant", content="let me see"), Message(role="tool", content="7"))
    last = (*tool, Message(role="assistant", content="it is 7"))
    found = learned(THOUGHTFUL, last)
    assert found == ["one<|im_end|>", "let me see<|im_end|>", "<think>\n\n</think>\n\nit is 7<|im_end|>"]


def test_a_system_prompt_may_stand_in_the_last_question() -> None:
    messages = conversation("q", "ab", "r", "[/ask] c ", system="be brief")
    assert learned(IN_QUESTION, messages) == [" ab<|im_end|>", " [/ask] c<|im_end|>"]
    assert learned(IN_QUESTION, messages[1:]) == [" ab<|im_end|>", " [/ask] c<|im_end|>"]


def test_an_answer_that_does_not_begin_with_the_opening_begins_with_its_words() -> None:
    """The opening ends inside the thoughts, which only the last answer has; its two line breaks are one token."""
    messages = conversation("q", "ab", "r", "c", "s", "d")
    assert learned(OPENS_THOUGHTFUL, messages) == ["ab<|im_end|>", "c<|im_end|>", "</think>\n\nd<|im_end|>"]


def test_an_answer_ends_with_the_special_tokens_that_the_last_one_begins_to_end_with() -> None:
    messages = conversation("q", "ab", "r", "c")
    assert learned(ENDS_TWICE, messages) == ["ab<|im_end|>", "c<|im_end|>\n<s>"]


def test_a_turn_that_the_template_leaves_out_is_not_learned_without() -> None:
    with pytest.raises(UnreadableError, match="the chat template leaves out a turn") as caught:
        Encoder(tokenizer=chat_tokenizer(DEAF)).encode(conversation("why", "so"))
    assert caught.value.detail == "turn 1, of the user"


def test_an_answer_that_is_not_to_be_learned_is_told_from_the_others() -> None:
    first, bad, *rest = conversation("q", "bad", "r", "good", "s", "better")
    messages = (first, Message(role="assistant", content=bad.content, learned=False), *rest)
    assert learned(THOUGHTFUL, messages) == ["good<|im_end|>", "<think>\n\n</think>\n\nbetter<|im_end|>"]


@settings(max_examples=80, deadline=None)
@given(pairs=st.lists(st.tuples(CONTENT, CONTENT), min_size=2, max_size=4), system=SYSTEM, trims=st.booleans())
def test_every_answer_is_found_whatever_the_turns_say(pairs: list[tuple[str, str]], system: str | None, trims: bool) -> None:
    """Against what the template's own end and opening say, which no turn can spell here."""
    messages = conversation(*(content for pair in pairs for content in pair), system=system)
    encoder = Encoder(tokenizer=TOKENIZERS[THOUGHTFUL], chat_template=TRIMMING if trims else THOUGHTFUL)
    whole = encoder.written(messages)
    made = encoder.encode(messages)
    taken = TOKENIZERS[THOUGHTFUL](whole, add_special_tokens=False, return_offsets_mapping=True)
    spans = [found.span(1) for found in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", whole, flags=re.DOTALL)]
    assert made.ids.tolist() == taken["input_ids"]
    assert made.learned.tolist() == [any(low <= at < high for low, high in spans) for at, _ in taken["offset_mapping"]]


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(CONTENT, CONTENT), min_size=2, max_size=4), system=SYSTEM)
def test_every_answer_is_found_behind_any_question(pairs: list[tuple[str, str]], system: str | None) -> None:
    messages = conversation(*(content for pair in pairs for content in pair), system=system)
    assert learned(IN_QUESTION, messages) == [f" {answer.strip()}<|im_end|>" for _, answer in pairs]


@pytest.mark.parametrize(
    ("template", "contents", "detail"),
    [
        (FORGETFUL, "abcd", "it leaves out or repeats a turn"),
        (TWICE, "abcd", "it leaves out or repeats a turn"),
        (ENDS_OTHERWISE, "abcd", "turn 2 ends in another way than when it is the last"),
        (OPENS_OTHERWISE, "abcd", "turn 4 begins in another way than when it is asked for"),
        (OPENS_OTHERWISE, "ab", "turn 2 begins in another way than when it is asked for"),
        (THOUGHTFUL, ("a", "<think>hm</think>\n\nb", "c", "d"), "it writes turn 2 in another way than other words"),
        (THOUGHTFUL.replace("{{ said }}", "{{ said | upper }}"), "abcd", "it writes turn 1 in another way than other words"),
        (
            "{{ messages[0].content | length }}" + THOUGHTFUL,
            ("aa", "b", "c", "d"),
            "what it writes around the turns depends",
        ),
    ],
)
def test_what_is_not_certain_is_refused(template: str, contents: tuple[str, ...] | str, detail: str) -> None:
    with pytest.raises(UnreadableError, match="the chat template does not show where answers begin and end") as caught:
        Encoder(tokenizer=chat_tokenizer(template)).encode(conversation(*contents))
    assert caught.value.detail.startswith(detail)
    assert caught.value.broken
