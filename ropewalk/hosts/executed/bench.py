"""What is put to an engine: a checkpoint, its control, the token ids and the positions that are probed.

The control is the same weights with the context stretched by a changed base, the one spelling that no engine can misread.
Token ids are drawn once from a seed and repeated: what comes next can then be known from what came before, at a distance,
so it hangs on positions, and no tokenizer is needed.

A GGUF file is held against a folder that `ropewalk convert` makes of it: the same weights, dequantised to float32. Its
control is written twice, as a file and as a folder. Given up: real text, and lengths beyond `MOST_TOKENS`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.geometry import Geometry, Group, geometric
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.core.progress import Progress
from ropewalk.hosts import folder
from ropewalk.hosts.executed.child import LONGEST_SECONDS, Answer, Probe, probe
from ropewalk.hosts.folder import Checkpoint
from ropewalk.hosts.processes import alive

MOST_TOKENS = 10_240
"""Longest request, tokens: ten thousand tokens are a minute on two cores for a model of 135M weights."""
NUM_POSITIONS = 16
PLACE = ".ropewalk-executed-"
"""Prefix of the folder that is made beside a checkpoint; the process's number follows."""
PERIOD = 1009
"""Tokens after which the drawn ids repeat; a prime, so that no stride of an engine's blocks falls on it."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A checkpoint and its control, in a form that one engine reads."""

    checkpoint: Path
    control: Path


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all engines share."""

    reference: Pair
    """What transformers reads."""
    engine: Pair
    """What the engine reads: the same folders, or GGUF files."""
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    limit_seconds: float = LONGEST_SECONDS
    """Of one run of one engine."""
    progress: Progress | None = None
    _references: dict[str, tuple[Answer, Answer]] = field(default_factory=dict)
    """What transformers answered, by dtype: engines of one dtype share it."""

    def references(self, dtype: str) -> tuple[Answer, Answer]:
        """transformers' answers to the checkpoint and to the control."""
        if dtype not in self._references:
            pair = self.reference
            self._references[dtype] = (
                self.ask("transformers", pair.checkpoint, dtype),
                self.ask("transformers", pair.control, dtype),
            )
        return self._references[dtype]

    def ask(self, engine: str, path: Path, dtype: str) -> Answer:
        """The answer of one engine to one checkpoint."""
        asked = Probe(checkpoint=path, token_ids=self.ids, positions=self.positions, dtype=dtype)
        what = "the control" if path in (self.reference.control, self.engine.control) else "the checkpoint"
        task = nullcontext() if self.progress is None else self.progress.task(f"{engine} reads {what}", cost=1.0)
        with task:
            return probe(engine, asked, limit_seconds=self.limit_seconds)


def check_kind(checkpoint: Checkpoint) -> None:
    """Raises `UnsupportedError` for a source that has no weights to run."""
    if checkpoint.kind not in ("folder", "gguf"):
        raise UnsupportedError(
            f"{checkpoint.path} is no folder and no GGUF file ({checkpoint.kind}), and engines are executed on checkpoints "
            "with weights; give a folder with safetensors files or a GGUF file"
        )


@contextmanager
def bench_of(
    checkpoint: Checkpoint, *, token_ids: Sequence[int] | None, most_tokens: int, limit_seconds: float,
    progress: Progress | None,
) -> Iterator[Bench]:  # fmt: skip
    """A bench around a folder with weights or a GGUF file; what was made for it is gone afterwards.

    Raises `UnsupportedError` for another kind of source, and what `convert` raises for a GGUF file.
    """
    check_kind(checkpoint)
    # Beside the checkpoint the control's weights are hard links; elsewhere they may have to be copied.
    beside = checkpoint.path.parent if os.access(checkpoint.path.parent, os.W_OK) else None
    with _place(beside) as place:
        source = checkpoint if checkpoint.kind == "folder" else _converted(checkpoint, place, progress)
        geometry = folder.geometry_of(source)
        plan, control = control_of(geometry), place / "control"
        folder.write_extended(source, plan, control, geometry=geometry)
        reference = Pair(checkpoint=source.path, control=control)
        longest = min(most_tokens, geometry.declared_length)
        ids = tuple(token_ids or drawn_ids(int(source.config.get("vocab_size", 256)), longest))[:longest]
        yield Bench(
            reference=reference,
            engine=reference if checkpoint.kind == "folder" else _patched(checkpoint, plan, place, progress),
            ids=ids,
            positions=positions_of(geometry.original_length, len(ids)),
            limit_seconds=limit_seconds,
            progress=progress,
        )


@contextmanager
def _place(parent: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards; what killed runs left beside it goes now, since a converted model is large."""
    for left in parent.glob(f"{PLACE}*") if parent else ():
        pid = left.name.removeprefix(PLACE).partition("-")[0]
        if pid.isdecimal() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PLACE}{os.getpid()}-", dir=parent) as made:
        yield Path(made)


def _converted(checkpoint: Checkpoint, place: Path, progress: Progress | None) -> Checkpoint:
    from ropewalk.hosts import gguf

    out = place / "checkpoint"
    gguf.convert(checkpoint.path, out, dtype="float32", progress=progress)
    return folder.open_checkpoint(out, weights=True)


def _patched(checkpoint: Checkpoint, plan: Plan, place: Path, progress: Progress | None) -> Pair:
    from ropewalk.hosts import gguf

    control = place / "control.gguf"
    gguf.write_patched(checkpoint.path, plan, control, progress=progress)
    return Pair(checkpoint=checkpoint.path, control=control)


def control_of(geometry: Geometry) -> Plan:
    """The same length by a changed base alone: NTK-aware, b * s^(d / (d - 2)), on every group that a plan changes.

    Where the checkpoint is not stretched, the base of a stretch of two.
    """
    length = max(geometry.declared_length, geometry.trained_length)
    stretch = length / geometry.original_length
    extended = {group.label for group in geometry.extended_groups}
    return Plan(
        method="abf",
        options={},
        kind="static",
        original_length=geometry.original_length,
        trained_length=geometry.trained_length,
        length=length,
        factor=stretch,
        groups={
            group.label: _rebased(group, max(stretch, 2.0)) if group.label in extended else None for group in geometry.groups
        },
    )


def _rebased(group: Group, stretch: float) -> Frequencies:
    base = group.origin_base if group.origin_base is not None else group.base
    assert base is not None
    dimensions = group.rotary_dim
    return Frequencies(inv_freq=geometric(base * stretch ** (dimensions / max(dimensions - 2, 1)), dimensions))


def positions_of(original_length: int, num_tokens: int) -> tuple[int, ...]:
    """Where to probe: half inside the original window and half beyond it, or all inside where the request ends there."""
    last = num_tokens - 1
    if last <= original_length:
        return tuple(sorted({int(one) for one in np.linspace(max(1, last // 8), last, NUM_POSITIONS)}))
    inside = np.linspace(original_length // 8, original_length - 1, NUM_POSITIONS // 2)
    beyond = np.linspace(original_length + 1, last, NUM_POSITIONS // 2)
    return tuple(sorted({int(one) for one in (*inside, *beyond)}))


def drawn_ids(vocabulary: int, length: int) -> tuple[int, ...]:
    """Token ids drawn from a fixed seed, repeated every `PERIOD`; int [length]."""
    once = np.random.default_rng(20).integers(0, vocabulary, size=min(PERIOD, length))
    return tuple(int(one) for one in np.resize(once, length))
