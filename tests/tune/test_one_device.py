"""A process that sees several devices trains on one of them, the first, and on its own rows alone."""

from pathlib import Path

import pytest
import torch
from transformers.training_args import ParallelMode

from ropewalk.core.errors import InputError
from ropewalk.tune.arguments import arguments, check_device, left_idle
from ropewalk.tune.settings import Settings, Stage

SETTINGS = Settings(length=64, stages=(Stage(window=64, steps=3),), batch_size=2)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process with four GPUs sees it; nothing is put on them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four")
def test_several_devices_do_not_multiply_the_rows_of_a_pass(tmp_path: Path) -> None:
    args = arguments(SETTINGS, tmp_path, device="cuda")
    # Trainer takes nn.DataParallel where it is more, and divides the count of learned tokens by it.
    assert args.n_gpu == 1
    assert args.train_batch_size == SETTINGS.batch_size
    assert args.parallel_mode is ParallelMode.NOT_PARALLEL


def test_the_processor_is_no_gpu(tmp_path: Path) -> None:
    assert arguments(SETTINGS, tmp_path, device="cpu").n_gpu == 0


@pytest.mark.parametrize(
    ("visible", "words"),
    [(None, "CUDA_VISIBLE_DEVICES=1 and"), ("6,7", "CUDA_VISIBLE_DEVICES=7 and"), ("6", "CUDA_VISIBLE_DEVICES=1 and")],
)
def test_another_device_than_the_first_is_refused(visible: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in ("cpu", "cuda", "cuda:0"):
        check_device(torch.device(name))
    with pytest.raises(InputError, match=f"got cuda:1; set {words} say --device cuda"):
        check_device(torch.device("cuda:1"))


def test_processes_take_devices_of_their_own() -> None:
    check_device(torch.device("cuda"), num_processes=2)
    with pytest.raises(InputError, match="2 processes takes a device of its own, got cuda:1; say --device cuda"):
        check_device(torch.device("cuda:1"), num_processes=2)


@pytest.mark.usefixtures("four")
def test_devices_that_stay_idle_are_said() -> None:
    words = left_idle(torch.device("cuda"), num_processes=1)
    assert words == "4 devices are visible and one process trains on the first; torchrun starts several"
    assert left_idle(torch.device("cuda"), num_processes=4) is None
    assert left_idle(torch.device("cpu"), num_processes=1) is None
