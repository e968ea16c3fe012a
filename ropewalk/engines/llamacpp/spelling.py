"""How a static plan is said in GGUF: metadata keys, and a tensor of divisors where the architecture loads it.

Each spelling is tried from the plainest to the most special - base, linear, yarn, divisors - and taken only if what
llama.cpp computes from it equals the plan to 1e-6, for the layers that are left alone as well. That matters: the one key for
a temperature of one's own (`rope.scaling.attn_factor`) acts on sliding-window layers too, and the stretch does not.

Under MLA the softmax scale is said by `yarn_log_multiplier`, which takes any value.

Given up: betas of one's own on the two architectures that read them, and LongRoPE's switch between two tensors: a file says
one set of numbers for its context length.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.core.errors import HostError
from ropewalk.core.geometry import Vector, geometric
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines.computed import Computed
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES, windowed
from ropewalk.engines.llamacpp.compute import compute_metadata
from ropewalk.engines.llamacpp.reading import DIVISORS, LONG, SHORT

TOLERANCE = 1e-6
"""Largest relative difference of a faithful spelling: float32 rounds a frequency by 6e-8."""
SCALING_KEYS = (
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.finetuned",
    "rope.scale_linear",
)
"""Whatever of these a file says about its present scaling is taken out before a new one is said."""
LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
ALONE = "layers that the plan leaves alone"
ORIGIN_BASE = "ropewalk.origin.base"
"""Our own key: the base before any stretch of ours."""
_KEPT = ("rope.scaling.finetuned", LOG_MULTIPLIER)
"""Granite reads the first as a switch for rotating at all; the second is the softmax scale under MLA."""

Changes = dict[str, Any]
"""Metadata key to its new value; None takes the key out."""


@dataclass(frozen=True, kw_only=True)
class _Spelling:
    name: str
    keys: Mapping[str, Any]
    """Below the architecture."""
    tensors: Mapping[str, Vector] = field(default_factory=dict)


def spell_metadata(
    metadata: Mapping[str, Any], plan: Plan, *, arch: str, factors: Mapping[str, Vector] | None = None
) -> tuple[Changes, dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """What to change in `metadata`, and the factor tensors (float32 [rotary_dim/2]) that the file then has: these alone.

    `factors` are the file's present factor tensors: layers that the plan leaves alone must keep their numbers. Raises
    `HostError` where llama.cpp cannot say the plan for this architecture, with what would be lost.
    """
    word = _checked(metadata, plan, arch)
    before = compute_metadata(metadata, length=plan.trained_length, factors=factors or {})
    worst: list[tuple[bool, float, str, str]] = []
    for spelling in _spellings(metadata, plan, word, arch):
        changes = _changes(metadata, spelling.keys, plan, arch)
        tensors = {name: np.asarray(vector, dtype=np.float32) for name, vector in spelling.tensors.items()}
        changed = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
        computed = compute_metadata(
            changed, length=plan.length, factors={name: v.astype(np.float64) for name, v in tensors.items()}
        )
        off, what = _difference(computed, plan, before)
        if off <= TOLERANCE:
            return changes, tensors
        # What says the stretch itself and fails elsewhere tells more than what is nearest.
        worst.append((ALONE not in what, off, spelling.name, what))
    _, off, name, what = min(worst)
    lost = f"would lose {what}" if math.isinf(off) else f"has {what} off by {100 * off:.2g}%"
    raise HostError(
        f"llama.cpp cannot compute {plan.method} for {arch}: the nearest spelling, {name}, {lost}; "
        f"{_advice(metadata, plan, before, what)}"
    )


def _checked(metadata: Mapping[str, Any], plan: Plan, arch: str) -> Frequencies:
    """The word to say. Raises `HostError` for plans that no spelling can say."""
    if arch not in ARCHITECTURES:
        raise HostError(f"llama.cpp's code for architecture {arch!r} was not read, so no plan is written for it")
    if metadata.get("general.architecture") != arch:
        raise HostError(f"the metadata is that of {metadata.get('general.architecture')!r}, not of {arch!r}")
    if plan.kind != "static":
        raise HostError(f"a GGUF file says one set of numbers and this plan is {plan.kind}; give plan.at(length)")
    words = [word for word in plan.groups.values() if word is not None]
    if len(words) != 1:
        raise HostError(f"a GGUF file stretches one group of layers, and this plan stretches {len(words)}")
    return words[0]


def _spellings(metadata: Mapping[str, Any], plan: Plan, word: Frequencies, arch: str) -> Iterator[_Spelling]:
    target, attention = word.inv_freq, word.attention_factor
    bases = _bases(metadata, target, arch)
    base = bases[0]
    yield _Spelling(name="another base", keys=_keys("none", _fitted_base(target) or base, attention=attention))
    if target[0] > 0.0:
        factor = float(1.0 / target[0])
        keys = _keys("linear", _fitted_base(target * factor) or base, factor=factor, attention=attention)
        yield _Spelling(name="linear", keys=keys)
        if ARCHITECTURES[arch].mla:
            # The softmax scale would get YaRN's temperature squared under linear too.
            yield _Spelling(name="linear", keys=keys | _multiplier(word, factor, grown=0.1 * math.log(factor) + 1.0))
    if not np.all(target > 0.0):
        return
    for candidate in bases:
        yield from _yarns(plan, word, candidate, arch)
    loads, divisors = ARCHITECTURES[arch].loads, geometric(base, 2 * target.size) / target
    if loads in ("divisors", "divisors-or-longrope"):
        keys = _keys("none", base, attention=attention) | _original(plan)
        yield _Spelling(name=DIVISORS, keys=keys, tensors={DIVISORS: divisors})
    elif loads == "longrope":
        keys = _keys("longrope", base, attention=attention) | _original(plan)
        yield _Spelling(name=LONG, keys=keys, tensors={LONG: divisors, SHORT: divisors})


def _bases(metadata: Mapping[str, Any], target: Vector, arch: str) -> list[float]:
    """Bases that a plan may depart from: the origin's where our record tells it, the file's, the first two dimensions'."""
    found = [metadata.get(ORIGIN_BASE), metadata.get(f"{arch}.rope.freq_base", 10000.0)]
    if target.size > 1 and target[0] > target[1] > 0.0:
        found.append(float((target[0] / target[1]) ** target.size))
    usable = [base for base in found if isinstance(base, float) and 1.0 < base < 3e38]
    return list(dict.fromkeys(usable)) or [10000.0]


def _yarns(plan: Plan, word: Frequencies, base: float, arch: str) -> Iterator[_Spelling]:
    """YaRN with its default betas, at each length that the ramp may have been made for."""
    target, row = word.inv_freq, ARCHITECTURES[arch]
    factor = float(geometric(base, 2 * target.size)[-1] / target[-1])
    if factor <= 1.0:
        return
    temperature = 0.1 * math.log(factor) + 1.0
    for original in dict.fromkeys((plan.original_length, plan.trained_length)):
        keys = _keys("yarn", base, factor=factor, attention=word.attention_factor / temperature)
        length = {"rope.scaling.original_context_length": original}
        if not row.log_multiplier:
            yield _Spelling(name="yarn", keys=keys | length)
            continue
        # A multiplier of 0 is none: then it is YaRN as everywhere. The key that is there would change cos and sin.
        yield _Spelling(name="yarn", keys=keys | length | {LOG_MULTIPLIER: 0.0})
        if row.mla:
            # With one, the attention factor is the file's alone, and the rest of the softmax scale is the multiplier's.
            keys = _keys("yarn", base, factor=factor, attention=word.attention_factor)
            yield _Spelling(name="yarn", keys=keys | length | _multiplier(word, factor, grown=1.0))


def _multiplier(word: Frequencies, factor: float, *, grown: float) -> dict[str, float]:
    """The multiplier under which llama.cpp's softmax scale under MLA, (A * grown * (1 + 0.1 c ln s))^2, is the word's."""
    if factor <= 1.0:
        return {}
    wanted = math.sqrt(word.logit_scale) / (word.attention_factor * grown)
    return {LOG_MULTIPLIER: _single(0.1 * (wanted - 1.0) / (0.1 * math.log(factor)))}


def _fitted_base(target: Vector) -> float | None:
    """The base whose plain vector has this last frequency; None where there is none."""
    if target.size < 2 or not 0.0 < target[-1] < 1.0:
        return None
    base = float(target[-1] ** (-target.size / (target.size - 1)))
    return base if math.isfinite(base) and base < 3e38 else None


def _keys(kind: str, base: float, *, factor: float = 1.0, attention: float = 1.0) -> dict[str, Any]:
    keys: dict[str, Any] = {"rope.freq_base": _single(base)}
    if kind != "none":
        keys["rope.scaling.type"] = kind
    if factor != 1.0:
        keys["rope.scaling.factor"] = _single(factor)
    if abs(attention - 1.0) > 1e-9:
        keys["rope.scaling.attn_factor"] = _single(attention)
    return keys


def _original(plan: Plan) -> dict[str, Any]:
    """Not read beside divisors, but it says to people where the stretch began."""
    return {"rope.scaling.original_context_length": plan.original_length}


def _single(value: float) -> float:
    return float(np.float32(value))


def _changes(metadata: Mapping[str, Any], keys: Mapping[str, Any], plan: Plan, arch: str) -> Changes:
    """Keys that get another value or are taken out; those that stay as they are do not appear."""
    wanted: dict[str, Any] = {f"{arch}.{key}": None for key in SCALING_KEYS if key not in _KEPT}
    wanted |= {f"{arch}.{key}": value for key, value in keys.items()}
    if metadata.get(f"{arch}.{LOG_MULTIPLIER}") is None and keys.get(LOG_MULTIPLIER) == 0.0:
        del wanted[f"{arch}.{LOG_MULTIPLIER}"]
    declared = metadata.get(f"{arch}.context_length")
    wanted[f"{arch}.context_length"] = max(plan.length, declared if type(declared) is int else 0)
    return {key: value for key, value in wanted.items() if not _same(metadata.get(key), value)}


def _same(there: Any, wanted: Any) -> bool:
    """Whether a key says this already; a list, which no key of ours is, never does."""
    return type(there) is type(wanted) and bool(there == wanted)


def _difference(computed: Computed, plan: Plan, before: Computed) -> tuple[float, str]:
    """How far llama.cpp would be from the plan, and where most."""
    if computed.refuses or computed.unsupported:
        return math.inf, f"everything: {computed.refuses or computed.unsupported}"
    if computed.max_length is not None and computed.max_length < plan.length:
        return math.inf, f"the context length, {computed.max_length} instead of {plan.length}"
    if set(computed.groups) != set(plan.groups):
        there, asked = ", ".join(computed.groups), ", ".join(plan.groups)
        return math.inf, f"everything: llama.cpp has groups {there}, the plan is for {asked}"
    worst, where = 0.0, "nothing"
    # Groups that the plan stretches come first: where they are right, the others are why it cannot be said.
    for label, word in sorted(plan.groups.items(), key=lambda item: item[1] is None):
        if word is None and worst > TOLERANCE:
            break
        wanted = before.groups.get(label) if word is None else word
        found = computed.groups[label]
        if wanted is None or found is None:
            off, what = (0.0 if wanted is found else math.inf), "whether layers have positions"
        else:
            off, what = _off(found, wanted)
        if off > worst:
            worst, where = off, f"{what} of group {label}{f', {ALONE},' if word is None else ''}"
    return worst, where


def _off(found: Frequencies, wanted: Frequencies) -> tuple[float, str]:
    if found.inv_freq.shape != wanted.inv_freq.shape:
        return math.inf, "the number of frequencies"
    scale = np.where(wanted.inv_freq == 0.0, 1.0, wanted.inv_freq)
    relative = np.abs(found.inv_freq - wanted.inv_freq) / scale
    candidates = {
        f"frequency {int(np.argmax(relative))}": float(np.max(relative)),
        "the attention factor": abs(found.attention_factor / wanted.attention_factor - 1.0),
        "the logit scale": abs(found.logit_scale / wanted.logit_scale - 1.0),
    }
    what = max(candidates, key=candidates.__getitem__)
    return candidates[what], what


def _advice(metadata: Mapping[str, Any], plan: Plan, before: Computed, what: str) -> str:
    """What the architecture could say instead."""
    arch = str(metadata["general.architecture"])
    row = ARCHITECTURES[arch]
    if what.startswith("the logit scale") and not row.mla:
        return f"{arch} has one temperature in llama.cpp, on cos and sin, so plan with temperature_on=rotated"
    why = "" if row.uses else f"{arch} loads divisors and rotates without them, so "
    if row.loads == "none":
        why = f"{arch} loads no tensor of divisors, so "
    if ALONE in what:
        why = f"llama.cpp gives sliding-window layers of {arch} the same, so "
    if _on_a_stretch(plan, before):
        return (
            f"{why}no stretch on top of the one that the file has can be said: say --lineage runtime to plan from its "
            "origin, or extend the folder it was made from"
        )
    # A changed base reaches windowed layers that share it.
    based = "" if row.window == "plain" and any(windowed(arch, metadata)) else "ntk, abf, "
    return f"{why}take {based}pi or yarn with its default options"


def _on_a_stretch(plan: Plan, before: Computed) -> bool:
    """Whether a plan departs from frequencies that no base gives."""
    if plan.original_length != plan.trained_length and math.isclose(plan.factor, plan.length / plan.original_length):
        return False
    word = next((before.groups.get(label) for label, said in plan.groups.items() if said is not None), None)
    if word is None or word.inv_freq.size < 3:
        return False
    base = _fitted_base(word.inv_freq)
    return base is None or not np.allclose(geometric(base, 2 * word.inv_freq.size), word.inv_freq, rtol=1e-5, atol=0.0)
