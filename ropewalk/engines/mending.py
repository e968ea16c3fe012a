"""A config with the traps taken out that have only one way out, and the numbers of stock transformers unchanged.

One spelling, floats, no stale copies, lengths that agree, and the factor on cos and sin and the rotated share written for
every engine. What needs a decision is left: which original length is meant, which base was lost, which length a dynamic
scaling is frozen at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.core.errors import HostError
from ropewalk.core.geometry import Finding
from ropewalk.core.plan import Frequencies
from ropewalk.engines import transformers
from ropewalk.engines.findings import FLOATS, LENGTH_FIELDS, ORIGINAL, Facts, findings, hidden_share
from ropewalk.engines.reference import reference_of
from ropewalk.engines.transformers import formulas, refusals
from ropewalk.engines.transformers.compute import word_of
from ropewalk.engines.transformers.families import enter
from ropewalk.engines.transformers.reading import Shape, measure, parameters
from ropewalk.engines.transformers.spelling import SHARE
from ropewalk.engines.transformers.spellings import NEEDS_HEAD_DIM

TOLERANCE = 1e-9
"""A mend may round nothing that a float64 holds."""


@dataclass(frozen=True, kw_only=True)
class Mended:
    """A config and a tokenizer's config, new, and what was done."""

    config: dict[str, Any]
    tokenizer_config: dict[str, Any] | None
    changes: tuple[str, ...]
    """A sentence each; empty where there was nothing to mend."""
    left: tuple[Finding, ...]
    """Errors and warnings that need a decision."""

    def to_dict(self) -> dict[str, Any]:
        """What was done, as `verify --fix --json` shows it."""
        return {"changes": list(self.changes), "left": [finding.to_dict() for finding in self.left]}


def mend(
    config: Mapping[str, Any], *, tokenizer_config: Mapping[str, Any] | None = None, facts: Facts | None = None
) -> Mended:
    """Takes out what has only one way out; `config` is left alone.

    Raises `SourceError` and `UnsupportedError` where the config cannot be read.
    """
    transformers.read(config)
    before = findings(config, tokenizer_config=tokenizer_config, facts=facts)
    new, changes = refusals.whole_numbers(config)
    if not any(_undecided(finding) for finding in before):
        changes += [*_rope(new, measure(config)), *_lengths(new)]
    if new.pop("auto_map", None) is not None:
        changes.append("auto_map is gone: code files are not carried into the copy, and the stock class is what was judged")
    _check_same(config, new)
    tokenizer = None if tokenizer_config is None else dict(tokenizer_config)
    longest = reference_of(new).length
    if tokenizer is not None:
        changes += _tokenizer(tokenizer, longest)
    after = findings(new, tokenizer_config=tokenizer, facts=facts)
    left = tuple(finding for finding in after if finding.severity != "note")
    return Mended(config=new, tokenizer_config=tokenizer, changes=tuple(changes), left=left)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    _, _, nested = enter(config)
    text: dict[str, Any] = config["text_config"] if nested and isinstance(config.get("text_config"), dict) else config
    return text


def _undecided(finding: Finding) -> bool:
    """Whether nothing about rope parameters can be written before its owner has said which number is meant."""
    missing_original = finding.field == f"rope_parameters.{ORIGINAL}"
    return missing_original or (finding.field == "rope_theta" and "written nowhere" in finding.problem)


def _rope(new: dict[str, Any], shape: Shape) -> list[str]:
    """One clean `rope_parameters`, in place."""
    text, family, params = _text(new), shape.family, parameters(shape)
    kinds = {values["rope_type"] for values in params.by_type.values()}
    if kinds == {"default"} and not text.get("rope_parameters") and not text.get("rope_scaling"):
        # An unscaled model in the old spelling is read alike by all.
        return []
    written: dict[str, Any] = {}
    changes = []
    for label, values in params.by_type.items():
        written[label], changed = _section(values, shape)
        changes += changed
    stale = ["rope_scaling", "rope_theta", family.base_key, family.local_base_key]
    stale += [] if family.own_original_length else [ORIGINAL]
    for key in dict.fromkeys(key for key in stale if key and text.get(key) is not None):
        changes.append(f"{key} beside rope_parameters is gone: {_short(text.pop(key))}")
    if family.typed and not params.truncate:
        written["truncate"] = False
    text["rope_parameters"] = written if family.typed else written[""]
    shares = hidden_share(shape, written.get("", {}))
    if shares is not None:
        text[SHARE] = shares[0]
        changes.append(f"{SHARE} {shares[0]:g} is repeated at the top level, where SGLang looks for it")
    if family.needs_head_dim and kinds & set(NEEDS_HEAD_DIM) and text.get("head_dim") is None:
        text["head_dim"] = shape.head_dim
        changes.append(f"head_dim is written: {shape.head_dim}")
    return changes


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section(values: Mapping[str, Any], shape: Shape) -> tuple[dict[str, Any], list[str]]:
    """One object of rope fields, clean, and what was changed in it."""
    section, changes = dict(values), []
    if section.pop("type", None) is not None:
        changes.append("the old field type is gone beside rope_type")
    if section.get("truncate") is False and shape.family.typed:
        del section["truncate"]
        changes.append("truncate is gone from inside a layer type, where nothing reads it")
    if section["rope_type"] == "yarn" and section.get("factor") is None:
        section["factor"] = formulas.stretch(section, shape.declared)
        changes.append(f"the factor is written out: {section['factor']:g}")
    for key in FLOATS:
        if type(section.get(key)) is int:
            section[key] = float(section[key])
            changes.append(f"{key} is a float: {section[key]}")
    if type(section.get("rope_theta")) is int:
        section["rope_theta"] = float(section["rope_theta"])
    return section, changes + _temperature(section, shape)


def _temperature(section: dict[str, Any], shape: Shape) -> list[str]:
    """The factor on cos and sin, in the words of those engines that do not read `attention_factor`."""
    factor = section.get("attention_factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        # A factor that is no number is a finding, and nothing that can be said in other words.
        return []
    if section["rope_type"] == "yarn" and not {"attn_factor", "mscale", "mscale_all_dim"} & section.keys():
        usual = formulas.temperature(formulas.stretch(section, shape.declared))
        if abs(factor - usual) <= TOLERANCE * usual:
            return []
        section["attn_factor"] = factor / usual
        return [f"attn_factor {section['attn_factor']:.6g} is added for engines that do not read attention_factor"]
    if section["rope_type"] == "longrope" and not {"short_mscale", "long_mscale"} & section.keys():
        section["short_mscale"] = section["long_mscale"] = float(factor)
        return [f"short_mscale and long_mscale {factor:g} are added for engines that do not read attention_factor"]
    return []


def _lengths(new: dict[str, Any]) -> list[str]:
    """Lengths that say what the numbers give, in place."""
    text, geometry, changes = _text(new), transformers.read(new), []
    declared = geometry.declared_length
    if geometry.scheme == "yarn" and geometry.trained_length > declared:
        text["max_position_embeddings"] = geometry.trained_length
        changes.append(f"max_position_embeddings is {geometry.trained_length}, was {declared}")
        declared = geometry.trained_length
    for key in LENGTH_FIELDS:
        value = text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value < declared:
            changes.append(f"{key} is {declared}, was {value}")
            text[key] = declared
    return changes


def _tokenizer(tokenizer: dict[str, Any], longest: int) -> list[str]:
    known = tokenizer.get("model_max_length")
    if isinstance(known, bool) or not isinstance(known, int | float) or not known < longest:
        return []
    tokenizer["model_max_length"] = longest
    return [f"model_max_length of the tokenizer is {longest}, was {known:g}"]


def _check_same(config: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises `HostError` where stock transformers would compute something else from the new config."""
    plan = reference_of(new)
    for length in {plan.original_length, plan.length}:
        theirs = {group.label: word_of(group) for group in transformers.groups_at(config, length)}
        for group in transformers.groups_at(new, length):
            if not _same(word_of(group), theirs[group.label]):
                raise HostError(
                    f"mending this config would change the numbers of group {group.label!r}; "
                    "write it anew with ropewalk extend"
                )


def _same(one: Frequencies | None, other: Frequencies | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.difference(other) <= TOLERANCE
