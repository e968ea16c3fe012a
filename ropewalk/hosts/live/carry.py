"""Puts a static plan on a live transformers model, reads it back, compares, and takes it off again.

Three kinds of numbers are swapped: the frequency buffers (in float32), the factor on cos and sin, and where the plan moves
the logit scale the scaling of the attention modules in that group's layers. The type label beside a vector becomes
`default` meanwhile, because transformers recomputes vectors of a `dynamic` or `longrope` type before every forward.

A plan is refused on a model that does not use what its config says. That one check finds a plan that is already on (plans
are absolute, so stacking them would hide which one is read), a buffer rounded by `model.to(bfloat16)`, and a family that
we read wrongly.

Given up: numbers that change with the length inside one `with` block. Freeze such a plan with `plan.at(n)`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ropewalk.core.errors import HostError, PlanError, near
from ropewalk.core.geometry import Geometry, Group
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines.transformers import read
from ropewalk.hosts.live.places import ORIGIN_VECTOR, VECTOR, Place, Rotary, places_of

TOLERANCE = 1e-6
"""Largest relative difference between a plan and what is read back: float32 rounds by 6e-8, bfloat16 by 4e-3."""
HOST_TOLERANCE = 1e-5
"""The same between a config and the vector that the host itself computed from it, in float32: under YaRN with a factor of 40
the terms cancel, which was seen to cost 2.4e-6. A rounded buffer is found before by its dtype or its very numbers."""
PINNED = "default"
"""A type label that transformers never recomputes."""


def geometry_of(model: nn.Module) -> Geometry:
    """What the model's configuration says of positions. Raises `UnsupportedError` for families that are not supported.

    This is the model without any plan: inside `apply` it does not change. What is really used says `read_back`.
    """
    config: Any = model.config
    return read(config.to_dict())


def read_back(model: nn.Module) -> Plan:
    """What the model really uses now, as a static plan of the method `read-back`.

    Every rotated group has a word, the windowed ones too: float64 copies of its buffers [rotary_dim/2], the factor on cos
    and sin, and the scaling of its attention modules relative to the group's `softmax_scale`. A bfloat16 buffer is shown
    with its rounded numbers. A model whose own type is `dynamic` or `longrope` answers with what its last forward used.

    Raises `HostError` where layers of one group disagree (they are named) or where its vector cannot be found.
    """
    geometry = geometry_of(model)
    places = places_of(model, geometry)
    return Plan(
        method="read-back",
        options={},
        kind="static",
        original_length=geometry.original_length,
        trained_length=geometry.trained_length,
        length=geometry.declared_length,
        factor=1.0,
        groups={g.label: places[g.label].read() if g.rotated else None for g in geometry.groups},
    )


@contextmanager
def apply(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """`with apply(model, plan): ...` runs the model under a static plan; afterwards it is exactly what it was.

    The plan is read back and compared before the block begins, and taken off after an exception too. Plans do not stack:
    leave one block before the next. Keys in a cache were rotated under the plan of their forward, so a cache filled inside
    the block is of no use outside it, nor the other way round.

    Raises `PlanError` for a plan made for another model, `HostError` for one that a live model cannot carry (it depends on
    the length, or it moves a logit scale that the family's attention does not take) and for a model whose numbers are not
    those of its config, `UnsupportedError` for families that are not supported.
    """
    geometry = geometry_of(model)
    _check_plan(plan, geometry)
    places = places_of(model, geometry)
    check_config_is_used(places)
    before = {label: place.read() for label, place in places.items()}
    with ExitStack() as undo:
        for label, place in places.items():
            word = plan.groups[label]
            if word is not None:
                _put_on(place, word, undo)
        for label, place in places.items():
            _check_carried(label, expected=plan.groups[label] or before[label], got=place.read())
        yield model


def _check_plan(plan: Plan, geometry: Geometry) -> None:
    """Raises where `plan` is not static or was not made for a model of this geometry."""
    if plan.kind != "static":
        raise HostError(f"a live model carries static plans, got a {plan.kind} one; freeze it for a length with plan.at(n)")
    known = [group.label for group in geometry.groups]
    for label in plan.groups:
        if label not in known:
            raise PlanError(f"this plan has a group {label!r} that the model has not; {near(label, known)}")
    for group in geometry.groups:
        if group.label not in plan.groups:
            raise PlanError(
                f"this plan says nothing of the model's group {group.label!r}; plan for this model, "
                "or say null for a group to leave alone"
            )
        word = plan.groups[group.label]
        if word is not None:
            _check_word(word, group)


def _check_word(word: Frequencies, group: Group) -> None:
    if not group.rotated:
        raise PlanError(f"this plan has frequencies for group {group.label!r}, whose layers rotate nothing; say null for it")
    if word.inv_freq.size != group.rotary_dim // 2:
        raise PlanError(
            f"this plan has {word.inv_freq.size} frequencies for group {group.label!r}, the model takes "
            f"{group.rotary_dim // 2}; plan for this model"
        )


def check_config_is_used(places: Mapping[str, Place]) -> None:
    """Raises `HostError` unless each group uses the numbers that its configuration says, to float32 rounding.

    A vector that the host overwrites by length holds what the last forward chose, so only its dtype is looked at.
    """
    for label, place in places.items():
        for rotary in place.rotaries:
            _check_not_rounded(label, rotary, place.group)
        if not any(rotary.switches for rotary in place.rotaries):
            _check_as_configured(label, place)


def check_as_loaded(places: Mapping[str, Place], length: int) -> None:
    """As `check_config_is_used`, for a model that has read nothing yet: LongRoPE too, at `length` tokens.

    `length` is the geometry's declared length, for which `read` gives the numbers.
    """
    check_config_is_used(places)
    for label, place in places.items():
        for rotary in place.rotaries:
            if rotary.switches:
                rotary.settle(length)
        _check_as_configured(label, place)


def _check_as_configured(label: str, place: Place) -> None:
    difference = place.read().difference(word_of(place.group))
    if difference > HOST_TOLERANCE:
        raise HostError(
            f"group {label!r} of this model does not use the numbers of its config (relative difference "
            f"{difference:.2g}): another plan is on, or the model was changed by hand; leave that block, "
            "or load the model again"
        )


def word_of(group: Group) -> Frequencies:
    """What a configuration says that a group uses."""
    assert group.inv_freq is not None
    return Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale)


def _check_not_rounded(label: str, rotary: Rotary, group: Group) -> None:
    """Raises where a buffer holds the group's numbers in less than float32, also if it was widened afterwards."""
    rounded = rotary.buffer.dtype if rotary.buffer.dtype.itemsize < 4 else None
    exact = torch.from_numpy(word_of(group).inv_freq.copy())
    for dtype in (torch.bfloat16, torch.float16):
        held = torch.from_numpy(rotary.vector)
        if rounded is None and held.shape == exact.shape and torch.equal(held, exact.to(dtype).double()):
            # Powers of two survive any dtype; then nothing was lost.
            rounded = None if torch.equal(held, exact) else dtype
    if rounded is not None:
        name = str(rounded).removeprefix("torch.")
        raise HostError(
            f"the frequencies of group {label!r} ({rotary.name}) were rounded to {name} by model.to({name}) or the like; "
            f"load the model with dtype={name} instead, which keeps them in float32"
        )


def _put_on(place: Place, word: Frequencies, undo: ExitStack) -> None:
    for rotary in place.rotaries:
        module, held = rotary.module, rotary.buffer
        for name in (rotary.prefix + VECTOR, rotary.prefix + ORIGIN_VECTOR):
            if name in dict(module.named_buffers(recurse=False)):
                vector = torch.tensor(word.inv_freq, dtype=torch.float32, device=held.device)
                _swap(module, name, vector, undo)
        _pin_type(rotary, undo)
        if hasattr(module, rotary.factor_name):
            _swap(module, rotary.factor_name, word.attention_factor, undo)
    _put_logit_scale(place, word.logit_scale, undo)


def _pin_type(rotary: Rotary, undo: ExitStack) -> None:
    """Names a type that the host's update leaves alone."""
    types = getattr(rotary.module, "rope_type", None)
    if isinstance(types, dict):
        _swap(rotary.module, "rope_type", {**types, rotary.label: PINNED}, undo)
    elif types is not None:
        _swap(rotary.module, "rope_type", PINNED, undo)


def _put_logit_scale(place: Place, logit_scale: float, undo: ExitStack) -> None:
    group = place.group
    if not place.attentions and abs(logit_scale - group.logit_scale) > TOLERANCE * group.logit_scale:
        raise HostError(
            f"this plan sets the logit scale of group {group.label!r} to {logit_scale:g}, and the attention of this family "
            "takes no scaling, so the scale would be lost; put the temperature on the rotated dimensions instead"
        )
    scaling = group.softmax_scale * logit_scale
    for attention in place.attentions:
        # An unchanged scale keeps its own last bit, so that the identity changes no logit.
        if abs(attention.scaling - scaling) > 1e-12 * scaling:
            _swap(attention.module, attention.attribute, scaling, undo)


def _check_carried(label: str, *, expected: Frequencies, got: Frequencies) -> None:
    difference = got.difference(expected)
    if difference > TOLERANCE:
        raise HostError(
            f"group {label!r} reads back with a relative difference of {difference:.2g} from the plan, at most "
            f"{TOLERANCE:g} was expected; this model cannot carry it, so extend the checkpoint's folder instead"
        )


def _swap(module: nn.Module, name: str, value: object, undo: ExitStack) -> None:
    held = getattr(module, name)
    undo.callback(_put_back, module, name, held)
    setattr(module, name, value)


def _put_back(module: nn.Module, name: str, held: object) -> None:
    """Sets what was there, on the device where the model is now."""
    current = getattr(module, name)
    if isinstance(held, torch.Tensor) and isinstance(current, torch.Tensor) and held.device != current.device:
        held = held.to(current.device)
    setattr(module, name, held)
