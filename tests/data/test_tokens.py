"""What is learned of a conversation: the same tokens as masking the whole chat by offsets."""

import re
from pathlib import Path

import numpy as np
import pytest
from chat import CHATML, FORGETFUL, IN_MACRO, MARKED, MARKED_INSIDE, chat_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import InputError
from ropewalk.data.reading.formats import recognise
from ropewalk.data.reading.records import Message, UnreadableError
from ropewalk.data.tokens import Encoder

ANSWER = re.compile(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", flags=re.DOTALL)
CONTENT = st.text(st.sampled_from("ab \né€\t<|"), max_size=8)
TURNS = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3)


def conversation(pairs: list[tuple[str, str]], system: str | None = None) -> tuple[Message, ...]:
    turns = [Message(role="system", content=system)] if system is not None else []
    for question, answer in pairs:
        turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return tuple(turns)


def masked_by_offsets(messages: tuple[Message, ...]) -> tuple[list[int], list[bool]]:
    """The whole chat, and its answers found in what was written."""
    tokenizer = chat_tokenizer()
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    spans = [found.span(1) for found in ANSWER.finditer(text)]
    taken = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return taken["input_ids"], [any(low <= at < high for low, high in spans) for at, _ in taken["offset_mapping"]]


@settings(max_examples=60, deadline=None)
@given(pairs=TURNS, system=st.none() | CONTENT)
def test_the_mask_is_that_of_the_whole_chat(pairs: list[tuple[str, str]], system: str | None) -> None:
    messages = conversation(pairs, system)
    made = Encoder(tokenizer=TOKENIZER).encode(messages)
    ids, learned = masked_by_offsets(messages)
    assert made.ids.tolist() == ids
    assert made.learned.tolist() == learned


TOKENIZER = chat_tokenizer()


def learned_text(made: object) -> str:
    return TOKENIZER.decode(made.ids[made.learned].tolist())  # type: ignore[attr-defined]


def test_answers_with_their_end_marks_are_learned_and_nothing_else() -> None:
    made = Encoder(tokenizer=TOKENIZER).encode(conversation([("one?", "two."), ("three?", "four.")], "be brief"))
    assert learned_text(made) == "two.<|im_end|>four.<|im_end|>"


def test_a_token_that_begins_in_the_prompt_is_not_learned() -> None:
    made = Encoder(tokenizer=TOKENIZER).encode(conversation([("q", "\nyes")]))
    joined = TOKENIZER.convert_tokens_to_ids("ĊĊ")
    assert joined in made.ids
    assert not made.learned[made.ids == joined].any()
    assert learned_text(made) == "yes<|im_end|>"


def test_the_prompt_is_learned_where_asked() -> None:
    messages = conversation([("q", "a")])
    made = Encoder(tokenizer=TOKENIZER, prompt_loss=True).encode(messages)
    assert made.learned.all()
    assert made.ids.tolist() == Encoder(tokenizer=TOKENIZER).encode(messages).ids.tolist()


def test_a_template_with_marks_of_its_own_gives_the_same_mask() -> None:
    messages = conversation([("one?", "two.ab"), ("ü?", "é€")])
    marked = Encoder(tokenizer=TOKENIZER, chat_template=MARKED).encode(messages)
    found = Encoder(tokenizer=TOKENIZER, chat_template=CHATML).encode(messages)
    assert marked.ids.tolist() == found.ids.tolist()
    assert marked.learned.tolist() == found.learned.tolist()


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>"), (MARKED, "<|im_end|>"), (IN_MACRO, "<|im_end|>"), (MARKED_INSIDE, "")]
)
@pytest.mark.parametrize(
    "answers", [(" Sure.", "Two."), ("One.", " Sure.", "Three"), ("One. ", "Two."), ("One  ", " ", "Two"), (" S S ", " S")]
)
def test_exactly_the_answers_are_learned_whatever_a_token_leaves_out(
    answers: tuple[str, ...], template: str, end: str, trimmed: bool
) -> None:
    """A tokenizer may say that a word begins behind its space: then no token holds an answer's first or last character."""
    tokenizer = chat_tokenizer(template, trimmed=trimmed)
    messages = conversation([(f"secret {index}", answer) for index, answer in enumerate(answers)])
    made = Encoder(tokenizer=tokenizer).encode(messages)
    pieces = [tokenizer.decode([index]) if learned else "|" for index, learned in zip(made.ids, made.learned, strict=True)]
    assert [piece for piece in re.split(r"(?:(?<!<)\|(?!>))+", "".join(pieces)) if piece] == [a + end for a in answers]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_an_earlier_answer_of_a_prompt_is_learned_with_prompts_alone(template: str) -> None:
    prompt = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two."}]
    record = {"prompt": [*prompt, prompt[0]], "completion": [{"role": "assistant", "content": "four."}]}
    messages = recognise(record)
    made = Encoder(tokenizer=TOKENIZER, chat_template=template).encode(messages)
    assert learned_text(made) == "four.<|im_end|>"
    assert Encoder(tokenizer=TOKENIZER, chat_template=template, prompt_loss=True).encode(messages).learned.all()


def test_a_template_that_writes_nothing_of_its_own_joins_a_pair() -> None:
    """The one that the page on data shows."""
    page = Path(__file__).parents[2] / "docs" / "data.md"
    [template] = re.findall(r"```jinja\n(.*?)\n```", page.read_text(), flags=re.DOTALL)
    messages = recognise({"prompt": "The sea is", "completion": " wide. "})
    made = Encoder(tokenizer=TOKENIZER, chat_template=template).encode(messages)
    assert TOKENIZER.decode(made.ids.tolist()) == "The sea is wide. <|im_end|>"
    assert learned_text(made) == " wide. <|im_end|>"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_an_answer_that_is_not_to_be_learned_is_not(template: str) -> None:
    first, bad, *rest = conversation([("one?", "two."), ("three?", "four.")])
    messages = (first, Message(role="assistant", content=bad.content, learned=False), *rest)
    made = Encoder(tokenizer=TOKENIZER, chat_template=template).encode(messages)
    assert learned_text(made) == "four.<|im_end|>"
    everything = Encoder(tokenizer=TOKENIZER, chat_template=template, prompt_loss=True).encode(messages)
    assert TOKENIZER.decode(everything.ids[~everything.learned].tolist()) == "two.<|im_end|>"
    with pytest.raises(UnreadableError, match="no answer to learn from"):
        Encoder(tokenizer=TOKENIZER, chat_template=template).encode(messages[:2])


def test_marks_on_some_answers_do_not_say_which_is_to_be_learned() -> None:
    last = MARKED.replace("message.role == 'assistant'", "message.role == 'assistant' and loop.last")
    messages = conversation([("one?", "two."), ("three?", "four.")])
    assert learned_text(Encoder(tokenizer=TOKENIZER, chat_template=last).encode(messages)) == "four.<|im_end|>"
    bad = (*messages[:3], Message(role="assistant", content="four.", learned=False))
    with pytest.raises(UnreadableError, match="marks only some answers"):
        Encoder(tokenizer=TOKENIZER, chat_template=last).encode(bad)


@pytest.mark.parametrize(
    ("messages", "template", "reason"),
    [
        (conversation([("a", "b"), ("c", "d")]), FORGETFUL, "does not show where answers begin and end"),
        (conversation([("a", "b")]), "{{ raise_exception('no') }}", "refused by the chat template"),
        ((Message(role="user", content="a"),), CHATML, "no answer to learn from"),
        ((Message(role="assistant", content="a"),), CHATML, "begins with an answer"),
    ],
)
def test_what_has_no_exact_mask_is_left_out(messages: tuple[Message, ...], template: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        Encoder(tokenizer=TOKENIZER, chat_template=template).encode(messages)


def test_without_a_template_conversations_are_refused() -> None:
    with pytest.raises(InputError, match=r"no chat template; give one with --chat-template FILE"):
        Encoder(tokenizer=chat_tokenizer(None)).check(conversation([("a", "b")]))


def test_a_missing_template_is_no_fault_of_a_conversation() -> None:
    for prompt_loss in (False, True):
        with pytest.raises(InputError, match="no chat template"):
            Encoder(tokenizer=chat_tokenizer(None), prompt_loss=prompt_loss).encode(conversation([("a", "b")]))


def test_a_text_ends_with_the_end_mark_once() -> None:
    end = TOKENIZER.eos_token_id
    assert Encoder(tokenizer=TOKENIZER).encode("ab").ids.tolist()[1:] == [end]
    assert Encoder(tokenizer=TOKENIZER, special_tokens=True).encode("ab<|im_end|>").ids.tolist()[1:] == [end]
    assert end not in Encoder(tokenizer=TOKENIZER, end=False).encode("ab").ids
    assert Encoder(tokenizer=TOKENIZER).encode("ab").learned.all()


def test_the_fingerprint_changes_with_what_changes_tokens() -> None:
    found = [
        Encoder(tokenizer=TOKENIZER),
        Encoder(tokenizer=TOKENIZER, prompt_loss=True),
        Encoder(tokenizer=TOKENIZER, end=False),
        Encoder(tokenizer=TOKENIZER, chat_template=MARKED),
        Encoder(tokenizer=TOKENIZER, special_tokens=True),
    ]
    assert len({encoder.fingerprint() for encoder in found}) == 5
    assert Encoder(tokenizer=chat_tokenizer()).fingerprint() == found[0].fingerprint()
    assert np.issubdtype(found[0].encode("ab").ids.dtype, np.int64)
