"""Weight files of a folder: which there are, and whether their headers fit their sizes.

A safetensors file is eight bytes of header length (little endian), a JSON header that gives each tensor's dtype, shape and
byte range, and the tensors (https://github.com/huggingface/safetensors, README, "Format"). A download that broke off is
found by comparing the last range with the file's size; no tensor is read.
"""

import itertools
import json
import re
import struct
from collections.abc import Mapping, Sequence
from io import RawIOBase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NOT_WEIGHTS = ("training_args.bin", "optimizer.", "scheduler.", "rng_state", "scaler.")
"""Beginnings of pickles that a training run leaves beside the weights."""
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
MOST_SHARDS = 10_000
LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
LARGEST_INDEX = 256 * 1024 * 1024
LARGEST_COUNT = 2**63
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4,
}  # fmt: skip


def names_in(folder: Path) -> tuple[str, ...]:
    """The weight files of a checkpoint, checked, the index first; empty where there are none.

    Raises `UnsupportedError` where the weights are pickles, `SourceError` where an index names what is not there or lies
    outside the folder, or a safetensors file is damaged.
    """
    if (folder / INDEX).is_file():
        placed = _index(folder)
        names = sorted(set(placed.values()))
        _check_names(folder, names)
        _check_shards(folder, {name: check_header(folder / name) for name in names}, placed)
        return (INDEX, *names)
    names = sorted(file.name for file in folder.glob("*.safetensors") if not file.name.startswith((".", "adapter_")))
    if not names:
        _refuse_pickles(folder)
    _check_complete(folder, names)
    held = {name: check_header(folder / name) for name in names}
    _check_shards(folder, {name: tensors for name, tensors in held.items() if SHARD.search(name)}, {})
    return tuple(names)


def _check_shards(folder: Path, held: Mapping[str, frozenset[str]], placed: Mapping[str, str]) -> None:
    """Raises `SourceError` where two shards claim one tensor, or a shard lacks one that the index places in it."""
    owner: dict[str, str] = {}
    for shard, tensors in held.items():
        for tensor in tensors:
            if tensor in owner:
                raise SourceError(
                    f"{folder} has the tensor {tensor!r:.99} twice, in {owner[tensor]} and in {shard}; expected each tensor "
                    "in one shard; fetch the weights again"
                )
            owner[tensor] = shard
    lost = next((tensor for tensor, shard in placed.items() if owner.get(tensor) != shard), None)
    if lost is not None:
        raise SourceError(
            f"{folder / INDEX} places the tensor {lost!r:.99} in {placed[lost]}, which does not hold it; fetch the weights "
            "again"
        )


def _check_complete(folder: Path, names: Sequence[str]) -> None:
    """Raises `SourceError` where files call themselves shards and some of their number are not there."""
    for name in names:
        found = SHARD.search(name)
        if found and int(found[2]) <= MOST_SHARDS:
            wanted = [SHARD.sub(f"-{i:05d}-of-{found[2]}.", name, count=1) for i in range(1, int(found[2]) + 1)]
            missing = [other for other in wanted if other not in names]
            if missing:
                raise SourceError(f"{folder} lacks {len(missing)} of {found[2]} shards, {missing[0]} first; fetch them")


def _index(folder: Path) -> dict[str, str]:
    """Tensor to file name. Raises `SourceError` where it is no index, or names what is not a file of the folder."""
    size = (folder / INDEX).stat().st_size
    if size > LARGEST_INDEX:
        raise SourceError(f"{folder / INDEX} has {size} bytes, which is too much for an index of weights")
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        placed = dict(content["weight_map"].items())
        names = sorted(set(placed.values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder / INDEX} is not an index of weights ({error!r:.200}); fetch it again") from error
    for name in names:
        _check_inside(folder, name)
    return placed


def _check_names(folder: Path, names: Sequence[str]) -> None:
    # Looked up in a list: the system refuses to be asked for some names.
    present = {file.name for file in folder.iterdir() if file.is_file()}
    missing = [name for name in names if name not in present]
    if missing:
        raise SourceError(
            f"{folder / INDEX} names {len(missing)} weight files that are not there, {missing[0]!r:.99} first; fetch them"
        )


def _check_inside(folder: Path, name: Any) -> None:
    """By name and not by where links lead: a hub cache is a folder of links to files elsewhere."""
    flat = isinstance(name, str) and name == PurePosixPath(name).name == PureWindowsPath(name).name
    if not flat or name in ("", ".", "..") or not name.endswith(".safetensors"):
        raise SourceError(
            f"{folder / INDEX} names the weight file {name!r:.99}, expected the name of a safetensors file in the same "
            "folder"
        )


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix in PICKLES and file.is_file() and not file.name.startswith(NOT_WEIGHTS)
    )
    if pickles:
        raise UnsupportedError(
            f"{folder} holds pickled weights ({pickles[0]}), and opening a pickle runs the code inside; convert them where "
            "you trust them: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW) writes safetensors"
        )


def check_header(path: Path) -> frozenset[str]:
    """The names of its tensors. Raises `SourceError` unless the file is a whole safetensors file, as far as header and size
    tell."""
    size = path.stat().st_size
    header, end = _read_header(path, size)
    start = end
    ranges: list[tuple[int, int, str]] = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, stop = _range(path, name, tensor)
        end = max(end, start + stop)
        ranges.append((begin, stop, name))
        bits = BITS.get(str(tensor.get("dtype")))
        if bits is not None and _count(tensor["shape"]) * bits != (stop - begin) * 8:
            raise SourceError(
                f"{path} is damaged: tensor {name!r:.99} has {stop - begin} bytes for shape {tensor['shape']!r:.100}"
            )
    _check_apart(path, sorted(ranges))
    if size < end:
        raise SourceError(f"{path} is truncated: it has {size} bytes of {end}; fetch it again")
    if size > end:
        raise SourceError(f"{path} is damaged: it has {size} bytes, its header accounts for {end}; fetch it again")
    return frozenset(name for _, _, name in ranges)


def _check_apart(path: Path, ranges: Sequence[tuple[int, int, str]]) -> None:
    for (_, stop, name), (begin, _, other) in itertools.pairwise(ranges):
        if begin < stop:
            raise SourceError(
                f"{path} is damaged: tensors {name!r:.99} and {other!r:.99} lie over one another; fetch it again"
            )


def dtypes(path: Path) -> dict[str, str]:
    """Tensor name to dtype, from the header of a safetensors file. Raises `SourceError` where it is damaged."""
    header, _ = _read_header(path, path.stat().st_size)
    return {
        name: str(tensor["dtype"]) for name, tensor in header.items() if isinstance(tensor, Mapping) and "dtype" in tensor
    }


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape, from the header of a safetensors file. Raises `SourceError` where it is damaged."""
    header, _ = _read_header(path, path.stat().st_size)
    return {
        name: tuple(tensor["shape"]) for name, tensor in header.items() if isinstance(tensor, Mapping) and "dtype" in tensor
    }


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header, and the byte at which the tensors start."""
    # A buffer would read on into the tensors.
    with path.open("rb", buffering=0) as file:
        start = _exactly(file, 8)
        if start == b"version ":
            raise SourceError(f"{path} is a Git LFS pointer and not the weights; run git lfs pull")
        if len(start) < 8:
            raise SourceError(f"{path} is truncated: it has {size} bytes, a safetensors file at least 8; fetch it again")
        (length,) = struct.unpack("<Q", start)
        if length > LARGEST_HEADER:
            raise SourceError(f"{path} is not a safetensors file: its header would have {length} bytes")
        if 8 + length > size:
            raise SourceError(f"{path} is truncated: it has {size} bytes, its header alone {8 + length}; fetch it again")
        raw = _exactly(file, length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged: its header is not JSON ({error}); fetch it again") from error
    if not isinstance(header, dict):
        raise SourceError(f"{path} is damaged: its header is no JSON object; fetch it again")
    return header, 8 + length


def _exactly(file: RawIOBase, size: int) -> bytes:
    """The next `size` bytes, fewer at the end of the file: one call to the system may give less than was asked."""
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _range(path: Path, name: str, tensor: Any) -> tuple[int, int]:
    try:
        begin, stop = tensor["data_offsets"]
        shape = tensor["shape"]
        good = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (begin, stop, *shape)) and begin <= stop
    except (KeyError, TypeError, ValueError):
        good = False
    if not good or not isinstance(tensor, Mapping):
        raise SourceError(f"{path} is damaged: its header gives no byte range for tensor {name!r:.99}; fetch it again")
    return begin, stop


def _count(shape: list[int]) -> int:
    if 0 in shape:
        return 0
    count = 1
    for n in shape:
        count *= n
        # No file is that large; a header of nothing but long numbers must not cost minutes.
        if count > LARGEST_COUNT:
            break
    return count
