"""What validation scores while a run trains is what the folder computes afterwards, whatever was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune

import ropewalk
from ropewalk.measure.forward import Forward

IDS = torch.arange(2, 42)
TRAINED: dict[str, dict[str, Any]] = {
    "prefix": {"recipe": "prefix", "num_virtual_tokens": 5, "checkpoint_every": 0, "learning_rate": 1e-1},
    "longlora": {"recipe": "longlora"},
    "oft": {"recipe": "oft", "rank": 4},
}


def nll(model: Any, length: int = 40) -> float:
    forward = Forward(model)
    return float(forward.nll(forward.hidden(IDS[:length])[:-1], IDS[1:length]).mean())


@pytest.mark.parametrize("kind", TRAINED)
def test_validation_reads_with_what_is_trained(kind: str, tune: Tune, tmp_path: Path) -> None:
    scores: list[float] = []

    def scorer(model: Any, length: int) -> float:
        scores.append(nll(model, length))
        return scores[-1]

    tune(tmp_path / "out", steps=2, scorer=scorer, validate_lengths=(40,), validate_every=1, **TRAINED[kind])
    first, last = scores
    folder, base = (
        nll(ropewalk.load(path, device="cpu", dtype="float32")[0]) for path in (tmp_path / "out", tmp_path / "out" / "base")
    )
    assert last == pytest.approx(folder, abs=1e-5)
    assert abs(last - first) > 1e-3
    assert abs(last - base) > 1e-3


def test_behind_a_prefix_the_longest_text_ends_with_the_plan(tune: Tune, tmp_path: Path) -> None:
    lengths: list[int] = []

    def scorer(model: Any, length: int) -> float:
        lengths.append(length)
        return 0.0

    tune(tmp_path / "out", steps=1, scorer=scorer, **TRAINED["prefix"])
    assert lengths == [251]
