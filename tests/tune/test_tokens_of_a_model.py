"""Tokens that the model does not have, or means otherwise, are refused before anything is made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import snapshot
from small import Tune
from tiny import write_tiny_checkpoint

from ropewalk.api.data import data
from ropewalk.api.training_tokens import check_folder
from ropewalk.core.errors import InputError, SourceError
from ropewalk.data.stream import Stream


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model with fewer embeddings than its tokenizer has tokens, of which it has 258."""
    return write_tiny_checkpoint(tmp_path / "small", vocab_size=60)


def test_an_id_beyond_the_embedding_is_found_before_training(small: Path, books: Path, tune: Tune, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    words = r"the tokenizer of .*small gives token \d+, and the model has an embedding of 60, 0 to 59; put the tokenizer"
    with pytest.raises(SourceError, match=words):
        tune(tmp_path / "out", data=books, start=small)
    with pytest.raises(SourceError, match=f"run 1 of 2: {words}"):
        tune(tmp_path / "out", data=books, start=small, runs=[{}, {}])
    assert snapshot(tmp_path) == before


def test_a_prepared_folder_with_such_ids_is_refused(
    tied: Path, small: Path, books: Path, tune: Tune, tmp_path: Path
) -> None:
    data([books], tokenizer=tied, length=256, out=tmp_path / "made")
    with pytest.raises(
        InputError, match=r"made holds token \d+, and .*small has an embedding of 60, 0 to 59; prepare the data"
    ):
        tune(tmp_path / "out", data=tmp_path / "made", start=small)
    assert not (tmp_path / "out").exists()


def changed(source: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the model whose tokenizer is another one."""
    shutil.copytree(source, out)
    content = json.loads((out / "tokenizer.json").read_text())
    change(content)
    (out / "tokenizer.json").write_text(json.dumps(content))
    return out


def swapped(content: dict[str, Any]) -> None:
    """Two letters change places: every id fits, and means something else."""
    words = content["model"]["vocab"]
    words["s"], words["z"] = words["z"], words["s"]


def unused(content: dict[str, Any]) -> None:
    """The same with two bytes that no text of the test has."""
    words = content["model"]["vocab"]
    words["Ā"], words["ā"] = words["ā"], words["Ā"]


def grown(content: dict[str, Any]) -> None:
    """One token more than before."""
    content["model"]["vocab"]["ee"] = len(content["model"]["vocab"])


def test_another_vocabulary_is_refused(tied: Path, books: Path, tune: Tune, tmp_path: Path) -> None:
    other = changed(tied, tmp_path / "other", swapped)
    data([books], tokenizer=other, length=256, out=tmp_path / "made")
    before = snapshot(tmp_path)
    with pytest.raises(
        InputError, match=r"another vocabulary than that of .*; prepare the data anew with ropewalk data --tok"
    ):
        tune(tmp_path / "out", data=tmp_path / "made")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("change", [unused, grown])
def test_a_tokenizer_that_means_the_same_by_every_id_is_let_pass(
    change: Callable[[dict[str, Any]], None], tied: Path, books: Path, tmp_path: Path
) -> None:
    other = changed(tied, tmp_path / "other", change)
    data([books], tokenizer=other, length=256, out=tmp_path / "made")
    documents = Stream.open(tmp_path / "made").documents
    assert "another tokenizer or chat template" in str(check_folder(tmp_path / "made", documents, tied))
    assert check_folder(tmp_path / "made", documents, other) is None


@pytest.mark.parametrize("more", [{"special_tokens": True}, {"end": False}])
def test_the_same_tokenizer_read_otherwise_is_no_other(
    more: dict[str, bool], tied: Path, books: Path, tmp_path: Path
) -> None:
    data([books], tokenizer=tied, length=256, out=tmp_path / "made", **more)
    documents = Stream.open(tmp_path / "made").documents
    assert check_folder(tmp_path / "made", documents, tied) is None
    pieces = [documents.piece(index, 0, int(length))[0] for index, length in enumerate(documents.lengths)]
    assert documents.used_ids().tolist() == np.unique(np.concatenate(pieces)).tolist()
