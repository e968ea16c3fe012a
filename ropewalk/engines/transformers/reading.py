"""A transformers config dict to `Geometry`: what the model that stock transformers would build does with positions.

Steps: find the family, fill in class defaults, make one spelling of the two, compute each group's numbers, settle where
the stretch came from. Our own `ropewalk` block, where there is one, knows the last better than any table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Finding, Geometry, Group
from ropewalk.core.plan import LONGEST
from ropewalk.engines.transformers import block, formulas, lineage
from ropewalk.engines.transformers.checks import check_fields, check_nested
from ropewalk.engines.transformers.families import (
    FAMILIES,
    Family,
    enter,
    field,
    layer_types,
    name_of,
    rotated_layers,
)
from ropewalk.engines.transformers.formulas import Head
from ropewalk.engines.transformers.refusals import refusals, unread
from ropewalk.engines.transformers.spellings import FULL, SLIDING, Parameters, standardise

MOST = {"num_hidden_layers": 10_000} | dict.fromkeys(
    ("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "qk_rope_head_dim", "qk_nope_head_dim"), 2**20
)
"""Beyond this a count in a config is taken for damage; other counts are lengths, bounded by `LONGEST`."""
_LEGACY_TYPES = {"attention": FULL, "mamba": "linear_attention"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The fields of a config that positions depend on, class defaults filled in."""

    model_type: str
    """Of the text part."""
    family: Family
    text: Mapping[str, Any]
    declared: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    """Of a query head, rotated or not."""
    rope_head_dim: int
    """What may be rotated of it."""
    full_head_dim: int
    """Of a query head in a full-attention layer; another number than `head_dim` in Gemma 4."""
    softmax_scale: float
    window: int | None
    types: tuple[str, ...]
    """Layer types, [num_layers]."""
    rotated: tuple[bool, ...]
    """Which layers rotate, [num_layers]."""


def read(config: Mapping[str, Any]) -> Geometry:
    """The geometry of a config dict, as `config.json` holds it, in the v5 or the v4 spelling.

    Raises `UnsupportedError` for a family, a scheme or a temperature that is not supported, by name, and `SourceError` for
    fields that are missing or make no sense.
    """
    shape = measure(config)
    params = parameters(shape)
    groups = make_groups(shape, params, shape.declared)
    before = make_groups(shape, params, None)
    values = main_parameters(params)
    rotated = any(group.rotated for group in groups)
    geometry = Geometry(
        model_type=str(config["model_type"]),
        scheme=str(values["rope_type"]) if rotated else "none",
        original_length=shape.declared,
        trained_length=shape.declared,
        declared_length=shape.declared,
        lineage="plain",
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        groups=groups,
        varies=values["rope_type"] == "dynamic" or _differ(groups, before),
        findings=(*params.findings, *_chunk_findings(shape), *refusals(config), *unread(config)),
    )
    known = block.find(config)
    if known is None:
        return lineage.settle(geometry, shape.model_type, values)
    return block.settle(geometry, known)


def parameters(shape: Shape) -> Parameters:
    """The rope parameters of a config, whichever way they are spelled."""
    return standardise(shape.model_type, shape.text, shape.declared, list(shape.types))


def groups_at(config: Mapping[str, Any], length: int) -> tuple[Group, ...]:
    """The groups with the numbers that a model of this config uses for a text of `length` tokens."""
    shape = measure(config)
    return make_groups(shape, parameters(shape), length)


def measure(config: Mapping[str, Any]) -> Shape:
    """The fields that positions depend on. Raises as `read` does."""
    check_nested(config)
    model_type, text, _ = enter(config)
    check_fields(text)
    family = FAMILIES[model_type]
    if family.temperature_tuning and field(model_type, text, "attn_temperature_tuning"):
        raise UnsupportedError(
            f"{model_type} has an attention temperature that grows with the position (attn_temperature_tuning), which no "
            "word of a plan says yet, so it is refused; leave the field as it is: without it this is another model"
        )
    if family.full_head_dim and text.get("use_bidirectional_attention") == "all":
        raise UnsupportedError(
            f"this {model_type} attends in both directions (use_bidirectional_attention), which is not read yet; "
            "only decoders are"
        )
    num_layers, num_heads = (_count(model_type, text, k) for k in ("num_hidden_layers", "num_attention_heads"))
    kv_heads = field(model_type, text, "num_key_value_heads")
    if family.mla:
        rope_dim = _count(model_type, text, "qk_rope_head_dim")
        head_dim = rope_dim + _count(model_type, text, "qk_nope_head_dim")
    else:
        given = field(model_type, text, "head_dim")
        head_dim = _count(model_type, text, "head_dim") if given else _count(model_type, text, "hidden_size") // num_heads
        if head_dim < 2:
            raise SourceError(
                f"config.json gives a head {head_dim} dimensions (hidden_size over heads), expected at least 2"
            )
        rope_dim = head_dim
    window = _window(model_type, family, text)
    types = _types(model_type, text, num_layers, window)
    return Shape(
        model_type=model_type,
        family=family,
        text=text,
        declared=_count(model_type, text, "max_position_embeddings"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads if kv_heads is None else _count(model_type, text, "num_key_value_heads"),
        head_dim=head_dim,
        rope_head_dim=rope_dim,
        full_head_dim=_full_head_dim(family, text, types, head_dim),
        softmax_scale=_softmax_scale(model_type, family, text, head_dim),
        window=window,
        types=types,
        rotated=_rotated(model_type, text, types, window),
    )


def make_groups(shape: Shape, params: Parameters, length: int | None) -> tuple[Group, ...]:
    """The groups of layers with the numbers they use for a text of `length` tokens (None: before any text)."""
    family, groups = shape.family, []
    free = tuple(i for i in range(shape.num_layers) if not shape.rotated[i] or shape.types[i] == family.recurrent)
    if family.typed:
        for label in (FULL, SLIDING):
            layers = tuple(i for i in range(shape.num_layers) if shape.types[i] == label)
            if layers:
                groups.append(_rotating(shape, params, label, label, layers, length))
    else:
        layers = tuple(i for i in range(shape.num_layers) if i not in free)
        label = "all" if not free else FULL if family.recurrent else "rope"
        if layers:
            groups.append(_rotating(shape, params, label, FULL, layers, length))
    if free:
        recurrent = all(shape.types[i] == family.recurrent for i in free)
        groups.append(Group(position="none", **_common(shape, str(family.recurrent) if recurrent else "none", free)))
    return tuple(sorted(groups, key=lambda group: not group.rotated))


def _rotating(
    shape: Shape, params: Parameters, label: str, layer_type: str, layers: tuple[int, ...], length: int | None
) -> Group:
    shape = of_type(shape, layer_type)
    family, values = shape.family, params.of(layer_type)
    head = head_of(shape, params.truncate)
    inv_freq, attention_factor = formulas.compute(values, head, length)
    plain, _ = formulas.compute(_unscaled(values), head)
    return Group(
        position="mrope" if family.mrope else "rope",
        layout=_layout(shape),
        rotary_dim=formulas.rotary_dim(values, head),
        base=float(values["rope_theta"]),
        inv_freq=inv_freq,
        attention_factor=attention_factor,
        logit_scale=formulas.logit_scale(values) if family.mla else 1.0,
        origin_inv_freq=plain,
        temperature_on="logits" if family.mla else "rotated",
        **_common(shape, label, layers),
    )


def of_type(shape: Shape, layer_type: str) -> Shape:
    """The shape as layers of one type have it."""
    if layer_type != FULL or shape.full_head_dim == shape.head_dim:
        return shape
    return replace(shape, head_dim=shape.full_head_dim, rope_head_dim=shape.full_head_dim)


def head_of(shape: Shape, truncate: bool) -> Head:
    """What the formulas need beside the rope parameters."""
    return Head(
        head_dim=shape.rope_head_dim, partial=shape.family.partial, declared_length=shape.declared, truncate=truncate
    )


def _common(shape: Shape, label: str, layers: tuple[int, ...]) -> dict[str, Any]:
    """The fields of a group that have nothing to do with frequencies."""
    everywhere = shape.family.window == "all"
    windowed = [shape.window is not None and (everywhere or shape.types[i] == SLIDING) for i in layers]
    return {
        "label": label,
        "layers": layers,
        "head_dim": shape.head_dim,
        "softmax_scale": shape.softmax_scale,
        "window": shape.window if all(windowed) else None,
        "shared_with_window": any(windowed) and not all(windowed),
    }


def _unscaled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters without a stretch. A proportional vector keeps its shape."""
    kind = "proportional" if values["rope_type"] == "proportional" else "default"
    kept = {"rope_theta": values["rope_theta"], "partial_rotary_factor": values.get("partial_rotary_factor")}
    return {"rope_type": kind, **kept}


def _layout(shape: Shape) -> Any:
    key = shape.family.interleave_key
    if key is None:
        return shape.family.layout
    return "interleaved" if field(shape.model_type, shape.text, key) else "half"


def main_parameters(params: Parameters) -> dict[str, Any]:
    """The parameters of the layers that see the whole text."""
    return params.of(FULL if FULL in params.by_type or "" in params.by_type else SLIDING)


def _differ(groups: tuple[Group, ...], before: tuple[Group, ...]) -> bool:
    return any(
        a.inv_freq is not None and b.inv_freq is not None and not np.array_equal(a.inv_freq, b.inv_freq)
        for a, b in zip(groups, before, strict=True)
    )


def _chunk_findings(shape: Shape) -> tuple[Finding, ...]:
    chunk = field(shape.model_type, shape.text, "attention_chunk_size") if shape.family.chunked else None
    rotated = [kind for kind, flag in zip(shape.types, shape.rotated, strict=True) if flag]
    if not chunk or chunk >= shape.declared or any(kind != "chunked_attention" for kind in rotated):
        return ()
    return (
        Finding(
            field="attention_chunk_size",
            severity="warning",
            problem=f"rotated layers attend inside chunks of {chunk} tokens, so none of them sees a longer distance",
            mend="expect nothing from other frequencies while layers are chunked",
        ),
    )


def _count(model_type: str, text: Mapping[str, Any], key: str) -> int:
    value = field(model_type, text, key)
    most = MOST.get(key, LONGEST)
    # The bounds come first: neither NaN nor infinity has a whole number near it.
    inside = isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= most
    if not inside or value != int(value):
        raise SourceError(
            f"config.json has {name_of(model_type, key)} = {value!r:.40}, expected a whole number from 1 to {most}"
        )
    return int(value)


def _window(model_type: str, family: Family, text: Mapping[str, Any]) -> int | None:
    if family.window == "none" or field(model_type, text, "sliding_window") is None:
        return None
    if family.window_switch and not field(model_type, text, "use_sliding_window"):
        return None
    window = _count(model_type, text, "sliding_window")
    return max(window // 2, 1) if family.halved_window else window


def _full_head_dim(family: Family, text: Mapping[str, Any], types: Sequence[str], head_dim: int) -> int:
    """The size of heads in full-attention layers, from a field of its own or, as newer releases save it, layer by layer."""
    if family.full_head_dim is None or FULL not in types:
        return head_dim
    key, usual = family.full_head_dim
    listed, size = text.get("per_layer_config"), text.get(key, usual)
    if listed is not None:
        own = _own_head_dims(listed, len(types), head_dim)
        size = own[types.index(FULL)]
        if any(dim != (size if kind == FULL else head_dim) for dim, kind in zip(own, types, strict=True)):
            raise UnsupportedError(
                "per_layer_config gives layers of one type heads of several sizes, which ropewalk does not read yet"
            )
    if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= MOST["head_dim"]:
        raise SourceError(f"config.json has {key} = {size!r:.40}, expected a whole number from 2 to {MOST['head_dim']}")
    return size


def _own_head_dims(listed: Any, num_layers: int, head_dim: int) -> list[Any]:
    """The head size of each layer, [num_layers]. Layers are named by their index, with zeros before it where it is saved."""
    found: list[Any] = [head_dim] * num_layers
    for key, own in listed.items() if isinstance(listed, Mapping) else ():
        index = int(key) if str(key).isdecimal() else -1
        if 0 <= index < num_layers and isinstance(own, Mapping):
            found[index] = own.get("head_dim", head_dim)
    return found


def _types(model_type: str, text: Mapping[str, Any], num_layers: int, window: int | None) -> tuple[str, ...]:
    given = text.get("layer_types")
    if given is None:
        return _last_full(model_type, layer_types(model_type, text, num_layers, window))
    if not isinstance(given, list) or len(given) != num_layers:
        raise SourceError(f"layer_types is a list of {num_layers} layer types, got {given!r}")
    return _last_full(model_type, [_LEGACY_TYPES.get(str(name), str(name)) for name in given])


def _last_full(model_type: str, types: Sequence[str]) -> tuple[str, ...]:
    return (*types[:-1], FULL) if FAMILIES[model_type].last_is_full else tuple(types)


def _rotated(model_type: str, text: Mapping[str, Any], types: tuple[str, ...], window: int | None) -> tuple[bool, ...]:
    flags = rotated_layers(model_type, text, len(types))
    if len(flags) != len(types):
        raise SourceError(f"no_rope_layers is a list of {len(types)} numbers, got {len(flags)}")
    rotates = FAMILIES[model_type].rotates
    if rotates == "all" or (rotates == "sliding-or-all" and window is None):
        return tuple(flags)
    return tuple(flag and kind == SLIDING for flag, kind in zip(flags, types, strict=True))


def _softmax_scale(model_type: str, family: Family, text: Mapping[str, Any], head_dim: int) -> float:
    if family.softmax_scale is not None:
        return family.softmax_scale
    if family.scale_key == "attention_multiplier":
        given = field(model_type, text, family.scale_key)
        # HyperCLOVA X leaves it null for the usual one.
        return float(1.0 / math.sqrt(head_dim)) if given is None else float(given)
    dim = _count(model_type, text, family.scale_key) if family.scale_key else head_dim
    return float(1.0 / math.sqrt(dim))
