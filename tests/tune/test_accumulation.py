"""The loss of a step is one mean over its learned tokens, however they are spread over passes and processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small import Tune
from streams import Unequal


def first_line(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text().splitlines()[0]))


def test_passes_with_unequal_labels_are_one_batch(tune: Tune, tmp_path: Path) -> None:
    """Two passes with 47 and 3 learned tokens: a mean of two means would weigh the three as much as the 47."""
    both = {"data": Unequal, "steps": 1, "learning_rate": 1e-4}
    tune(tmp_path / "passes", accumulate=2, batch_size=1, **both)
    tune(tmp_path / "batch", accumulate=1, batch_size=2, **both)
    one, other = (first_line(tmp_path / name / "log.jsonl") for name in ("passes", "batch"))
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    model = load_file(tmp_path / "passes" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "batch" / "model.safetensors").items():
        # The first step of AdamW is the sign of a gradient, so one next to zero may fall either way.
        assert float((model[name] - tensor).abs().median()) < 1e-8


def test_a_mean_of_means_is_another_loss(tune: Tune, tmp_path: Path) -> None:
    losses = []
    for index in range(2):

        class Single(Unequal):
            def row(self, _: int, index: int = index) -> Any:
                return super().row(index)

        tune(tmp_path / str(index), data=Single, steps=1, accumulate=1, learning_rate=1e-4)
        losses.append(first_line(tmp_path / str(index) / "log.jsonl")["loss"])
    tune(tmp_path / "both", data=Unequal, steps=1, accumulate=2, learning_rate=1e-4)
    whole = first_line(tmp_path / "both" / "log.jsonl")["loss"]
    assert whole == pytest.approx((47 * losses[0] + 3 * losses[1]) / 50, rel=1e-5)
    assert abs(whole - sum(losses) / 2) > 1e-3
