"""Ctrl-C, kill -9 and a full disk lose at most the cell in flight; `--resume` ends with the rows of an unbroken run.

The runs that are stopped are processes of their own. They stop at a chosen place, since a probe holds them there until the
signal comes; nothing here depends on how fast anything is.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from command import Command, snapshot

from ropewalk.api import runs
from ropewalk.cli import main

HOLD = """
import sys, time
import ropewalk.core.run as run
{patch}
from ropewalk.cli import main
sys.exit(main(sys.argv[1:]))
"""
SAY = "print('HELD', flush=True); time.sleep(120)"
AFTER_CELLS = f"""
note = run.Run.note_cell
def held(self, *args):
    note(self, *args)
    if len(self.cells()) == 3:
        {SAY}
run.Run.note_cell = held
"""
BEFORE_RENAME = f"""
import pathlib
replace = pathlib.Path.replace
def held(self, target):
    if self.name.endswith('.npy.part') and 'pi' in str(self):
        {SAY}
    return replace(self, target)
pathlib.Path.replace = held
"""
FIRST_FILE = f"""
import pathlib
def held(self, target):
    {SAY}
pathlib.Path.replace = held
"""
INSIDE_LINE = f"""
def held(self, name, rows):
    if name == 'samples.jsonl' and (self.path / name).exists():
        with (self.path / name).open('a') as file:
            file.write('{{"method": "none", "prot')
        {SAY}
    append(self, name, rows)
append = run.Run.append
run.Run.append = held
"""


@pytest.fixture(scope="module")
def question(tiny_checkpoint: Path, long_text: Path) -> list[str]:
    """What every run of this file asks."""
    line = [
        "compare",
        str(tiny_checkpoint),
        "--text",
        str(long_text),
        "--methods",
        "pi,ntk",
        "--length",
        "512",
        "--seed",
        "3",
    ]
    return [
        *line,
        "--dtype",
        "float32",
        "--depths",
        "2",
        "--lengths",
        "384,512",
        "--retrieval",
        "none,pi",
        "--device",
        "cpu",
    ]


@pytest.fixture(scope="module")
def unbroken(question: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same question, answered without a stop."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert main([*question, "--out", str(out)]) == 0
    return out


def stopped(question: list[str], out: Path, patch: str, number: signal.Signals) -> tuple[int, str]:
    """Runs the question in a process of its own until it is held, sends it a signal; exit code and stderr."""
    # A SIGINT that arrives at a child of a shell without job control may be ignored from birth.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + HOLD.format(patch=patch)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *question, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        if said != "HELD\n":
            pytest.fail(f"never held: {said} {process.communicate()[1]}")
        process.send_signal(number)
        return process.wait(timeout=60), process.communicate()[1]
    finally:
        process.kill()
        process.wait()


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a run without what differs from run to run."""
    content = [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    for row in content:
        del row["seconds"], row["peak_bytes"]
    return content


def samples(out: Path) -> list[dict[str, Any]]:
    """The answered prompts without their times."""
    content = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for sample in content:
        del sample["seconds"]
    return content


def same_as_unbroken(out: Path, unbroken: Path) -> bool:
    """Whether a resumed run is complete and holds the rows and samples of the unbroken one."""
    assert rows(out) == rows(unbroken)
    assert samples(out) == samples(unbroken)
    status = json.loads((out / "card.json").read_text())["status"]
    return status == "done" and not list(out.rglob(".*"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the drawing of the report out: two seconds of every run that are not what is tested."""
    monkeypatch.setattr(runs, "report", lambda folder: Path(folder) / "report.html")


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(
    command: Command, question: list[str], unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said = stopped(question, out, AFTER_CELLS, signal.SIGINT)
    assert code == 130
    assert said.splitlines()[-1] == "ropewalk: interrupted; what is finished is kept, and --resume goes on from there"
    assert "Traceback" not in said
    assert json.loads((out / "card.json").read_text())["status"] == "interrupted"
    finished = snapshot(out / "nll")
    assert len([name for name in finished if name.endswith(".npy")]) == 3
    refused = command(*question, "--out", out)
    assert refused.refused("exists and is not empty", "--resume to go on", "--force to start anew")
    assert command(*question, "--out", out, "--resume").code == 0
    assert finished.items() <= {k: v for k, v in snapshot(out / "nll").items() if k in finished}.items()
    assert same_as_unbroken(out, unbroken)
    assert (out / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("patch", "left"),
    [(AFTER_CELLS, 3), (BEFORE_RENAME, 2), (INSIDE_LINE, 4)],
    ids=["between-cells", "inside-an-array", "inside-a-line"],
)
def test_kill_9_loses_at_most_the_cell_in_flight(
    command: Command, question: list[str], unbroken: Path, tmp_path: Path, patch: str, left: int
) -> None:
    out = tmp_path / "run"
    assert stopped(question, out, patch, signal.SIGKILL)[0] == -signal.SIGKILL
    assert json.loads((out / "card.json").read_text())["status"] == "running"
    assert len(list((out / "nll").glob("*/[!.]*.npy"))) == left
    assert command(*question, "--out", out, "--resume").code == 0
    assert same_as_unbroken(out, unbroken)


@pytest.mark.usefixtures("undrawn")
def test_kill_9_before_the_first_file_is_as_if_nothing_was(
    command: Command, question: list[str], unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped(question, out, FIRST_FILE, signal.SIGKILL)
    assert [path.name for path in out.iterdir()] == [".card.json.part"]
    assert command(*question, "--out", out).code == 0
    assert same_as_unbroken(out, unbroken)


def test_a_run_that_was_stopped_can_be_reported(command: Command, question: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(question, out, AFTER_CELLS, signal.SIGKILL)
    assert command("report", out).code == 0
    assert (out / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_force_starts_anew(command: Command, question: list[str], unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(question, out, AFTER_CELLS, signal.SIGINT)
    (out / "nll" / "stale.npy").write_bytes(b"stale")
    assert command(*question, "--out", out, "--force").code == 0
    assert not (out / "nll" / "stale.npy").exists()
    assert same_as_unbroken(out, unbroken)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("number", "after"), [(errno.ENOSPC, 0), (errno.ENOSPC, 3), (errno.EDQUOT, 8), (errno.EIO, 5)])
def test_a_disk_that_fails_is_exit_code_3_and_resume_goes_on(
    command: Command, question: list[str], unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int,
    after: int,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    fsync, calls = os.fsync, []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        fsync(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        result = command(*question, "--out", out)
    assert (result.code, result.out) == (3, "")
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("ropewalk: the disk " + ("failed" if number == errno.EIO else "is full"))
    assert sentence.endswith("run again with --resume")
    assert not list(out.rglob("*.part"))
    assert command(*question, "--out", out, "--resume").code == 0
    assert same_as_unbroken(out, unbroken)


@pytest.mark.parametrize("verb", ["extend", "convert"])
def test_a_full_disk_leaves_no_folder(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    from hosts.gguf_files import tiny, write_gguf

    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    write_text = Path.write_text

    def full(self: Path, *args: Any, **options: Any) -> int:
        if self.name == "config.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write_text(self, *args, **options)

    before = snapshot(tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    line = ["convert", tmp_path / "model.gguf"]
    if verb == "extend":
        line = ["extend", tiny_checkpoint, "--method", "yarn", "--length", "256"]
    result = command(*line, "--out", tmp_path / "out")
    assert (result.code, result.out) == (3, "")
    assert "the disk is full" in result.err
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("undrawn")
def test_out_of_memory_is_exit_code_3_and_resume_goes_on(
    command: Command, question: list[str], unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.measure.forward import Forward

    out, hidden, calls = tmp_path / "run", Forward.hidden, []

    def starved(self: Forward, *args: Any, **options: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return hidden(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Forward, "hidden", starved)
        result = command(*question, "--out", out)
    assert result.code == 3
    assert "out of memory at length 512" in result.err
    assert json.loads((out / "card.json").read_text())["status"] == "failed"
    assert command(*question, "--out", out, "--resume").code == 0
    assert same_as_unbroken(out, unbroken)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("ropewalk.measure.protocols.score_window", RuntimeError("DefaultCPUAllocator: not enough memory: you tried")),
        ("ropewalk.measure.repetition.nll_and_hits", MemoryError()),
        ("ropewalk.measure.answering.local.read_questions", RuntimeError("MPS backend out of memory")),
    ],
)
def test_out_of_memory_in_a_protocol_or_a_map_is_exit_code_3_too(
    command: Command, question: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def starved(*_: Any, **__: Any) -> Any:
        raise error

    line = [*question, "--protocol", "disjoint", "--protocol", "repeated-text:period=64", "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        module, _, name = place.rpartition(".")
        patched.setattr(import_module(module), name, starved)
        result = command(*line)
    assert result.code == 3
    assert "out of memory at length 512" in result.err
    assert json.loads((tmp_path / "run" / "card.json").read_text())["status"] == "failed"
    assert command(*line, "--resume").code == 0


def test_other_failures_of_torch_stay_what_they_are() -> None:
    from ropewalk.measure.memory import out_of_memory_is_told

    with pytest.raises(RuntimeError, match="mat1 and mat2"), out_of_memory_is_told(512):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
