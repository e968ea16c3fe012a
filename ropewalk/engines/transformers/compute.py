"""What stock transformers computes from a config, as the other engines' files say it of theirs.

The numbers come from `reading` and `formulas`, which follow transformers 5.23's source; 5.16.1 computes the same (both are
run in `make engines`). What that source refuses is told from what we did not read: a missing field stops it, a negative
factor does not, and no number can then be told.

Given up: rope types that a process registers itself, and remote code.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.errors import RopewalkError, SourceError, UnsupportedError
from ropewalk.core.geometry import Group
from ropewalk.core.plan import Frequencies
from ropewalk.engines.computed import Computed, Depends
from ropewalk.engines.transformers import formulas
from ropewalk.engines.transformers.families import FAMILIES
from ropewalk.engines.transformers.reading import Shape, make_groups, measure, of_type, parameters
from ropewalk.engines.transformers.refusals import refusals
from ropewalk.engines.transformers.spellings import NEEDS_HEAD_DIM, Parameters

NAME = "transformers"
VERSIONS = ">=5.16.1,<5.24"
SAME = "the same numbers at every length"


def compute(config: Mapping[str, Any], *, length: int, tokenizer_config: Mapping[str, Any] | None = None) -> Computed:
    """The numbers of a stock model for a batch whose longest text has `length` tokens.

    Never raises on a config: what would stop transformers is `refuses`, what cannot be told is `unsupported`. The
    tokenizer's length only makes it warn.
    """
    try:
        shape, stops = measure(config), refusals(config)
    except RopewalkError as error:
        return _nothing(unsupported=str(error))
    if stops:
        return _nothing(refuses=stops[0].problem)
    try:
        params = parameters(shape)
    except (UnsupportedError, SourceError) as error:
        return _nothing(refuses=str(error))
    reason = _refuses(shape, params)
    if reason is not None:
        return _nothing(refuses=reason)
    try:
        return _computed(make_groups(shape, params, length), params, shape)
    except UnsupportedError as error:
        return _nothing(refuses=str(error))
    except (RopewalkError, OverflowError, ZeroDivisionError) as error:
        return _nothing(unsupported=f"no numbers can be told: {error}")


def word_of(group: Group) -> Frequencies | None:
    """What a group uses now, as a word; None where it rotates nothing."""
    if group.inv_freq is None:
        return None
    return Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale)


def _computed(groups: tuple[Group, ...], params: Parameters, shape: Shape) -> Computed:
    depends, treatment = _depends(params)
    return Computed(
        engine=NAME,
        versions=VERSIONS,
        groups={group.label: word_of(group) for group in groups},
        # `generate` warns beyond max_position_embeddings and goes on.
        max_length=None,
        depends_on=depends,
        short_request=treatment,
        ignored=_ignored(params, shape),
    )


def _depends(params: Parameters) -> tuple[Depends, str]:
    for values in params.by_type.values():
        kind = values["rope_type"]
        if kind == "dynamic" and values.get("factor") != 1.0:
            return (
                "batch",
                "the unscaled numbers, unless a longer text shares its batch; cached keys stay as they were",
            )
        if kind == "longrope" and values.get("short_factor") != values.get("long_factor"):
            return "batch", "the short list, unless a longer text shares its batch; only Phi-3 computes its cache anew"
    return "nothing", SAME


def _ignored(params: Parameters, shape: Shape) -> tuple[str, ...]:
    """Fields that carry meaning and that stock code does not look at here."""
    ignored = []
    for label, values in params.by_type.items():
        if label and values.get("truncate") is False and params.truncate:
            ignored.append(f"rope_parameters.{label}.truncate")
        if values["rope_type"] not in ("yarn", "longrope"):
            ignored += [key for key in ("attention_factor",) if values.get(key) not in (None, 1, 1.0)]
        if values["rope_type"] == "longrope":
            pair = [values.get(key) for key in ("short_mscale", "long_mscale")]
            if values.get("attention_factor") is None and any(value is not None for value in pair):
                ignored += ["short_mscale", "long_mscale"]
    return tuple(dict.fromkeys(ignored))


def _refuses(shape: Shape, params: Parameters) -> str | None:
    """Why a stock model would not be built or not run, where the formulas would not say so."""
    family = FAMILIES[shape.model_type]
    for label, values in params.by_type.items():
        kind = values["rope_type"]
        if family.needs_head_dim and kind in NEEDS_HEAD_DIM and shape.text.get("head_dim") is None:
            return f"a {shape.model_type} with {kind} scaling cannot be built where head_dim is left out"
        needed = formulas.NEEDED.get(kind, ())
        missing = [key for key in needed if values.get(key) is None]
        if kind == "yarn" and "factor" not in values:
            missing.append("factor")
        if missing:
            return f"rope_parameters of type {kind} lack {' and '.join(missing)}"
        for key in ("short_factor", "long_factor") if kind == "longrope" else ():
            expected = formulas.rotary_dim(values, _head(of_type(shape, label))) // 2
            if not isinstance(values[key], list) or len(values[key]) != expected:
                got = f"{len(values[key])} numbers" if isinstance(values[key], list) else repr(values[key])[:40]
                return f"{key} has {got} for {expected} frequencies"
    return None


def _head(shape: Shape) -> formulas.Head:
    return formulas.Head(head_dim=shape.rope_head_dim, partial=shape.family.partial, declared_length=shape.declared)


def _nothing(*, refuses: str | None = None, unsupported: str | None = None) -> Computed:
    return Computed(
        engine=NAME, versions=VERSIONS, groups={}, max_length=None, refuses=refuses, unsupported=unsupported
    )  # fmt: skip
