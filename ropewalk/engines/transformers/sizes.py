"""A transformers config dict to `Sizes`: what the arithmetic of memory needs of a dense model.

Only families whose layer is the one that the arithmetic counts: a norm, attention, a norm, an MLP. Experts, recurrent
layers, layers with four norms, and families that were not looked at are refused by name, because a wrong number of bytes
would refuse a run that fits.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.budget import Sizes
from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.engines.transformers.families import enter, field

DENSE = frozenset(("llama", "mistral", "qwen2", "smollm3", "granite", "phi3", "helium", "arcee", "seed_oss"))
"""Families of Llama's layer."""
UNGATED = frozenset(("arcee",))
"""Those of them whose MLP has no gate."""


def sizes(config: Mapping[str, Any]) -> Sizes:
    """The sizes that a config says. Raises `UnsupportedError` for a family whose memory is not known by arithmetic."""
    model_type, text, _ = enter(config)
    if model_type not in DENSE:
        raise UnsupportedError(
            f"the memory of {model_type} is not known by arithmetic; ropewalk tune SOURCE --longest measures it"
        )
    hidden, heads = _count(model_type, text, "hidden_size"), _count(model_type, text, "num_attention_heads")
    keys = field(model_type, text, "num_key_value_heads")
    size = field(model_type, text, "head_dim")
    size = size if isinstance(size, int) else hidden // heads
    return Sizes(
        hidden=hidden,
        intermediate=_count(model_type, text, "intermediate_size"),
        num_layers=_count(model_type, text, "num_hidden_layers"),
        num_heads=heads,
        query=heads * size,
        key=(keys if isinstance(keys, int) else heads) * size,
        vocabulary=_count(model_type, text, "vocab_size"),
        # What no config says is taken to be tied: fewer bytes, so that nothing is refused that fits.
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))),
        gated=model_type not in UNGATED,
    )


def _count(model_type: str, text: Mapping[str, Any], key: str) -> int:
    value = field(model_type, text, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"config.json says {key} {value!r}, and the memory of a run needs a whole number of at least 1")
    return value
