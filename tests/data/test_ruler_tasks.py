"""RULER's tasks and the passkey: exact, seeded, apart by split, with the counts of the original generators."""

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from characters import Characters
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.tasks import aggregation, answers, niah, passkey, tracing
from ropewalk.data.tasks.encoding import Encoder
from ropewalk.data.tasks.scoring import score
from ropewalk.data.tasks.task import FAMILIES, Ask, find_task
from ropewalk.data.tasks.vocabulary import common_words

TASKS = [task for module in (passkey, niah, tracing, aggregation, answers) for task in module.TASKS]
IDS = [task.id for task in TASKS]
PLANTED = [task.id for task in TASKS if task.plants]
GROWING = [task.id for task in TASKS if task.grows]
BUDGETS = {"passkey": 16, "variable-tracking": 30, "common-words": 120, "frequent-words": 50, "qa": 32}
GOLDEN = json.loads((Path(__file__).parent.parent / "golden/tasks/structure.json").read_text(encoding="utf-8"))
PROSE = "".join(
    f"Keeper {n} of the old light wrote down {n * 7919 % 1009} tall ships and {n % 13} gulls. " for n in range(900)
)
QUESTIONS = [
    {
        "question": f"What does warden {n} carry?", "answers": [f"lantern {n:03d}", f"the lamp {n:03d}"],
        "title": f"tower {n // 4}",
        "context": f"Warden {n} is {n % 50 + 20} years old. He walks at night. He carries lantern {n:03d}.",
    }
    for n in range(600)
]  # fmt: skip
SHORTEST = 2600
"""Characters in which each of these tasks can be built with three depths, but for a question set's documents."""


FILLER = np.asarray(Characters()(PROSE)["input_ids"])


def usual(task):
    """A length at which there is room to spare."""
    return 9000 if task == "common-words" else 6000


def build(
    task, lengths=None, *, depths=(0.1, 0.5, 0.9), seed=0, split="measure", tokenizer=None, prefix=(), questions=QUESTIONS
):  # fmt: skip
    filler = FILLER if tokenizer is None else np.asarray(tokenizer(PROSE, add_special_tokens=False)["input_ids"])
    lengths, task = lengths or (usual(task),), find_task(task)
    encoder = Encoder(tokenizer=tokenizer or Characters(), prefix=np.array(prefix, dtype=np.int64))
    return task.build(
        Ask(
            encoder=encoder, lengths=lengths, depths=depths if task.plants else (), seed=seed, split=split, filler=filler,
            sources={"questions": questions},
        )
    )  # fmt: skip


def text(ids):
    return Characters().decode(np.asarray(ids).tolist())


def longest(stack, stage=0):
    return max(stack.cuts[stage] + q.question.size + q.room for q in stack.at(stage))


def span(question, tokenizer, index):
    low, high = question.spans[index]
    return tokenizer.decode(question.answer[low:high].tolist()).strip()


@pytest.mark.parametrize("task", IDS)
def test_what_a_task_says_of_itself(task):
    found = find_task(task)
    assert found.family in FAMILIES
    assert found.summary[0] in "atfq"
    assert "arXiv" in found.source
    stack = build(task)
    assert all(q.budget == BUDGETS.get(task, 128) for q in stack.questions)
    assert len(stack.questions) == (3 if found.plants else 1)
    assert stack.wording == "own"


@pytest.mark.parametrize("task", IDS)
@settings(max_examples=6, deadline=None)
@given(length=st.integers(SHORTEST, 9000), seed=st.integers(0, 2**31), split=st.sampled_from(["measure", "train"]))
def test_the_longest_prompt_with_its_room_is_exactly_the_length(task, length, seed, split):
    length += usual(task) - 6000
    length += 2000 if task == "common-words" else 0
    stack = build(task, (length,), seed=seed, split=split)
    assert stack.lengths == (length,)
    assert longest(stack) == length
    assert stack.cuts == (stack.context.size,)


@pytest.mark.parametrize("task", [task for task in IDS if task not in ("common-words", "frequent-words")])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), split=st.sampled_from(["measure", "train"]))
def test_references_stand_in_the_context_as_often_as_they_should(task, seed, split):
    stack = build(task, seed=seed, split=split)
    context = text(stack.context)
    times = {"passkey": [2], "variable-tracking": [2, 2, 2, 2, 1], "qa": [1, 0]}.get(task)
    for q in stack.questions:
        assert [context.count(one) for one in q.references] == (times or [1] * len(q.references))
        said = text(q.answer)
        assert score(q.rule, said, q.references) == 1
        assert [span(q, Characters(), i) for i in range(len(q.spans))] == list(q.references)[: len(q.spans)]


@pytest.mark.parametrize("task", PLANTED)
def test_the_answer_follows_from_the_line_at_the_position(task):
    stack = build(task, depths=(0.05, 0.3, 0.55, 0.95))
    for q, asked in zip(stack.questions, (0.05, 0.3, 0.55, 0.95), strict=True):
        line = text(stack.context[q.position : q.position + 160]).lstrip().split("\n")[0].split(". ")[0]
        assert q.key in line
        assert q.references[0] in line
        assert q.key in text(q.question)
        assert q.asked_depth == asked
        assert abs(q.depth - asked) < 0.05
        assert q.depth == q.position / stack.context.size


@pytest.mark.parametrize("task", PLANTED)
def test_the_true_value_is_the_first_of_five_candidates(task):
    for depths in ((0.5,), (0.1, 0.5, 0.9)):
        for q in build(task, depths=depths).questions:
            assert len({c.tobytes() for c in q.candidates}) == len(q.candidates) == 5
            assert np.array_equal(q.candidates[0], q.answer)


@pytest.mark.parametrize("task", GROWING)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(SHORTEST, 12000), min_size=2, max_size=4, unique=True))
def test_a_growing_haystack_asks_at_every_stage_for_what_is_before_it(task, seed, lengths):
    lengths = tuple(sorted(lengths))
    if min(np.diff(lengths)) < 200:
        lengths = lengths[:1] + tuple(one + 200 * place for place, one in enumerate(lengths[1:], start=1))
    stack = build(task, lengths, seed=seed)
    line = max(len(one) for one in text(stack.context).split("\n")) + 1
    for stage, (asked, true, cut) in enumerate(zip(lengths, stack.lengths, stack.cuts, strict=True)):
        assert len(stack.at(stage)) == 3
        assert asked - line < true <= asked
        assert longest(stack, stage) <= true
        before = text(stack.context[:cut])
        assert all(before.count(q.references[0]) == (2 if task == "passkey" else 1) for q in stack.at(stage))
        if not find_task(task).needs:
            assert before.endswith("\n")
    assert list(stack.num_needles) == sorted(stack.num_needles)
    assert stack.context.size == stack.cuts[-1]


@pytest.mark.parametrize("task", IDS)
def test_seeds_draw_different_haystacks_and_lengths_the_same_questions(task):
    one = build(task, seed=3)
    assert np.array_equal(one.context, build(task, seed=3).context)
    other = build(task, seed=4)
    assert not np.array_equal(one.context, other.context)
    assert set(one.questions[0].references).isdisjoint(other.questions[0].references)
    longer = build(task, (usual(task) + 1001,), seed=3)
    assert [q.references for q in one.questions] == [q.references for q in longer.questions]


def drawn(task, split):
    """Everything that is looked for, and the keys."""
    return {
        part for seed in range(6) for q in build(task, seed=seed, split=split).questions for part in (*q.references, q.key)
    }


@pytest.mark.parametrize("task", [task for task in IDS if not task.endswith("-words")])
def test_splits_share_neither_keys_nor_words_around(task):
    assert drawn(task, "measure").isdisjoint(drawn(task, "train"))
    one, other = build(task), build(task, split="train")
    assert text(one.context)[:20] != text(other.context)[:20]
    assert text(one.questions[0].question)[:25] != text(other.questions[0].question)[:25]


def test_words_of_the_two_splits_are_apart_and_enough():
    measure, train = set(common_words("measure")), set(common_words("train"))
    assert not measure & train
    assert len(measure | train) >= 2500
    for task in ("common-words", "frequent-words"):
        listed = [
            set(re.findall(r"[a-z]{3,}", text(build(task, split=split).context).split("\n")[-1]))
            for split in ("measure", "train")
        ]
        assert min(len(words) for words in listed) > 20
        assert not listed[0] & listed[1]


@pytest.mark.parametrize("task", IDS)
def test_no_room_says_a_length_that_suffices(task):
    with pytest.raises(TextError, match=r"leave no room for .*; the smallest length is") as caught:
        build(task, (200,))
    smallest = int(str(caught.value).rsplit(" ", 1)[1])
    assert build(task, (smallest,)).lengths == (smallest,)
    with pytest.raises(TextError, match=f"the smallest length is {smallest}$"):
        build(task, (smallest - 1,))


@pytest.mark.parametrize("task", IDS)
def test_a_bos_token_comes_first_and_counts(task):
    stack = build(task, prefix=(1,))
    assert stack.context[0] == 1
    assert stack.head.tolist() == [1]
    assert longest(stack) == usual(task)


@pytest.mark.parametrize("task", IDS)
def test_a_real_tokenizer(task, tiny_checkpoint):
    tokenizers = importlib.import_module("transformers")
    found = Path(__file__).parents[2] / "runs/inputs/SmolLM2-135M-Instruct"
    for folder in [tiny_checkpoint, *([found] if (found / "tokenizer.json").exists() else [])]:
        tokenizer = tokenizers.AutoTokenizer.from_pretrained(folder)
        stack = build(task, (3500,), depths=(0.2, 0.8), tokenizer=tokenizer)
        assert longest(stack) == 3500
        for q in stack.questions:
            assert score(q.rule, tokenizer.decode(q.answer.tolist()), q.references) == 1
            assert [span(q, tokenizer, i) for i in range(len(q.spans))] == list(q.references)[: len(q.spans)]


def test_haystacks_are_the_same_in_another_process():
    here = {task: build(task, seed=5).context.tobytes().hex()[:4000] for task in IDS}
    code = (
        "import json, sys; sys.path.insert(0, 'tests'); sys.path.insert(0, 'tests/data'); import test_ruler_tasks as t; "
        "print(json.dumps({task: t.build(task, seed=5).context.tobytes().hex()[:4000] for task in t.IDS}))"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert json.loads(told.stdout.splitlines()[-1]) == here


@pytest.mark.parametrize("task", sorted(GOLDEN["niah"]))
def test_needles_are_as_many_as_the_original_makes(task):
    told, stack = GOLDEN["niah"][task], build(task, depths=(0.4,))
    context, q = text(stack.context), stack.questions[0]
    num = len(re.findall(r"has the access", context))
    if told["needles"] == 31:  # a haystack of needles: all its lines, whatever their number
        lines = context.split("\n\n", 1)[1].split("\n")[1:-1]
        assert num == len(lines) > 31
        assert len(set(lines)) == len(lines)
    else:
        assert num == told["needles"] == stack.num_needles[0]
    assert [context.count(one) for one in q.references] == told["stands"]
    keys = re.findall("[^, ]+", q.key.replace(" and ", " "))
    assert [context.count(f" {key} ") for key in keys] == told["key stands"]
    assert re.sub("[a-z0-9]", "x", q.references[0]) == told["value"]
    assert keys[0].count("-") == told["hyphens in key"]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31))
def test_a_chain_is_the_originals(seed):
    told, stack = GOLDEN["chain"], build("variable-tracking", seed=seed)
    example, rest = text(stack.context).rsplit("Below, boxes", 1)
    q = stack.questions[0]
    lines = re.findall(r"BOX (\w+) = (?:BOX )?(\w+)", rest)
    assert len(lines) == told["lines"]
    assert tuple(name for name, _ in lines) == q.references
    assert [before for _, before in lines] == [q.key, *q.references[:-1]]
    assert {len(name) for name in q.references} == {told["letters"]}
    assert [len(re.findall(rf"\b{name}\b", rest)) for name in q.references] == told["stands"]
    shown = re.findall(r"BOX (\w+) = (?:BOX )?(\w+)", example)
    names = [name for name, _ in shown]
    assert len(names) == GOLDEN["example"]["lines"]
    assert {len(name) for name in names} == {GOLDEN["example"]["letters"]}
    assert [before for _, before in shown[1:]] == names[:-1]
    assert f"is held by 5 boxes: {' '.join(names)}\n" in example


@pytest.mark.parametrize(("length", "told"), [(4095, "2048"), (9000, "4096")])
def test_common_words_stand_as_often_as_the_originals(length, told):
    original, stack = GOLDEN["common-words"][told], build("common-words", (length,))
    example, rest = text(stack.context).rsplit("Here is a numbered", 1)
    shown, answer = example.split("Question:")
    q = stack.questions[0]
    for listed, want in ((rest, original["list"]), (shown, original["example"])):
        numbers = [int(n) for n in re.findall(r" (\d+)\. ", listed.replace("note which.\n", " "))]
        assert numbers == list(range(1, len(numbers) + 1))
        counted = Counter(re.findall(r"\d+\. (\S+)", listed))
        often = Counter(counted.values())
        (seldom_times, seldom), (often_times, num_often) = want
        assert often[often_times] == num_often == original["asked"]
        assert set(often) == {often_times, seldom_times}
        if listed is shown:
            assert often[seldom_times] == seldom
            assert set(re.findall(r"\d+\. (\S+)", answer)) == {
                word for word, times in counted.items() if times == often_times
            }
        else:
            assert set(q.references) == {word for word, times in counted.items() if times == often_times}
            assert often[seldom_times] >= 10


def test_beyond_the_list_words_are_pairs_and_counts_stay():
    stack = build("common-words", (150000,), split="train")
    counted = Counter(re.findall(r"\d+\. (\S+)", text(stack.context).rsplit("Words were drawn", 1)[1]))
    assert longest(stack) == 150000
    assert {word for word, times in counted.items() if times == 30} == set(stack.questions[0].references)
    assert set(counted.values()) == {3, 30}
    assert all("-" in word for word in counted)


@pytest.mark.parametrize("told", GOLDEN["frequent-words"], ids=lambda told: str(told["num"]))
def test_coded_words_stand_as_often_as_the_originals(told):
    counts = aggregation.counts(told["num"], told["size"])
    assert [n for n in counts.tolist() if n] == told["counts"]
    assert counts[1:4].tolist() == told["asked"]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(SHORTEST, 20000))
def test_the_three_words_asked_for_stand_most_often(seed, length):
    stack = build("frequent-words", (length,), seed=seed)
    counted = Counter(text(stack.context).split("\n")[-1].split())
    assert [word for word, _ in counted.most_common(4)][1:] == list(stack.questions[0].references)
    (_, dots), *rest, (_, last) = counted.most_common(5)
    assert dots > rest[0][1] > rest[1][1] > rest[2][1] > last
    assert all(re.fullmatch("[a-z]{6}", word) for word in counted if word != "...")
    sizes = np.full((length - 50) // 50, 7)
    sizes[0] = 4
    used = sum(len(word) * times + times for word, times in counted.items())
    num = aggregation.most(sizes, used)
    assert int(aggregation.counts(num, sizes.size) @ sizes) == used


def test_questions_stand_with_their_documents():
    stack = build("qa")
    context, q = text(stack.context), stack.questions[0]
    told = re.findall(r"\[Document (\d+)\]\n(.*)\n\n", context)
    assert [int(number) for number, _ in told] == list(range(1, len(told) + 1))
    documents = [document for _, document in told]
    assert len(set(documents)) == len(documents)
    one = next(one for one in QUESTIONS if one["question"] == q.key)
    assert one["context"] in documents
    assert {other["context"] for other in QUESTIONS if other["title"] == one["title"]} <= set(documents)
    assert text(stack.context[q.position :]).startswith(f"[Document {documents.index(one['context']) + 1}]")
    assert score(q.rule, "The lamp, it is THE LAMP " + q.references[1][-3:], q.references) == 1


def test_three_spellings_of_a_question_set():
    squad = {
        "title": "tower", "paragraphs": [
            {"context": "Warden 1 has a lamp.", "qas": [
                {"question": "What has he?", "answers": [{"text": "a lamp"}, {"text": "a lamp"}]},
                {"question": "Who is she?", "is_impossible": True, "answers": []},
            ]},
            {"context": "Nobody asks of this.", "qas": []},
        ],
    }  # fmt: skip
    found = answers.questions_of([squad, {"question": "Q?", "answer": "yes", "context": ["One.", "Two."]}])
    assert [(one.question, one.answers, one.gold) for one in found.questions] == [
        ("What has he?", ("a lamp",), ("Warden 1 has a lamp.",)), ("Q?", ("yes",), ("One.", "Two.")),
    ]  # fmt: skip
    assert found.documents["Nobody asks of this."] == "tower"
    flat = answers.questions_of([{"question": "Q?", "answers": {"text": ["yes"], "answer_start": [1]}, "context": "One."}])
    assert flat.questions[0].answers == ("yes",)


@pytest.mark.parametrize(
    ("records", "match"),
    [
        (None, "give --questions FILE"), ([], "no question with an answer in its 0 records"),
        ([3], "record 1 of the question set is a int, expected an object"),
        ([{"question": "Q?", "answers": ["a"]}], "record 1 of the question set has no context"),
        ([{"question": "Q?", "answers": 5, "context": "c"}], "record 1 of the question set has no answers"),
        ([{"answers": ["a"], "context": "c"}], "record 1 of the question set has no question"),
        ([{"question": "Q?", "answers": [" "], "context": "c"}], "no question with an answer in its 1 records"),
    ],
)  # fmt: skip
def test_a_bad_question_set_is_refused(records, match):
    with pytest.raises(InputError, match=match):
        build("qa", questions=records)


def test_too_few_questions_or_documents_are_refused():
    with pytest.raises(InputError, match="got 1 questions, none of them for the split measure; give more of them"):
        build("qa", questions=QUESTIONS[:1])
    with pytest.raises(
        TextError, match=r"20 documents make a haystack of \d+ tokens, expected at least 6000; give more questions"
    ):
        build("qa", questions=QUESTIONS[:20])


def test_a_text_is_asked_for_and_must_be_long_enough():
    with pytest.raises(TextError, match="expected at least"):
        build("niah-single-2", (200_000,))


@pytest.mark.parametrize("task", ["niah-multikey-2", "niah-multikey-3"])
@pytest.mark.parametrize(("depths", "lengths"), [((0.5,), (6000,)), ((0.1, 0.9), (6000,)), ((0.1, 0.9), (3000, 6000))])
def test_where_every_line_is_a_needle_values_are_ranked_among_those_of_the_text(task, depths, lengths):
    stack = build(task, lengths, depths=depths)
    for question in stack.questions:
        read = text(stack.context[: stack.cuts[question.stage]])
        values = [text(ids).strip() for ids in question.candidates]
        assert values[0] == question.references[0]
        assert len(set(values)) == 5
        assert all(f" {value}." in read for value in values)
    assert stack.num_needles == tuple(text(stack.context[:cut]).count("Vault ") for cut in stack.cuts)
    assert min(stack.num_needles) > 10


def test_multikey_has_at_least_four_keys_and_asks_for_those_at_the_depths():
    for depths in ((0.5,), (0.3, 0.6), tuple(np.linspace(0, 1, 6))):
        stack = build("niah-multikey-1", depths=depths)
        assert stack.num_needles == (max(4, len(depths)),)
        assert [q.asked_depth for q in stack.questions] == list(depths)


@pytest.mark.parametrize("task", PLANTED)
def test_depths_at_one_place_are_still_needles_apart(task):
    stack = build(task, (SHORTEST,), depths=(1.0, 1.0, 1.0))
    positions = [q.position for q in stack.questions]
    assert len(set(positions)) == 3
    assert all(q.references[0] in text(stack.context[q.position : q.position + 160]) for q in stack.questions)
