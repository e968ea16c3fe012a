"""Where a live transformers model keeps its position numbers, one `Place` for each group of layers.

A text decoder of transformers v5 holds its frequencies in buffers: `inv_freq` where all rotated layers share one vector,
`{label}_inv_freq` where kinds of layers differ (Gemma 3, OLMo 3), or one rotary module inside each layer. Beside a vector
stands the factor on cos and sin, and in each attention module the number that multiplies q.k. The buffers say what is used;
which layers belong together is taken from the `Geometry`.

Given up: a decoder with several unlabelled vectors outside its layers (Molmo 2), since nothing says which layer uses which.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ropewalk.core.errors import HostError
from ropewalk.core.geometry import Geometry, Group, Vector
from ropewalk.core.plan import Frequencies

VECTOR = "inv_freq"
ORIGIN_VECTOR = "original_inv_freq"
SCALINGS = ("scaling", "softmax_scale")
"""Attributes of an attention module that multiply q.k, in the order they are looked for."""
ATTENTION_NAMES = ("Attention", "MLA")
"""What the class of an attention module has in its name."""
AGREEMENT = 1e-6
"""Relative difference up to which two layers of one group use the same number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotary:
    """One frequency vector of a live model, with what stands beside it."""

    name: str
    """Path of the buffer inside the decoder."""
    module: nn.Module
    prefix: str
    """What the names of its buffers and attributes begin with: empty, or a label and an underscore."""
    layer: int | None
    """The layer whose own vector this is, None where layers share it."""

    @property
    def buffer(self) -> torch.Tensor:
        """The vector as the model holds it, [rotary_dim/2]."""
        return self.module.get_buffer(self.prefix + VECTOR)

    @property
    def vector(self) -> Vector:
        """The vector as float64 [rotary_dim/2]. Raises `HostError` where it holds no numbers yet."""
        if self.buffer.is_meta:
            raise HostError(f"{self.name} is on the meta device and holds no numbers; load the weights first")
        vector: Vector = self.buffer.detach().to(device="cpu", dtype=torch.float64).numpy()
        return vector

    @property
    def factor_name(self) -> str:
        """Name of the attribute that multiplies cos and sin."""
        return self.prefix + "attention_scaling"

    @property
    def factor(self) -> float:
        """What multiplies cos and sin."""
        return float(getattr(self.module, self.factor_name, 1.0))

    @property
    def label(self) -> str:
        """The host's own word for the layers this vector serves, empty where it has none."""
        return self.prefix.removesuffix("_")

    @property
    def type(self) -> str:
        """The scaling type that the host's update looks at before each forward."""
        types = getattr(self.module, "rope_type", None)
        if isinstance(types, dict):
            types = types.get(self.label)
        return "default" if types is None else str(types)

    @property
    def switches(self) -> bool:
        """Whether the host overwrites this vector by the length of the text: LongRoPE, or any type named dynamic."""
        return self.type == "longrope" or "dynamic" in self.type

    @torch.no_grad()
    def settle(self, length: int) -> None:
        """Lets the host choose its numbers for a text of `length` tokens, with the rotary module's own forward."""
        anything = torch.zeros(1, 1, 1, device=self.buffer.device)
        last = torch.full((1, 1), length - 1, device=self.buffer.device)
        self.module(anything, last, **({"layer_type": self.label} if self.label else {}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """One attention module of a live model that says what it multiplies q.k with."""

    layer: int
    module: nn.Module
    attribute: str

    @property
    def scaling(self) -> float:
        """What this module multiplies q.k with."""
        return float(getattr(self.module, self.attribute))


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Everything in a live model that belongs to one rotated group."""

    group: Group
    rotaries: tuple[Rotary, ...]
    """One, or one for each layer."""
    attentions: tuple[Attention, ...]
    """One for each layer of the group, or none where the family's attention says no scaling."""

    def read(self) -> Frequencies:
        """What the layers of this group really use. Raises `HostError` where they do not agree."""
        first = self.rotaries[0]
        word = Frequencies(inv_freq=first.vector, attention_factor=first.factor)
        odd = [
            rotary.name
            for rotary in self.rotaries[1:]
            if word.difference(Frequencies(inv_freq=rotary.vector, attention_factor=rotary.factor)) > AGREEMENT
        ]
        if odd:
            raise HostError(
                f"layers of group {self.group.label!r} use different frequencies: {', '.join(odd)} differ from "
                f"{first.name}; one plan cannot say both, so load the model again"
            )
        return Frequencies(inv_freq=word.inv_freq, attention_factor=first.factor, logit_scale=self._read_logit_scale())

    def _read_logit_scale(self) -> float:
        if not self.attentions:
            # The module's code fixes it and no attribute shows it: only the geometry knows.
            return self.group.logit_scale
        scalings = [attention.scaling for attention in self.attentions]
        odd = [
            f"layer {attention.layer} ({attention.scaling:g})"
            for attention in self.attentions
            if abs(attention.scaling - scalings[0]) > AGREEMENT * abs(scalings[0])
        ]
        if odd:
            raise HostError(
                f"layers of group {self.group.label!r} multiply q.k by different numbers: {', '.join(odd)} beside "
                f"layer {self.attentions[0].layer} ({scalings[0]:g}); one plan cannot say both, so load the model again"
            )
        return scalings[0] / self.group.softmax_scale


def decoder_of(model: nn.Module) -> nn.Module:
    """The text decoder of `model`; towers for images and sound stay outside it."""
    find = getattr(model, "get_decoder", None)
    decoder = find() if callable(find) else model
    if isinstance(decoder, nn.Linear):
        # ModernBERT's decoder calls its output layer so.
        decoder = getattr(model, "base_model", model)
    assert isinstance(decoder, nn.Module)
    return decoder


def places_of(model: nn.Module, geometry: Geometry) -> dict[str, Place]:
    """The place of each rotated group of `geometry`, by label.

    Raises `HostError` where a group has no vector, or several that nothing tells apart.
    """
    decoder = decoder_of(model)
    rotaries = list(_rotaries(decoder))
    attentions = list(_attentions(decoder))
    places: dict[str, Place] = {}
    for group in geometry.groups:
        if group.rotated:
            mine = [attention for attention in attentions if attention.layer in group.layers]
            # LongCat has two attention modules in a layer.
            complete = {attention.layer for attention in mine} == set(group.layers)
            places[group.label] = Place(
                group=group,
                rotaries=_claim(group, geometry, rotaries),
                attentions=tuple(mine) if complete else (),
            )
    return places


def _claim(group: Group, geometry: Geometry, rotaries: list[Rotary]) -> tuple[Rotary, ...]:
    """The vectors of one group: labelled with its name, or of its layers, or the only one there is."""
    labelled = [rotary for rotary in rotaries if rotary.label == group.label]
    own = [rotary for rotary in rotaries if rotary.layer in group.layers and not rotary.label]
    num_rotated = sum(other.rotated for other in geometry.groups)
    if len(labelled) == 1:
        return tuple(labelled)
    if own and sorted(r.layer for r in own if r.layer is not None) == sorted(group.layers):
        return tuple(own)
    if len(rotaries) == 1 and num_rotated == 1 and rotaries[0].layer is None:
        return tuple(rotaries)
    found = ", ".join(rotary.name for rotary in rotaries) or "none"
    raise HostError(
        f"no single frequency vector of this {geometry.model_type} belongs to group {group.label!r} (rotary buffers "
        f"found: {found}); only shared, labelled and per-layer vectors of stock transformers classes are known"
    )


def _rotaries(decoder: nn.Module) -> Iterator[Rotary]:
    for path, module in decoder.named_modules():
        for name, _ in module.named_buffers(recurse=False):
            if name.endswith(VECTOR) and not name.endswith(ORIGIN_VECTOR):
                yield Rotary(
                    name=f"{path}.{name}".lstrip("."),
                    module=module,
                    prefix=name.removesuffix(VECTOR),
                    layer=_layer_of(path),
                )


def _attentions(decoder: nn.Module) -> Iterator[Attention]:
    for path, module in decoder.named_modules():
        layer = _layer_of(path)
        # By class name, so that indexers and routers with scales of their own are not taken for attention.
        if layer is None or not any(word in type(module).__name__ for word in ATTENTION_NAMES):
            continue
        for attribute in SCALINGS:
            value: Any = getattr(module, attribute, None)
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield Attention(layer=layer, module=module, attribute=attribute)
                break


def _layer_of(path: str) -> int | None:
    """The index of the layer that a module sits in: the first number in its path inside the decoder."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)
