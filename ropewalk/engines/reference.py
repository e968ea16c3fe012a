"""The reference of a verification: the plan that a checkpoint is to compute, and nothing left open in it.

The words of our own block come first, since they are what the checkpoint was written for. Without a block it is what the
newest supported transformers computes: the config's authors wrote it for that. Frequencies that follow the text become a
plan of two regimes, at the two lengths that are judged.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropewalk.core.errors import PlanError, SourceError
from ropewalk.core.plan import Frequencies, Plan, Regime, Words
from ropewalk.engines import transformers
from ropewalk.engines.transformers import block
from ropewalk.engines.transformers.compute import VERSIONS, word_of


def reference_of(config: Mapping[str, Any]) -> Plan:
    """What a checkpoint is to compute: the words of its own block, else what the newest supported transformers computes.

    Raises `SourceError` and `UnsupportedError` where the config says nothing that can be computed.
    """
    known = block.find(config)
    if known is not None:
        return _from_block(config, known)
    geometry = transformers.read(config)
    short, longest = max(1, geometry.original_length), max(geometry.trained_length, geometry.declared_length)
    first, last = _stock(config, short), _stock(config, longest)
    switched = short < longest and first != last
    return Plan(
        method="as-is",
        options={},
        kind="switched" if switched else "static",
        original_length=short,
        trained_length=geometry.trained_length,
        length=longest,
        factor=longest / short,
        groups=last,
        regimes=(Regime(longest=short, groups=first), Regime(longest=None, groups=last)) if switched else (),
    )


def source_of(config: Mapping[str, Any]) -> str:
    """Where `reference_of` takes its numbers from, in words."""
    if block.find(config) is not None:
        return f"the {block.KEY!r} block of the checkpoint"
    return f"what transformers {VERSIONS} computes from the config"


def _stock(config: Mapping[str, Any], length: int) -> dict[str, Frequencies | None]:
    return {group.label: word_of(group) for group in transformers.groups_at(config, length)}


def _from_block(config: Mapping[str, Any], known: Mapping[str, Any]) -> Plan:
    words = block.words(known)
    try:
        plan = Plan(
            method=str(known["method"]),
            options=dict(known["options"]),
            kind="static",
            original_length=known["origin"]["length"],
            trained_length=known["origin"]["length"],
            length=known["length"],
            factor=float(known["factor"]),
            groups=words,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"the {block.KEY!r} block of config.json is damaged ({error!r}); remove it or write the checkpoint again"
        ) from error
    # The block holds the words at its length; below the switch the config itself must tell.
    short = plan.original_length
    if known.get("kind") == "switched" and short < plan.length:
        first = {label: word if words.get(label) else None for label, word in _stock(config, short).items()}
        regimes = (Regime(longest=short, groups=first), Regime(longest=None, groups=words))
        plan = replace(plan, kind="switched", regimes=regimes)
    return plan


def completed(config: Mapping[str, Any], plan: Plan) -> Plan:
    """`plan` with the groups that it leaves alone filled in from what the config gives them.

    An engine that stretches a sliding-window layer too computes something else than the plan. Raises `PlanError` where
    the plan's groups are not the model's.
    """
    stock = _stock(config, plan.length)
    if set(plan.groups) != set(stock):
        raise PlanError(
            f"the reference is for groups {', '.join(sorted(plan.groups))}, the checkpoint has {', '.join(sorted(stock))}; "
            "give a plan of this model"
        )

    def fill(words: Words) -> Words:
        return {label: stock[label] if word is None else word for label, word in words.items()}

    if plan.kind == "dynamic":
        first, last = plan.at(plan.original_length), plan.at(plan.length)
        regimes = (Regime(longest=plan.original_length, groups=first.groups), Regime(longest=None, groups=last.groups))
        plan = replace(plan, kind="switched", groups=last.groups, regimes=regimes, geometry=None)
    return replace(
        plan,
        groups=fill(plan.groups),
        regimes=tuple(replace(regime, groups=fill(regime.groups)) for regime in plan.regimes),
    )
