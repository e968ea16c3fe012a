"""A folder is written whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.core.errors import MachineError, OutputError
from ropewalk.hosts.staging import check_out, staged


def write(out: Path, text: str, **options: object) -> None:
    with staged(out, **options) as stage:  # type: ignore[arg-type]
        (stage / "config.json").write_text(text)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_body_that_succeeds_becomes_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "out", "a")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/config.json").read_text() == "a"


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a/b/out", "a")
    assert (tmp_path / "a/b/out/config.json").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), OSError("no number")])
def test_body_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with staged(tmp_path / "a/b/out") as stage:
            (stage / "config.json").write_text("a")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("Io: No space left on device (os error 28)")],
)
def test_full_disk_is_the_machines_fault(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(MachineError, match=r"disk is full: nothing was written to .*out; free"),
        staged(tmp_path / "out"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_write_errors_are_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"writing .*out failed .*Input/output"), staged(tmp_path / "out"):
        raise OSError(errno.EIO, "Input/output error")
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    with pytest.raises(OutputError, match="exists already; give another --out, or --force"):
        write(out, "b")
    assert (out / "config.json").read_text() == "a"
    write(out, "b", force=True)
    assert (out / "config.json").read_text() == "b"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_forced_run_that_fails_keeps_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    with pytest.raises(ZeroDivisionError), staged(out, force=True):
        raise ZeroDivisionError
    assert (out / "config.json").read_text() == "a"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_force_never_replaces_a_folder_of_something_else(tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    write_to = out / "thesis.tex"
    write_to.write_text("years of work")
    with pytest.raises(OutputError, match=r"holds files without a mark of ropewalk .* remove it yourself"):
        write(out, "b", force=True)
    assert write_to.exists()


def test_force_replaces_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "a", force=True)
    assert (tmp_path / "out/config.json").exists()


def test_file_or_link_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="exists and is not a folder"):
            check_out(tmp_path / name, force=True)


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be made: .*file is not a folder"):
        check_out(tmp_path / "file/out")


def test_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be made: File name too long"):
        write(tmp_path / "new" / ("x" * 250), "a")
    assert list(tmp_path.iterdir()) == []


def test_no_name() -> None:
    with pytest.raises(OutputError, match="has no name"):
        check_out(" ")


def test_sources_are_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "model"
    write(source, "a")
    for out in (source, tmp_path, source / "inner"):
        with pytest.raises(OutputError, match="lie inside one another"):
            check_out(out, force=True, sources=[source])
    with pytest.raises(OutputError, match="lie inside one another"):
        check_out(source, force=True, sources=[source / "config.json"])
    # A file as source does not forbid a folder beside it.
    assert check_out(source / "inner", sources=[source / "config.json"]) == source / "inner"


def test_stale_stage_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    stale = tmp_path / f".out.stage-{dead_pid()}"
    reused = tmp_path / f".out.stage-{os.getpid()}"
    live = tmp_path / f".out.stage-{os.getppid()}"
    other = tmp_path / f".out2.stage-{dead_pid()}"
    for folder in (stale, reused, live, other):
        folder.mkdir()
        (folder / "big").write_text("x")
    write(tmp_path / "out", "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([live.name, other.name, "out"])


def test_folder_moved_aside_by_a_killed_run_comes_back(tmp_path: Path) -> None:
    old = tmp_path / f".out.old-{dead_pid()}"
    old.mkdir()
    (old / "config.json").write_text("a")
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "out"):
        raise ZeroDivisionError
    assert (tmp_path / "out/config.json").read_text() == "a"
    assert not old.exists()


def test_same_name_twice_in_one_process(tmp_path: Path) -> None:
    with (
        staged(tmp_path / "out"),
        pytest.raises(OutputError, match="is being written by this process"),
        staged(tmp_path / "out"),
    ):
        raise AssertionError


def test_killed_run_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    script = (
        "import os, sys; from ropewalk.hosts.staging import staged\n"
        "with staged(sys.argv[1]) as stage:\n"
        "    (stage / 'config.json').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")]).returncode == -9
    assert [p.name.startswith(".out.stage-") for p in tmp_path.iterdir()] == [True]
    write(tmp_path / "out", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
