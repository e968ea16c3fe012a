"""Tasks beside needles: exact lengths, seeded, apart by split, with the answer where it is said to be."""

import json
import re

import numpy as np
import pytest
from characters import Characters
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import TextError
from ropewalk.data.tasks import association, conversation, first_sentence, key_value, records, topics
from ropewalk.data.tasks.encoding import Encoder
from ropewalk.data.tasks.scoring import score
from ropewalk.data.tasks.task import Ask, tasks
from ropewalk.data.tasks.templates import Wording

TASKS = [task for module in (key_value, records, topics, first_sentence, association, conversation) for task in module.TASKS]
PLANTED = [task for task in TASKS if task.plants]
PROSE = "".join(
    f"Keeper {n} of the old light wrote down {n * 7919 % 1009} tall ships and {n % 13} gulls. " for n in range(900)
)
FILLER = np.asarray(Characters()(PROSE)["input_ids"])
TALKS = [
    {"topic": f"{name} in spring", "turns": [f"About {name} I know {n} things.", {"text": f"Tell me {n + 1} more."}]}
    for name in ("apples", "bees", "cats", "dogs", "eels", "frogs", "geese", "hares", "ibises", "jays", "kites", "larks")
    for n in range(90)
]
IDS = [task.id for task in TASKS]


def build(task, lengths, *, depths=(0.1, 0.5, 0.9), seed=0, split="measure", filler=FILLER, talks=TALKS, templates=None):
    encoder = Encoder(tokenizer=Characters(), prefix=np.zeros(0, dtype=np.int64))
    return task.build(
        Ask(
            encoder=encoder, lengths=lengths, depths=depths if task.plants else (), seed=seed, split=split, filler=filler,
            sources={"conversations": talks, "templates": templates or {}},
        )
    )  # fmt: skip


def text(ids):
    return Characters().decode(ids.tolist())


def size(stack, question):
    """Tokens of a question's longest branch, its context included."""
    longest = max([question.room, *(candidate.size for candidate in question.candidates)])
    return stack.cuts[question.stage] + question.question.size + longest


def prompt(stack, question):
    return text(stack.context[: stack.cuts[question.stage]]) + text(question.question)


def lines(stack, question):
    """What a prompt says, key to value, read the way a person would read it."""
    told, key = prompt(stack, question), question.key
    if key in told and question.rule == "all":
        return re.findall(rf'"{key}": "([0-9a-f-]+)"', told)
    return re.findall(rf"(?:line {key}: the noted number is|entry {key} reads) (\d+)\n", told)


def test_every_file_of_tasks_is_listed():
    assert set(IDS) <= set(tasks())
    assert {task.family for task in TASKS} == {"retrieval", "association", "conversation"}


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_the_rule_is_the_originals(task):
    rules = {
        "topics": "label",
        "first-sentence": "rouge-l",
        "conversation": "ratio",
        "key-value": "all",
        "association": "all",
    }
    stack = build(task, (4500,))
    assert {question.rule for question in stack.questions} == {rules.get(task.id, "last-integer")}
    assert (task.scoring == "generate") == (task.id in ("topics", "first-sentence", "conversation"))
    for question in stack.questions:
        said = text(question.answer)
        assert score(question.rule, said, question.references, question.labels) == 1
        assert score(question.rule, said[: len(said) // 2], question.references, question.labels) < 1
        wrong = [text(candidate) for candidate in question.candidates[1:]]
        assert all(score(question.rule, other, question.references, question.labels) < 0.9 for other in wrong)


@pytest.mark.parametrize("task", TASKS, ids=IDS)
@given(
    length=st.integers(4600, 7000), seed=st.integers(0, 2**31), split=st.sampled_from(["measure", "train"]),
    depths=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_the_length_is_exact_and_nothing_is_longer(task, length, seed, split, depths):
    stack = build(task, (length,), seed=seed, split=split, depths=tuple(depths))
    sizes = [size(stack, question) for question in stack.questions]
    assert stack.lengths == (length,)
    assert stack.cuts == (stack.context.size,)
    assert max(sizes) <= length
    # Which questions are asked is drawn, and keys and answers differ in length; nothing else is left free.
    assert max(sizes) >= length - 150


@pytest.mark.parametrize("task", TASKS, ids=IDS)
@given(
    first=st.integers(3800, 4600), steps=st.lists(st.integers(700, 3000), min_size=1, max_size=2), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_a_growing_haystack_asks_every_depth_at_every_stage(task, first, steps, seed):
    lengths = tuple(int(length) for length in np.cumsum([first, *steps]))
    stack = build(task, lengths, seed=seed)
    assert task.grows
    assert len(stack.cuts) == len(lengths) == len(stack.num_needles)
    assert all(low < high for low, high in zip(stack.cuts, stack.cuts[1:], strict=False))
    assert all(0 <= asked - true < 700 for asked, true in zip(lengths, stack.lengths, strict=True))
    for stage in range(len(lengths)):
        assert [q.asked_depth for q in stack.at(stage)] == ([0.1, 0.5, 0.9] if task.plants else [None])
    for question in stack.questions:
        assert size(stack, question) <= stack.lengths[question.stage]
        assert 0 <= question.position < stack.cuts[question.stage]


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_a_seed_makes_one_haystack_and_another_seed_another(task):
    one, again, other = (build(task, (4500,), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.context, again.context)
    assert [q.references for q in one.questions] == [q.references for q in again.questions]
    assert not np.array_equal(one.context, other.context)


@pytest.mark.parametrize("task", [task for task in TASKS if not getattr(task, "rising", False)], ids=lambda task: task.id)
def test_lengths_are_compared_on_the_same_questions(task):
    short, long = build(task, (4500,), seed=3), build(task, (7100,), seed=3)
    assert [(q.key, q.references) for q in short.questions] == [(q.key, q.references) for q in long.questions]


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_splits_share_neither_words_nor_wordings(task):
    measure, train = (build(task, (4500,), split=split) for split in ("measure", "train"))
    ours, theirs = ({q.references for q in stack.questions} for stack in (measure, train))
    assert ours.isdisjoint(theirs)
    for one in measure.questions:
        for other in train.questions:
            assert text(one.question).split("{")[0] != text(other.question)
    assert text(measure.context)[:40] != text(train.context)[:40]


@pytest.mark.parametrize("task", PLANTED, ids=[task.id for task in PLANTED])
@given(seed=st.integers(0, 999), depths=st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True))
@settings(max_examples=8, deadline=None)
def test_depths_are_near_what_was_asked(task, seed, depths):
    stack = build(task, (9000,), seed=seed, depths=tuple(depths))
    for asked, question in zip(depths, stack.questions, strict=True):
        # Depths that lie together are one after another; what stands at the start is up to a tenth.
        assert abs(question.depth - asked) < 0.11 + 0.03 * len(depths)
        assert question.depth == pytest.approx(question.position / stack.context.size)


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_no_room_says_the_smallest_length(task):
    with pytest.raises(TextError, match=r"leave no room for .*; the smallest length is") as caught:
        build(task, (100,))
    smallest = int(str(caught.value).rsplit(" ", 1)[1])
    for _ in range(4):  # Which sentence or topic is drawn may depend on the length, and so may the smallest one.
        try:
            assert build(task, (smallest,)).length == smallest
            break
        except TextError as error:
            smallest = int(str(error).rsplit(" ", 1)[1])
    else:
        pytest.fail("the smallest length is never enough")
    with pytest.raises(TextError, match="leave no room"):
        build(task, (smallest - 1,))


@pytest.mark.parametrize("task", [*key_value.TASKS, *records.TASKS], ids=lambda task: task.id)
@pytest.mark.parametrize("split", ["measure", "train"])
@pytest.mark.parametrize("lengths", [(4500,), (4500, 6000, 9000)])
def test_the_value_asked_for_stands_once_under_its_key(task, split, lengths):
    stack = build(task, lengths, split=split)
    for question in stack.questions:
        assert tuple(lines(stack, question)) == question.references
        found = text(stack.context[question.position :])
        assert question.key in found[: found.index(question.references[0])]
        assert len({candidate.tobytes() for candidate in question.candidates}) == 5
        assert np.array_equal(question.candidates[0], question.answer)
        for candidate in question.candidates[1:]:
            assert text(candidate).strip(' "') in prompt(stack, question)


def test_the_object_can_be_read_as_json_at_every_stage():
    (task,) = key_value.TASKS
    stack = build(task, (4500, 6000, 9000))
    for question in stack.questions:
        told = prompt(stack, question)
        pairs = json.loads(told[told.index("{") : told.index("}") + 1])
        assert pairs[question.key] == question.references[0]
        # One pair is in the question, to close the object.
        assert len(pairs) == stack.num_needles[question.stage] + 1


@pytest.mark.parametrize("task", records.TASKS, ids=lambda task: task.id)
def test_records_hold_numbers_as_large_as_the_originals(task):
    stack = build(task, (40_000,))
    values = [int(value) for value in re.findall(r"number is (\d+)\n", text(stack.context))]
    assert len(values) == stack.num_needles[0]
    assert min(values) >= 1
    assert max(values) <= 50_000
    assert np.mean(values) == pytest.approx(25_000, abs=2500)


def test_rising_keys_rise_by_one():
    for task, keys in ((records.Index(), ["1", "2", "3"]), (records.Code(), ["AAAAAA", "AAAAAB", "AAAAAC"])):
        told = re.findall(r"line (\w+): ", text(build(task, (4500,)).context))
        assert told[:3] == keys
        assert len(set(told)) == len(told)


def test_the_text_begins_with_the_sentence_asked_for():
    (task,) = first_sentence.TASKS
    for seed in range(5):
        stack = build(task, (3000, 5000), seed=seed)
        for question in stack.questions:
            sentence = question.references[0]
            assert text(stack.context[question.position :]).lstrip().startswith(sentence)
            assert re.fullmatch(r"Keeper \d+ of the old light wrote down \d+ tall ships and \d+ gulls\.", sentence)
            assert text(question.answer) == f" {sentence}"


def test_no_sentence_is_drawn_from_a_text_without_any():
    (task,) = first_sentence.TASKS
    with pytest.raises(TextError, match="no sentence of 8 to 40 words in the text has"):
        build(task, (3000,), filler=np.asarray(Characters()("Mr. Ames. Mrs. Bell. CHAPTER 1. " * 300)["input_ids"]))


class Runs:
    """A tokenizer of runs of digits, runs of letters and single other characters, so that answers differ in tokens."""

    def __init__(self):
        self.known = {}

    def __call__(self, told, **_):
        return {
            "input_ids": [self.known.setdefault(run, len(self.known)) for run in re.findall(r"\d+|[a-zA-Z]+|.|\n", told)]
        }

    def decode(self, ids):
        runs = list(self.known)
        return "".join(runs[i] for i in ids)


@pytest.mark.parametrize("task", [*key_value.TASKS, *records.TASKS, *conversation.TASKS], ids=lambda task: task.id)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_no_branch_is_longer_where_answers_differ_in_tokens(task, seed):
    encoder = Encoder(tokenizer=Runs(), prefix=np.zeros(0, dtype=np.int64))
    stack = task.build(Ask(encoder=encoder, lengths=(1500,), depths=(0.1, 0.5, 0.9), seed=seed))
    assert max(size(stack, question) for question in stack.questions) <= stack.length == 1500


@pytest.mark.parametrize(
    ("task", "needle"),
    [
        (key_value.KeyValue(), ""), (first_sentence.FirstSentence(), ""), (records.Words(), "<{key}> -> {value}"),
        (records.Code(), "<{key}> -> {value}"),
    ],
    ids=lambda told: getattr(told, "id", None),
)  # fmt: skip
def test_a_wording_of_the_users_is_used_and_named(task, needle):
    asked = " {query}" if task.plants else ""
    given = Wording(
        opening="Mark this.\n", question=f"\nWhat{asked}?\n", start=f"So{asked}:", needle=needle, name="mine.json"
    )
    stack = build(task, (4500,), templates={task.id: given})
    assert stack.wording == "mine.json"
    assert text(stack.context).startswith("Mark this.\n")
    for question in stack.questions:
        key = f" {question.key}" if task.plants else ""
        assert text(question.question).endswith(f"\nWhat{key}?\nSo{key}:")
        if needle:
            said = needle.format(key=question.key, value=question.references[0])
            assert text(stack.context[question.position :]).startswith(f"{said}\n")
    assert build(task, (4500,)).wording == "own"
