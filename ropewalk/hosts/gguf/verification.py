"""Verdicts on a GGUF file that has no transformers config here: llama.cpp is held against what the file says.

The reference is a plan that the user gives, else the words of our own block, else what llama.cpp computes, which is then
exact by definition: the verdict says whether it loads, how far it reads and with which attention factor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ropewalk.core.errors import PlanError, RopewalkError, SourceError, UnsupportedError
from ropewalk.core.geometry import Finding
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines import llamacpp, verdicts
from ropewalk.engines.computed import Computed
from ropewalk.engines.transformers import block
from ropewalk.engines.verdicts import Verification
from ropewalk.hosts.gguf import positions
from ropewalk.hosts.gguf.header import Header

Compute = Callable[[int], Computed]


def verify(
    header: Header,
    engines: Sequence[str] | None,
    computing: Mapping[str, Compute],
    *,
    reference: Plan | None = None,
    source: str = "",
) -> Verification:
    """The verdicts of `engines` (all without), each computing as `computing` says.

    A file whose positions cannot be read is an error finding. Raises `PlanError` for a given reference of another model.
    """
    ways = [computing[name] for name in verdicts.chosen(engines)]
    named = () if engines is None else tuple(engines)
    try:
        found = positions.geometry(header)
        plan = positions.reference(header) if reference is None else reference
    except (SourceError, UnsupportedError) as error:
        return Verification(
            reference=None,
            source=source,
            verdicts=tuple(verdicts.without_reference(way) for way in ways),
            findings=(_wrong(header, error),),
            named=named,
        )
    full = _completed(plan, positions.words_of(found))
    known = block.find(positions.with_block({}, header)) is not None
    default = f"the {block.KEY!r} block of the file" if known else f"what {llamacpp.NAME} computes from the file"
    return Verification(
        reference=plan,
        source=source or ("the plan that was given" if reference is not None else default),
        verdicts=tuple(verdicts.judge(way, full) for way in ways),
        findings=found.findings,
        named=named,
    )


def _wrong(header: Header, error: RopewalkError) -> Finding:
    """Why the positions cannot be read, as a finding on the key that the sentence names."""
    problem, _, mend = str(error).partition("; ")
    field = next((key for key in sorted(header.metadata, key=len, reverse=True) if key in problem), "general.architecture")
    return Finding(field=field, severity="error", problem=problem, mend=mend or "take another file")


def _completed(plan: Plan, own: Mapping[str, Frequencies | None]) -> Plan:
    """The plan at its length, groups that it leaves alone filled in with what the file has."""
    if set(plan.groups) != set(own):
        raise PlanError(
            f"the reference is for groups {', '.join(sorted(plan.groups))}, the file has {', '.join(sorted(own))}; give a "
            "plan of this model"
        )
    static = plan.at(plan.length)
    return replace(static, groups={label: word or own[label] for label, word in static.groups.items()})
