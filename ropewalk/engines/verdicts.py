"""Verdicts: what each engine would compute from a checkpoint, held against one reference.

A reference is a plan: one that the user gives, or the words in a checkpoint's own block, or what the newest supported
transformers computes. An engine's file says what it computes (`Computed`); nothing here knows any engine's ways. What an
engine's file cannot tell is `unsupported` with its reason, never guessed.

Given up: judging every length. Numbers that depend on the length are judged at the reference's length and at the original
length, where each engine's two cases lie.
"""

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ropewalk.core.errors import InputError, PlanError, RopewalkError, near
from ropewalk.core.geometry import Finding
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines.computed import Computed
from ropewalk.engines.reference import completed, reference_of, source_of
from ropewalk.engines.transformers.checks import SECTIONS

TOLERANCE = 1e-6
"""Largest relative difference of an `exact` engine: float32 rounds a frequency by 6e-8."""
ANY_LENGTH = 4096
"""What an engine is asked for where no reference says a length, tokens."""
Status = Literal["exact", "differs", "refuses", "unsupported"]
Compute = Callable[[int], Computed]
"""Length of a request to what an engine computes then."""

ENGINES: dict[str, Callable[[], ModuleType]] = {
    "transformers": lambda: importlib.import_module("ropewalk.engines.transformers.compute"),
    "vllm": lambda: importlib.import_module("ropewalk.engines.vllm"),
    "sglang": lambda: importlib.import_module("ropewalk.engines.sglang"),
    "llama.cpp": lambda: importlib.import_module("ropewalk.engines.llamacpp"),
}
"""Name to the module with `NAME`, `VERSIONS` and `compute`, imported when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """What an execution measured: mean KL(transformers || engine) over the probed positions, nats."""

    checkpoint: float
    control: float
    """Of the same length by a changed base alone: what the engine's kernels and dtype cost."""
    swapped: float
    """Of the control's answers taken for the checkpoint's: what the probes can tell apart."""
    num_positions: int
    num_tokens: int
    """Of the longest request."""

    def to_dict(self) -> dict[str, Any]:
        """The numbers as `verify --json` shows them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One engine against the reference."""

    engine: str
    version: str
    """The range of versions that was read, or the one that was executed."""
    status: Status
    max_relative_error: float | None = None
    """Over frequencies, attention factor and logit scale, at every judged length; None where nothing can be compared."""
    first_dimension: int | None = None
    """The first pair of dimensions whose frequency differs, in the group that is off most."""
    worst_dimension: int | None = None
    """The pair that differs most."""
    attention_factor: float | None = None
    """What the engine multiplies cos and sin with."""
    max_length: int | None = None
    """Longest request it accepts by default, tokens; None where it sets no end or nothing is known."""
    reason: str = ""
    mend: str = ""
    how: Literal["read", "executed"] = "read"
    kl_nats: Divergence | None = None
    """Only where the engine was executed."""
    read: "Verdict | None" = None
    """What reading the engine's source had said, where it was executed."""

    def to_dict(self) -> dict[str, Any]:
        """The verdict as `verify --json` shows it; `kl_nats` and `read` are there where it was executed."""
        names = (
            "engine", "version", "status", "max_relative_error", "first_dimension", "worst_dimension", "attention_factor",
            "max_length", "reason", "mend", "how",
        )  # fmt: skip
        shown = {name: getattr(self, name) for name in names}
        if self.kl_nats is not None:
            shown["kl_nats"] = self.kl_nats.to_dict()
        if self.read is not None:
            shown["read"] = self.read.to_dict()
        return shown


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Every judged engine, and the traps that were found without one."""

    reference: Plan | None
    """None where the config says nothing that can be computed."""
    source: str
    """Where the reference comes from, in words."""
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...] = ()
    named: tuple[str, ...] = field(default=())
    """Engines that the user asked for by name: for them `unsupported` is a failure."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs, nothing refuses, nothing named is unsupported and no finding is an error."""
        bad = {"differs", "refuses"}
        return not any(
            verdict.status in bad or (verdict.status == "unsupported" and verdict.engine in self.named)
            for verdict in self.verdicts
        ) and all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The document of `verify --json`."""
        reference = None if self.reference is None else self.reference.to_dict()
        return {
            "reference": None if reference is None else {"source": self.source, **_strict(reference)},
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def _strict(content: Any) -> Any:
    """The same without NaN and infinity, which a block's options may hold and JSON does not know."""
    if isinstance(content, Mapping):
        return {key: _strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def chosen(engines: Sequence[str] | None) -> list[str]:
    """The engines to judge, all where none is named. Raises `InputError` for an unknown name."""
    if engines is None:
        return list(ENGINES)
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines:
        name = unknown[0] if unknown else ""
        raise InputError(f"unknown engine {name!r}; {near(name, ENGINES)}")
    return list(dict.fromkeys(engines))


def verify(
    config: Mapping[str, Any],
    *,
    reference: Plan | None = None,
    source: str = "",
    engines: Sequence[str] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
    findings: Iterable[Finding] = (),
    computing: Mapping[str, Compute] | None = None,
) -> Verification:
    """What each engine would compute from a config, against `reference` or else `reference_of(config)`.

    `findings` are what `engines.findings` says of the checkpoint; `computing` replaces the engines' reading of the config,
    for a checkpoint that an engine reads from elsewhere. A config that nothing can be computed from is an error finding.
    Raises `InputError` for an unknown engine and `PlanError` for a given reference of another model.
    """
    names, found = chosen(engines), list(findings)
    ways = {name: (computing or {}).get(name) or reading(name, config, tokenizer_config) for name in names}
    plan = full = None
    try:
        plan = reference_of(config) if reference is None else reference
        full = completed(config, plan)
    except RopewalkError as error:
        if reference is not None and isinstance(error, PlanError):
            raise
        found += [] if any(finding.problem == str(error) for finding in found) else [wrong(config, error)]
    verdicts = [judge(way, full) if full is not None else without_reference(way) for way in ways.values()]
    return Verification(
        reference=None if full is None else plan,
        source=source or (source_of(config) if reference is None and full is not None else "the plan that was given"),
        verdicts=tuple(verdicts),
        findings=tuple(found),
        named=() if engines is None else tuple(names),
    )


def reading(name: str, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any] | None = None) -> Compute:
    """What the engine of that name computes from a config, by the length of the request."""
    module = ENGINES[name]()

    def compute(length: int) -> Computed:
        computed: Computed = module.compute(config, length=length, tokenizer_config=tokenizer_config)
        return computed

    return compute


def wrong(config: Mapping[str, Any], error: RopewalkError) -> Finding:
    """A config that cannot be read, as a finding; its field is the first one that the sentence names."""
    text = config.get("text_config")
    places = [config, text if isinstance(text, Mapping) else {}]
    places += [place[key] for place in places for key in SECTIONS if isinstance(place.get(key), Mapping)]
    known = {str(key) for place in places for key in place}
    field = next((word for word in re.findall(r"\w+", str(error)) if word in known), "config.json")
    problem, _, mend = str(error).partition("; ")
    return Finding(field=field, severity="error", problem=problem, mend=mend or "mend the field and verify again")


def without_reference(compute: Compute) -> Verdict:
    """What can be said of an engine where there is nothing to compare with: whether it would refuse."""
    computed = compute(ANY_LENGTH)
    verdict = Verdict(engine=computed.engine, version=computed.versions, status="unsupported")
    if computed.refuses is not None:
        return replace(verdict, status="refuses", reason=computed.refuses, mend=_MENDS["refuses"])
    reason = computed.unsupported or "there is nothing to compare with: the findings say why"
    return replace(verdict, reason=reason, mend="mend the config first")


@dataclass(frozen=True, kw_only=True)
class _Gap:
    """How far one group is off at one length."""

    label: str
    length: int
    error: float
    """Relative; infinite where the two cannot be compared."""
    first: int | None = None
    worst: int | None = None
    words: str = ""


def judge(compute: Compute, reference: Plan) -> Verdict:
    """One engine against a complete reference."""
    computed = compute(reference.length)
    verdict = Verdict(engine=computed.engine, version=computed.versions, status="exact", max_length=computed.max_length)
    if computed.unsupported is not None:
        return replace(verdict, status="unsupported", reason=computed.unsupported, mend=_MENDS["unsupported"])
    if computed.refuses is not None:
        return replace(verdict, status="refuses", reason=computed.refuses, mend=_MENDS["refuses"])
    gaps = []
    for length in _lengths(reference, computed):
        there = computed if length == reference.length else compute(length)
        gaps += [
            gap_of(label, length, word, there.groups.get(label), label in there.groups)
            for label, word in reference.at(length).groups.items()
        ]
    worst = max(gaps, key=lambda gap: gap.error)
    shown: dict[str, Any] = {
        "max_relative_error": worst.error if np.isfinite(worst.error) else None,
        "first_dimension": worst.first,
        "worst_dimension": worst.worst,
        "attention_factor": _attention(computed, worst.label),
    }
    short = computed.max_length is not None and computed.max_length < reference.length
    if worst.error <= TOLERANCE and not short:
        return replace(verdict, **shown, reason="; ".join(computed.notes))
    reasons = [worst.words] if worst.error > TOLERANCE else []
    reasons += [f"it accepts {computed.max_length} tokens of {reference.length}"] if short else []
    reasons += [f"it does not read {', '.join(computed.ignored)}"] if computed.ignored and worst.error > TOLERANCE else []
    return replace(
        verdict, **shown, status="differs", reason="; ".join(reasons), mend=_mend(worst, short, computed, reference)
    )


def _lengths(reference: Plan, computed: Computed) -> list[int]:
    """The lengths to judge: the reference's, and one inside the original length where anything depends on it."""
    short = reference.original_length
    if reference.kind == "switched":
        short = min(regime.longest or reference.length for regime in reference.regimes)
    depends = reference.kind == "switched" or computed.depends_on != "nothing"
    return [reference.length, *([short] if depends and short < reference.length else [])]


def gap_of(label: str, length: int, expected: Frequencies | None, used: Frequencies | None, there: bool = True) -> _Gap:
    """The difference of one group at one length, in numbers and words."""
    at = f"group {label!r} at {length} tokens"
    if not there:
        return _Gap(label=label, length=length, error=np.inf, words=f"it has no {at}")
    if expected is None or used is None:
        same = expected is used
        words = f"{at} rotates and the reference does not" if expected is None else f"{at} rotates nothing"
        return _Gap(label=label, length=length, error=0.0 if same else np.inf, words="" if same else words)
    if used.inv_freq.shape != expected.inv_freq.shape:
        words = f"{at} has {used.inv_freq.size} frequencies, the reference {expected.inv_freq.size}"
        return _Gap(label=label, length=length, error=np.inf, words=words)
    larger = np.maximum(used.inv_freq, expected.inv_freq)
    errors = np.abs(used.inv_freq - expected.inv_freq) / np.where(larger == 0.0, 1.0, larger)
    off = np.flatnonzero(errors > TOLERANCE)
    parts = []
    if off.size:
        worst = int(np.argmax(errors))
        with np.errstate(over="ignore"):
            ratio = used.inv_freq[worst] / expected.inv_freq[worst] if expected.inv_freq[worst] else np.inf
        parts.append(
            f"{off.size} of {errors.size} frequencies differ from dimension {off[0]} on, most in {worst} "
            f"({ratio:.4g} times the reference)"
        )
    for name, mine, theirs in (
        ("attention factor", used.attention_factor, expected.attention_factor),
        ("logit scale", used.logit_scale, expected.logit_scale),
    ):
        if abs(mine - theirs) > TOLERANCE * max(mine, theirs):
            parts.append(f"{name} {mine:.6g} for {theirs:.6g}")
    return _Gap(
        label=label,
        length=length,
        error=used.difference(expected),
        first=int(off[0]) if off.size else None,
        worst=int(np.argmax(errors)) if off.size else None,
        words=f"{at}: {', '.join(parts)}" if parts else "",
    )


def _attention(computed: Computed, label: str) -> float | None:
    word = computed.groups.get(label)
    if word is None:
        word = next((w for w in computed.groups.values() if w is not None), None)
    return None if word is None else word.attention_factor


_ELSEWHERE = {
    "llama.cpp": "write the plan into the GGUF file itself (ropewalk extend MODEL.gguf --out NEW.gguf), or start it with "
    "the flags of ropewalk extend --flags llama.cpp",
}
"""Engines that do not read the config itself: what a converter loses is not mended there."""
_MENDS = {
    "unsupported": "read it in an engine that has the family, or execute it",
    "refuses": "write the config anew with ropewalk extend, or ropewalk verify PATH --fix --out DIR",
}


def _mend(worst: _Gap, short: bool, computed: Computed, reference: Plan) -> str:
    if computed.engine in _ELSEWHERE:
        return _ELSEWHERE[computed.engine]
    mends = []
    if worst.error > TOLERANCE:
        if computed.depends_on != "nothing" and worst.length != reference.length:
            mends.append(f"serve texts of up to {worst.length} tokens from the unchanged checkpoint, or freeze one vector")
        elif worst.first is None and np.isfinite(worst.error) and computed.ignored:
            mends.append("spell the factor for every engine: ropewalk verify PATH --fix --out DIR")
        else:
            mends.append(
                "write the plan in a spelling this engine reads (ropewalk extend), or give it a launch line (--flags)"
            )
    if short:
        mends.append(f"raise max_position_embeddings, and what contradicts it, to {reference.length}")
    return "; ".join(mends)
