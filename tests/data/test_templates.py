"""Wordings: read from files shaped as lm-eval's, from JSON, never run, and refused with a sentence."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from characters import Characters

from ropewalk.core.errors import InputError
from ropewalk.data.tasks.encoding import Encoder
from ropewalk.data.tasks.task import Ask, find_task
from ropewalk.data.tasks.templates import Wording, lm_eval_wordings, read_ruler, read_wordings

SHAPED = {
    "niah_utils.py": """
import nowhere_to_be_found
TEMPLATE = '''Some odd {type_needle_v} are in here.\\n{context}\\nWhat are all the odd {type_needle_v} for {query}?'''
raise SystemExit("never run")
""",
    "prepare_niah.py": """
NEEDLE = "Odd {type_needle_v} of {key}: {value}."
def generate_samples(q, v):
    return {"gen_prefix": f"The odd {v[:-1]} for {q} is" if q == 1 else f"The odd {v} for {q} are"}
def get_haystack(kind):
    if kind == "essay":
        haystack = other("x")
    elif kind == "repeat":
        haystack = "Sky above. Mud below."
    return haystack
""",
    "vt_utils.py": """
CONFIG = {"variable_tracking": {"template": "Follow.\\n\\n{context}\\nFind {query}.",
    "answer_prefix": " So: {num_v} are {query}: "}}
def generate_chains(n):
    chain = [f"VAR {n[0]} = {n.random()}"]
    chain.append(f"VAR {n[1]} = VAR {n[0]} ")
def generate_input_output(n):
    noise = "Sky above. Mud below.\\n"
""",
    "cwe_utils.py": 'CONFIG = {"template": "A list.\\n{context}\\nWhich ten?", "answer_prefix": " The ten:"}',
    "fwe_utils.py": 'CONFIG = {"template": "Coded. {context}\\nWhich three?", "answer_prefix": " The three:"}',
    "qa_utils.py": 'CONFIG = {"template": "Papers.\\n{context}\\nAsked: {query}", "answer_prefix": "Answer:"}\n'
    'DOCUMENT_PROMPT = "Paper {i}:\\n{document}"',
}


@pytest.fixture
def folder(tmp_path):
    for name, text in SHAPED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def build(task, wordings, depths=()):
    encoder = Encoder(tokenizer=Characters(), prefix=np.zeros(0, dtype=np.int64))
    sources = {"templates": wordings}
    return find_task(task).build(Ask(encoder=encoder, lengths=(4000,), depths=depths, seed=1, sources=sources))


def test_a_package_is_read_and_not_run(folder):
    read = read_ruler(folder, name="lm-eval 9")
    one = read["niah-single-1"]
    assert one == Wording(
        opening="A odd number is in here.\n", question="\nWhat is the odd number for {query}?",
        start=" The odd number for {query} is", needle="Odd numbers of {key}: {value}.", noise="Sky above. Mud below.",
        name="lm-eval 9",
    )  # fmt: skip
    several = read["niah-multivalue"]
    assert several.opening == "Some odd numbers are in here.\n"
    assert several.start == " The odd numbers for {query} are"
    assert read["niah-multikey-3"].start == " The odd uuid for {query} is"
    tracing = read["variable-tracking"]
    assert (tracing.needle, tracing.link) == ("VAR {key} = {value}", "VAR {key} = VAR {previous}")
    assert tracing.start == " So: {num} are {query}:"
    assert read["qa"].needle == "Paper {index}:\n{document}"
    assert len(read) == 12


@pytest.mark.parametrize(
    ("task", "depths"), [("niah-single-1", (0.5,)), ("niah-multikey-3", (0.2, 0.7)), ("variable-tracking", ())]
)
def test_a_task_says_whose_words_it_used(folder, task, depths):
    stack = build(task, read_ruler(folder, name="lm-eval 9"), depths)
    assert stack.wording == "lm-eval 9"
    told = Characters().decode(stack.context.tolist())
    assert "odd" in told or "VAR" in told
    assert build(task, {}, depths).wording == "own"


def test_what_was_planted_does_not_depend_on_the_words(folder):
    theirs, ours = build("niah-single-1", read_ruler(folder, name="x"), (0.5,)), build("niah-single-1", {}, (0.5,))
    assert [q.references for q in theirs.questions] == [q.references for q in ours.questions]


def test_another_shape_is_refused(folder):
    (folder / "prepare_niah.py").write_text("NEEDLE = 'x'")
    with pytest.raises(InputError, match=r"have another shape than lm-eval 0\.4's .*; give the wording as a JSON file"):
        read_ruler(folder, name="x")


def test_without_the_package_the_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match="read from lm-eval, which is not installed; pip install lm-eval"):
        lm_eval_wordings()


def test_the_installed_package_is_read():
    read = lm_eval_wordings()
    assert "{query}" in read["niah-single-1"].question
    assert read["niah-single-1"].name.startswith("lm-eval 0.")


def test_a_users_file(tmp_path):
    path = tmp_path / "mine.json"
    told = {
        "opening": "Read.\n",
        "question": "\nWhich of {query}?",
        "start": " It is",
        "needle": "{key}: {value}",
        "noise": "La.",
    }
    path.write_text(json.dumps({"niah-single-1": told}), encoding="utf-8")
    read = read_wordings(path)
    assert read["niah-single-1"] == Wording(name="mine.json", **told)
    stack = build("niah-single-1", read, (0.5,))
    assert stack.wording == "mine.json"
    assert Characters().decode(stack.context.tolist()).startswith("Read.\n")
    assert build("niah-single-1", {"niah-single-1": told}, (0.5,)).context.tolist() == stack.context.tolist()


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("[]", "holds a list, expected an object of task ids"), ("{", "cannot be read as JSON"),
        ('{"naih-single-1": {}}', "unknown task 'naih-single-1'; did you mean niah-single-1"),
        ('{"qa": 3}', "the wording of qa is a int, expected opening, question and start"),
        ('{"qa": {"opening": "", "question": ""}}', "the wording of qa has no start; it needs opening, question and start"),
        ('{"qa": {"opening": "", "question": "", "start": "", "neddle": ""}}', "unknown part 'neddle'; did you mean needle"),
        ('{"qa": {"opening": "", "question": "{qery}", "start": ""}}', r"question has \{qery\} in it; did you mean query"),
        ('{"qa": {"opening": "", "question": "", "start": 5}}', "the wording's start is 5, expected text"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(tmp_path, told, match):
    path = tmp_path / "mine.json"
    path.write_text(told, encoding="utf-8")
    with pytest.raises(InputError, match=match):
        read_wordings(path)


@pytest.mark.parametrize(
    ("task", "part", "text", "match"),
    [
        ("niah-single-1", "needle", "{key} is odd", "needle; it needs {key} and {value}"),
        ("niah-single-1", "needle", "{index} {key} {value}", "needle; it needs {key} and {value}"),
        ("niah-single-1", "question", "Well?", "question; it needs {query}"),
        ("variable-tracking", "link", "", "link; it needs {key} and {previous}"),
        ("variable-tracking", "noise", "", "noise; it needs text and no braces"),
        ("qa", "needle", "{index}", "needle; it needs {document} and {index}"),
    ],
)
def test_a_wording_that_does_not_suit_its_task_is_refused(folder, task, part, text, match):
    read = read_ruler(folder, name="x")
    with pytest.raises(InputError, match=match):
        build(task, {task: replace(read[task], **{part: text})}, (0.5,) if task.startswith("niah") else ())


def test_braces_that_do_not_close_are_refused():
    with pytest.raises(InputError, match="the wording's opening cannot be read"):
        replace(Wording(opening="", question="", start=""), opening="{key")
