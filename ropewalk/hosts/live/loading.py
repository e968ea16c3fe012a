"""Loads a checkpoint as stock transformers does, the way its numbers survive.

Safetensors only, no remote code, and the dtype is given to the loader: `model.to(bfloat16)` would round the frequency
buffers, which the loader keeps in float32. A plan that the folder carries comes on with stock loading; it is read back and
compared with the config before the model is handed out.

Given up: pickled weights and repositories with their own code (see the errors for what to do).
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ropewalk.core.errors import InputError, SourceError, near
from ropewalk.hosts.live.carry import check_as_loaded, geometry_of
from ropewalk.hosts.live.places import places_of
from ropewalk.hosts.live.pretrained import check_attention, from_pretrained, model_from_pretrained
from ropewalk.hosts.live.tuning import load_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROCESSOR = Path("/proc/cpuinfo")
NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Flags of processors that multiply bfloat16 matrices themselves; `bf16` is what ARM calls it."""


def load(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    attention: str = "sdpa",
) -> tuple[Any, Any]:
    """The model in eval mode and its tokenizer, from a folder of safetensors weights.

    `dtype` `auto` is what `choose_dtype` says, `device` `auto` is CUDA where there is one. `attention` is a name that
    transformers knows; a family without `sdpa` (gpt-oss) gets `eager`, with a warning.

    Nothing is downloaded: whoever has a hub id fetches the folder first.

    Raises `InputError` for an unknown dtype, device or attention, `SourceError` where the weights are pickled, broken or
    incomplete or the tokenizer is missing, `UnsupportedError` for a family that is not supported, and `HostError` where the
    attention is not to be had or the loaded model does not use the numbers of its config.
    """
    where = choose_device(device)
    chosen = _dtype(dtype, where)
    check_attention(attention)
    if not Path(path).is_dir():
        raise SourceError(f"{path} is not a folder; a live model is loaded from a folder with config, weights and tokenizer")
    if (Path(path) / "adapter_config.json").is_file():
        return load_adapter(Path(path), dtype=chosen, device=where, attention=attention)
    tokenizer = from_pretrained(AutoTokenizer, path)
    model, notes = model_from_pretrained(path, attention=attention, dtype=chosen)
    missing = sorted(notes["missing_keys"])
    if missing:
        raise SourceError(
            f"{path} lacks {len(missing)} tensors of its model, the first is {missing[0]}; "
            "transformers would fill them with random numbers, so get the complete checkpoint"
        )
    model.to(where)
    geometry = geometry_of(model)
    check_as_loaded(places_of(model, geometry), geometry.declared_length)
    return model, tokenizer


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a folder alone. Raises `SourceError` where it is missing."""
    return from_pretrained(AutoTokenizer, path)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`device` itself; for `auto` CUDA if there is one, else the processor. Raises `InputError` for no device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device is auto or a torch device such as cpu or cuda:0, got {device!r}") from error
    try:
        # Whether this build and this machine have the device shows only when something is put there.
        torch.ones(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise InputError(f"device {str(device)!r} cannot be used here ({first}); say --device cpu or auto") from error
    return chosen


def choose_dtype(device: str | torch.device) -> tuple[torch.dtype, str]:
    """The dtype that runs well on `device`, and why: bfloat16 where it is computed natively, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"bfloat16: {torch.cuda.get_device_name(device)} has it natively"
        return torch.float32, f"float32: {torch.cuda.get_device_name(device)} has no native bfloat16"
    if kind == "cpu":
        native = [flag for flag in NATIVE_BFLOAT16 if flag in _processor_flags(PROCESSOR)]
        if native:
            return torch.bfloat16, f"bfloat16: this processor has it natively ({native[0]})"
        return torch.float32, "float32: this processor has no native bfloat16"
    return torch.float32, f"float32: native bfloat16 is not looked for on {kind}"


@cache
def _processor_flags(source: Path) -> frozenset[str]:
    """What the processor says it can do; empty where the system does not say."""
    try:
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    # x86 says `flags`, ARM says `Features`; every core says the same.
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return choose_dtype(device)[0]
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; {near(dtype, ['auto', *DTYPES])}")
    return DTYPES[dtype]
