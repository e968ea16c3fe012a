"""A run of two processes is the run of one with twice the passes; killed and resumed it is the unbroken one."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from safetensors.torch import load_file
from small import Tune

from ropewalk.core.errors import InputError, LengthError
from ropewalk.tune.processes import HOURS, joined, take_device

HERE = Path(__file__).parent
COMMON = {"steps": 4, "learning_rate": 1e-4, "save_every": 2}
Started = Callable[..., list[tuple[int, str]]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Runs the processes of a training: exit code and stderr of each."""
    words = tmp_path_factory.mktemp("words")
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        [sys.executable, str(HERE / "two_processes.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None

    def run(source: Path, out: Path, count: int, **settings: Any) -> list[tuple[int, str]]:
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        said = [words / f"{rank}.txt" for rank in range(count)]
        jobs = [
            {
                "source": str(source), "out": str(out), "settings": {**COMMON, **settings}, "said": str(said[rank]),
                "environment": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {},
            }
            for rank in range(count)
        ]  # fmt: skip
        server.stdin.write(json.dumps(jobs) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        return list(zip(codes, (path.read_text() for path in said), strict=True))

    yield run
    server.stdin.close()
    server.wait()
    server.stdout.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_with_unequal_shards_are_one_with_two_passes(started: Started, tied: Path, tmp_path: Path) -> None:
    """Each step has 47 learned tokens in one process and 3 in the other."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert [code for code, _ in started(tied, alone, 1, accumulate=2)] == [0]
    ends = started(tied, both, 2, accumulate=1, validate=True, arguments={"ddp_timeout": 5000, "ddp_backend": "gloo"})
    assert [code for code, _ in ends] == [0, 0], ends
    assert all("gloo 5000.0" in said for _, said in ends), ends
    trained = [line for line in lines(both) if "loss" in line]
    assert [line for line in lines(both) if "validation" in line] == [{"step": 4, "validation": {"64": 64.0}}]
    for one, other in zip(lines(alone), trained, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    model = load_file(alone / "model.safetensors")
    for name, tensor in load_file(both / "model.safetensors").items():
        assert float((model[name] - tensor).abs().median()) < 1e-7
    assert {path.name for path in both.iterdir()} == {path.name for path in alone.iterdir()}
    assert json.loads((both / "card.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_as_if_nobody_had_disturbed_them(
    started: Started, tied: Path, tmp_path: Path
) -> None:
    """With dropout, and with generators that differ between the processes."""
    settings = {"recipe": "lora", "dropout": 0.1, "merge": True, "accumulate": 2}
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert [code for code, _ in started(tied, whole, 2, **settings)] == [0, 0]
    assert [code for code, _ in started(tied, out, 2, kill=3, **settings)] == [-9, -9]
    ((code, said),) = started(tied, out, 1, resume=True, **settings)
    assert code == 2
    assert "begun by 2 processes" in said
    assert [code for code, _ in started(tied, out, 2, resume=True, **settings)] == [0, 0]
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert lines(out) == lines(whole)
    assert [code for code, _ in started(tied, out, 2, resume=True, **settings)] == [0, 0], "finished is finished"


@pytest.mark.slow
def test_what_one_process_is_refused_ends_the_other(started: Started, tied: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    ends = started(tied, tmp_path / "out", 2)
    assert [code for code, _ in ends] == [2, 3]
    assert "--resume" in ends[0][1]
    assert "the first process of this run stopped" in ends[1][1]


@pytest.fixture
def cuda_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is asked of CUDA, in order, on a machine that seems to have two devices with 1,000 bytes free."""
    calls: list[tuple[str, Any]] = []
    inner = torch.ones

    def ones(*size: int, device: Any = None, **words: Any) -> Any:
        if device is None or torch.device(device).type != "cuda":
            return inner(*size, device=device, **words)
        calls.append(("put on", str(device)))
        return inner(*size, **words)

    def free(device: Any) -> tuple[int, int]:
        calls.append(("free", str(device)))
        return 1000, 1000

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("takes", device)))
    return calls


@pytest.mark.parametrize(("rank", "takes"), [(0, 0), (1, 1), (3, 1)])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_process_takes_its_device_before_it_asks_one(
    device: str, rank: int, takes: int, cuda_calls: list[tuple[str, Any]], tune: Tune, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`cuda` is the device that is current; where none was taken that is the first, for all processes of a machine."""
    for name, value in {"WORLD_SIZE": "4", "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LengthError, match=r"0\.0 GB are free on cuda"):
        tune(tmp_path / "out", device=device)
    asked = [("put on", "cuda"), ("free", "cuda")] if device == "cuda" else [("free", "cuda")]
    assert cuda_calls == [("takes", takes), *asked]


def test_no_device_is_taken_by_one_process_nor_for_a_run_on_the_processor(
    cuda_calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    take_device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    take_device("cpu")
    assert cuda_calls == []


@pytest.mark.parametrize(("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")])
def test_parameters_in_shards_are_refused_by_name(variable: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(InputError, match=f"{name} cuts parameters up"):
        joined("cpu")


def test_processes_wait_for_the_first_one_as_long_as_was_said() -> None:
    """Data may be tokenized for hours before the first step; torch's ten minutes would end the others meanwhile."""
    pairs = [json.dumps([free_port(), given]) for given in ({}, {"backend": "gloo", "seconds": 90_000})]
    done = subprocess.run(
        [sys.executable, str(HERE / "joining.py"), *pairs], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    default = ["gloo", HOURS * 3600.0]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [default, default, *[["gloo", 90_000.0]] * 2]


@pytest.mark.parametrize("seconds", [0, -1, "soon", float("nan")])
def test_a_wait_that_is_no_time_is_refused(seconds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="ddp_timeout is a number of seconds above 0"):
        joined("cpu", seconds=seconds)


def test_a_backend_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # What other tests of this process trained with stays theirs.
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"processes on cpu cannot talk by 'nccl' \(.*\); leave ddp_backend out"):
        joined("cpu", backend="nccl")
    assert PartialState._shared_state == {}, "half made it would pass for a group"
