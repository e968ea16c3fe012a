"""A transformers config dict to `Geometry`: what the model that stock transformers would build does with positions.

Steps: find the family, fill in class defaults, make one spelling of the two, compute each group's numbers, settle where
the stretch came from. Our own `ropewalk` block, where there is one, knows the last better than any table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Finding, Geometry, Group, Vector
from ropewalk.engines.transformers import formulas, lineage
from ropewalk.engines.transformers.families import FAMILIES, Family, default, enter, layer_types, rotated_layers
from ropewalk.engines.transformers.formulas import Head
from ropewalk.engines.transformers.spellings import FULL, SLIDING, Parameters, standardise

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
    from ropewalk.engines.transformers.block import settle

    shape = measure(config)
    params = standardise(shape.model_type, shape.text, shape.declared, list(shape.types))
    groups = make_groups(shape, params, shape.declared)
    scheme = _scheme(params, shape)
    geometry = _with_lengths(
        Geometry(
            model_type=str(config["model_type"]),
            scheme=scheme,
            original_length=shape.declared,
            trained_length=shape.declared,
            declared_length=shape.declared,
            lineage="plain",
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            groups=groups,
            findings=params.findings + _chunk_findings(shape),
        ),
        _main(params) or {},
        shape,
    )
    return _with_windows(settle(config, geometry), shape)


def measure(config: Mapping[str, Any]) -> Shape:
    """The fields that positions depend on. Raises as `read` does."""
    model_type, text, _ = enter(config)
    family = FAMILIES[model_type]
    if family.temperature_tuning and _field(model_type, text, "attn_temperature_tuning"):
        raise UnsupportedError(
            f"{model_type} makes its attention temperature depend on the position (attn_temperature_tuning), which is not "
            "supported yet; set attn_temperature_tuning to false to read it without"
        )
    num_layers, num_heads = (_count(model_type, text, k) for k in ("num_hidden_layers", "num_attention_heads"))
    kv_heads = _field(model_type, text, "num_key_value_heads")
    if family.mla:
        rope_dim = _count(model_type, text, "qk_rope_head_dim")
        head_dim = rope_dim + _count(model_type, text, "qk_nope_head_dim")
    else:
        given = _field(model_type, text, "head_dim")
        head_dim = _count(model_type, text, "head_dim") if given else _count(model_type, text, "hidden_size") // num_heads
        rope_dim = head_dim
    window = _window(model_type, family, text)
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
        softmax_scale=_softmax_scale(model_type, family, text, head_dim),
        window=window,
        types=_types(model_type, text, num_layers, window),
        rotated=_rotated(model_type, text, num_layers),
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
        groups.append(Group(position="none", **_common(shape, family.recurrent or "none", free)))
    return tuple(sorted(groups, key=lambda group: not group.rotated))


def _rotating(
    shape: Shape, params: Parameters, label: str, layer_type: str, layers: tuple[int, ...], length: int | None
) -> Group:
    family, values = shape.family, params.of(layer_type)
    common = _common(shape, label, layers)
    if values is None:
        return Group(position="none", **common)
    head = Head(
        head_dim=shape.rope_head_dim,
        partial=family.partial,
        declared_length=shape.declared,
        truncate=params.truncate,
    )
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
        origin_inv_freq=plain if plain.shape == inv_freq.shape else inv_freq,
        temperature_on="logits" if family.mla else "rotated",
        **common,
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
    return "interleaved" if _field(shape.model_type, shape.text, key) else "half"


def _main(params: Parameters) -> dict[str, Any] | None:
    """The parameters of the layers that see the whole text."""
    return params.of(FULL) or next((values for values in params.by_type.values() if values), None)


def _scheme(params: Parameters, shape: Shape) -> str:
    values = _main(params)
    if values is None or not any(shape.rotated):
        return "none"
    return str(values["rope_type"])


def _with_lengths(geometry: Geometry, values: Mapping[str, Any], shape: Shape) -> Geometry:
    """Original and trained length, and the lineage, as far as the config itself and the family table tell them."""
    scheme, declared = geometry.scheme, geometry.declared_length
    row = lineage.look_up(shape.model_type, scheme)
    original = trained = declared
    findings = list(geometry.findings)
    if scheme in ("yarn", "longrope", "llama3"):
        original = int(values["original_max_position_embeddings"])
        if scheme == "yarn" and row.lineage != "trained":
            trained = round(original * formulas.stretch(values, declared))
    elif scheme == "dynamic":
        trained = round(declared * float(values["factor"]))
    elif scheme == "linear" and row.lineage == "trained":
        original = row.original_length or round(declared / float(values["factor"]))
    elif scheme == "linear":
        trained = round(declared * float(values["factor"]))
        findings.append(_ambiguous_length(declared, trained))
    elif scheme == "default":
        findings.append(_no_trace(values))
    if trained > declared and scheme == "yarn":
        findings.append(_undeclared(declared, trained))
    return replace(
        geometry,
        original_length=original,
        trained_length=trained,
        lineage=row.lineage,
        findings=tuple(findings),
    )


def _ambiguous_length(declared: int, trained: int) -> Finding:
    return Finding(
        field="max_position_embeddings",
        severity="warning",
        problem=f"with linear scaling {declared} may be the length before or after the stretch; read as before ({trained} after)",
        mend="say --lineage, and check the length against the model card",
    )


def _no_trace(values: Mapping[str, Any]) -> Finding:
    return Finding(
        field="rope_theta",
        severity="note",
        problem=f"a changed base leaves no trace in a config: {values.get('rope_theta')} is taken as the base of training",
        mend="nothing to do, unless the base was changed without training",
    )


def _undeclared(declared: int, trained: int) -> Finding:
    return Finding(
        field="max_position_embeddings",
        severity="warning",
        problem=f"yarn stretches to {trained} tokens, max_position_embeddings says {declared}; vLLM and SGLang stop there",
        mend=f"set max_position_embeddings to {trained}",
    )


def _chunk_findings(shape: Shape) -> tuple[Finding, ...]:
    chunk = _field(shape.model_type, shape.text, "attention_chunk_size") if shape.family.chunked else None
    if not chunk or chunk >= shape.declared:
        return ()
    return (
        Finding(
            field="attention_chunk_size",
            severity="warning",
            problem=f"rotated layers attend inside chunks of {chunk} tokens, so none of them sees a longer distance",
            mend="expect nothing from other frequencies while layers are chunked",
        ),
    )


def _with_windows(geometry: Geometry, shape: Shape) -> Geometry:
    """Drops the window of a model whose layers all have one that is no shorter than what it reads.

    Such a window limits nothing yet; a vector of its own (Gemma 3) belongs to window layers whatever their width.
    """
    if shape.family.typed:
        return geometry
    groups, findings = [], list(geometry.findings)
    for group in geometry.groups:
        if group.rotated and group.window is not None and group.window >= geometry.trained_length:
            findings.append(
                Finding(
                    field="sliding_window",
                    severity="note",
                    problem=f"no layer looks back more than {group.window} tokens",
                    mend="set sliding_window to null where longer texts are read",
                )
            )
            group = replace(group, window=None)
        groups.append(group)
    return replace(geometry, groups=tuple(groups), findings=tuple(findings))


def _field(model_type: str, text: Mapping[str, Any], key: str) -> Any:
    return text[key] if key in text else default(model_type, key)


def _count(model_type: str, text: Mapping[str, Any], key: str) -> int:
    value = _field(model_type, text, key)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not whole or value < 1:
        raise SourceError(f"config.json has {key} = {value!r}, expected a positive whole number")
    return int(value)


def _window(model_type: str, family: Family, text: Mapping[str, Any]) -> int | None:
    if family.window == "none" or _field(model_type, text, "sliding_window") is None:
        return None
    if family.window_switch and not _field(model_type, text, "use_sliding_window"):
        return None
    return _count(model_type, text, "sliding_window")


def _types(model_type: str, text: Mapping[str, Any], num_layers: int, window: int | None) -> tuple[str, ...]:
    given = text.get("layer_types")
    if given is None:
        return tuple(layer_types(model_type, text, num_layers, window))
    if not isinstance(given, list) or len(given) != num_layers:
        raise SourceError(f"layer_types is a list of {num_layers} layer types, got {given!r}")
    return tuple(_LEGACY_TYPES.get(str(name), str(name)) for name in given)


def _rotated(model_type: str, text: Mapping[str, Any], num_layers: int) -> tuple[bool, ...]:
    flags = rotated_layers(model_type, text, num_layers)
    if len(flags) != num_layers:
        raise SourceError(f"no_rope_layers is a list of {num_layers} numbers, got {len(flags)}")
    return tuple(flags)


def _softmax_scale(model_type: str, family: Family, text: Mapping[str, Any], head_dim: int) -> float:
    if family.scale_key == "attention_multiplier":
        return float(_field(model_type, text, family.scale_key))
    dim = _count(model_type, text, family.scale_key) if family.scale_key else head_dim
    return float(1.0 / math.sqrt(dim))


def vectors(geometry: Geometry) -> dict[str, Vector]:
    """Label to frequencies, float64 [rotary_dim/2], of the groups that rotate."""
    return {group.label: group.inv_freq for group in geometry.groups if group.inv_freq is not None}
