"""The spelling of a plan that most engines compute exactly, by their own files: what `extend` writes.

transformers can say most plans in several ways, and the engines read them differently: vLLM multiplies the declared length
by the factor of `linear`, SGLang cuts some bases to whole numbers, llama.cpp's converter reads divisors from `llama3` alone.
No rule about families is written here; each spelling is judged as `verify` judges it, and the first with the most engines
wins, so that a more readable one loses only to one that reaches further.

An engine counts that is exact *and* accepts no more than the plan's length. One that would take four times as much, and
reserve memory for it, reads silently where nothing was planned. Given up: spellings with two length fields that contradict
each other, one for each engine's taste; `verify` warns of those in others' checkpoints.
"""

import math
from collections.abc import Mapping
from typing import Any

from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.engines import transformers
from ropewalk.engines.reference import completed
from ropewalk.engines.transformers.spelling import spellings
from ropewalk.engines.verdicts import ENGINES, Verdict, judge, reading


def widest(config: Mapping[str, Any], plan: Plan, *, geometry: Geometry | None = None) -> dict[str, Any]:
    """A new config dict that carries `plan`, as `transformers.spell`, in the spelling that most engines are exact with.

    Raises as `transformers.spell` does.
    """
    geometry = geometry or transformers.read(config)
    best: dict[str, Any] = {}
    most = -1
    for spelled in spellings(config, plan, geometry=geometry):
        reference = completed(config, plan)
        verdicts = [judge(reading(name, spelled), reference) for name in ENGINES]
        covered = sum(covers(verdict, plan, geometry) for verdict in verdicts)
        if covered > most:
            best, most = spelled, covered
        if all(covers(verdict, plan, geometry) or verdict.status == "unsupported" for verdict in verdicts):
            break
    return best


def covers(verdict: Verdict, plan: Plan, geometry: Geometry) -> bool:
    """Whether an engine computes the plan, and up to its length: not beyond what rounding a declared length up adds."""
    longest = max(plan.length, geometry.start_length)
    return verdict.status == "exact" and (verdict.max_length or 0) < longest + math.ceil(max(plan.factor, 1.0))
