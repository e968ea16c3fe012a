"""A `Plan` to a transformers config dict that stock code computes the same numbers from.

Candidates are tried from the most readable to the most general, and each is accepted only if stock formulas give the
plan's words: the method's native name; another base; `linear`; `proportional` with another base and a factor, for vectors
that end in zeros; a divisor for each dimension (`longrope` with both lists equal), which says any vector without zeros with
any factor on cos and sin. The last word has the whole config, read back. A native name whose float32 rounding alone would
leave the tolerance (a blend without rounded ends, stretched far) is passed over for the divisors, which do not have it.

What is written is one spelling, `rope_parameters`, with floats everywhere and no stale copies at the top level. Engines
read some fields differently from transformers; the extra keys (`attn_factor`, `short_mscale`, `long_mscale`) are for them
and cost a warning in transformers. The rotated share alone is said twice: SGLang looks for it at the top level only.

Given up: a scale of the whole q.k outside MLA. No other family has a field that only full-attention layers read.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.core.errors import HostError, PlanError, RopewalkError
from ropewalk.core.geometry import Geometry, Group, geometric
from ropewalk.core.plan import Frequencies, Native, Plan
from ropewalk.engines.transformers import block, formulas
from ropewalk.engines.transformers.families import enter
from ropewalk.engines.transformers.reading import Shape, groups_at, head_of, measure, of_type, parameters, read
from ropewalk.engines.transformers.spellings import FULL, WITH_ORIGINAL, Parameters

TOLERANCE = 1e-6
"""Largest relative difference between a plan and what stock formulas give: float32 rounds by 6e-8."""
ROUNDING = 7.5e-7
"""The same for what float32 makes of a blend, which is simulated, so there must be room for other orders of operations."""
ORIGINAL = "original_max_position_embeddings"
SHARE = "partial_rotary_factor"
KEPT = (SHARE, "mrope_section", "mrope_interleaved")
"""Rope parameters that say which dimensions are rotated, not how fast."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One group's numbers, and what may be said of them."""

    word: Frequencies
    """At the plan's length."""
    short: Frequencies
    """Up to `switch`; the same as `word` for a static plan."""
    switch: int
    """Tokens up to which `short` holds; the plan's length for a static plan."""
    shape: Shape
    base: float
    """The base of the state that the plan departs from."""
    kept: dict[str, Any]
    factor: float
    """The plan's stretch, for fields that want one: at least 1."""
    length: int
    original_length: int
    """Of the state that the plan departs from."""
    native: Native | None

    @property
    def switched(self) -> bool:
        """Whether the numbers change at `switch`."""
        return self.short != self.word


def spell(config: Mapping[str, Any], plan: Plan, *, geometry: Geometry | None = None) -> dict[str, Any]:
    """A new config dict that carries `plan`, our own block included; `config` is left alone.

    `geometry` is what the plan was made from, where the user said more than the config does (lineage). Raises `HostError`
    where stock transformers cannot compute the plan's numbers, saying what would be lost, and `PlanError` for a plan of
    another model.
    """
    if plan.kind == "dynamic":
        raise HostError(
            "a dynamic plan has no faithful checkpoint: each engine computes something else from it; "
            "freeze it for a length with plan.at(n)"
        )
    geometry = _known_lineage(geometry or read(config), plan)
    shape, params = measure(config), parameters(measure(config))
    _check_groups(geometry, plan)
    spelled = {
        group.label: _spell_group(_target(group, geometry, plan, shape, params), group.label)
        for group in geometry.groups
        if plan.groups[group.label] is not None
    }
    new = _write(config, plan, geometry, shape, params, spelled)
    new[block.KEY] = block.make(plan, geometry, config)
    _verify(new, plan, geometry)
    return new


def _known_lineage(geometry: Geometry, plan: Plan) -> Geometry:
    """The geometry as the plan saw it: its factor tells which length it departed from, whatever the config says."""
    runtime = math.isclose(plan.factor * geometry.original_length, plan.length, rel_tol=1e-9)
    trained = math.isclose(plan.factor * geometry.trained_length, plan.length, rel_tol=1e-9)
    if runtime == trained or geometry.lineage == ("runtime" if runtime else "trained"):
        return geometry
    return geometry.with_lineage("runtime" if runtime else "trained")


def _check_groups(geometry: Geometry, plan: Plan) -> None:
    labels = {group.label for group in geometry.groups}
    if set(plan.groups) != labels:
        raise PlanError(
            f"this plan is for groups {', '.join(sorted(plan.groups))}, the model has {', '.join(sorted(labels))}; "
            "plan for this model"
        )
    for group in geometry.groups:
        word = plan.groups[group.label]
        if word is not None and (group.inv_freq is None or word.inv_freq.shape != group.inv_freq.shape):
            raise PlanError(
                f"this plan has {word.inv_freq.size} frequencies for group {group.label!r}, the model takes "
                f"{group.rotary_dim // 2}; plan for this model"
            )
    if all(word is None for word in plan.groups.values()):
        raise PlanError("this plan changes no group, so there is nothing to write")


def _target(group: Group, geometry: Geometry, plan: Plan, shape: Shape, params: Parameters) -> Target:
    word, short, switch = plan.groups[group.label], plan.groups[group.label], plan.length
    if plan.kind == "switched":
        first, last = plan.regimes[0], plan.regimes[-1]
        if len(plan.regimes) != 2 or first.longest is None or last.longest is not None:
            raise HostError(
                "longrope has two regimes, one below a length and one beyond it; freeze the plan with plan.at(n)"
            )
        short, word, switch = first.groups[group.label], last.groups[group.label], first.longest
    assert word is not None
    assert short is not None
    if (short.attention_factor, short.logit_scale) != (word.attention_factor, word.logit_scale):
        raise HostError(
            f"transformers has one attention factor for both regimes of longrope, got {short.attention_factor:g} short and "
            f"{word.attention_factor:g} long; freeze the plan with plan.at(n)"
        )
    values = params.of(_layer_type(group))
    return Target(
        word=word,
        short=short,
        switch=switch,
        shape=replace(of_type(shape, _layer_type(group)), declared=plan.length),
        base=geometry.start(group).nominal_base,
        kept={key: values[key] for key in KEPT if values.get(key) is not None},
        factor=max(float(plan.factor), 1.0),
        length=plan.length,
        original_length=geometry.start_length,
        native=plan.native,
    )


def _layer_type(group: Group) -> str:
    """The key of a group's parameters where they are nested by layer type."""
    return group.label if group.label.endswith("_attention") else FULL


def _spell_group(target: Target, label: str) -> dict[str, Any]:
    """The first candidate that stock formulas read as the plan's words."""
    nearest = math.inf
    for candidate in _candidates(target):
        types = target.shape.family.rope_types
        if types and candidate["rope_type"] not in types:
            continue
        try:
            difference = _difference(candidate, target)
        except RopewalkError:
            # A claim that does not even compute, such as a yarn whose vector has one dimension.
            continue
        if difference <= TOLERANCE:
            return candidate
        nearest = min(nearest, difference)
    raise HostError(_lost(target, label, nearest))


def _lost(target: Target, label: str, nearest: float) -> str:
    name = target.shape.model_type
    if target.word.logit_scale != 1.0 and not target.shape.family.mla:
        return (
            f"a scale of {target.word.logit_scale:g} on the whole q.k of group {label!r} would be lost: a {name} config has "
            "no field for it; plan with the temperature on cos and sin"
        )
    if np.any(target.word.inv_freq == 0.0):
        return (
            f"frequencies of zero in group {label!r} would be lost: a {name} config has no type for this vector; "
            "pi, ntk and abf keep its shape"
        )
    return (
        f"no rope type of transformers gives the frequencies of group {label!r} (the nearest is off by {nearest:.1e}); "
        "put this plan on a live model instead"
    )


def _difference(candidate: Mapping[str, Any], target: Target) -> float:
    """Largest relative difference between what stock formulas give and the plan, over both regimes."""
    worst = 0.0
    # Nested parameters cannot say truncate=false, see `formulas.Head`.
    flat = not target.shape.family.typed
    head = head_of(target.shape, bool(candidate.get("truncate", True)) if flat else True)
    for length, word in ((target.switch, target.short), (target.length, target.word)):
        inv_freq, attention_factor = formulas.compute(candidate, head, length)
        scale = formulas.logit_scale(candidate) if target.shape.family.mla else 1.0
        used = Frequencies(inv_freq=inv_freq, attention_factor=attention_factor, logit_scale=scale)
        worst = max(worst, used.difference(word))
    if worst <= TOLERANCE:
        noise = [replace(target.word, inv_freq=v).difference(target.word) for v in formulas.rounded(candidate, head)]
        worst = max([worst, *(TOLERANCE / ROUNDING * x for x in noise)])
    return worst


def _candidates(target: Target) -> Iterator[dict[str, Any]]:
    """Ways of writing a group's numbers, the most readable first."""
    if target.native is not None and target.native.name != "longrope":
        yield _native(target, target.native)
    if not target.switched:
        yield from _other_base(target)
        yield from _linear(target)
        yield from _proportional(target)
    yield from _divisors(target)


def _native(target: Target, native: Native) -> dict[str, Any]:
    """The method's claim in foreign words. Temperatures are taken from the plan, whatever the claim says."""
    options = {key: value for key, value in native.options.items() if key not in ("attention_factor", "logit_scale")}
    base = float(options.pop("base", target.base))
    if "original_length" in options:
        options[ORIGINAL] = int(options.pop("original_length"))
    params = {"rope_type": native.name, "rope_theta": base, **target.kept, **_floats(options)}
    if native.name == "yarn":
        params.update(_yarn_temperature(target))
        if params.get("truncate") is True:
            del params["truncate"]
    return params


def _yarn_temperature(target: Target) -> dict[str, float]:
    """The fields that make YaRN's factor on cos and sin, and under MLA its scale of q.k, what the plan says.

    Under MLA the `mscale` pair says both, as DeepSeek writes it. Elsewhere `attention_factor` is for transformers and
    newer vLLM, and `attn_factor`, a multiple of YaRN's own, for SGLang and older vLLM.
    """
    word, usual = target.word, formulas.temperature(target.factor)
    if target.shape.family.mla and word.logit_scale != 1.0 and target.factor > 1.0:
        strength = 0.1 * math.log(target.factor)
        both = (math.sqrt(word.logit_scale) - 1.0) / strength
        rotated = (word.attention_factor * math.sqrt(word.logit_scale) - 1.0) / strength
        if rotated != 0.0:
            return {"mscale": rotated, "mscale_all_dim": both}
        return {"attention_factor": word.attention_factor, "mscale_all_dim": both}
    if math.isclose(word.attention_factor, usual, rel_tol=1e-9):
        return {}
    return {"attention_factor": word.attention_factor, "attn_factor": word.attention_factor / usual}


def _other_base(target: Target) -> Iterator[dict[str, Any]]:
    word = target.word
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or np.any(word.inv_freq <= 0.0):
        return
    count = word.inv_freq.size
    base = target.base if count == 1 else float(word.inv_freq[-1] ** (-count / (count - 1)))
    # Rounded to 12 digits, so that a base of 500000 is found again as that number.
    yield {"rope_type": "default", "rope_theta": float(f"{base:.12g}"), **target.kept}


def _linear(target: Target) -> Iterator[dict[str, Any]]:
    word = target.word
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or word.inv_freq[0] <= 0.0:
        return
    factor = float(1.0 / word.inv_freq[0])
    if factor >= 1.0:
        yield {"rope_type": "linear", "factor": factor, "rope_theta": target.base, **target.kept}


def _proportional(target: Target) -> Iterator[dict[str, Any]]:
    """A geometric vector that ends in zeros, under any base and any factor: Gemma 4's type."""
    word = target.word
    turning = word.inv_freq[word.inv_freq > 0.0]
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or turning.size in (0, word.inv_freq.size):
        return
    base, factor = target.base, float(1.0 / turning[0])
    if turning.size > 1:
        base = float((turning[-1] * factor) ** (-word.inv_freq.size / (turning.size - 1)))
    params = {"rope_type": "proportional", "rope_theta": float(f"{base:.12g}"), **target.kept}
    yield params if factor == 1.0 else {**params, "factor": factor}


def _divisors(target: Target) -> Iterator[dict[str, Any]]:
    """`longrope`: any vector without zeros, any factor on cos and sin; one regime where both lists are the same."""
    word, short = target.word, target.short
    if np.any(word.inv_freq <= 0.0) or np.any(short.inv_freq <= 0.0):
        return
    plain = geometric(target.base, 2 * word.inv_freq.size)
    with np.errstate(over="ignore"):
        lists = {"short_factor": plain / short.inv_freq, "long_factor": plain / word.inv_freq}
    if not all(np.all(np.isfinite(divisors)) for divisors in lists.values()):
        return
    params: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": target.base,
        **target.kept,
        "factor": target.factor,
        **{key: [float(x) for x in divisors] for key, divisors in lists.items()},
        "attention_factor": word.attention_factor,
        "short_mscale": word.attention_factor,
        "long_mscale": word.attention_factor,
        ORIGINAL: target.switch,
    }
    if target.shape.family.mla and word.logit_scale != 1.0:
        # Only the logarithm of this factor counts, since the attention factor is spelled out.
        factor = target.factor if target.factor > 1.0 else 2.0
        params["factor"] = factor
        params["mscale_all_dim"] = (math.sqrt(word.logit_scale) - 1.0) / (0.1 * math.log(factor))
    yield params


def _floats(options: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as floats, but for lengths: an engine takes 4 for something else than 4.0."""
    return {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) and key != ORIGINAL else value
        for key, value in options.items()
    }


def _write(
    config: Mapping[str, Any],
    plan: Plan,
    geometry: Geometry,
    shape: Shape,
    params: Parameters,
    spelled: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The new config: rope parameters in one place, lengths raised, stale copies gone."""
    new = copy.deepcopy(dict(config))
    _, _, nested = enter(config)
    text = new.setdefault("text_config", {}) if nested else new
    main = spelled.get("all") or spelled.get(FULL) or next(iter(spelled.values()))
    if shape.family.typed:
        text["rope_parameters"] = {**copy.deepcopy(params.by_type), **spelled}
    else:
        text["rope_parameters"] = main
    for key in ("rope_scaling", "rope_theta", shape.family.base_key, shape.family.local_base_key, ORIGINAL):
        if key is not None:
            text.pop(key, None)
    if shape.family.own_original_length:
        text[ORIGINAL] = main.get(ORIGINAL, plan.length) if main["rope_type"] in WITH_ORIGINAL else plan.length
    if shape.family.needs_head_dim:
        text["head_dim"] = shape.head_dim
    text |= top_share(shape, main)
    text["max_position_embeddings"] = _declared(main, plan, geometry)
    return new


def top_share(shape: Shape, values: Mapping[str, Any]) -> dict[str, float]:
    """The rotated share as SGLang looks for it, at the top level; empty where the family has none or one for each type."""
    share = values.get(SHARE)
    if share is None or not shape.family.partial or shape.family.typed or shape.family.partial_key != SHARE:
        return {}
    return {SHARE: float(share)}


def _declared(main: Mapping[str, Any], plan: Plan, geometry: Geometry) -> int:
    """`max_position_embeddings`. For `linear`, vLLM and SGLang multiply it by the factor themselves."""
    longest = max(plan.length, geometry.start_length)
    return math.ceil(longest / main["factor"]) if main["rope_type"] == "linear" else longest


def _verify(new: Mapping[str, Any], plan: Plan, geometry: Geometry) -> None:
    """Raises `HostError` unless the new config reads as the plan, at every regime, and leaves the other groups alone."""
    before = {group.label: group for group in geometry.groups}
    lengths = [plan.length] if plan.kind == "static" else [r.longest or plan.length for r in plan.regimes]
    for length in lengths:
        words = plan.at(length).groups
        for group in groups_at(new, length):
            expected = words[group.label] or _word(before[group.label])
            used = _word(group)
            if expected is None or used is None:
                continue
            difference = used.difference(expected)
            if difference > TOLERANCE:
                raise HostError(
                    f"the config written for this plan reads differently in group {group.label!r} "
                    f"(relative difference {difference:.1e}); put this plan on a live model instead"
                )
    written = read(new)
    if written.lineage != "runtime" or written.original_length != geometry.start_length:
        raise HostError("the config written for this plan does not read back as an extension; its block would be lost")


def _word(group: Group) -> Frequencies | None:
    if group.inv_freq is None:
        return None
    return Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale)
