"""What a config says of its stretch and a plan from the origin does not take over, told so that it is not lost unsaid.

A plan that departs from the origin takes the place of the stretch that is on, with the options of the method, not with those
that somebody once wrote into the config: a ramp with other ends, ends that are not rounded, a factor on cos and sin of its
own. Taking them over would be guessing (a factor of 1 belongs to one factor of stretch); dropping them unsaid is worse.

Given up: other types than YaRN. LongRoPE's lists are never kept by another method, and linear has no options.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.geometry import Finding
from ropewalk.core.plan import Plan
from ropewalk.engines.transformers.reading import main_parameters, measure, parameters

USUAL: dict[str, Any] = {
    "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "attention_factor": None, "mscale": None, "mscale_all_dim": None,
}  # fmt: skip
"""YaRN's options as configs spell them, with what transformers takes where they are left out."""


def replaced(config: Mapping[str, Any], plan: Plan, *, from_origin: bool) -> list[Finding]:
    """A warning for each YaRN option of a config that `plan`, where it departs from the origin, does not have.

    Raises as `reading.read` does.
    """
    shape = measure(config)
    params = parameters(shape)
    values = main_parameters(params)
    if not from_origin or values["rope_type"] != "yarn":
        return []
    # Stock code reads this one from the outer object.
    written = {**values, "truncate": params.truncate}
    return [_note(key, written[key], plan) for key, usual in USUAL.items() if _is_lost(key, written.get(key), usual, plan)]


def _is_lost(key: str, value: Any, usual: Any, plan: Plan) -> bool:
    # A beta of zero means "not given" to transformers, as null does.
    if value is None or (key.startswith("beta_") and value == 0):
        return False
    return bool(value != plan.options.get(key, usual))


def _note(key: str, value: Any, plan: Plan) -> Finding:
    said = str(value).lower() if isinstance(value, bool) else f"{value:g}"
    option = f"{plan.method}:{key}={said}"
    way = f"; say {option} to keep it" if key in plan.options else ""
    return Finding(
        field=key,
        severity="warning",
        problem=f"{key} {said} of the stretch that is on is not taken over: this {plan.method} departs from the origin",
        mend=f"nothing to do where the usual numbers are meant{way}",
    )
