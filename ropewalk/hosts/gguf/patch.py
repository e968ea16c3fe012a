"""A GGUF file with a plan on: another header, the same tensor data.

Nothing is requantised and no weight is looked at. The header is written anew with the changed keys, our own record and,
where the architecture loads one, a factor tensor; then the data of every tensor are streamed behind it, byte for byte. What
llama.cpp would compute from the new header is compared with the plan before the file gets its name.

Our record is `ropewalk.block`, the same JSON that a folder's config.json has, and plain keys for people who look with other
tools. A second extension is planned from the origin that it tells.

Given up: patching in place (a killed run would leave a broken model), files in several parts, and LongRoPE's two regimes: a
plan that depends on the length is frozen at its longest.
"""

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import HostError, MachineError, OutputError, SourceError
from ropewalk.core.geometry import Geometry
from ropewalk.core.output import say_removed
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.engines import llamacpp
from ropewalk.engines.llamacpp.spelling import ORIGIN_BASE
from ropewalk.engines.transformers import block as own_block
from ropewalk.hosts.gguf import positions
from ropewalk.hosts.gguf.header import MAGIC, Header, read_header
from ropewalk.hosts.gguf.part import TENSOR_BYTES, check_out, part_of

OURS = "ropewalk."
"""Prefix of our metadata keys."""
CHUNK_BYTES = 1 << 22
"""What is in memory at once."""
_F32 = 0
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A tensor of the new file: bytes of the old one, or new numbers."""

    name: str
    dims: tuple[int, ...]
    """As the file has them, fastest first."""
    type: int
    num_bytes: int
    begin: int
    """Where the bytes lie in the old file; unused where there are numbers."""
    numbers: NDArray[np.float32] | None = None


def write_patched(
    path: str | Path,
    plan: Plan,
    out: str | Path,
    *,
    force: bool = False,
    geometry: Geometry | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Writes the GGUF file at `path` with `plan` on to the file `out`; returns notes, a sentence each.

    `geometry` is what the plan was made from, where the user said more than the file does. Raises `HostError` for a plan
    that llama.cpp cannot compute for this architecture, `OutputError` for an `out` that is there, `SourceError` and
    `UnsupportedError` for the file, `MachineError` where the disk is full. Nothing is left behind by any of them.
    """
    final = check_out(out, source=Path(path), force=force)
    if final.suffix.lower() != ".gguf":
        raise OutputError(f"a GGUF file goes to a path that ends in .gguf, got {out}; give --out {out}.gguf")
    header = read_header(path)
    found = positions.geometry(header) if geometry is None else geometry
    static = plan.at(plan.length)
    changes, tensors = llamacpp.spell_metadata(
        header.metadata, static, arch=header.architecture, factors=positions.factors_of(header)
    )
    pieces = [*_kept(header), *(_added(name, numbers) for name, numbers in tensors.items())]
    record = {**_record(header, static, found), TENSOR_BYTES: str(sum(piece.num_bytes for piece in pieces))}
    head = b"".join(_head(header, {**changes, **record}, pieces))
    size = len(head) + sum(_padded(piece.num_bytes, header.alignment) for piece in pieces)
    _check_room(final, size)
    with part_of(final) as (file, part):
        with nullcontext() if progress is None else progress.task(f"writing {final.name}"):
            _write(file, head, pieces, header, progress)
        file.flush()
        _check(part, static)
        if final.exists():
            check_out(out, source=Path(path), force=force)
            say_removed(final, progress)
    return _notes(header, plan, changes, tensors)


def _kept(header: Header) -> Iterator[_Piece]:
    for tensor in header.tensors.values():
        if tensor.name not in llamacpp.FACTOR_TENSORS:
            yield _Piece(
                name=tensor.name,
                dims=tensor.shape[::-1],
                type=tensor.type,
                num_bytes=tensor.num_bytes,
                begin=tensor.offset,
            )


def _added(name: str, numbers: NDArray[np.float32]) -> _Piece:
    little = np.ascontiguousarray(numbers, dtype="<f4")
    return _Piece(name=name, dims=little.shape, type=_F32, num_bytes=little.nbytes, begin=0, numbers=little)


def _record(header: Header, plan: Plan, found: Geometry) -> dict[str, Any]:
    """Our keys, the old ones of ours taken out."""
    made = own_block.make(plan, found, positions.with_block({}, header))
    old: dict[str, Any] = {key: None for key in header.metadata if key.startswith(OURS)}
    return old | {
        f"{OURS}schema_version": own_block.SCHEMA_VERSION,
        f"{OURS}method": plan.method,
        f"{OURS}length": plan.length,
        f"{OURS}factor": float(plan.factor),
        f"{OURS}origin.length": int(made["origin"]["length"]),
        ORIGIN_BASE: float(made["origin"]["base"]),
        positions.BLOCK: json.dumps(made),
    }


def _head(header: Header, changes: Mapping[str, Any], pieces: list[_Piece]) -> Iterator[bytes]:
    """Everything before the tensor data, padding included."""
    # A changed key stays where it is, since some readers want the architecture first.
    new = [key for key, value in changes.items() if value is not None and key not in header.metadata]
    kept = [key for key in header.metadata if changes.get(key, "kept") is not None]
    counts = struct.pack("<IQQ", header.version, len(pieces), len(kept) + len(new))
    parts = [MAGIC, counts]
    with header.path.open("rb") as file:
        for key in kept:
            parts.append(_entry(key, changes[key]) if key in changes else _raw(file, *header.spans[key]))
    parts += [_entry(key, changes[key]) for key in new]
    offset = 0
    for piece in pieces:
        shape = struct.pack(f"<I{len(piece.dims)}Q", len(piece.dims), *piece.dims)
        parts.append(_text(piece.name) + shape + struct.pack("<IQ", piece.type, offset))
        offset += _padded(piece.num_bytes, header.alignment)
    yield from parts
    length = sum(map(len, parts))
    yield b"\0" * (_padded(length, header.alignment) - length)


def _entry(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return _text(key) + struct.pack("<If", 6, value)
    assert type(value) is int, f"{key} is a {type(value)}"
    return _text(key) + struct.pack("<II", 4, value)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _raw(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _write(
    file: BinaryIO, head: bytes, pieces: list[_Piece], header: Header, progress: Progress | None
) -> None:  # fmt: skip
    file.write(head)
    total, done = sum(piece.num_bytes for piece in pieces) or 1, 0
    with header.path.open("rb") as source:
        for piece in pieces:
            if piece.numbers is not None:
                file.write(piece.numbers.tobytes())
            else:
                source.seek(piece.begin)
                for chunk in _chunks(source, piece, header.path):
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress.at(done / total)
            file.write(b"\0" * (_padded(piece.num_bytes, header.alignment) - piece.num_bytes))


def _chunks(source: BinaryIO, piece: _Piece, path: Path) -> Iterator[bytes]:
    left = piece.num_bytes
    while left:
        chunk = source.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise SourceError(f"GGUF file {path} ended inside {piece.name} while it was copied; download it again")
        left -= len(chunk)
        yield chunk


def _check(part: Path, plan: Plan) -> None:
    """Reads the written header back and compares what llama.cpp would compute. Raises `HostError` on a difference."""
    written = read_header(part)
    computed = llamacpp.compute_metadata(
        written.metadata, length=plan.length, factors=positions.factors_of(written)
    )  # fmt: skip
    off = max(
        (
            math.inf if computed.groups.get(label) is None else word.difference(computed.groups[label])  # type: ignore[arg-type]
            for label, word in plan.groups.items()
            if word is not None
        ),
        default=0.0,
    )
    if off > TOLERANCE:
        raise HostError(f"the written file reads back {off:.2g} off the plan, expected at most {TOLERANCE:g}; report this")


def _check_room(final: Path, need: int) -> None:
    parent = next(folder for folder in final.parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < need:
        raise MachineError(
            f"the disk is too full: {final} takes {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make room or take "
            "another --out"
        )


def _notes(header: Header, plan: Plan, changes: Mapping[str, Any], tensors: Mapping[str, Any]) -> list[str]:
    changed = ", ".join(key for key in changes if not key.startswith(OURS))
    notes = [f"tensor data are byte for byte those of {header.path.name}; changed in its header: {changed}"]
    if plan.kind != "static":
        notes.append(f"a GGUF file says one set of numbers, so the {plan.kind} plan is frozen at {plan.length} tokens")
    if tensors:
        notes.append(f"{' and '.join(tensors)} says the frequencies, which llama.cpp loads for {header.architecture}")
    if any(word is not None and word.attention_factor != 1.0 for word in plan.groups.values()):
        notes.append("llama.cpp's context shift would multiply cached keys by the attention factor again: leave it off")
    if any(".rope.scaling." in key for key in changes) or tensors:
        notes.append("stock transformers drops this scaling when it loads a GGUF file; use ropewalk convert for a folder")
    return notes
