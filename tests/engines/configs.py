"""Configs of one small llama with one thing changed, and engines made up for the judge."""

from collections.abc import Callable, Mapping
from typing import Any

from ropewalk.core.plan import Frequencies
from ropewalk.engines.computed import Computed
from ropewalk.engines.reference import reference_of

LENGTH = 8192
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "max_position_embeddings": LENGTH,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": LENGTH,
    "rope_theta": 1e5,
}


def llama(**fields: Any) -> dict[str, Any]:
    """A llama with `fields` over the plain ones; a base at the top where no other is said."""
    base = {} if "rope_parameters" in fields or "rope_theta" in fields else {"rope_theta": 1e5}
    return {**LLAMA, **base, **fields}


def yarn(**fields: Any) -> dict[str, Any]:
    """A llama stretched by YaRN, four times, spelled as it should be; `fields` go into its rope parameters."""
    return llama(rope_parameters={**YARN, **fields}, max_position_embeddings=4 * LENGTH)


def longrope(short: float = 1.0, long: float = 4.0, **fields: Any) -> dict[str, Any]:
    """A llama with two regimes."""
    lists = {"short_factor": [short] * 32, "long_factor": [long] * 32}
    section = {"rope_type": "longrope", "rope_theta": 1e5, "original_max_position_embeddings": LENGTH, **lists, **fields}
    return llama(rope_parameters=section, max_position_embeddings=4 * LENGTH)


def engine(config: Mapping[str, Any], change: Callable[[Frequencies], Frequencies], **fields: Any) -> Any:
    """An engine that computes what the reference of `config` says, changed."""
    plan = reference_of(config)

    def compute(length: int) -> Computed:
        groups = {label: None if word is None else change(word) for label, word in plan.at(length).groups.items()}
        return Computed(**{"engine": "stub", "versions": "1", "groups": groups, "max_length": None, **fields})

    return compute
