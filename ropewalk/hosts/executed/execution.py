"""`verify --execute`: a checkpoint in the engines that are installed, held against transformers on the same checkpoint.

Each engine runs the checkpoint and a control: the same weights with the context stretched by a changed base, the one
spelling that no engine can misread. What an engine's kernels and dtype cost shows in the control; an engine is `exact` when
the checkpoint costs at most twice that. The probes must also be able to tell: the control's numbers, taken for the
checkpoint's, must be further off by a margin.

Token ids are drawn once from a seed and repeated: what comes next can then be known from what came before, at a distance,
so it hangs on positions, and no tokenizer is needed. Given up: real text, and lengths beyond `MOST_TOKENS`.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.core.errors import HostError, UnsupportedError
from ropewalk.core.geometry import Geometry, Group, geometric
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.core.progress import Progress
from ropewalk.engines.verdicts import Status, Verdict, chosen
from ropewalk.hosts import folder
from ropewalk.hosts.executed.child import Answer, Probe, probe
from ropewalk.hosts.executed.divergence import kl
from ropewalk.hosts.executed.environments import OLDEST, PACKAGES, python_of

MOST_TOKENS = 10_240
"""Longest request, tokens: ten thousand tokens are a minute on two cores for a model of 135M weights."""
NUM_POSITIONS = 16
TIMES_CONTROL = 2.0
"""An engine is `exact` up to this many times the control's divergence."""
MARGIN = 5.0
"""The control, taken for the checkpoint, must be at least this many times further off than the engine is."""
ROUNDING = 1e-5
"""Nats that are nothing: what float32 in another order costs between two engines, and what hangs on single positions."""
PERIOD = 1009
"""Tokens after which the drawn ids repeat; a prime, so that no stride of an engine's blocks falls on it."""
DTYPES = {"transformers": "float32", "vllm": "bfloat16"}
"""Engine to the dtype it is run in; its reference is run in the same."""


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What all engines share: one checkpoint, its control, and the probes."""

    plan: Path
    control: Path
    ids: tuple[int, ...]
    positions: tuple[int, ...]

    def ask(self, engine: str, path: Path, dtype: str) -> Answer:
        return probe(engine, Probe(checkpoint=path, token_ids=self.ids, positions=self.positions, dtype=dtype))


def execute(
    path: str | Path, engines: Sequence[str] | None = None, *, progress: Progress | None = None,
    token_ids: Sequence[int] | None = None, most_tokens: int = MOST_TOKENS,
) -> list[dict[str, Any]]:  # fmt: skip
    """A verdict for each engine, as `verify --json` shows them, with `how` = `executed`; all engines without `engines`.

    An engine that is not installed, or that cannot run here, is `unsupported`, which says nothing of the checkpoint. Raises
    `InputError` for an unknown engine, `SourceError` for a broken source, `UnsupportedError` for a source that is no folder
    with weights, and `MachineError` where transformers, which every engine is held against, is missing or fails.
    """
    names = chosen(engines)
    checkpoint = folder.open_checkpoint(path, weights=True)
    if checkpoint.kind != "folder":
        raise UnsupportedError(
            f"{checkpoint.path} is a {checkpoint.kind}, and engines are executed on folders with weights; "
            "make one of a GGUF file with ropewalk convert"
        )
    geometry = folder.geometry_of(checkpoint)
    # Beside the checkpoint the control's weights are hard links; elsewhere they may have to be copied.
    beside = checkpoint.path.parent if os.access(checkpoint.path.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ropewalk-executed-", dir=beside) as place:
        control = Path(place) / "control"
        folder.write_extended(checkpoint, control_of(geometry), control, geometry=geometry)
        longest = min(most_tokens, geometry.declared_length)
        ids = tuple(token_ids or drawn_ids(int(checkpoint.config.get("vocab_size", 256)), longest))[:longest]
        bench = _Bench(
            plan=checkpoint.path, control=control, ids=ids, positions=positions_of(geometry.original_length, len(ids))
        )
        return [_row(bench, name, progress).to_dict() for name in names]


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


def judge(own: float, control: float, apart: float) -> tuple[Status, str]:
    """Status and reason from three mean divergences in nats: the checkpoint's, the control's, and the control's numbers
    taken for the checkpoint's."""
    said = f"mean KL to transformers {own:.1e} nats, control {control:.1e}"
    if own > max(TIMES_CONTROL * control, ROUNDING):
        return "differs", f"{said}: more than {TIMES_CONTROL:g} times the control"
    if apart < MARGIN * max(own, ROUNDING):
        return "unsupported", f"{said}; the probes cannot tell the checkpoint from its control ({apart:.1e})"
    return "exact", f"{said}; the control taken for the checkpoint is {apart:.1e} off"


def _row(bench: _Bench, engine: str, progress: Progress | None) -> Verdict:
    """One engine's verdict; transformers, which is the reference, is judged by its oldest supported release."""
    ran = OLDEST if engine == "transformers" else engine
    if engine not in PACKAGES or engine == "llama.cpp":
        reads = "it reads GGUF files, not folders" if engine == "llama.cpp" else "ropewalk has no probe for it"
        return _said(engine, "", "unsupported", f"not executed: {reads}", "read its verdict without --execute")
    if python_of(ran) is None:
        return _said(engine, "", "unsupported", "not executed: it is not installed here", "set it up with make engines")
    dtype = DTYPES[engine]
    with progress.task(f"{engine} on {bench.plan.name}") if progress else nullcontext():
        reference, moved = (bench.ask("transformers", path, dtype) for path in (bench.plan, bench.control))
        try:
            own, control = (bench.ask(ran, path, dtype) for path in (bench.plan, bench.control))
        except HostError as error:
            return _said(engine, "", "refuses", str(error), "read its verdict without --execute, which says what it refuses")
    status, reason = judge(
        _mean(reference, own),
        _mean(moved, control),
        float(kl(reference.log_probabilities, control.log_probabilities).mean()),
    )
    version = f"{own.version}, {dtype}, against transformers {reference.version}"
    return _said(
        engine, version, status, reason, "" if status == "exact" else "compare it with its verdict without --execute"
    )


def _mean(reference: Answer, engine: Answer) -> float:
    return float(kl(reference.log_probabilities, engine.log_probabilities).mean())


def _said(engine: str, version: str, status: Status, reason: str, mend: str) -> Verdict:
    return Verdict(engine=engine, version=version, status=status, reason=reason, mend=mend, how="executed")
