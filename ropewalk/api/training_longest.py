"""The longest row that fits: the question as it was asked, checked, and the answer in words."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.api.checkpoints import need
from ropewalk.api.training_memory import free_on, parse_memory
from ropewalk.api.training_request import Request, check_windows, request
from ropewalk.core.budget import GIGABYTE
from ropewalk.core.errors import InputError, MachineError
from ropewalk.core.plan import parse_length
from ropewalk.core.progress import Progress

if TYPE_CHECKING:
    from ropewalk.tune.longest import Longest

IDLE = (
    "positions", "chunks", "learning_rate", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2", "alpha", "seed",
    "save_every",
)  # fmt: skip
"""Settings that cost no memory."""


def longest(
    source: str | Path, *, length: int | str | None = None, memory: int | str | None = None, confirm: bool = True,
    device: str = "auto", dtype: str = "auto", progress: Progress | None = None, **settings: Any,
) -> "Longest":  # fmt: skip
    """The longest row that a training of `source` has memory for: a few layers are measured, the whole is extrapolated, and
    one real step confirms it.

    `memory` is what may be taken, such as `24G` (default: nine tenths of what is free on the device). With a `length`
    nothing longer is tried. `settings` are the fields of `ropewalk.tune.settings.Settings` that cost memory: `recipe`,
    `batch_size`, `accumulate`, `attention`, `checkpoint_every`, `rank`, ... Nothing is written.

    Raises `InputError` and its kind for what cannot run, `MachineError` where not even a few layers can be measured.
    """
    need("tune", "torch", "transformers", "accelerate", "safetensors")
    from ropewalk.tune.longest import Search
    from ropewalk.tune.measured import plain

    wanted = None if length is None else parse_length(length)
    shown = progress or Progress()
    asked = _asked(source, wanted, device=device, dtype=dtype, **settings)
    reads = asked.reads
    limit = parse_memory(memory) if memory is not None else free_on(asked.device)
    if limit is None:
        raise InputError(f"how much memory is free on {asked.device} cannot be known here; give --memory, such as 24G")
    found = Search(
        source=asked.checkpoint.path, settings=plain(asked.settings), num_layers=reads.num_layers,
        layer_types=_types(asked.checkpoint.config, reads.num_layers), device=str(asked.device), bfloat16=asked.bfloat16,
        limit_bytes=limit if memory is not None else limit * 9 // 10, wanted=wanted, confirm=confirm,
        progress=shown,
    ).find()  # fmt: skip
    if asked.switch is not None and 0 < found.length <= asked.switch:
        shown.say(
            f"rows of {found.length} tokens never pass the old length of {asked.switch}, and a plan of two regimes is not "
            "trained on such rows"
        )
    return found


def _asked(source: str | Path, wanted: int | None, **settings: Any) -> Request:
    """The training of which the longest row is looked for, checked on rows of the length that is wanted, or of what the
    source reads: shorter ones would pass what no longer row does, and fail what only they do."""
    from ropewalk.hosts import folder
    from ropewalk.tune.longest import LONGEST_ROW
    from ropewalk.tune.settings import Settings

    reads = folder.geometry_of(folder.open_checkpoint(source, weights=True))
    # Without a plan a source is trained at no more than it reads.
    row = length = max(reads.declared_length, 64)
    if wanted is not None:
        row = min(wanted, length)
    if settings.get("recipe") == "prefix":
        before = settings.get("num_virtual_tokens", Settings.num_virtual_tokens)
        row = max(2, min(row, length - before))
    asked = request(source, length=length, window=row, steps=1, rows_known=False, **settings)
    check_windows(asked.reads, asked.settings.attention, wanted or max(length, LONGEST_ROW))
    return asked


def memory_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of a run those that cost memory, defaults included: two runs with the same take it alike."""
    from ropewalk.tune.settings import Settings

    defaults = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    asked = {**defaults, **options}
    # The second pass finds the gradients of the first, and so does every later one.
    asked["accumulate"] = min(asked["accumulate"], 2)
    return {name: value for name, value in asked.items() if name not in IDLE}


def _types(config: Any, num_layers: int) -> tuple[str, ...]:
    """The kinds of the layers as the config lists them, alike where it lists none."""
    text = config.get("text_config") or config
    listed = text.get("layer_types")
    return tuple(map(str, listed)) if isinstance(listed, list) else ("layer",) * num_layers


def told(found: "Longest") -> str:
    """The answer in a few lines."""
    lines = [
        f"measured      {len(found.points)} steps of {min(p.num_layers for p in found.points)} and "
        f"{max(p.num_layers for p in found.points)} layers; one token costs {found.bytes_per_token / 1000:.1f} KB",
        f"extrapolated  rows of {found.length} tokens take {found.extrapolated_bytes / GIGABYTE:.2f} GB "
        f"of {found.limit_bytes / GIGABYTE:.2f}",
    ]
    for one in found.tried:
        how = "fits" if one["ended"] == "done" else f"does not fit ({one['ended']})"
        lines.append(
            f"tried         {one['length']} tokens: {how}, {one['peak_bytes'] / GIGABYTE:.2f} GB, {one['seconds']:.0f} s"
        )
    if found.confirmed_bytes is not None:
        lines.append(f"confirmed     one real step took {found.confirmed_bytes / GIGABYTE:.2f} GB and {found.seconds:.0f} s")
    else:
        lines.append("confirmed     no real step")
    lines.append(f"longest       {found.length}")
    return "\n".join(lines)


def check_found(found: "Longest") -> None:
    """Raises `MachineError` where no row fits at all."""
    if not found.length:
        from ropewalk.tune.longest import advice

        raise MachineError(
            f"no row fits into {found.limit_bytes / GIGABYTE:.1f} GB; {advice(found.recipe, 'a smaller --batch-size')}"
        )
