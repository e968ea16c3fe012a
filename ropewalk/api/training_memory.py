"""What fits by arithmetic: a run that cannot is refused before any work. What does fit is measured in `training_longest`."""

from typing import Any

from ropewalk.core.budget import GIGABYTE, Training, budget, tokens_within, without_runtime
from ropewalk.core.errors import InputError, LengthError, UnsupportedError

OPTIMIZERS = {"adamw_torch": 8, "adamw_torch_fused": 8, "rmsprop": 4, "adagrad": 4, "adafactor": 0, "sgd": 0}
"""Bytes that an optimizer of transformers keeps for a trained parameter, at least; Adafactor's are rows and columns."""
LOW_RANK = ("lora", "dora", "rslora")
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
LEAST = 10**6
"""A number of bytes below this was meant in another unit."""


def check_fits(config: Any, settings: Any, device: Any, *, bfloat16: bool, optimizer: str | None = None) -> None:
    """Raises `LengthError` for rows that cannot fit into what is free now, by arithmetic that leaves out the process itself
    and what an allocator wastes: what passes it may still be too much, what it refuses is. Families whose memory is not
    known by arithmetic pass, and so do optimizers (`optim` of transformers; None is AdamW)."""
    from ropewalk.engines.transformers.sizes import sizes

    free = free_on(device)
    named = "adamw_torch" if optimizer is None else optimizer.lower().rpartition(".")[2]
    if free is None or settings.recipe == "qlora" or named not in OPTIMIZERS:
        return
    try:
        found = sizes(config)
    except UnsupportedError:
        return
    training = training_of(settings, device, bfloat16=bfloat16, optimizer_bytes=OPTIMIZERS[named])
    rows, window = settings.batch_size, max(stage.window for stage in settings.stages)
    needed = without_runtime(budget(found, training, rows * window))
    if needed.total <= free:
        return
    fits = tokens_within(free, found, training, step=rows * 1024) // rows
    instead = f"rows of {fits} tokens would fit" if fits else f"even rows of {min(1024, window)} tokens would not fit"
    ways = [f"--window {fits}"] * bool(fits) + ["a smaller --batch-size"] * (rows > 1) + ["a recipe that trains less"]
    raise LengthError(
        f"{rows} x {window} tokens in a pass take at least {needed.total / GIGABYTE:.1f} GB ({needed.words()}), and "
        f"{free / GIGABYTE:.1f} GB are free on {device}: {instead}; give {' or '.join(ways)}, and ropewalk "
        "tune SOURCE --longest measures what fits"
    )


def training_of(settings: Any, device: Any, *, bfloat16: bool, optimizer_bytes: int = 8) -> Training:
    """What of the settings decides the bytes. Of adapters that are no LoRA the frozen base alone is counted."""
    return Training(
        recipe=settings.recipe if settings.recipe in ("full", "longlora") else "lora",
        rank=settings.rank if settings.recipe in ("longlora", *LOW_RANK) else 0, half=bfloat16,
        checkpoint_every=settings.checkpoint_every, selective=settings.checkpoint == "selective",
        accumulated=settings.accumulate > 1, offload=settings.offload and str(device) != "cpu",
        optimizer_bytes=optimizer_bytes,
    )  # fmt: skip


def parse_memory(text: int | str) -> int:
    """Bytes as people write them: `24G` and `24GB` are 24 * 10^9, `24Gi` and `24GiB` 24 * 2^30, a number is bytes. Raises
    `InputError`."""
    body = str(text).strip().lower().removesuffix("b")
    binary, body = body.endswith("i"), body.removesuffix("i")
    power = POWERS.get(body[-1:], 0)
    try:
        found = int(float(body[:-1] if power else body) * (1024 if binary else 1000) ** power)
    except (ValueError, OverflowError):
        found = 0
    if found < 1 or (not power and (binary or found < LEAST)):
        raise InputError(f"memory looks like 24G, 24GiB or 512M, got {text!r}")
    return found


def free_on(device: Any) -> int | None:
    """Bytes free on a device, None where that cannot be known."""
    from ropewalk.hosts.watched import free_bytes

    if str(device).startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_bytes() if str(device) == "cpu" else None
