"""What llama.cpp's architectures do differently with positions: one row for each whose source was read.

Read in llama.cpp at commit 0c1e57098 (October 2026): `load_arch_hparams`, `load_arch_tensors` and the graph of each. What
matters is which factor tensors an architecture *loads* (a tensor that it does not load makes it refuse the file) and which
of them its graph *uses* (falcon-h1, llada and pangu-embed load divisors and rotate without them), what its sliding-window
layers turn by, and whether it reads YaRN's optional keys at all.

Given up: architectures that are not here. Their code may use any of these keys in a way of its own, so nothing is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Loads = Literal["none", "divisors", "divisors-or-longrope", "longrope"]
"""`divisors`: `rope_freqs`, always. `divisors-or-longrope`: that, but under type longrope `rope_factors_long/short` and
nothing else. `longrope`: those two under every type, and never `rope_freqs`."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """In what an architecture differs from qwen2, which is all defaults."""

    loads: Loads = "none"
    uses: bool = True
    """Whether its graph rotates with the factors that it loads."""
    window: Literal["same", "own", "plain"] = "same"
    """What sliding-window layers turn by. `same`: as the others do, on `rope.freq_base_swa` where the file has it. `own`:
    base 10000 unless that key is there, unscaled, but with `attn_factor`. `plain`: the others' base and nothing else."""
    period: int = 0
    """One in so many layers sees the whole text, unless the file says otherwise; 0 without sliding windows."""
    no_rope_period: int = 0
    """One in so many layers is not rotated; 0 where all are."""
    betas: bool = False
    """Whether it reads YaRN's betas."""
    beta_fast: float = 32.0
    log_multiplier: Literal["", "plain", "tenth"] = ""
    """How it reads `yarn_log_multiplier`, which is mscale_all_dim, or a tenth of it."""
    mla: bool = False
    """Multi-head latent attention, whose softmax scale is multiplied by the square of a temperature."""
    recurrent: str = ""
    """The label of its recurrent layers."""
    whole: bool = False
    """Whether it stops at heads of which only a part is rotated."""
    labels: tuple[str, str] = ("all", "all")
    """What the layers that see the whole text and the windowed ones are called in a geometry."""


_LLAMA = Architecture(loads="divisors-or-longrope")
_WHOLE = Architecture(loads="divisors-or-longrope", whole=True)
_TYPED = ("full_attention", "sliding_attention")

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _WHOLE,
    "deci": _WHOLE,
    "granite": _LLAMA,
    "granitemoe": _LLAMA,
    "minicpm": _LLAMA,
    "apertus": _LLAMA,
    "mistral3": Architecture(loads="divisors-or-longrope", betas=True, log_multiplier="plain"),
    "llama4": Architecture(loads="divisors", no_rope_period=4, labels=("rope", "rope")),
    "arcee": Architecture(loads="divisors"),
    "exaone": Architecture(loads="divisors"),
    "nanbeige": Architecture(loads="divisors"),
    "falcon-h1": Architecture(loads="divisors", uses=False),
    "llada": Architecture(loads="divisors", uses=False),
    "pangu-embedded": Architecture(loads="divisors-or-longrope", uses=False),
    "phi3": Architecture(loads="longrope"),
    "phimoe": Architecture(loads="longrope"),
    "qwen2": Architecture(),
    "qwen2moe": Architecture(),
    "qwen3": Architecture(),
    "qwen3moe": Architecture(),
    "qwen35": Architecture(recurrent="linear_attention", labels=("full_attention", "full_attention")),
    "falcon": Architecture(whole=True),
    "gptneox": Architecture(),
    "phi2": Architecture(),
    "stablelm": Architecture(),
    "starcoder2": Architecture(),
    "olmo": Architecture(),
    "olmo2": Architecture(window="plain", period=4, labels=_TYPED),
    "gemma": Architecture(),
    "gemma2": Architecture(period=2),
    "gemma3": Architecture(window="own", period=6, labels=_TYPED),
    "gpt-oss": Architecture(period=2),
    "smollm3": Architecture(no_rope_period=4, labels=("rope", "rope")),
    "deepseek2": Architecture(mla=True, log_multiplier="tenth"),
}
"""llama.cpp's `general.architecture` to its row."""

INTERLEAVED = (
    "llama", "deci", "granite", "granitemoe", "minicpm", "mistral3", "llama4", "arcee", "nanbeige", "llada", "olmo",
    "smollm3", "deepseek2",
)  # fmt: skip
"""Architectures whose files hold rotated pairs next to each other (`LLAMA_ROPE_TYPE_NORM`)."""

OF_MODEL_TYPE: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "qwen3_5_text": "qwen35",
    "gpt_neox": "gptneox",
    "phi": "phi2",
    "phi3": "phi3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "granite": "granite",
    "gpt_oss": "gpt-oss",
    "smollm3": "smollm3",
    "llama4_text": "llama4",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
}
"""A transformers model type (of the text part) to the architecture that the stock converter writes."""


def windowed(architecture: str, metadata: Mapping[str, Any]) -> list[bool]:
    """Which layers llama.cpp takes for sliding-window layers with numbers of their own, [block_count]."""
    row = ARCHITECTURES[architecture]
    num_layers = _whole(metadata.get(f"{architecture}.block_count"), 1)
    window = metadata.get(f"{architecture}.attention.sliding_window")
    if not row.period or type(window) is not int or not window:
        return [False] * num_layers
    pattern = metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray | list | tuple):
        flags = [bool(flag) for flag in pattern][:num_layers]
        return flags + [False] * (num_layers - len(flags))
    period = _whole(pattern, row.period)
    return [(layer + 1) % period != 0 for layer in range(num_layers)]


def _whole(value: Any, default: int) -> int:
    return value if type(value) is int and 1 <= value <= 10_000 else default
