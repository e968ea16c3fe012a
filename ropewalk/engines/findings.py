"""Traps in a checkpoint that show without an engine: each one has cost somebody a model that runs and is wrong.

What reading the config finds (contradicting spellings, a whole number for a factor, a missing original length, `truncate`
where nothing looks) comes from `engines.transformers`; here is what needs more than the rope parameters: fields of length
beside them, the tokenizer, buffers stored in the weights, draft models beside the model. Each finding says its mend, and
`hosts.folder.mended` carries out those that have only one.

Given up: telling whether a base was lost where the config shows no sign of it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.core.errors import RopewalkError
from ropewalk.core.geometry import Finding, Geometry, Group
from ropewalk.engines import transformers
from ropewalk.engines.reference import reference_of
from ropewalk.engines.transformers import formulas
from ropewalk.engines.transformers.families import FAMILIES, default, enter
from ropewalk.engines.transformers.reading import Shape, main_parameters, measure, parameters
from ropewalk.engines.transformers.spelling import SHARE, top_share

LENGTH_FIELDS = (
    "n_positions", "n_ctx", "max_seq_len", "max_seq_length", "max_sequence_length", "seq_length", "seq_len", "seqlen",
    "model_max_length",
)  # fmt: skip
"""Other names for the length of a text. vLLM takes the smallest of some, SGLang the first of others."""
FLOATS = (
    "factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "low_freq_factor",
    "high_freq_factor", "short_mscale", "long_mscale",
)  # fmt: skip
"""Rope fields that must be floats: engines take 4 for something else than 4.0."""
PLAIN_BASE, PLAIN_LENGTH = 1e4, 8192
"""A base of 10,000 was never trained far beyond 8,192 tokens: there it is taken for a lost one."""
ROUNDED = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
DRAFT_WORDS = ("eagle", "medusa", "mtp", "nextn", "speculator", "hydra", "dflash", "draft")
AHEAD = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "mtp_num_layers")
"""How families count layers that guess the tokens after the next one."""
ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a folder holds beside config.json, as dicts: `hosts.folder.facts` gathers it."""

    tensors: Mapping[str, str] = field(default_factory=dict)
    """Stored buffers of frequencies: tensor name to dtype, from safetensors headers."""
    drafts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configs in subfolders: relative path to content."""


def findings(
    config: Mapping[str, Any], *, tokenizer_config: Mapping[str, Any] | None = None, facts: Facts | None = None
) -> list[Finding]:
    """Every trap in a checkpoint. Never raises: a config that cannot be read has only the findings that need no reading.

    What makes it unreadable is for `verdicts.verify` to say.
    """
    facts = facts or Facts()
    found: list[Finding] = []
    try:
        geometry = transformers.read(config)
    except RopewalkError:
        return list(_stored(facts))
    found += geometry.findings
    model_type, text, _ = enter(config)
    shape = measure(config)
    values = main_parameters(parameters(shape))
    longest = _longest(config, geometry)
    found += _base(model_type, text, geometry)
    found += _whole_numbers(text)
    found += _dynamic(values)
    found += _share(shape, values)
    found += _lengths(text, values, geometry)
    found += _tokenizer(tokenizer_config, longest)
    found += _stored(facts)
    found += _drafts(config, geometry, longest, facts)
    unique = {(finding.field, finding.problem): finding for finding in found}
    return list(unique.values())


def _longest(config: Mapping[str, Any], geometry: Geometry) -> int:
    """The length that the checkpoint is meant to read."""
    try:
        return reference_of(config).length
    except RopewalkError:
        return max(geometry.declared_length, geometry.trained_length)


def _sections(text: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object of rope fields, with its path."""
    for key in ("rope_parameters", "rope_scaling"):
        section = text.get(key)
        if not isinstance(section, Mapping):
            continue
        yield key, section
        yield from ((f"{key}.{label}", inner) for label, inner in section.items() if isinstance(inner, Mapping))


def _base(model_type: str, text: Mapping[str, Any], geometry: Geometry) -> Iterator[Finding]:
    """A base that is nowhere: the class fills in its own, whatever the model was trained with."""
    family = FAMILIES[model_type]
    named = [family.base_key, "rope_theta", *([family.local_base_key] if family.local_base_key else [])]
    if any(text.get(key) is not None for key in named) or any("rope_theta" in s for _, s in _sections(text)):
        return
    used = next((group.base for group in geometry.groups if group.base is not None), None)
    if used is None:
        return
    # The newer spelling always has its base inside, so something replaced the whole object.
    replaced = bool(text.get("rope_parameters"))
    if not replaced and not (used == PLAIN_BASE and geometry.declared_length > PLAIN_LENGTH):
        return
    yield Finding(
        field="rope_theta",
        severity="error" if replaced else "warning",
        problem=f"the base is written nowhere, so the class default {used:g} is used for {geometry.declared_length} tokens",
        mend="write the base the model was trained with into rope_parameters",
    )


def _whole_numbers(text: Mapping[str, Any]) -> Iterator[Finding]:
    for path, section in _sections(text):
        for key in FLOATS:
            value = section.get(key)
            # The factor is told by the reading.
            if type(value) is int and key != "factor":
                yield Finding(
                    field=f"{path}.{key}",
                    severity="warning",
                    problem=f"{key} is the whole number {value}, and readers that check types take it for a mistake",
                    mend=f"write {value}.0",
                )


def _dynamic(values: Mapping[str, Any]) -> Iterator[Finding]:
    if values["rope_type"] == "dynamic":
        yield Finding(
            field="rope_parameters.rope_type",
            severity="error",
            problem="dynamic scaling is another computation in every engine: none in vLLM, the largest stretch in SGLang, "
            "not converted for llama.cpp",
            mend="freeze it for a length: ropewalk extend --method ntk",
        )


def hidden_share(shape: Shape, values: Mapping[str, Any]) -> tuple[float, float] | None:
    """The rotated share that transformers uses and the one that a reader of the top level finds, where they differ."""
    written = top_share(shape, values).get(SHARE)
    seen = shape.text.get(SHARE)
    if seen is None:
        seen = default(shape.model_type, "rope_parameters").get(SHARE, 1.0)
    return None if written is None or written == seen else (written, float(seen))


def _share(shape: Shape, values: Mapping[str, Any]) -> Iterator[Finding]:
    shares = hidden_share(shape, values)
    if shares is not None:
        yield Finding(
            field=SHARE,
            severity="warning",
            problem=f"{SHARE} is {shares[0]:g} inside rope_parameters; SGLang looks at the top level only, finds "
            f"{shares[1]:g}, and rotates other dimensions",
            mend=f"write {SHARE} {shares[0]:g} at the top level too",
        )


def _lengths(text: Mapping[str, Any], values: Mapping[str, Any], geometry: Geometry) -> Iterator[Finding]:
    """Fields of length that contradict one another, or that promise what the numbers do not give."""
    declared, original = geometry.declared_length, values.get(ORIGINAL)
    for key in LENGTH_FIELDS:
        value = text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value != declared:
            low = value < declared
            yield Finding(
                field=key,
                severity="warning" if low else "note",
                problem=f"{key} is {value} and max_position_embeddings {declared}, and engines disagree on which one counts",
                mend=f"set {key} to {declared}, or remove it",
            )
    if original is not None and original > declared:
        yield Finding(
            field=ORIGINAL,
            severity="error",
            problem=f"{ORIGINAL} {original:g} lies above max_position_embeddings {declared}",
            mend="write the length before the stretch there, and the length after it in max_position_embeddings",
        )
    if values["rope_type"] == "yarn" and original is not None and values.get("factor") is not None:
        reach = round(original * formulas.stretch(values, declared))
        if declared > reach:
            yield Finding(
                field="max_position_embeddings",
                severity="warning",
                problem=f"yarn stretches {original:g} tokens to {reach}, max_position_embeddings promises {declared}",
                mend=f"write factor {declared / original:g}, or max_position_embeddings {reach}",
            )
    if values["rope_type"] == "longrope" and text.get(ORIGINAL) is not None:
        yield Finding(
            field=ORIGINAL,
            severity="note",
            problem=f"with {ORIGINAL} beside max_position_embeddings, vLLM serves {text[ORIGINAL]} tokens unless told more",
            mend=f"start vLLM with --max-model-len {declared}",
        )


def _tokenizer(tokenizer_config: Mapping[str, Any] | None, longest: int) -> Iterator[Finding]:
    known = (tokenizer_config or {}).get("model_max_length")
    if isinstance(known, bool) or not isinstance(known, int | float) or not known < longest:
        return
    yield Finding(
        field="tokenizer_config.json: model_max_length",
        severity="warning",
        problem=f"the tokenizer stops at {known:g} tokens, the model reads {longest}: what truncates by it cuts texts short",
        mend=f"set model_max_length to {longest}",
    )


def _stored(facts: Facts) -> Iterator[Finding]:
    rounded = {name: dtype for name, dtype in facts.tensors.items() if dtype in ROUNDED}
    if rounded:
        name, dtype = next(iter(rounded.items()))
        yield Finding(
            field=name,
            severity="warning",
            problem=f"{len(rounded)} stored buffers of frequencies are rounded to {dtype}: a reader that loads them turns "
            "by other angles at long range",
            mend="leave these tensors out when the weights are written; readers compute them from the config",
        )
    elif facts.tensors:
        yield Finding(
            field=next(iter(facts.tensors)),
            severity="note",
            problem=f"{len(facts.tensors)} buffers of frequencies are stored with the weights; a reader that loads them "
            "ignores the config",
            mend="leave these tensors out when the weights are written",
        )


def _drafts(config: Mapping[str, Any], geometry: Geometry, longest: int, facts: Facts) -> Iterator[Finding]:
    """Draft models that read other positions: their guesses are refused beyond their window."""
    beside = {name: content for name, content in facts.drafts.items() if is_draft(name, content)}
    inner = config.get("speculative_config")
    if isinstance(inner, Mapping) and ("model_type" in inner or "max_position_embeddings" in inner):
        beside["speculative_config"] = inner
    for name, content in beside.items():
        problem = _draft_problem(content, geometry, longest)
        if problem:
            yield Finding(
                field=name,
                severity="warning",
                problem=f"the draft model in {name} does not carry this plan: {problem}",
                mend="give its config the same rope_parameters and max_position_embeddings",
            )
        elif _is_plain_beside(content, geometry):
            yield Finding(
                field=name,
                severity="note",
                problem=f"the draft model in {name} has a base of its own and no stretch, and claims {longest} tokens; "
                "nothing here shows that it was trained for them",
                mend="measure how many of its guesses are kept on long texts",
            )
    yield from _ahead(config, geometry)


def _ahead(config: Mapping[str, Any], geometry: Geometry) -> Iterator[Finding]:
    """Layers for guessing ahead inside a stretched model: they turn by the same rope parameters."""
    _, text, _ = enter(config)
    for key in AHEAD:
        count = text.get(key)
        if type(count) is not int or count < 1 or not any(map(_is_stretched, geometry.extended_groups)):
            continue
        known = geometry.lineage == "runtime"
        yield Finding(
            field=key,
            severity="note",
            problem=f"{count} layers for guessing ahead share this config, and "
            + ("were not trained at its stretch" if known else "it does not say whether they were trained at its stretch"),
            mend="measure how many of their guesses are kept on long texts",
        )


def _is_stretched(group: Group) -> bool:
    """Whether a group turns by other numbers than before its stretch."""
    if group.inv_freq is None or group.origin_inv_freq is None:
        return False
    same = np.allclose(group.inv_freq, group.origin_inv_freq, rtol=1e-6, atol=0.0)
    return not same or group.attention_factor != group.origin_attention_factor


def is_draft(name: str, content: Mapping[str, Any]) -> bool:
    """Whether a config in a subfolder is a draft model's, by its folder, its type and its classes."""
    classes = content.get("architectures")
    said = [name, str(content.get("model_type", "")), *(map(str, classes) if isinstance(classes, list) else [])]
    return any(word in part.lower() for word in DRAFT_WORDS for part in said) or "speculators_config" in content


def _draft_problem(content: Mapping[str, Any], geometry: Geometry, longest: int) -> str | None:
    try:
        theirs = transformers.read(content)
    except RopewalkError as error:
        return f"it cannot be read ({error})" if content.get("rope_theta") or content.get("rope_parameters") else None
    mine = next((group for group in geometry.extended_groups), None)
    group = next((group for group in theirs.groups if group.rotated), None)
    if mine is None or group is None or mine.inv_freq is None or group.inv_freq is None:
        return None
    if theirs.declared_length < longest:
        return f"it reads {theirs.declared_length} tokens of {longest}"
    if group.base not in (mine.base, mine.origin_base):
        # A draft with a base of its own was trained apart, and only its length can be held against the model's.
        return None
    if group.inv_freq.shape != mine.inv_freq.shape:
        # Vectors of two shapes cannot be compared, but whether there is a stretch at all can.
        lost = _is_stretched(mine) and not _is_stretched(group)
        return f"it claims {theirs.declared_length} tokens without a stretch" if lost else None
    if not np.allclose(group.inv_freq, mine.inv_freq, rtol=1e-6, atol=0.0):
        return "its frequencies are others"
    if not math.isclose(group.attention_factor, mine.attention_factor, rel_tol=1e-6):
        return f"its attention factor is {group.attention_factor:.6g} for {mine.attention_factor:.6g}"
    return None


def _is_plain_beside(content: Mapping[str, Any], geometry: Geometry) -> bool:
    """Whether a readable draft of another base has no stretch beside a model that has one."""
    try:
        theirs = transformers.read(content)
    except RopewalkError:
        return False
    group = next((group for group in theirs.groups if group.rotated), None)
    mine = next(iter(geometry.extended_groups), None)
    if group is None or mine is None or group.base in (mine.base, mine.origin_base):
        return False
    return _is_stretched(mine) and not _is_stretched(group)
