"""What a stock model's own modules compute from a config, read off their cosines and sines, without the rest of the model.

One tiny model of each family is built to find its rotary class and, under latent attention, its attention class. From then
on only these two are built anew for each config. Frequencies are the angles that turn from position 0 to position 1, so no
name of a buffer and none of our own formulas is trusted.
"""

import copy
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny_families as tiny
import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.geometry import Vector
from ropewalk.engines.transformers.families import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Modules:
    """The classes of a family that decide on positions."""

    rotary: type[nn.Module]
    attention: type[nn.Module] | None
    """Only under latent attention, where the rope parameters change what q.k is multiplied by."""
    layer: int
    """A layer of that attention."""

    @property
    def by_type(self) -> bool:
        """Whether the rotary module is asked for one layer type at a time."""
        return "layer_type" in inspect.signature(self.rotary.forward).parameters


@dataclass(frozen=True, kw_only=True)
class Turned:
    """One vector as a stock module turns by it."""

    inv_freq: Vector
    attention_factor: float


def configure(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The stock config object of a config dict. Classes complete the objects they are given, so each has its own."""
    content = copy.deepcopy({key: value for key, value in config.items() if key != "model_type"})
    built: PreTrainedConfig = CONFIG_MAPPING[config["model_type"]](**content)
    return built


@functools.cache
def modules(model_type: str) -> Modules:
    """The classes of a family, found in a tiny model of it."""
    with torch.device("meta"):
        model = tiny.from_config(configure(tiny.fields(model_type)))
    inside = list(model.modules())
    rotary = {type(m) for m in inside if "Rotary" in type(m).__name__ and m.config.model_type == model_type}
    assert len(rotary) == 1, f"{model_type} has rotary classes {rotary}"
    attention, layer = None, 0
    if FAMILIES[model_type].mla:
        scaled = [m for m in inside if hasattr(m, "scaling") and isinstance(getattr(m, "layer_idx", None), int)]
        assert scaled, f"{model_type} has no attention that says its scaling"
        attention, layer = type(scaled[-1]), scaled[-1].layer_idx
    return Modules(rotary=rotary.pop(), attention=attention, layer=layer)


@torch.no_grad()
def turned(config: PreTrainedConfig, label: str, count: int, length: int) -> Turned:
    """How a stock rotary module turns the layers of one type, for a text of `length` tokens.

    `count` is the number of frequencies that are expected; it tells pairs that are written twice from pairs that are not.
    """
    known = modules(config.model_type)
    rotary = known.rotary(config)
    words = {"layer_type": label} if known.by_type else {}
    positions = torch.tensor([[0, 1, length - 1]])
    if FAMILIES[config.model_type].mrope:
        # The same rows for time, height and width; older releases want all three.
        positions = positions.expand(3, 1, 3)
    cos, sin = _parts(rotary(torch.zeros(1, 3, 1), positions, **words))
    factors = cos[0]
    assert np.ptp(factors) == 0.0
    angles = np.arctan2(sin[1], cos[1])
    if angles.size == 2 * count:
        angles = angles[::2] if count > 1 and angles[0] == angles[1] else angles[:count]
    assert angles.size == count
    return Turned(inv_freq=angles, attention_factor=float(factors[0]))


def _parts(out: Any) -> tuple[Vector, Vector]:
    """Cosines and sines, float64 [T, dimensions], from what a rotary module gives: two tensors, or complex numbers."""
    cos, sin = out if isinstance(out, tuple) else (out.real, out.imag)
    # Multimodal positions have an axis more, with the same numbers on text.
    return cos.reshape(-1, *cos.shape[-2:])[0].double().numpy(), sin.reshape(-1, *sin.shape[-2:])[0].double().numpy()


def scaling(config: PreTrainedConfig) -> float | None:
    """What stock attention multiplies q.k by under latent attention; None elsewhere, where no rope parameter changes it."""
    known = modules(config.model_type)
    if known.attention is None:
        return None
    with torch.device("meta"):
        return float(known.attention(config, known.layer).scaling)
