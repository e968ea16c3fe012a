"""A `Geometry` straight from GGUF metadata: what llama.cpp itself turns each layer by.

The way for every architecture whose code was read and that has no folder form here (`reading.FAMILIES` go through a
transformers config, so that a file and the folder made from it are one thing). Groups are llama.cpp's own layers, with the
numbers of `compute`; where a stretch came from is looked up in the table that folders use, by the model type that the
stock converter makes the architecture from.

Given up: what is no rotation (temperatures that grow with the position, sliding windows with heads of their own) is
refused by name; the softmax scale is that of the head size unless the file has one.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Geometry, Group, Vector, geometric
from ropewalk.core.plan import Frequencies
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES, INTERLEAVED, OF_MODEL_TYPE
from ropewalk.engines.llamacpp.compute import Layers, Scaling, layers_of
from ropewalk.engines.llamacpp.conversion import Refused
from ropewalk.engines.llamacpp.reading import DIVISORS, LONG, recognise_llama3
from ropewalk.engines.transformers import lineage

ORIGINAL = "original_max_position_embeddings"
NO_WORD: Mapping[str, tuple[Any, ...]] = {
    "attention.temperature_scale": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "rope.scaling.alpha": (0.0, 1.0),
}
"""Keys that change positions in a way that no plan has a word for, and the values under which they change nothing."""
OF_WINDOWS = {
    "rope.dimension_count_swa": "rope.dimension_count",
    "attention.key_length_swa": "attention.key_length",
}
"""Keys of sliding-window layers that must say what the other layers have."""
ALWAYS_TEMPERED = ("llama4",)
"""Architectures whose temperature grows with the position whatever the file says."""
SWITCHED_OFF = ("granite", "granitemoe")
"""Architectures that do not rotate where `rope.scaling.finetuned` is false."""


def geometry(metadata: Mapping[str, Any], factors: Mapping[str, Vector]) -> Geometry:
    """The positions of a file whose architecture is in `ARCHITECTURES`; `factors` as in `compute_metadata`.

    Our own block is not looked at. Raises `UnsupportedError` for what no plan has a word for, by name, and `SourceError`
    for a file that llama.cpp stops at.
    """
    name = str(metadata.get("general.architecture"))
    if name not in ARCHITECTURES:
        raise UnsupportedError(
            f"llama.cpp's code for architecture {name!r:.60} was not read; take the original checkpoint, or a file of "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )
    _refuse(metadata, name)
    try:
        scaling = Scaling(metadata, factors)
        layers = layers_of(scaling)
        num_heads = _heads(metadata, f"{name}.attention.head_count")
    except Refused as error:
        raise SourceError(f"{error}; get the file anew") from error
    except (OverflowError, ZeroDivisionError) as error:
        raise SourceError(f"the rope keys of this GGUF file give no numbers ({error}); get the file anew") from error
    values = _values(scaling, layers, factors)
    found = Geometry(
        model_type=name,
        scheme=str(values["rope_type"]),
        original_length=scaling.context,
        trained_length=scaling.context,
        declared_length=scaling.context,
        lineage="plain",
        num_layers=len(layers.words),
        num_heads=num_heads,
        num_kv_heads=_heads(metadata, f"{name}.attention.head_count_kv", num_heads),
        head_dim=_head_dim(metadata, name, num_heads, scaling.dim),
        groups=tuple(sorted(_groups(scaling, layers, num_heads), key=lambda group: (not group.rotated, bool(group.window)))),
    )
    return lineage.settle(found, _model_type(name, any(layers.windowed)), values)


def _refuse(metadata: Mapping[str, Any], name: str) -> None:
    for key, harmless in NO_WORD.items():
        value = metadata.get(f"{name}.{key}")
        if value is not None and (not isinstance(value, float) or value not in harmless):
            raise UnsupportedError(
                f"this GGUF file says {name}.{key} = {value!r:.40}, for which no plan has a word yet; take another model"
            )
    if name in ALWAYS_TEMPERED:
        raise UnsupportedError(
            f"llama.cpp lets the attention temperature of {name} grow with the position, for which no plan has a word yet; "
            "take another model"
        )
    if name in SWITCHED_OFF and metadata.get(f"{name}.rope.scaling.finetuned") is False:
        raise UnsupportedError(
            f"llama.cpp rotates nothing in this file: {name}.rope.scaling.finetuned is false; take another model"
        )
    for of_windows, of_all in OF_WINDOWS.items():
        value = metadata.get(f"{name}.{of_windows}")
        said = metadata.get(f"{name}.{of_all}")
        if value is not None and (type(value) is not int or type(said) is not int or value != said):
            raise UnsupportedError(
                f"this GGUF file says {name}.{of_windows} = {value!r:.40}: its sliding-window layers have heads of their "
                "own, which ropewalk does not read yet; take the original checkpoint"
            )


def _heads(metadata: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A number of heads; the largest where the file lists one for each layer."""
    value = metadata.get(key, default)
    if hasattr(value, "tolist"):
        value = max(value.tolist(), default=0)
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise SourceError(f"GGUF key {key} is {value!r:.40}, expected a number of heads; get the file anew")
    return value


def _head_dim(metadata: Mapping[str, Any], name: str, num_heads: int, rotary_dim: int) -> int:
    for key in ("attention.key_length_mla", "attention.key_length"):
        value = metadata.get(f"{name}.{key}")
        if type(value) is int and rotary_dim <= value <= 1 << 16:
            return value
    width = metadata.get(f"{name}.embedding_length")
    return max(rotary_dim, width // num_heads) if type(width) is int and width <= 1 << 24 else rotary_dim


def _model_type(name: str, windowed: bool) -> str:
    """The model type of transformers that the converter makes this architecture from; the last where they are several."""
    if name == "olmo2":
        return "olmo3" if windowed else "olmo2"
    return next((model_type for model_type, made in OF_MODEL_TYPE.items() if made == name), name)


def _values(scaling: Scaling, layers: Layers, factors: Mapping[str, Vector]) -> dict[str, Any]:
    """The scaling in the words that the table of lineages is kept in."""
    base, full = scaling.base, scaling.word(window=False)
    plain = Frequencies(inv_freq=geometric(base, scaling.dim))
    if full.difference(plain) <= 1e-7:
        return {"rope_type": "default", "rope_theta": base}
    if DIVISORS in factors and scaling.row.uses:
        found = recognise_llama3(factors[DIVISORS], base, (scaling.original, 8192))
        simple = scaling.factor == 1.0 and full.attention_factor == 1.0
        return found if found is not None and simple else {"rope_type": DIVISORS.removesuffix(".weight"), "rope_theta": base}
    said = {"rope_theta": base, "factor": scaling.factor, ORIGINAL: scaling.original}
    kind = "longrope" if layers.by_context and LONG in factors else scaling.kind
    if kind == "none" or (kind == "linear" and scaling.factor == 1.0):
        kind = "attn_factor"
    return {"rope_type": kind, **said}


def _groups(scaling: Scaling, layers: Layers, num_heads: int) -> list[Group]:
    metadata, name = scaling.metadata, scaling.architecture
    head_dim = _head_dim(metadata, name, num_heads, scaling.dim)
    window = metadata.get(f"{name}.attention.sliding_window")
    groups = []
    for label in dict.fromkeys(layers.labels):
        indices = tuple(layer for layer, said in enumerate(layers.labels) if said == label)
        word, inside = layers.words[indices[0]], [layers.windowed[layer] for layer in indices]
        common: dict[str, Any] = {
            "label": label,
            "layers": indices,
            "head_dim": head_dim,
            "softmax_scale": _softmax_scale(metadata, name, head_dim),
            "window": window if all(inside) and type(window) is int else None,
            "shared_with_window": any(inside) and not all(inside),
        }
        if word is None:
            groups.append(Group(position="none", **common))
            continue
        base = scaling.window_base if all(inside) else scaling.base
        groups.append(
            Group(
                position="mrope" if name == "qwen35" else "rope",
                layout="interleaved" if name in INTERLEAVED else "half",
                rotary_dim=scaling.dim,
                base=base,
                inv_freq=word.inv_freq,
                attention_factor=word.attention_factor,
                logit_scale=word.logit_scale,
                origin_inv_freq=geometric(base, scaling.dim),
                temperature_on="logits" if scaling.row.mla else "rotated",
                **common,
            )
        )
    return groups


def _softmax_scale(metadata: Mapping[str, Any], name: str, head_dim: int) -> float:
    said = metadata.get(f"{name}.attention.scale")
    return said if isinstance(said, float) and 0.0 < said < 1e6 else float(head_dim**-0.5)
