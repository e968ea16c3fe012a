"""Write one file whole or not at all: a part beside the final name, then a rename.

A run that is killed leaves `.<name>.part-<pid>` and nothing under the final name; the next run for the same name sweeps it.
With `force` a GGUF file that `extend` wrote is replaced in one step by the rename; whatever else lies there is never
touched. Ours is known by a key that says how many bytes its tensors have: who quantises it afterwards carries the key along,
and has another number of bytes.

Given up: two machines writing the same name on a shared disk (a part is stale when its process is not alive *here*), and
fsync: after a power cut the newest file may be short.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ropewalk.core.errors import OutputError, RopewalkError
from ropewalk.core.output import check_parent
from ropewalk.hosts.gguf.header import MAGIC, read_header
from ropewalk.hosts.processes import alive
from ropewalk.hosts.staging import failed

TENSOR_BYTES = "ropewalk.tensor_bytes"
"""Key of the files that we write: the bytes of all tensors, as text since they pass 32 bits."""
_active: set[Path] = set()
_lock = threading.Lock()


def check_out(out: str | Path, *, source: Path, force: bool) -> Path:
    """The absolute path that will be written, or `OutputError` where it must not be. Makes nothing."""
    if not str(out).strip():
        raise OutputError("the output file has no name; give --out FILE.gguf")
    final = Path(os.path.abspath(out))
    if os.path.realpath(final) == os.path.realpath(source):
        raise OutputError(f"output {out} is the source itself, which is only read; give another --out")
    if not os.path.lexists(final):
        check_parent(final)
        return final
    if not final.is_file() or final.is_symlink():
        raise OutputError(f"output {out} exists and is not a file; give a file name, such as --out model-64k.gguf")
    if not force:
        raise OutputError(f"output {out} exists already; give another --out, or --force to replace it")
    if not _is_gguf(final):
        raise OutputError(f"{out} is not a GGUF file, so --force will not replace it; remove it yourself")
    if not _is_ours(final):
        raise OutputError(
            f"{out} is not as ropewalk extend writes a GGUF file, and --force replaces no other; give another --out, or "
            "remove it yourself"
        )
    return final


@contextmanager
def part_of(final: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An open file beside `final`, and its path, that becomes `final` if the body succeeds and vanishes if it does not.

    Raises `MachineError` where writing failed (disk full, quota, input or output error), `OutputError` where no file can be
    made there.
    """
    part = final.parent / f".{final.name}.part-{os.getpid()}"
    made = _begin(final, part)
    try:
        try:
            with part.open("wb") as file:
                yield file, part
            os.replace(part, final)
        except OSError as error:
            raise failed(final, error) from error
    finally:
        _active.discard(part)
        part.unlink(missing_ok=True)
        for folder in reversed(made):
            # Another run may have put something there meanwhile.
            with suppress(OSError):
                folder.rmdir()


def _begin(final: Path, part: Path) -> list[Path]:
    """Makes missing parents and sweeps; returns the parents that were made, outermost first."""
    made = [folder for folder in reversed(final.parents) if not folder.exists()]
    with _lock:
        if part in _active:
            raise OutputError(f"output {final} is being written by this process already; give another --out")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _sweep(final)
        except OSError as error:
            raise OutputError(f"output {final} cannot be made: {error.strerror or error}; give another --out") from error
        _active.add(part)
    return made


def _sweep(final: Path) -> None:
    """Removes the parts that killed runs for this name left."""
    prefix = f".{final.name}.part-"
    for left in final.parent.iterdir():
        pid = left.name.removeprefix(prefix)
        if left.name.startswith(prefix) and pid.isdecimal() and not _goes_on(int(pid), left):
            left.unlink(missing_ok=True)


def _goes_on(pid: int, left: Path) -> bool:
    """Whether the run that made `left` still goes on. In a container a new process often gets a dead one's number."""
    return left in _active if pid == os.getpid() else alive(pid)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _is_ours(path: Path) -> bool:
    """Whether a file has the tensors that `extend` wrote into it."""
    try:
        header = read_header(path)
    except RopewalkError:
        return False
    return header.metadata.get(TENSOR_BYTES) == str(sum(tensor.num_bytes for tensor in header.tensors.values()))
