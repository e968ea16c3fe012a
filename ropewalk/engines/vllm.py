"""What vLLM computes from a transformers config.

Read in the source of vLLM 0.32.0 and 0.33.0: `get_rope` and its classes, the calls of each family's attention, the patching
of rope parameters and the derivation of `max_model_len`. vLLM lets transformers (5.16 to 5.20) read the config, so the
precedence of spellings is theirs; it then fills one table of cos and sin per set of arguments. 0.30.0 differs in having
GPT-NeoX and Phi of its own. Families that vLLM runs through transformers' own modules get transformers' numbers and
vLLM's length.

`tokenizer_config.model_max_length` bounds only pooling models with absolute positions, so it is never a cap here.

Given up: LoRA with several linear factors, video pruning, dual chunk attention, and quantised or remote code models.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ropewalk.core.errors import RopewalkError, SourceError, UnsupportedError
from ropewalk.core.plan import Frequencies
from ropewalk.engines import tables
from ropewalk.engines.computed import Computed, Depends
from ropewalk.engines.tables import ORIGINAL, Head, Table, number
from ropewalk.engines.transformers import compute as stock
from ropewalk.engines.transformers.families import enter
from ropewalk.engines.transformers.formulas import temperature
from ropewalk.engines.transformers.reading import Shape, make_groups, measure, parameters
from ropewalk.engines.transformers.spellings import FULL, WITH_ORIGINAL, Parameters

NAME = "vllm"
VERSIONS = ">=0.32,<0.34"
BACKEND = ("gpt_neox", "phi", "starcoder2", "olmo", "olmo2", "olmo3", "smollm3")
"""Families that vLLM's registry sends to transformers' own modules."""
NATIVE = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "phi3", "stablelm", "gemma", "gemma2",
    "gemma3_text", "granite", "gpt_oss", "llama4_text", "deepseek_v2", "deepseek_v3", "qwen3_5_text",
)  # fmt: skip
"""Families whose attention in vLLM was read."""
LENGTH_KEYS = (
    "n_positions", "max_seq_len", "seq_length", "max_target_positions", "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
"""Beside `max_position_embeddings`: the smallest of all is the length, and `model_max_length` overrules them."""
NOT_MULTIPLIED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Types whose factor does not multiply the length."""
ROUNDED = (
    "cos and sin are rounded to the model's dtype (bfloat16 in most deployments): the engine's rounding, not the plan's"
)


def compute(config: Mapping[str, Any], *, length: int, tokenizer_config: Mapping[str, Any] | None = None) -> Computed:
    """vLLM's numbers for a request of `length` tokens, deployed with the longest `--max-model-len` it takes.

    Never raises on a config: what would stop vLLM is `refuses`, what was not read or cannot be told is `unsupported`.
    """
    try:
        shape = measure(config)
    except RopewalkError as error:
        return _nothing(unsupported=str(error))
    if shape.model_type not in NATIVE + BACKEND:
        return _nothing(unsupported=f"vLLM's code for {shape.model_type} was not read")
    try:
        params = parameters(shape)
    except UnsupportedError as error:
        # A family that names its types has transformers refuse the others while vLLM loads the config.
        return _nothing(refuses=str(error)) if shape.family.rope_types else _nothing(unsupported=str(error))
    except SourceError as error:
        return _nothing(refuses=str(error))
    try:
        params = _patched(shape, params)
        longest = _longest(shape, params)
        if shape.model_type in BACKEND:
            return _through_transformers(config, shape, params, length, longest)
        return _native(config, shape, params, length, longest, tokenizer_config)
    except SourceError as error:
        return _nothing(refuses=str(error))
    except (RopewalkError, OverflowError) as error:
        return _nothing(unsupported=str(error))


def _nothing(*, refuses: str | None = None, unsupported: str | None = None) -> Computed:
    return Computed(
        engine=NAME, versions=VERSIONS, groups={}, max_length=None, refuses=refuses, unsupported=unsupported
    )  # fmt: skip


def _patched(shape: Shape, params: Parameters) -> Parameters:
    """Rope parameters after vLLM's renaming of old types. Raises `SourceError` where `type` and `rope_type` differ."""
    by_type = {}
    for label, given in params.by_type.items():
        values = dict(given)
        kind, old = values["rope_type"], values.get("type")
        # A type that the config class itself renamed (Phi-3's su and yarn) was renamed in both fields' favour.
        renamed = dict(shape.family.renamed_types).get(str(old)) == kind
        if old is not None and old != kind and not renamed and (old, kind) not in (("su", "longrope"), ("mrope", "default")):
            raise SourceError(f"rope_type {kind!r} and type {old!r} differ, which stops it at load: write rope_type only")
        if kind == "su":
            values["rope_type"] = "longrope"
            top = shape.text.get(ORIGINAL)
            values[ORIGINAL] = top if top is not None else values.get(ORIGINAL, shape.declared)
        elif kind == "mrope":
            if "mrope_section" not in values:
                raise SourceError("rope_type 'mrope' without mrope_section stops it at load: write rope_type default")
            values["rope_type"] = "default"
        elif kind == "telechat3-yarn":
            values |= {"rope_type": "yarn", "attention_factor": 0.07 * math.log(number(values, "factor")) + 1.0}
            values.setdefault(ORIGINAL, shape.declared)
        if values["rope_type"] in WITH_ORIGINAL and tables.spelled(shape.text, label, ORIGINAL, 1) is None:
            raise SourceError(f"{ORIGINAL} is null, which stops it at load: write the length or leave the field out")
        by_type[label] = values
    return replace(params, by_type=by_type)


def _longest(shape: Shape, params: Parameters) -> int:
    """The longest `--max-model-len` that is taken without an override switch, tokens."""
    given = {key: shape.text[key] for key in LENGTH_KEYS if shape.text.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SourceError(f"{key} is {value!r:.40}, expected a length in tokens")
    length: float = min([shape.declared, *given.values()])
    if shape.text.get("model_max_length"):
        length = number(shape.text, "model_max_length")
    # Gemma 3's length is declared as stretched, and vLLM knows it.
    if "gemma3" not in shape.model_type:
        factor: Any = 1.0
        for values in params.by_type.values():
            if values["rope_type"] not in NOT_MULTIPLIED:
                factor = values.get("factor", factor)
        length *= 1.0 if factor is None else number({"factor": factor}, "factor")
    return int(length)


def _through_transformers(
    config: Mapping[str, Any], shape: Shape, params: Parameters, length: int, longest: int
) -> Computed:
    computed = stock.compute(config, length=length)
    notes: tuple[str, ...] = ("runs through transformers' own modules",)
    if computed.depends_on == "batch":
        notes += ("the longest text of a step decides for all", *_shorter_default(shape, params, longest))
    return replace(
        computed,
        engine=NAME,
        versions=VERSIONS,
        max_length=longest if computed.groups else None,
        notes=(*computed.notes, *notes),
    )


def _native(
    config: Mapping[str, Any],
    shape: Shape,
    params: Parameters,
    length: int,
    longest: int,
    tokenizer_config: Mapping[str, Any] | None,
) -> Computed:
    if shape.text.get("dual_chunk_attention_config") is not None:
        raise UnsupportedError("dual chunk attention was not read; remove dual_chunk_attention_config")
    if shape.family.interleave_key and shape.text.get(shape.family.interleave_key) is False:
        raise UnsupportedError("vLLM rotates pairs (2i, 2i+1) of a latent head although rope_interleave is false")
    made = {label: _table(config, shape, values, longest) for label, values in params.by_type.items()}
    groups: dict[str, Frequencies | None] = {}
    rows = []
    for label, layer_type in _layers(shape, params):
        if layer_type is None:
            groups[label] = None
            continue
        table, scale = made[layer_type]
        groups[label] = table.word(scale)
        rows.append(table.rows)
    depends, treatment = _depends(params, longest)
    computed = Computed(
        engine=NAME,
        versions=VERSIONS,
        groups=groups,
        max_length=longest,
        depends_on=depends,
        short_request=treatment,
        ignored=_ignored(shape, params),
        notes=(
            *_shorter_default(shape, params, longest),
            *_past_the_end(min(rows, default=longest), longest),
            *_tokenizer(tokenizer_config, longest),
            ROUNDED,
        ),
    )
    if rows and min(rows) < length <= longest:
        return replace(
            computed, refuses=f"a request of {length} tokens reads past the end of its table of {min(rows)} positions"
        )
    return computed


def _layers(shape: Shape, params: Parameters) -> list[tuple[str, str | None]]:
    """Labels of the groups, in the order of `transformers.read`, and where their parameters lie; None: not rotated."""
    neutral = {label: {"rope_type": "default", "rope_theta": 10000.0} for label in params.by_type}
    groups = make_groups(shape, replace(params, by_type=neutral), None)
    place = {group.label: group.label if group.label in params.by_type else "" for group in groups}
    return [(group.label, place[group.label] if group.rotated else None) for group in groups]


def _head(shape: Shape, values: Mapping[str, Any]) -> Head:
    given = values.get("partial_rotary_factor", 1.0)
    if given is None:
        raise SourceError("partial_rotary_factor is null, which stops it at load: leave it out")
    dim = shape.rope_head_dim
    return Head(
        base=number(values, "rope_theta"),
        rotary_dim=int(dim * tables.share(given)),
        head_dim=dim,
        max_position=shape.declared,
    )


def _table(config: Mapping[str, Any], shape: Shape, values: Mapping[str, Any], longest: int) -> tuple[Table, float]:
    """The table of one set of parameters, and what multiplies the softmax scale."""
    head = _head(shape, values)
    _needed(shape, values)
    if shape.model_type == "gpt_oss":
        return _gpt_oss(values, head), 1.0
    if shape.family.mla and values["rope_type"] != "default":
        # With an attention factor of exactly one the softmax scale stays as it is.
        plain_scale = values.get("attention_factor") == 1.0
        return tables.latent(values, head), 1.0 if plain_scale else tables.latent_scale(values)
    if "mrope_section" in values and enter(config)[2] and values["rope_type"] in ("default", "yarn"):
        total = sum(values["mrope_section"] or ())
        if values["mrope_section"] and total != head.rotary_dim // 2:
            raise SourceError(f"mrope_section sums to {total}, expected {head.rotary_dim // 2}")
    return _by_type(values, head, longest), 1.0


def _needed(shape: Shape, values: Mapping[str, Any]) -> None:
    """Raises `SourceError` for fields without which transformers' check of the config stops vLLM."""
    needed = {
        "linear": ("factor",),
        "dynamic": ("factor",),
        "yarn": ("factor",),
        "longrope": ("short_factor", "long_factor"),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    }
    missing = [key for key in needed.get(values["rope_type"], ()) if key not in values]
    if missing:
        raise SourceError(f"rope_parameters of type {values['rope_type']} lack {' and '.join(missing)}")


def _by_type(values: Mapping[str, Any], head: Head, longest: int) -> Table:
    kind = values["rope_type"]
    if kind == "default":
        return tables.default(head)
    if kind == "linear":
        return tables.linear(values, head)
    if kind == "llama3":
        return tables.llama3(values, head)
    if kind == "proportional":
        return tables.proportional(head)
    if kind == "dynamic":
        return tables.alpha(values, head) if "alpha" in values else _dynamic(values, head)
    if kind == "yarn":
        factor = _yarn_attention(values)
        return tables.yarn(values, head, attention_factor=factor, truncate=bool(values.get("truncate", True)))
    if kind == "longrope":
        return tables.longrope(values, head, long=longest > number(values, ORIGINAL))
    if kind == "ntk":
        return _ntk(values, head)
    if kind in ("deepseek_yarn", "deepseek_llama_scaling", "mllama4", "openpangu", "bailing_mrope"):
        raise UnsupportedError(f"rope_type {kind!r} was read for the families that it was made for only")
    raise SourceError(f"rope_type {kind!r} is not one that vLLM knows, which stops it at load")


def _yarn_attention(values: Mapping[str, Any]) -> float:
    if values.get("attention_factor") is not None:
        return number(values, "attention_factor")
    factor = number(values, "factor")
    if values.get("mscale") and values.get("mscale_all_dim"):
        return tables.pair(values, factor)
    return temperature(factor)


def _dynamic(values: Mapping[str, Any], head: Head) -> Table:
    """The base for `max_position_embeddings` over `max_trained_positions`, and without the latter no stretch at all."""
    factor = number(values, "factor")
    trained = number(values, "max_trained_positions") if "max_trained_positions" in values else head.max_position
    stretch = factor * head.max_position / trained - (factor - 1.0)
    if stretch <= 0.0:
        raise UnsupportedError(f"max_trained_positions {trained:g} gives a stretch of {stretch:g}")
    return tables.rebased(head, stretch, head.max_position)


def _ntk(values: Mapping[str, Any], head: Head) -> Table:
    """vLLM's own type, NTK-fixed and NTK-mixed of kexue.fm/archives/9706."""
    factor, dim = number(values, "factor"), head.rotary_dim
    if values.get("mixed_b") is None:
        wider = replace(head, base=head.base * factor)
        return Table(inv_freq=wider.plain / factor ** (2.0 / dim), rows=head.max_position)
    power = number(values, "mixed_b")
    steps = np.arange(1, dim // 2 + 1, dtype=np.float64)
    exponent = math.log(factor) / (dim / 2.0) ** power * steps**power
    return Table(inv_freq=head.plain / np.exp(exponent), rows=head.max_position)


def _gpt_oss(values: Mapping[str, Any], head: Head) -> Table:
    """Always YaRN, from five fields that must all be there; nothing else is read."""
    for key in ("factor", ORIGINAL, "beta_fast", "beta_slow"):
        if key not in values:
            raise SourceError(f"gpt-oss in vLLM is YaRN whatever the type, and stops at load without {key}: write it")
    factor = temperature(number(values, "factor"))
    return tables.yarn(values, head, attention_factor=factor, truncate=bool(values.get("truncate", True)))


def _depends(params: Parameters, longest: int) -> tuple[Depends, str]:
    for values in params.by_type.values():
        if values["rope_type"] == "longrope" and tables.two_regimes(values):
            long = longest > number(values, ORIGINAL)
            return "deployment", f"the {'long' if long else 'short'} list, as every request of that deployment"
    return "nothing", "the same numbers at every length"


def _ignored(shape: Shape, params: Parameters) -> tuple[str, ...]:
    """Fields that carry meaning and are not read."""
    unread: dict[str, tuple[str, ...]] = {
        "yarn": ("attn_factor",),
        "longrope": ("attention_factor", "factor"),
        "dynamic": ("attention_factor",),
        "linear": ("attention_factor",),
        "llama3": ("attention_factor",),
    }
    found = []
    for label, values in params.by_type.items():
        kind = values["rope_type"]
        keys = unread.get(kind, ())
        if kind == "dynamic" and "max_trained_positions" not in values:
            keys += ("factor",)
        if shape.model_type == "gpt_oss":
            keys = ("rope_type",) if kind != "yarn" else ("attention_factor", "attn_factor", "mscale", "mscale_all_dim")
        if shape.family.mla and kind != "default":
            keys = ("attention_factor", "attn_factor", "truncate", "short_factor", "long_factor", "low_freq_factor")
            keys += ("rope_type",) if kind != "yarn" else ()
        found += [f"{label}.{key}" if label else key for key in keys if key in values]
    return tuple(dict.fromkeys(found))


def _shorter_default(shape: Shape, params: Parameters, longest: int) -> tuple[str, ...]:
    top = shape.text.get(ORIGINAL)
    if top is None and shape.family.own_original_length:
        top = params.of(FULL).get(ORIGINAL, 4096)
    kinds = [values["rope_type"] for values in params.by_type.values()]
    if "longrope" not in kinds or not isinstance(top, int) or top >= longest:
        return ()
    return (f"deploys at {top} tokens, with the short list, unless --max-model-len {longest} is given",)


def _past_the_end(rows: int, longest: int) -> tuple[str, ...]:
    if rows >= longest:
        return ()
    return (f"accepts {longest} tokens, and its table of cos and sin ends at {rows}: longer requests read past its end",)


def _tokenizer(tokenizer_config: Mapping[str, Any] | None, longest: int) -> tuple[str, ...]:
    cap = (tokenizer_config or {}).get("model_max_length")
    if isinstance(cap, bool) or not isinstance(cap, int | float) or cap >= longest:
        return ()
    return (f"the tokenizer's model_max_length {cap} does not bound a request",)
