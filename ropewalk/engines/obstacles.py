"""Errors in a config that an extension would carry on: those stand in its way, the others are told.

A plan departs from numbers that the config gives. Where an error puts one of these in doubt (two spellings that
contradict, a base or an original length that is written nowhere), what would be written is wrong in a way that no engine
can show, since every reader would agree on it. Where the plan departs from other numbers, or writes the field anew, the
error ends with the extension, and is only told. The rule for each finding is in docs/design/0002-engines.md; an error
without a rule refuses.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.errors import RopewalkError
from ropewalk.core.geometry import Finding, Geometry
from ropewalk.engines.findings import findings
from ropewalk.engines.mending import mend

WRITTEN_ANEW = ("head_dim", "rope_parameters.rope_type")
"""Errors that no extension carries on: a missing head_dim is written, a dynamic scaling is planned anew from its origin."""


def told(config: Mapping[str, Any], geometry: Geometry) -> tuple[Finding, ...]:
    """What there is to say of a config that is extended: what its geometry says, and every error and warning besides."""
    besides = [finding for finding in findings(config) if finding.severity != "note"]
    unique = {(finding.field, finding.problem): finding for finding in (*geometry.findings, *besides)}
    return tuple(unique.values())


def obstacle(geometry: Geometry, found: tuple[Finding, ...]) -> Finding | None:
    """The first of the findings that refuses an extension of this geometry."""
    return next((finding for finding in found if finding.severity == "error" and _carried_on(finding, geometry)), None)


def _carried_on(finding: Finding, geometry: Geometry) -> bool:
    if finding.field.endswith(".truncate"):
        # From its origin a plan has a ramp of its own; a model trained at its stretch is extended from the ramp in doubt.
        return not geometry.from_origin
    return finding.field not in WRITTEN_ANEW


def refusal(config: Mapping[str, Any], finding: Finding) -> str:
    """What was found and what to do, with `verify --fix` where it has a way out and without where it has none."""
    said = "contradicts itself" if finding.field == "rope_scaling" else f"is wrong in {finding.field}"
    way = (
        "ropewalk verify SOURCE --fix --out NEW makes a copy with that done"
        if _is_mended(config, finding)
        else "ropewalk verify SOURCE lists it, and its --fix leaves it, since the config does not say what was meant"
    )
    return f"config.json {said}: {finding.problem}; {finding.mend}; {way}"


def _is_mended(config: Mapping[str, Any], finding: Finding) -> bool:
    try:
        left = mend(config).left
    except RopewalkError:
        return False
    return all(other.field != finding.field for other in left)
