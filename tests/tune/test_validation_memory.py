"""Validation between steps: gradients are gone, nothing is kept for a backward pass, and it takes less than a step does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from ropewalk.api.tuning import held_out
from ropewalk.measure import forward
from ropewalk.tune.measured import peak_of

LENGTH = 256


class Stepping(TrainerCallback):
    """The bytes that each step takes above what is there before it, and the optimizer."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.optimizer: Any = None

    def on_step_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        self.optimizer = optimizer
        self.watched = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.watched.__enter__()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.watched.__exit__(None, None, None)
        self.taken.append(peak_of(self.watched))


class Watched:
    """A scorer, what it takes above what is there, and what is there when it is called."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.taken: list[int] = []
        self.gradients: list[str] = []
        self.builds: list[bool] = []

    def __call__(self, model: Any, length: int) -> float:
        self.gradients += [name for name, p in model.named_parameters() if p.grad is not None]
        self.builds.append(torch.is_grad_enabled() or model.training)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            score = float(self.scorer(model, length))
        self.taken.append(peak_of(watched))
        return score


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_validation_is_out_of_memorys_way(
    recipe: str, tune: Tune, tied: Path, long_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Logits in chunks of 16 tokens: of this model all of them would fit into the usual one.
    monkeypatch.setattr(forward, "CHUNK_BYTES", 16 * 4 * 258)
    steps, scorer = Stepping(), Watched(held_out([long_text], tied, LENGTH))
    tune(
        tmp_path / "out", recipe=recipe, window=LENGTH, steps=2, scorer=scorer, validate_lengths=(LENGTH,), validate_every=1,
        callbacks=[steps],
    )  # fmt: skip
    assert scorer.gradients == []
    assert scorer.builds == [False, False]
    assert len(steps.optimizer.state) > 0, "the moments stay, for the next step"
    assert 0 < max(scorer.taken) < 0.5 * min(steps.taken), (scorer.taken, steps.taken)
