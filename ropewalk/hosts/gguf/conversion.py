"""A GGUF file into a transformers folder, tensor by tensor, without losing RoPE scaling.

The stock loader of transformers reads the base and ignores `rope.scaling.*` and `rope_freqs.weight`: a stretched model
loads without a word and computes other numbers. Here the config is made from everything the file says of positions, all
names and shapes are checked before the first byte is written, and memory stays near one slice of a tensor.

Given up: families beyond `ropewalk.engines.llamacpp.FAMILIES`, and going back (GGUF from a folder).
"""

import hashlib
import json
import shutil
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ropewalk.core.errors import MachineError
from ropewalk.core.progress import Progress
from ropewalk.core.record import SCHEMA_VERSION
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock
from ropewalk.hosts.gguf import tensors, tokenizer, weights
from ropewalk.hosts.gguf.header import Header, read_header
from ropewalk.hosts.gguf.positions import reading_of, with_block
from ropewalk.hosts.staging import check_out, staged

NEEDED = ("gguf", "transformers", "torch")


def convert(
    path: str | Path,
    out: str | Path,
    *,
    dtype: str = "float32",
    force: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Makes the folder `out` from the GGUF file at `path`; returns notes, a sentence each.

    `dtype` is that of the written weights: float32, float16 or bfloat16. Raises `SourceError` for a broken file,
    `UnsupportedError` for a family or tensor type that cannot be converted, `InputError` for a dtype, `OutputError` for
    `out`, and `MachineError` where a package is missing or the disk fails. Nothing is left behind by any of them.
    """
    weights.check_dtype(dtype)
    check_out(out, force=force, sources=[path])
    header = read_header(path)
    reading = reading_of(header)
    wanted = tensors.targets(header, reading.config)
    # Whatever cannot be read back must not be written.
    stock.read(with_block(reading.config, header))
    _check_packages()
    weights.check_types(header, wanted)
    _check_room(Path(out), sum(weights.num_bytes(target, dtype) for target in wanted.values()))
    quantisation = quantisation_of(header)
    with staged(out, force=force, sources=[path], progress=progress) as stage:
        notes = [*reading.notes, *tokenizer.write(header, stage)]
        with _task(progress, f"hashing {header.path.name}"):
            digest = _sha256(header.path, header.file_size, progress)
        with _task(progress, f"converting {header.path.name}"):
            weights.write(header, wanted, stage, dtype, progress)
        origin = {"file": header.path.name, "sha256": digest, "quantisation": quantisation}
        known = with_block({}, header).get("ropewalk", {})
        block = {"schema_version": SCHEMA_VERSION, **known, "converted_from": origin}
        config = {**reading.config, "dtype": dtype, "ropewalk": block}
        (stage / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if quantisation not in ("F32", dtype.upper().replace("FLOAT", "F")):
        notes.append(f"the weights were {quantisation} and are {dtype} now: they keep the precision of {quantisation}")
    return notes


def quantisation_of(header: Header) -> str:
    """What the weights of a file went through, such as `Q4_1`: what it says, else the type most of its weights have."""
    said = header.metadata.get("general.file_type")
    if isinstance(said, int) and said in llamacpp.QUANTISATIONS:
        return llamacpp.QUANTISATIONS[said]
    counts: Counter[str] = Counter()
    for tensor in header.tensors.values():
        counts[tensor.type_name] += tensor.num_elements
    return counts.most_common(1)[0][0] if counts else "unknown"


def _task(progress: Progress | None, label: str) -> AbstractContextManager[Any]:
    return nullcontext() if progress is None else progress.task(label)


def _check_packages() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"converting needs {', '.join(missing)}; install it with pip install '.[hf]' in a checkout of ropewalk"
        )


def _check_room(out: Path, need: int) -> None:
    parent = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < need:
        raise MachineError(
            f"the disk is too full: {out} takes {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make room or take "
            "another --out or --dtype"
        )


def _sha256(path: Path, size: int, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            if progress is not None:
                progress.at(file.tell() / size)
    return digest.hexdigest()
