"""A `Plan` to a transformers config dict that stock code computes the same numbers from.

`candidates` come from the most readable to the most general, and each is accepted only if stock formulas give the plan's
words. The last word has the whole config, read back. A native name whose float32 rounding alone would leave the tolerance
(a blend without rounded ends, stretched far) is passed over for the divisors, which do not have it.

`spell` is the first that holds; `spellings` are all of them, for `engines.coverage` to choose among by what the other
engines compute.

What is written is one spelling, `rope_parameters`, with floats everywhere and no stale copies at the top level. Engines
read some fields differently from transformers; the extra keys (`attn_factor`, `short_mscale`, `long_mscale`) are for them
and cost a warning in transformers. The rotated share alone is said twice: SGLang looks for it at the top level only.

Given up: a scale of the whole q.k outside MLA. No other family has a field that only full-attention layers read.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ropewalk.core.errors import HostError, PlanError, RopewalkError
from ropewalk.core.geometry import Geometry, Group
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines.transformers import block, formulas
from ropewalk.engines.transformers.candidates import ORIGINAL, Target, candidates
from ropewalk.engines.transformers.families import enter
from ropewalk.engines.transformers.reading import Shape, groups_at, head_of, measure, of_type, parameters, read
from ropewalk.engines.transformers.spellings import FULL, WITH_ORIGINAL, Parameters

TOLERANCE = 1e-6
"""Largest relative difference between a plan and what stock formulas give: float32 rounds by 6e-8."""
ROUNDING = 7.5e-7
"""The same for what float32 makes of a blend, which is simulated, so there must be room for other orders of operations."""
SHARE = "partial_rotary_factor"
KEPT = (SHARE, "mrope_section", "mrope_interleaved")
"""Rope parameters that say which dimensions are rotated, not how fast."""


def spell(config: Mapping[str, Any], plan: Plan, *, geometry: Geometry | None = None) -> dict[str, Any]:
    """A new config dict that carries `plan`, our own block included; `config` is left alone.

    It is the first of `spellings`.

    `geometry` is what the plan was made from, where the user said more than the config does (lineage). Raises `HostError`
    where stock transformers cannot compute the plan's numbers, saying what would be lost, and `PlanError` for a plan of
    another model.
    """
    return next(spellings(config, plan, geometry=geometry))


def spellings(config: Mapping[str, Any], plan: Plan, *, geometry: Geometry | None = None) -> Iterator[dict[str, Any]]:
    """Every config that stock transformers computes the plan's numbers from, the most readable first; at least one.

    Raises as `spell` does.
    """
    if plan.kind == "dynamic":
        raise HostError(
            "a dynamic plan has no faithful checkpoint: each engine computes something else from it; "
            "freeze it for a length with plan.at(n)"
        )
    geometry = _known_lineage(geometry or read(config), plan)
    shape, params = measure(config), parameters(measure(config))
    _check_groups(geometry, plan)
    ways = {
        group.label: _of_group(_target(group, geometry, plan, shape, params), group.label)
        for group in geometry.groups
        if plan.groups[group.label] is not None
    }
    known = block.make(plan, geometry, config)
    wrong = None
    num_right = 0
    for chosen in itertools.product(*ways.values()):
        spelled = dict(zip(ways, chosen, strict=True))
        for declared in _declared(_main(spelled), plan, geometry, shape):
            new = _write(config, plan, shape, params, spelled, declared) | {block.KEY: known}
            try:
                _verify(new, plan, geometry)
            except HostError as error:
                wrong = wrong or error
                continue
            num_right += 1
            yield new
    if wrong is not None and not num_right:
        raise wrong


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


def _of_group(target: Target, label: str) -> list[dict[str, Any]]:
    """The candidates that stock formulas read as the plan's words; raises `HostError` where there is none."""
    found: list[dict[str, Any]] = []
    nearest = math.inf
    for candidate in candidates(target):
        types = target.shape.family.rope_types
        if candidate in found or (types and candidate["rope_type"] not in types):
            continue
        try:
            difference = _difference(candidate, target)
        except RopewalkError:
            # A claim that does not even compute, such as a yarn whose vector has one dimension.
            continue
        if difference <= TOLERANCE:
            found.append(candidate)
        nearest = min(nearest, difference)
    if not found:
        raise HostError(_lost(target, label, nearest))
    return found


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


def _write(
    config: Mapping[str, Any],
    plan: Plan,
    shape: Shape,
    params: Parameters,
    spelled: Mapping[str, dict[str, Any]],
    declared: int,
) -> dict[str, Any]:
    """The new config: rope parameters in one place, lengths raised, stale copies gone."""
    new = copy.deepcopy(dict(config))
    _, _, nested = enter(config)
    if nested and new.get("text_config") is None:
        new["text_config"] = {}
    text = new["text_config"] if nested else new
    main = _main(spelled)
    if shape.family.typed:
        text["rope_parameters"] = {**copy.deepcopy(params.by_type), **copy.deepcopy(dict(spelled))}
    else:
        text["rope_parameters"] = copy.deepcopy(main)
    for key in ("rope_scaling", "rope_theta", shape.family.base_key, shape.family.local_base_key, ORIGINAL):
        if key is not None:
            text.pop(key, None)
    if shape.family.own_original_length:
        text[ORIGINAL] = main.get(ORIGINAL, plan.length) if main["rope_type"] in WITH_ORIGINAL else plan.length
    if shape.family.needs_head_dim:
        text["head_dim"] = shape.head_dim
    text |= top_share(shape, main)
    text["max_position_embeddings"] = declared
    return new


def _main(spelled: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The parameters of the layers that see the whole text."""
    return spelled.get("all") or spelled.get(FULL) or next(iter(spelled.values()))


def top_share(shape: Shape, values: Mapping[str, Any]) -> dict[str, float]:
    """The rotated share as SGLang looks for it, at the top level; empty where the family has none or one for each type."""
    share = values.get(SHARE)
    if share is None or not shape.family.partial or shape.family.typed or shape.family.partial_key != SHARE:
        return {}
    return {SHARE: float(share)}


def _declared(main: Mapping[str, Any], plan: Plan, geometry: Geometry, shape: Shape) -> list[int]:
    """What `max_position_embeddings` may say, the likelier first.

    For `linear`, vLLM multiplies it by the factor itself, and SGLang where the parameters are flat. Nested ones SGLang takes
    as they stand, and vLLM too for Gemma 3, but for no other family.
    """
    longest = max(plan.length, geometry.start_length)
    if main["rope_type"] != "linear":
        return [longest]
    divided = math.ceil(longest / main["factor"])
    return [longest, divided] if shape.family.typed else [divided, longest]


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
