"""Whatever activations are kept, gradients are the same; the selective form does not run attention twice."""

from pathlib import Path
from typing import Any

import pytest
import torch
from streams import Counting
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError
from ropewalk.hosts import live
from ropewalk.tune import checkpointing
from ropewalk.tune.batches import collate
from ropewalk.tune.learner import Learner
from ropewalk.tune.settings import Settings, Stage

CHOICES: dict[str, dict[str, Any]] = {
    "all kept": {"checkpoint_every": 0},
    "whole": {"checkpoint_every": 1},
    "selective": {"checkpoint_every": 1, "checkpoint": "selective"},
    "every second": {"checkpoint_every": 2, "checkpoint": "selective"},
}


class Counted(TorchDispatchMode):
    """Counts attention's kernels as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += func in checkpointing.kept_operators()
        return func(*args, **(kwargs or {}))


def settings(**changes: Any) -> Settings:
    return Settings(length=64, stages=(Stage(window=64, steps=1),), **changes)


def trained(source: Path, choice: str, shifted: Shifted | None) -> tuple[list[torch.Tensor], int]:
    """Gradients of two packed rows, and how often attention ran in the forward and backward pass."""
    model, _ = live.load(source, dtype=torch.float32, device="cpu")
    model.train().requires_grad_(True)
    checkpointing.enable(model, settings(**CHOICES[choice]))
    batch = collate([Counting(64, documents=2).row(0), Counting(64, documents=3).row(1)])
    with put_on(model, shifted):
        learner = Learner(model)
        with Counted() as counted:
            learner(**batch)["loss"].backward()
    return [p.grad for p in learner.parameters() if p.grad is not None], counted.kernels


@pytest.mark.parametrize("shifted", [None, Shifted(group=16)], ids=["packed", "s2"])
def test_gradients_are_the_same_and_attention_runs_once(shifted: Shifted | None, tied: Path) -> None:
    wanted, once = trained(tied, "all kept", shifted)
    assert once > 0
    runs = {}
    for choice in ("whole", "selective", "every second"):
        got, runs[choice] = trained(tied, choice, shifted)
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert runs == {"whole": 2 * once, "selective": once, "every second": once}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": "selective", "checkpoint_every": 0}, "leave --checkpoint selective out"),
        ({"offload": True, "checkpoint_every": 0}, "leave --offload out"),
        ({"offload": True, "checkpoint": "selective"}, "leave it or"),
        ({"checkpoint": "some"}, "unknown checkpoint"),
    ],
)
def test_words_that_would_do_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(**changes)
