"""What SGLang computes from a transformers config.

Read in the source of SGLang 0.5.23, which pins transformers 5.19: `get_rope` and its classes, how each family's attention
calls it (`sglang_families`), and `get_context_length`. The classes came from vLLM, but what reaches them differs by family:
some read the whole of the rope parameters, some the base alone, Gemma 3 calls transformers' formulas, and OLMo 3 has a
config class that drops `rope_parameters`. A rotated share is read at the top level of the config only, but for GLM-4.

The tables are float32 on CUDA and ROCm; LongRoPE's are in the model's dtype.

Given up: CPU, NPU and aiter paths, fused norm-and-rope kernels behind switches, dual chunk attention, GGUF and remote code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.plan import Frequencies
from ropewalk.engines import sglang_classes, sglang_families, tables
from ropewalk.engines.computed import Computed, Depends
from ropewalk.engines.serving import Engine, check_needed, check_unread, layers
from ropewalk.engines.sglang_classes import FIXED_BASE, GEMMA4, NEW_LOST, QWEN, RAW
from ropewalk.engines.sglang_families import ARCHITECTURES, FALLBACK, LATENT, PLAIN
from ropewalk.engines.tables import ORIGINAL, Head, Table, number, spelled
from ropewalk.engines.transformers import formulas
from ropewalk.engines.transformers.families import default, enter
from ropewalk.engines.transformers.formulas import temperature
from ropewalk.engines.transformers.reading import Shape, of_type
from ropewalk.engines.transformers.spellings import FULL, SLIDING, WITH_ORIGINAL, Parameters

NAME = "sglang"
VERSIONS = ">=0.5.23,<0.5.24"
ENGINE = Engine(
    name=NAME,
    title="SGLang",
    versions=VERSIONS,
    read=sglang_families.is_read,
    unsupported=sglang_families.UNSUPPORTED,
)
TOP_LENGTH_WINS = (
    "llama", "mistral", "phi3", "granite", "apertus", "arcee", "hunyuan_v1_dense", "hunyuan_v1_moe",
)  # fmt: skip
"""Where a top-level original length overrules the one in the rope parameters."""
WHOLE_BASE = ("mixtral", "starcoder2", "llama4_text", "granitemoe", "granitemoeshared")
"""Where the base is cut to a whole number."""
SHARE_INSIDE = ("glm4", "glm4_moe", "laguna", "mimo_v2_flash", *GEMMA4)
"""Where a rotated share inside the rope parameters is read, or was put there."""
FUSED = ("qwen3_moe", "gpt_oss", "mellum")
"""Where attention passes an argument that the LongRoPE class does not take."""
FLAT = ("olmo3", "mimo_v2_flash")
"""Families read by layer type here, whose rope parameters SGLang holds flat."""
LENGTH_KEYS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length")
"""The first of these that is there is the length, before `max_position_embeddings`."""
SAME = "the same numbers at every length"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The parameters of one group as they reach `get_rope`."""

    values: Mapping[str, Any]
    head: Head
    scaled: bool = True
    """Whether anything but the base is looked at."""


def compute(config: Mapping[str, Any], *, length: int, tokenizer_config: Mapping[str, Any] | None = None) -> Computed:
    """SGLang's numbers for a batch whose longest request has `length` tokens, at its default context length.

    The tokenizer's length is not looked at. Never raises on a config: what would stop SGLang is `refuses`, what was not
    read or cannot be told is `unsupported`.
    """

    def computed(shape: Shape, params: Parameters) -> Computed:
        check_unread(shape, sglang_families.UNREAD)
        for label, values in params.by_type.items():
            _check(shape, label, values)
        sglang_classes.check_layers(shape)
        params = sglang_classes.parameters(shape, params)
        longest = _context_length(shape, params)
        if shape.model_type == "minimax_m3_vl_text" and enter(config)[2]:
            raise UnsupportedError("SGLang reads MiniMax M3's text part with Mixtral's config class, which was not followed")
        if shape.model_type in GEMMA4 and not enter(config)[2]:
            raise UnsupportedError(
                "SGLang takes Gemma 4's head sizes from its whole config; the text part alone was not read"
            )
        if shape.model_type in FALLBACK and not _own_architecture(config, shape):
            return ENGINE.through_transformers(config, length, longest)
        if shape.model_type == "gemma3_text":
            return _gemma3(shape, params, length, longest)
        return _tabled(shape, params, length, longest)

    return ENGINE.answer(config, sglang_classes.seen, computed)


def _own_architecture(config: Mapping[str, Any], shape: Shape) -> bool:
    """Whether the config names an architecture that SGLang has a model of its own for."""
    own, _ = ARCHITECTURES.get(shape.model_type, ("", ""))
    named = config.get("architectures")
    return isinstance(named, list) and own in named


def _check(shape: Shape, label: str, values: Mapping[str, Any]) -> None:
    """Raises `SourceError` for what stops transformers' check of the config, and with it SGLang."""
    if shape.model_type not in RAW:
        check_needed(values)
    if shape.model_type in QWEN and not any(shape.text.get(key) for key in ("rope_parameters", "rope_scaling")):
        raise SourceError("SGLang's config class for Qwen 3.5 stops on a config without rope_parameters: write them")
    if values["rope_type"] in WITH_ORIGINAL and spelled(shape.text, label, ORIGINAL, 1) is None:
        raise SourceError(f"{ORIGINAL} is null, which stops it at load: write the length or leave the field out")
    if shape.model_type in LATENT and not shape.family.interleave_key and shape.text.get("rope_interleave") is False:
        raise UnsupportedError("SGLang rotates halves where rope_interleave is false, transformers pairs (2i, 2i+1)")


def _context_length(shape: Shape, params: Parameters) -> int:
    """The longest request it takes without an override switch, tokens."""
    length = shape.declared
    for key in LENGTH_KEYS:
        if shape.text.get(key) is not None:
            length = int(number(shape.text, key))
            break
    # Nested parameters have no factor at their outer level.
    values = params.by_type.get("") or (params.by_type[FULL] if shape.model_type in FLAT else {})
    # SGLang's own config classes do not fill in an original length, transformers' do.
    stated = ORIGINAL in values and (shape.model_type not in QWEN or spelled(shape.text, "", ORIGINAL) is not None)
    if "factor" not in values or stated or values["rope_type"] == "llama3":
        return length
    return int(number(values, "factor") * length)


def _tabled(shape: Shape, params: Parameters, length: int, longest: int) -> Computed:
    groups: dict[str, Frequencies | None] = {}
    notes: list[str] = []
    depends: Depends = "nothing"
    treatment, refuses = SAME, None
    for label, place in layers(shape, params):
        if place is None:
            groups[label] = None
            continue
        seen = _seen(shape, place, params.by_type[place])
        table, scale = _table(shape, seen, length)
        groups[label] = table.word(scale)
        kind = seen.values["rope_type"] if seen.scaled else "default"
        if kind == "longrope" and shape.model_type not in LATENT:
            refuses = refuses or _past_the_end(table, length, longest)
            notes += _longrope_notes(seen, length)
            if tables.two_regimes(seen.values):
                depends, treatment = "batch", "the short list, unless a longer text shares its batch; cached keys stay"
        elif kind in ("linear", "dynamic") and table.rows < longest and shape.model_type not in LATENT:
            notes.append(f"beyond {table.rows} tokens its table goes on without the scaling")
    return Computed(
        engine=NAME,
        versions=VERSIONS,
        groups=groups,
        max_length=longest,
        depends_on=depends,
        short_request=treatment,
        refuses=refuses,
        ignored=_ignored(shape, params),
        notes=tuple(dict.fromkeys(notes)),
    )


def _seen(shape: Shape, label: str, values: Mapping[str, Any]) -> Seen:
    base = number(values, "rope_theta")
    values = dict(values)
    if values["rope_type"] in WITH_ORIGINAL and shape.model_type not in (*TOP_LENGTH_WINS, *RAW):
        # Before the top-level field is there, transformers has filled this one in.
        own = spelled(shape.text, label, ORIGINAL)
        if own is None and (shape.text.get("rope_scaling") or shape.text.get("rope_parameters")):
            own = shape.declared
        values[ORIGINAL] = default(shape.model_type, "rope_parameters").get(ORIGINAL) if own is None else own
    values.setdefault(ORIGINAL, shape.declared)
    mimo = shape.model_type == "mimo_v2_flash" and label == SLIDING
    dim = int(number(shape.text, "swa_head_dim")) if mimo else of_type(shape, label).rope_head_dim
    head = Head(
        base=float(int(base)) if shape.model_type in WHOLE_BASE else base,
        rotary_dim=_rotary_dim(shape, values, dim),
        head_dim=dim,
        max_position=_max_position(shape),
    )
    alone = shape.model_type in PLAIN or (shape.model_type == "gemma3n_text" and label == SLIDING)
    return Seen(values=values, head=head, scaled=not alone)


def _max_position(shape: Shape) -> int:
    top = shape.text.get("model_max_length") if shape.model_type in ("cohere", "cohere2") else None
    return int(number(shape.text, "model_max_length")) if top else shape.declared


def _rotary_dim(shape: Shape, values: Mapping[str, Any], dim: int) -> int:
    """How many dimensions of a head turn."""
    if shape.model_type == "minimax_m2":
        given = shape.text.get("rotary_dim")
        return dim if given is None else int(number(shape.text, "rotary_dim"))
    if shape.model_type in SHARE_INSIDE and values.get("partial_rotary_factor") is not None:
        return int(dim * tables.share(values["partial_rotary_factor"]))
    return int(dim * _share(shape))


def _share(shape: Shape) -> float:
    """The rotated share: from the top level of the config, or the class default; never from the rope parameters."""
    if not shape.family.partial:
        return 1.0
    usual = default(shape.model_type, "rope_parameters").get("partial_rotary_factor", 1.0)
    keys = ("rope_pct", "partial_rotary_factor") if shape.model_type == "stablelm" else ("partial_rotary_factor",)
    given = next((shape.text[key] for key in keys if shape.text.get(key) is not None), usual)
    return tables.share(given)


def _table(shape: Shape, seen: Seen, length: int) -> tuple[Table, float]:
    """The table of one group, and what multiplies the softmax scale."""
    values, head = seen.values, seen.head
    kind = values["rope_type"]
    if not seen.scaled or kind == "default":
        return tables.default(head), 1.0
    if shape.model_type in LATENT:
        return _latent(values, head)
    if kind == "linear":
        return tables.linear(values, head), 1.0
    if kind == "llama3":
        return tables.llama3(values, head), 1.0
    if kind == "proportional":
        return tables.proportional(head), 1.0
    if kind == "dynamic":
        return _dynamic(values, head), 1.0
    if kind == "yarn":
        return _yarn(values, head), 1.0
    if kind == "longrope":
        if shape.model_type in FUSED:
            raise SourceError(f"its LongRoPE class does not take an argument that {shape.model_type} passes: it stops")
        return tables.longrope(values, head, long=length > number(values, ORIGINAL) + 1.0), 1.0
    if kind == "deepseek_yarn":
        raise UnsupportedError("rope_type 'deepseek_yarn' was read for latent attention only")
    raise SourceError(f"rope_type {kind!r} is not one that SGLang knows, which stops it at load")


def _latent(values: Mapping[str, Any], head: Head) -> tuple[Table, float]:
    """DeepSeek: YaRN whatever the type says, with a factor of 1 and `max_position_embeddings` where fields are left out."""
    filled = {"factor": 1.0, **values}
    applied = bool(values.get("apply_yarn_scaling", True)) and bool(values.get("apply_scale", True))
    scale = tables.latent_scale(filled) if applied else 1.0
    return tables.latent(filled, head, extra=_extra(values)), scale


def _dynamic(values: Mapping[str, Any], head: Head) -> Table:
    """The base at the longest stretch, factor^2 - factor + 1, whatever the request."""
    factor = number(values, "factor")
    if "alpha" in values:
        return tables.alpha(values, head)
    return tables.rebased(head, factor * factor - factor + 1.0, int(head.max_position * factor))


def _yarn(values: Mapping[str, Any], head: Head) -> Table:
    factor = number(values, "factor")
    both = all(values.get(key) is not None for key in ("mscale", "mscale_all_dim"))
    if "mrope_section" in values and any(key in values for key in ("mscale", "mscale_all_dim")):
        raise SourceError("its YaRN for multimodal positions does not take mscale and mscale_all_dim: it stops at load")
    attention = tables.pair(values, factor) if both else temperature(factor)
    truncate = bool(values.get("truncate", True))
    return tables.yarn(values, head, attention_factor=attention * _extra(values), truncate=truncate)


def _extra(values: Mapping[str, Any]) -> float:
    """`attn_factor`, which multiplies YaRN's own attention factor."""
    if values.get("extrapolation_factor", 1) != 1:
        raise UnsupportedError("extrapolation_factor was not read; remove it")
    return number(values, "attn_factor") if "attn_factor" in values else 1.0


def _past_the_end(table: Table, length: int, longest: int) -> str | None:
    if table.rows >= length or length > longest:
        return None
    return f"a request of {length} tokens reads past the end of its LongRoPE table of {table.rows} positions"


def _longrope_notes(seen: Seen, length: int) -> list[str]:
    notes = ["LongRoPE's cos and sin are rounded to the model's dtype: the engine's rounding, not the plan's"]
    original = int(number(seen.values, ORIGINAL))
    if length == original + 1:
        notes.append(f"the token at position {original} is rotated as if it stood at 0, off by one at its switch")
    return notes


def _gemma3(shape: Shape, params: Parameters, length: int, longest: int) -> Computed:
    """Gemma 3: transformers' formulas on the full layers, their YaRN flat for once; the base alone on the others."""
    words: dict[str, Frequencies | None] = {}
    dim = shape.rope_head_dim
    for label, place in layers(shape, params):
        values = dict(params.by_type[place or FULL])
        if label == SLIDING:
            head = Head(base=number(values, "rope_theta"), rotary_dim=dim, head_dim=dim, max_position=shape.declared)
            words[label] = tables.default(head).word()
            continue
        top = shape.text.get(ORIGINAL)
        if values["rope_type"] in WITH_ORIGINAL and top is not None:
            values[ORIGINAL] = top
        if values["rope_type"] not in formulas.TYPES:
            raise SourceError(f"rope_type {values['rope_type']!r} is not one that transformers knows, which stops it")
        truncate = bool(values.get("truncate", True))
        stated = formulas.Head(head_dim=dim, partial=False, declared_length=shape.declared, truncate=truncate)
        # LongRoPE's switch lies in transformers' decorator, which SGLang's copy does not have.
        asked = None if values["rope_type"] == "longrope" else length
        inv_freq, attention = formulas.compute(values, stated, asked)
        words[label] = Frequencies(inv_freq=inv_freq, attention_factor=attention)
    kind = params.of(FULL)["rope_type"]
    return Computed(
        engine=NAME,
        versions=VERSIONS,
        groups=words,
        max_length=longest,
        depends_on="batch" if kind == "dynamic" else "nothing",
        short_request="the unscaled numbers, unless a longer text shares its batch" if kind == "dynamic" else SAME,
        ignored=_ignored(shape, params),
        notes=("on a CPU with AMX the scaling of the full layers is not read",) if kind != "default" else (),
    )


def _ignored(shape: Shape, params: Parameters) -> tuple[str, ...]:
    """Fields that carry meaning and are not read."""
    found: list[str] = []
    for label, values in params.by_type.items():
        kind = values["rope_type"]
        keys: tuple[str, ...] = {
            "yarn": ("attention_factor",),
            "longrope": ("attention_factor", "factor"),
            "dynamic": ("attention_factor", "max_trained_positions"),
        }.get(kind, ("attention_factor",))
        if shape.model_type == "gemma3_text":
            keys = ("attn_factor",)
            if label == SLIDING or kind == "longrope":
                keys += ("factor", "long_factor", "attention_factor")
        elif shape.model_type in PLAIN and kind != "default":
            keys = tuple(key for key in values if key not in ("rope_theta", "partial_rotary_factor", "type"))
        elif shape.model_type in LATENT and kind != "default":
            keys = ("attention_factor", "truncate", "short_factor", "long_factor", "low_freq_factor")
        found += [f"{label}.{key}" if label else key for key in keys if key in values]
    if shape.family.partial and spelled(shape.text, "", "partial_rotary_factor") not in (None, _share(shape)):
        found.append("rope_parameters.partial_rotary_factor")
    for label in params.by_type if shape.model_type in GEMMA4 else ():
        if spelled(shape.text, label, "rope_type", "default") not in ("default", "proportional"):
            found.append(f"{label}.rope_type")
    if shape.model_type in ("olmo3", *NEW_LOST) and shape.text.get("rope_parameters"):
        found.append("rope_parameters")
    written = spelled(shape.text, "", "rope_theta", shape.text.get("rope_theta"))
    if shape.model_type in (*FIXED_BASE, "granitemoehybrid") and written not in (None, params.of(FULL)["rope_theta"]):
        found.append("rope_theta")
    return tuple(dict.fromkeys(found))
