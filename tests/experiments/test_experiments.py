"""The experiments' own arithmetic, on a tiny model: a table from a folder that grows, and the lifted model's examples."""

from pathlib import Path

import numpy as np
import pytest
from tiny import TRAINED_LENGTH as TRAINED

from experiments import lifted, methods
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.data.documents import tokenize
from ropewalk.data.tasks.encoding import Encoder

LENGTH = 16 * TRAINED


def test_the_order_of_the_table() -> None:
    found = list(methods.steps("32k", 24))
    assert [step.haystacks for step in found[:3]] == [6, 12, 24]
    assert all(step.methods == methods.FIRST for step in found[:3])
    assert found[-2].methods == methods.FIRST + methods.REST
    assert (found[-1].folder, found[-1].length) == ("32k", 32768)
    assert [step.haystacks for step in methods.steps("first", 4)] == [4]


def test_the_table_grows_with_its_folder_and_names_what_was_not_run(
    tiny_checkpoint: Path, long_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "DEPTHS", 2)
    folder = tmp_path / "16k"
    first = methods.Step(folder="16k", length=LENGTH, methods=("none", "crop", "yarn"), haystacks=1)
    assert not methods.has(methods.read(folder), first)
    methods.run(first, tiny_checkpoint, tmp_path, [long_text], Progress())
    assert methods.has(methods.read(folder), first)
    more = methods.Step(folder="16k", length=LENGTH, methods=("none", "crop", "ntk"), haystacks=2)
    assert not methods.has(methods.read(folder), more)
    methods.run(more, tiny_checkpoint, tmp_path, [long_text], Progress())
    record = Record.read(folder)
    assert set(record.card.plans) == {"none", "crop", "yarn", "ntk"}
    assert {s["haystack"] for s in record.samples} == {0, 1}

    lines = methods.section(folder, LENGTH, ("none", "crop", "yarn", "ntk", "pi"))
    table = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| `")}
    assert set(table) == {"`none`", "`crop`", "`yarn`", "`ntk`"}
    assert lines[-2] == "Not run: pi."
    assert all(len(cells) == len(methods.COLUMNS) - 1 for cells in table.values())
    assert not [cell for cells in table.values() for cell in cells if "not run" in cell]
    (inside,) = record.rows("nll_inside", method="yarn")
    assert table["`yarn`"][0].split()[0] == f"{inside.value:.3f}"
    (gain,) = record.rows("retrieval_gain", method="yarn", length=LENGTH, reference="crop", protocol="multikey-branch")
    assert table["`yarn`"][7].split()[0] == f"{gain.value:+.2f}"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert methods.section(tmp_path, 32768, ("none", "yarn"))[2] == "Not run: none, yarn."


def test_an_example_of_the_lifted_model_learns_answers_alone(tiny_checkpoint: Path, long_text: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    text = tokenize(long_text.read_text(), tokenizer, "text")
    encoder = Encoder(tokenizer=tokenizer, prefix=text.prefix)
    for step in range(8):
        ids, labels = lifted.example(encoder, text.ids, step, 0)
        again = lifted.example(encoder, text.ids, step, 0)
        assert np.array_equal(ids, again[0])
        assert np.array_equal(labels, again[1])
        learned = labels != -100
        assert 0 < learned.sum() < ids.size / 2
        assert np.array_equal(labels[learned], ids[learned])
