"""Write a folder whole or not at all: stage beside the final name, then rename.

A run that is killed leaves `.<name>.stage-<pid>` and nothing under the final name; the next run for the same name
sweeps it. With `force` an existing folder is moved aside (`.<name>.old-<pid>`), and moved back if the run died between
the two renames. Only a folder that was written here, and holds nothing else since, is ever replaced: see `mark`. What goes
is said before it goes.

Given up: two machines writing the same name on a shared disk (a stage is stale when its process is not alive *here*),
and fsync: after a power cut the newest folder may be short.
"""

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ropewalk.core.errors import MachineError, OutputError
from ropewalk.core.output import check_apart, check_named, check_parent, say_removed
from ropewalk.core.progress import Progress
from ropewalk.hosts.mark import check_ours, leave_mark
from ropewalk.hosts.processes import alive

_active: set[Path] = set()
_lock = threading.Lock()


def check_out(out: str | Path, *, force: bool = False, sources: Iterable[str | Path] = ()) -> Path:
    """The absolute path that will be written, or `OutputError` where it must not be.

    `sources` are what the run reads: an output that is one of them, or holds or lies inside a folder among them, is
    refused even under `force`, and so is a folder that is not as one of these verbs left it. Makes nothing.
    """
    check_named(out)
    final = Path(os.path.abspath(out))
    check_apart(out, sources)
    if not os.path.lexists(final):
        check_parent(final)
        return final
    if not final.is_dir() or final.is_symlink():
        raise OutputError(f"output {out} exists and is not a folder; give another --out")
    if not force:
        raise OutputError(f"output folder {out} exists already; give another --out, or --force to replace it")
    check_ours(final)
    return final


@contextmanager
def staged(
    out: str | Path, *, force: bool = False, sources: Iterable[str | Path] = (), progress: Progress | None = None
) -> Iterator[Path]:
    """A fresh folder to write into, that becomes `out`, marked, if the body succeeds and vanishes if it does not.

    What `force` removes is said before, on stderr unless `progress` goes elsewhere. Raises `OutputError` as `check_out` does
    or where the folder cannot be made, and `MachineError` where writing failed (disk full, quota, input or output error).
    """
    read = tuple(sources)
    final = check_out(out, force=force, sources=read)
    stage = final.parent / f".{final.name}.stage-{os.getpid()}"
    made = _make(final, stage)
    try:
        try:
            yield stage
            leave_mark(stage)
            # The body may have taken an hour, in which somebody put something there.
            if os.path.lexists(check_out(out, force=force, sources=read)):
                say_removed(final, progress)
            _publish(stage, final)
        except Exception as error:
            # Writers in Rust (safetensors, tokenizers) hide the number in the text of an exception of their own, and an
            # OSError without a number is a library's word for something else: what is not the disk keeps its meaning.
            numbered = isinstance(error, OSError) and error.errno is not None
            if not numbered and not _disk_full(error):
                raise
            raise failed(final, error) from error
    finally:
        _active.discard(stage)
        shutil.rmtree(stage, ignore_errors=True)
        for folder in reversed(made):
            _remove_if_empty(folder)


def failed(final: Path, error: Exception) -> MachineError:
    """What is said where `final` could not be written."""
    if _disk_full(error):
        return MachineError(f"the disk is full: nothing was written to {final}; free some space and run again")
    return MachineError(f"writing {final} failed ({error}): nothing was written; mend the disk and run again")


def _disk_full(error: Exception) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or any(
        f"(os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)
    )


def _make(final: Path, stage: Path) -> list[Path]:
    """Makes missing parents and the stage; returns the parents that were made, outermost first."""
    made = [folder for folder in reversed(final.parents) if not folder.exists()]
    try:
        # Another thread's stage must not be swept between being made and being known.
        with _lock:
            if stage in _active:
                raise OutputError(f"output folder {final} is being written by this process already; give another --out")
            final.parent.mkdir(parents=True, exist_ok=True)
            _sweep(final)
            stage.mkdir()
            _active.add(stage)
    except OSError as error:
        for folder in reversed(made):
            _remove_if_empty(folder)
        if _disk_full(error):
            raise failed(final, error) from error
        raise OutputError(f"output folder {final} cannot be made: {error.strerror or error}; give another --out") from error
    return made


def _sweep(final: Path) -> None:
    """Removes what killed runs for this name left, and puts back a folder that was moved aside and not replaced."""
    for kind in ("old", "stage"):
        prefix = f".{final.name}.{kind}-"
        for left in final.parent.iterdir():
            pid = left.name.removeprefix(prefix)
            if not left.name.startswith(prefix) or not pid.isdecimal() or _goes_on(int(pid), left):
                continue
            if kind == "old" and not os.path.lexists(final):
                left.rename(final)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _goes_on(pid: int, left: Path) -> bool:
    """Whether the run that made `left` still goes on. In a container a new process often gets a dead one's number."""
    return left in _active if pid == os.getpid() else alive(pid)


def _publish(stage: Path, final: Path) -> None:
    old = final.parent / f".{final.name}.old-{os.getpid()}"
    if not os.path.lexists(final):
        stage.rename(final)
        return
    final.rename(old)
    try:
        stage.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
