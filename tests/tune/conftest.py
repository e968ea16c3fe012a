"""A tiny model with tied embeddings, and the way to tune it."""

from pathlib import Path
from typing import Any

import pytest
from small import Tune, tuning
from tiny import write_tiny_checkpoint

from ropewalk.tune.batches import RunRows


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose head is its embedding, as SmolLM2's is; base 50,000, so that a lost base shows."""
    folder = tmp_path_factory.mktemp("tied") / "tiny-tied"
    parameters = {"rope_type": "default", "rope_theta": 50_000.0}
    return write_tiny_checkpoint(folder, tie_word_embeddings=True, rope_parameters=parameters)


@pytest.fixture
def tune(tied: Path) -> Tune:
    """`tune` with small settings."""
    return tuning(tied)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Three documents of some thousand tokens of the tiny tokenizer."""
    folder = tmp_path / "books"
    folder.mkdir()
    for name in range(3):
        lines = [f"Entry {i} of book {name}: {i * 7919 % 1009} ships, {i % 13} gulls.\n" for i in range(80)]
        (folder / f"{name}.txt").write_text("".join(lines), encoding="ascii")
    return folder


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of every row that a training reads, in the order of reading."""
    seen: list[bytes] = []
    inner = RunRows.__getitem__

    def watched(rows: RunRows, index: int) -> Any:
        row = inner(rows, index)
        seen.append(row.ids.tobytes())
        return row

    monkeypatch.setattr(RunRows, "__getitem__", watched)
    return seen
