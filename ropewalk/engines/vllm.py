"""What vLLM computes from a transformers config.

Read in the source of vLLM 0.32.0 and 0.33.0: `get_rope` and its classes, the calls of each family's attention
(`vllm_families`), the patching of rope parameters and the derivation of `max_model_len`. vLLM lets transformers (5.16 to
5.20) read the config, so the precedence of spellings is theirs; it then fills one table of cos and sin per set of arguments.
0.30.0 differs in having GPT-NeoX and Phi of its own. Families that vLLM runs through transformers' own modules get
transformers' numbers and vLLM's length.

`tokenizer_config.model_max_length` bounds only pooling models with absolute positions, so it is never a cap here.

Given up: LoRA with several linear factors, video pruning, dual chunk attention, and quantised or remote code models.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.plan import Frequencies
from ropewalk.engines import tables, vllm_families
from ropewalk.engines.computed import Computed, Depends
from ropewalk.engines.serving import Engine, check_needed, check_unread, layers
from ropewalk.engines.tables import ORIGINAL, Head, Table, number
from ropewalk.engines.transformers.families import COMPOSITE, default, enter
from ropewalk.engines.transformers.formulas import temperature
from ropewalk.engines.transformers.reading import Shape, of_type
from ropewalk.engines.transformers.spellings import FULL, SLIDING, WITH_ORIGINAL, Parameters
from ropewalk.engines.vllm_families import BACKEND, BASE, FALLBACK, LATENT, QUADRUPLED, SINCE, YARN

NAME = "vllm"
VERSIONS = ">=0.32,<0.34"
ENGINE = Engine(
    name=NAME,
    title="vLLM",
    versions=VERSIONS,
    read=vllm_families.is_read,
    unsupported=vllm_families.UNSUPPORTED,
)
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

    def computed(shape: Shape, params: Parameters) -> Computed:
        check_unread(shape, vllm_families.UNREAD)
        params = _patched(shape, params)
        longest = _longest(shape, params)
        nested = enter(config)[2] or config["model_type"] in COMPOSITE
        alone = shape.model_type == "minimax_m3_vl_text" and not nested
        if alone or shape.model_type in (*BACKEND, *FALLBACK, *SINCE):
            versions = SINCE.get(shape.model_type, VERSIONS)
            stock = ENGINE.through_transformers(config, length, longest, _batched(shape, params, longest))
            return replace(stock, versions=versions)
        return _native(shape, params, nested, length, longest, tokenizer_config)

    return ENGINE.answer(config, _seen, computed)


def _batched(shape: Shape, params: Parameters, longest: int) -> tuple[str, ...]:
    return ("the longest text of a step decides for all", *_shorter_default(shape, params, longest))


def _seen(shape: Shape) -> Shape:
    """The fields of a config under vLLM's own config classes, where it has them."""
    if shape.model_type == "deepseek_v32" and shape.text.get("max_position_embeddings") is None:
        # It reads this family with DeepSeek V3's config class.
        return replace(shape, declared=default("deepseek_v3", "max_position_embeddings"))
    return shape


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


def _native(
    shape: Shape,
    params: Parameters,
    nested: bool,
    length: int,
    longest: int,
    tokenizer_config: Mapping[str, Any] | None,
) -> Computed:
    _check_layers(shape)
    groups: dict[str, Frequencies | None] = {}
    rows = []
    for label, place in layers(shape, params):
        if place is None:
            groups[label] = None
            continue
        if shape.model_type in BASE:
            table, scale = tables.default(_top_head(shape, label)), 1.0
        else:
            table, scale = _table(of_type(shape, label), params.by_type[place], nested, longest)
        groups[label] = table.word(scale)
        rows.append(table.rows)
    depends, treatment = _depends(shape, params, longest)
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


def _check_layers(shape: Shape) -> None:
    """Raises `UnsupportedError` where vLLM rotates other layers or other pairs than transformers."""
    if shape.family.interleave_key and shape.text.get(shape.family.interleave_key) is False:
        raise UnsupportedError("vLLM rotates pairs (2i, 2i+1) of a latent head although rope_interleave is false")
    if shape.model_type in ("exaone4", "exaone_moe"):
        # Where no layer has a window, all of them turn, whatever sliding_window says.
        windows = SLIDING in shape.types
        turns = [not windows or (kind == SLIDING and shape.window is not None) for kind in shape.types]
        if turns != list(shape.rotated):
            raise UnsupportedError("vLLM rotates other layers than transformers under these layer_types and sliding_window")


def _top_head(shape: Shape, label: str) -> Head:
    """A head whose base and share lie at the top level of the config, the base of windowed layers beside them."""
    text, top = shape.text, BASE[shape.model_type]
    missing = [key for key in top.needed if text.get(key) is None]
    if missing:
        raise SourceError(f"vLLM stops at load where a {shape.model_type} lacks {' and '.join(missing)}: write them")
    if top.needed and text["hybrid_layer_pattern"] != [int(kind == SLIDING) for kind in shape.types]:
        raise UnsupportedError("vLLM takes the windows from hybrid_layer_pattern, which differs from layer_types")
    base, dim = _number(text, "rope_theta", top.base), shape.rope_head_dim
    if label == SLIDING:
        base, dim = _number(text, "swa_rope_theta", base), int(number(text, "swa_head_dim"))
    share = tables.share(text.get("partial_rotary_factor", top.share))
    return Head(base=base, rotary_dim=int(dim * share), head_dim=dim, max_position=shape.declared)


def _number(text: Mapping[str, Any], key: str, usual: float) -> float:
    return number(text, key) if key in text else usual


def _head(shape: Shape, values: Mapping[str, Any]) -> Head:
    for key in ("rope_dim", "use_fope"):
        if values.get(key):
            raise UnsupportedError(f"{key} inside rope_parameters was not read; remove it")
    if shape.model_type == "minimax_m2" and "rotary_dim" not in shape.text:
        raise SourceError("vLLM stops at load where a minimax_m2 has no rotary_dim beside its share: write it")
    usual = shape.text.get("partial_rotary_factor", 1.0) if shape.model_type == "laguna" else 1.0
    given = values.get("partial_rotary_factor", usual)
    if given is None:
        raise SourceError("partial_rotary_factor is null, which stops it at load: leave it out")
    top = shape.text.get("model_max_length") if shape.model_type in ("cohere", "cohere2") else None
    dim = shape.rope_head_dim
    return Head(
        base=number(values, "rope_theta"),
        rotary_dim=int(dim * tables.share(given)),
        head_dim=dim,
        max_position=int(number(shape.text, "model_max_length")) if top else shape.declared,
    )


def _table(shape: Shape, values: Mapping[str, Any], nested: bool, longest: int) -> tuple[Table, float]:
    """The table of one set of parameters, and what multiplies the softmax scale."""
    head = _head(shape, values)
    check_needed(values)
    if shape.model_type in YARN:
        return _gpt_oss(values, head), 1.0
    if shape.model_type in LATENT and values["rope_type"] != "default":
        # With an attention factor of exactly one the softmax scale stays as it is.
        plain_scale = values.get("attention_factor") == 1.0
        return tables.latent(values, head), 1.0 if plain_scale else tables.latent_scale(values)
    if values.get("mrope_section"):
        if nested:
            _check_multimodal(values, head)
        if shape.model_type in QUADRUPLED:
            return _quadrupled(values, head), 1.0
    return _by_type(values, head, longest), 1.0


def _check_multimodal(values: Mapping[str, Any], head: Head) -> None:
    """Raises `SourceError` for what stops a whole model that hands three rows of positions to its text part."""
    kind, total = values["rope_type"], sum(values["mrope_section"])
    if kind not in ("default", "yarn"):
        raise SourceError(
            f"rope_type {kind!r} has no multimodal positions in vLLM: its three rows of positions do not fit the queries "
            "of one, which stops it at load"
        )
    if total != head.rotary_dim // 2:
        raise SourceError(f"mrope_section sums to {total}, expected {head.rotary_dim // 2}")


def _quadrupled(values: Mapping[str, Any], head: Head) -> Table:
    """A table with four times the rows; under YaRN the ramp is made for four times the original length with them."""
    if values["rope_type"] == "yarn":
        wider = {**values, ORIGINAL: 4 * number(values, ORIGINAL)}
        truncate = bool(values.get("truncate", True))
        return tables.yarn(wider, head, attention_factor=_yarn_attention(values), truncate=truncate)
    table = _by_type(values, head, head.max_position)
    return replace(table, rows=4 * table.rows) if values["rope_type"] == "default" else table


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


def _depends(shape: Shape, params: Parameters, longest: int) -> tuple[Depends, str]:
    whole = shape.model_type not in LATENT and shape.model_type not in BASE
    for values in params.by_type.values() if whole else ():
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
        if shape.model_type in BASE:
            keys = () if kind == "default" else tuple(key for key in values if key not in ("type", "rope_theta"))
            keys += ("rope_theta",) if values["rope_theta"] != _top_head(shape, label).base else ()
        if shape.model_type in YARN:
            keys = ("rope_type",) if kind != "yarn" else ("attention_factor", "attn_factor", "mscale", "mscale_all_dim")
        if shape.model_type in LATENT and kind != "default":
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
