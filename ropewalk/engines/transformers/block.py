"""Our own block in a config: what was done to a checkpoint, so that it is neither stretched twice nor reset.

NTK and ABF leave no trace in rope parameters, and a YaRN in a config does not say whether the weights saw it. So every
checkpoint that we write carries `config["ropewalk"]`: the plan's words, the state it departed from (the origin), and the
steps so far. Unknown keys survive stock loading and saving.

    {"schema_version": 1, "method", "options", "kind", "length", "factor",
     "origin": {"length", "declared_length", "base", "groups": {label: {"base", "inv_freq" or null where it is geometric,
                "attention_factor", "logit_scale"}}},
     "groups": {label: {"frequencies": {...}} or null}, "steps": [{"method", "options", "length", "factor", "tuned"}]}

A step that a tuning run made true sets `tuned`, and its `tuning` lists the runs that trained it, the oldest first: a second
run on the same plan does not erase the first. (Once it was the last run alone, no list.) A checkpoint without a block has
no step, so a run without a plan stays on the card of its folder.

Where the numbers of the config are not those of the block, somebody edited one of them: the block is not believed, and the
lineage is unknown.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ropewalk.core.errors import RopewalkError, SourceError
from ropewalk.core.geometry import Finding, Geometry, Group, geometric
from ropewalk.core.plan import Frequencies, Plan, check_length
from ropewalk.engines.transformers import transfer

KEY = "ropewalk"
SCHEMA_VERSION = 1
TOLERANCE = 1e-6


def find(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The block of a config, or None where nothing was stretched. Raises `SourceError` for one that cannot be read.

    A checkpoint that was only converted carries a block without a step: `{"schema_version", "converted_from"}`.
    """
    block = config.get(KEY)
    if block is None:
        return None
    if isinstance(block, Mapping) and "converted_from" in block and "method" not in block:
        return None
    if not isinstance(block, Mapping) or "schema_version" not in block:
        raise SourceError(f"the {KEY!r} block of config.json has no schema_version; remove it or write the checkpoint again")
    if block["schema_version"] != SCHEMA_VERSION:
        raise SourceError(
            f"the {KEY!r} block of config.json has schema version {block['schema_version']!r}, this release reads "
            f"{SCHEMA_VERSION}; update ropewalk"
        )
    _check(block)
    return block


def _check(block: Mapping[str, Any]) -> None:
    """Raises `SourceError` where a field that is read does not hold what `make` writes: edits are not guessed at."""
    try:
        origin, steps = block["origin"], block["steps"]
        check_length(block["length"])
        check_length(origin["length"])
        words(block)
        for start in origin["groups"].values():
            base, listed = start["base"], start["inv_freq"]
            # A word checks its own numbers: base and factor are held to what its numbers may be.
            Frequencies(
                inv_freq=np.ones(1) if listed is None else listed,
                attention_factor=start["attention_factor"],
                logit_scale=start["logit_scale"],
            )
            Frequencies(inv_freq=np.ones(1), attention_factor=base, logit_scale=block["factor"])
        if not isinstance(block["method"], str) or not isinstance(block["options"], Mapping):
            raise TypeError("method is a text and options an object")
        if not steps or not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
            raise TypeError("steps is a list of objects")
    except SourceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error


def marked(config: Mapping[str, Any], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its block's last step marked as tuned, and one more run told; without a block there is no step."""
    known = find(config)
    if known is None:
        return dict(config)
    *before, last = known["steps"]
    return {**config, KEY: {**known, "steps": [*before, {**last, "tuned": True, "tuning": [*runs(last), dict(tuning)]}]}}


def runs(step: Mapping[str, Any]) -> list[Any]:
    """The runs that trained a step, the oldest first."""
    told = step.get("tuning", [])
    return list(told) if isinstance(told, list) else [told]


def make(plan: Plan, geometry: Geometry, config: Mapping[str, Any]) -> dict[str, Any]:
    """The block for a checkpoint that gets `plan`, departing from `geometry`, whose lineage is known."""
    starts = {g.label: geometry.start(g) for g in geometry.groups if plan.groups.get(g.label) is not None}
    groups = {
        label: {
            "base": start.nominal_base,
            "inv_freq": None if start.base is not None else [float(x) for x in start.inv_freq],
            "attention_factor": start.attention_factor,
            "logit_scale": start.logit_scale,
        }
        for label, start in starts.items()
    }
    step = {"method": plan.method, "options": plan.options, "length": plan.length, "factor": plan.factor, "tuned": False}
    known = find(config)
    before = config.get(KEY)
    converted = before.get("converted_from") if isinstance(before, Mapping) else None
    return {
        "schema_version": SCHEMA_VERSION,
        **({} if converted is None else {"converted_from": converted}),
        "method": plan.method,
        "options": plan.options,
        "kind": plan.kind,
        "length": plan.length,
        "factor": plan.factor,
        "origin": {
            "length": geometry.start_length,
            "declared_length": geometry.declared_length,
            "base": next(iter(starts.values())).nominal_base,
            "groups": groups,
        },
        "groups": plan.to_dict()["groups"],
        "steps": [*(known["steps"] if known else []), step],
    }


def words(block: Mapping[str, Any]) -> dict[str, Frequencies | None]:
    """The words that the checkpoint was written with, at its length: what `verify` compares engines against.

    Raises `SourceError` where the block is damaged.
    """
    try:
        return {
            label: None if content is None else Frequencies.from_dict(content["frequencies"])
            for label, content in block["groups"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error


def settle(geometry: Geometry, block: Mapping[str, Any]) -> Geometry:
    """The geometry with lineage, lengths and origin from the block, if the numbers are still those of the block."""
    expected = words(block)
    if not all(_same(group, expected.get(group.label)) for group in geometry.groups):
        return replace(geometry, lineage="unknown", findings=(*geometry.findings, _stale()))
    try:
        origin, tuned = block["origin"], bool(block["steps"][-1].get("tuned", False))
        known = transfer.of_block(block)
        groups = tuple(_with_origin(group, origin["groups"].get(group.label)) for group in geometry.groups)
        return replace(
            geometry,
            original_length=int(origin["length"]),
            trained_length=int(block["length"]),
            lineage="trained" if tuned else "runtime",
            groups=groups,
            findings=(*geometry.findings, *([] if known is None else [known.finding()])),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error


def _same(group: Group, word: Frequencies | None) -> bool:
    if word is None:
        return True
    if group.inv_freq is None:
        return False
    used = Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale)
    return used.difference(word) <= TOLERANCE


def _with_origin(group: Group, origin: Mapping[str, Any] | None) -> Group:
    if origin is None:
        return group
    base, listed = float(origin["base"]), origin["inv_freq"]
    vector = geometric(base, group.rotary_dim) if listed is None else np.asarray(listed, dtype=np.float64)
    if vector.shape != (group.rotary_dim // 2,):
        raise ValueError(f"origin of group {group.label} has {vector.size} frequencies, expected {group.rotary_dim // 2}")
    return replace(
        group,
        origin_inv_freq=vector,
        origin_base=base,
        origin_attention_factor=float(origin["attention_factor"]),
        origin_logit_scale=float(origin["logit_scale"]),
    )


def _stale() -> Finding:
    return Finding(
        field=KEY,
        severity="error",
        problem=f"rope_parameters do not give the frequencies that the {KEY!r} block says this checkpoint was written with",
        mend=f"restore rope_parameters, or remove the {KEY!r} block and say --lineage",
    )


def _damaged(error: Exception) -> SourceError:
    said = str(error) if isinstance(error, RopewalkError) else repr(error)
    return SourceError(f"the {KEY!r} block of config.json is damaged ({said}); remove it or write the checkpoint again")
