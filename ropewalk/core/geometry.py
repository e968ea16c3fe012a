"""What a checkpoint says of positions: one `Geometry`, with one `Group` for each kind of layer.

Most models have one group named `all`. Gemma 3 and OLMo 3 have a group of sliding-window layers beside the full-attention
ones, SmolLM3 and Llama 4 have layers without positions, Qwen3.5 has recurrent layers. A method only looks at a group's
`Start`: the frequencies it departs from and the length they were trained for.

Given up: models whose layers differ in more than these fields (one vector per layer) are refused by name in `engines`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import PlanError, UnsupportedError

Vector = NDArray[np.float64]
Lineage = Literal["plain", "runtime", "trained", "unknown"]
LINEAGES: tuple[Lineage, ...] = ("plain", "runtime", "trained", "unknown")
ROTATED = ("rope", "mrope")
"""Values of `Group.position` that rotate queries and keys. `mrope` is equal to `rope` on text."""


def geometric(base: float, rotary_dim: int) -> Vector:
    """The plain RoPE vector, base^(-2i/d) for i in 0..d/2-1 (RoFormer, arXiv:2104.09864, section 3.2.2).

    Returns float64 [rotary_dim/2], radians per token.
    """
    return np.asarray(base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where a method departs from: a frequency vector and the length it was trained for."""

    inv_freq: Vector
    """float64 [rotary_dim/2], radians per token."""
    base: float | None
    """The base of `inv_freq` where the vector is geometric, else None."""
    nominal_base: float
    """The base that the config names; for a vector that is not geometric, the one it was made from."""
    rotary_dim: int
    length: int
    """Tokens this vector was trained to read."""
    attention_factor: float
    """Multiplies cos and sin already, before the method."""
    logit_scale: float
    """Multiplies the whole q.k already, before the method."""
    temperature_on: Literal["rotated", "logits"]
    """Where the model expects a temperature: on cos and sin (rotated dimensions only), or on the whole q.k."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """The layers that share one position encoding."""

    label: str
    """`all` where there is one group, else the host's own word for the kind of layer."""
    layers: tuple[int, ...]
    position: str
    """`rope`, `mrope`, `none` (layers without positions, recurrent layers)."""
    layout: Literal["half", "interleaved"] = "half"
    """How a head's rotated dimensions pair up: (i, i+d/2), or (2i, 2i+1)."""
    head_dim: int = 0
    """Dimensions of a query head, rotated or not."""
    rotary_dim: int = 0
    """Dimensions that are rotated; less than `head_dim` under partial rotary and MLA."""
    base: float | None = None
    """The base the config names, also where a scaling changes the vector."""
    window: int | None = None
    """Tokens a layer can look back, where every layer of the group is a sliding-window layer."""
    inv_freq: Vector | None = None
    """What the model uses now: float64 [rotary_dim/2], radians per token. None for position `none`."""
    attention_factor: float = 1.0
    """What multiplies cos and sin now."""
    logit_scale: float = 1.0
    """What multiplies q.k now, beside `softmax_scale`."""
    softmax_scale: float = 0.0
    """What the unscaled model multiplies q.k with: head_dim**-0.5 in most families."""
    origin_inv_freq: Vector | None = None
    """The vector before any scaling; equal to `inv_freq` for a plain model."""
    origin_base: float | None = None
    """The base of the origin, where it differs from `base` (known from our own block)."""
    origin_attention_factor: float = 1.0
    """What multiplied cos and sin in the last state the weights were trained in (gpt-oss was trained with one)."""
    origin_logit_scale: float = 1.0
    """What multiplied q.k in that state."""
    temperature_on: Literal["rotated", "logits"] = "rotated"
    """Where this family puts a temperature: see `Start.temperature_on`."""
    shared_with_window: bool = False
    """Whether sliding-window layers share this vector with full-attention layers (gpt-oss): then they are extended too."""

    def __post_init__(self) -> None:
        for name in ("inv_freq", "origin_inv_freq"):
            vector = getattr(self, name)
            if vector is not None:
                vector = np.array(vector, dtype=np.float64)
                assert vector.shape == (self.rotary_dim // 2,), f"{name} {vector.shape} against {self.rotary_dim=}"
                vector.setflags(write=False)
                object.__setattr__(self, name, vector)

    @property
    def rotated(self) -> bool:
        """Whether this group rotates queries and keys."""
        return self.position in ROTATED

    def to_dict(self) -> dict[str, Any]:
        """The group as `inspect --json` shows it."""
        return {
            "label": self.label,
            "num_layers": len(self.layers),
            "position": self.position,
            "rotary_dim": self.rotary_dim,
            "base": self.base,
            "window": self.window,
            "inv_freq": None if self.inv_freq is None else [float(x) for x in self.inv_freq],
            "attention_factor": self.attention_factor,
            "logit_scale": self.logit_scale,
            "layers": list(self.layers),
            "layout": self.layout,
            "head_dim": self.head_dim,
            "softmax_scale": self.softmax_scale,
            "origin_inv_freq": None if self.origin_inv_freq is None else [float(x) for x in self.origin_inv_freq],
            "origin_base": self.origin_base,
            "origin_attention_factor": self.origin_attention_factor,
            "origin_logit_scale": self.origin_logit_scale,
            "temperature_on": self.temperature_on,
            "shared_with_window": self.shared_with_window,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Group":
        """Back from `to_dict`."""
        fields = {key: value for key, value in content.items() if key != "num_layers"}
        fields["layers"] = tuple(content["layers"])
        for key in ("inv_freq", "origin_inv_freq"):
            if fields.get(key) is not None:
                fields[key] = np.asarray(fields[key], dtype=np.float64)
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a checkpoint that its owner should know."""

    field: str
    severity: Literal["error", "warning", "note"]
    problem: str
    mend: str

    def to_dict(self) -> dict[str, str]:
        """The finding as `--json` shows it."""
        return {"field": self.field, "severity": self.severity, "problem": self.problem, "mend": self.mend}


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Positions of a whole model. Lengths are tokens."""

    model_type: str
    scheme: str
    """The scaling as its host names it: `default`, `linear`, `yarn`, `llama3`, ..."""
    original_length: int
    """What the origin frequencies were trained for."""
    trained_length: int
    """What the model reads now, its present stretch included."""
    declared_length: int
    """What the config claims."""
    lineage: Lineage
    """`plain`; `runtime`: stretched without training; `trained`: trained at its stretch; `unknown`."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    groups: tuple[Group, ...]
    varies: bool = False
    """Whether the model as it ships changes its frequencies with the length of the text (dynamic, LongRoPE's two lists)."""
    findings: tuple[Finding, ...] = field(default=())

    @property
    def layout(self) -> str:
        """The layout of the extended groups, `none` where nothing is rotated."""
        for group in self.extended_groups or self.groups:
            if group.rotated:
                return group.layout
        return "none"

    @property
    def extended_groups(self) -> tuple[Group, ...]:
        """The groups a plan changes: rotated ones whose layers see the whole text.

        Where every rotated layer has a window, those whose window is at least the trained length.
        """
        rotated = [group for group in self.groups if group.rotated]
        unbounded = tuple(group for group in rotated if group.window is None)
        return unbounded or tuple(group for group in rotated if (group.window or 0) >= self.trained_length)

    @property
    def from_origin(self) -> bool:
        """Whether a plan departs from the origin frequencies: only where a stretch was put on without training."""
        return self.lineage == "runtime"

    @property
    def start_length(self) -> int:
        """The length that `factor` divides by: the original length when planned from the origin, else the trained one."""
        return self.original_length if self.from_origin else self.trained_length

    def with_lineage(self, lineage: Lineage) -> "Geometry":
        """The same model with the user's word on how it came to its stretch.

        A model `trained` at its stretch is extended from its current vector, a `runtime` one from its origin.
        """
        if lineage not in ("trained", "runtime"):
            raise PlanError(f"lineage {lineage!r} is neither trained nor runtime; only these two can be said")
        if lineage == "runtime" and any(group.origin_inv_freq is None for group in self.extended_groups):
            raise PlanError("this checkpoint does not say what it was before its stretch; say --lineage trained")
        return replace(self, lineage=lineage)

    @property
    def window_length(self) -> int:
        """What `crop` keeps: the length the weights were trained for, also under a stretch that was put on untrained."""
        return min(self.original_length, self.trained_length) if self.from_origin else self.trained_length

    def start(self, group: Group) -> Start:
        """Where a plan for `group` departs from.

        Raises `UnsupportedError` where the lineage is unknown, since starting from the wrong vector stretches a model
        twice or resets it, and neither shows until the model is run.
        """
        if self.lineage == "unknown":
            raise UnsupportedError(
                f"this checkpoint carries {self.scheme!r} scaling and does not say whether it was trained at its stretch; "
                "say --lineage trained (extend from where it stands) or --lineage runtime (plan again from the origin)"
            )
        assert group.inv_freq is not None
        assert group.base is not None
        if self.from_origin:
            assert group.origin_inv_freq is not None
            base = group.origin_base if group.origin_base is not None else group.base
            inv_freq, attention_factor = group.origin_inv_freq, group.origin_attention_factor
            logit_scale = group.origin_logit_scale
        else:
            base = group.base
            inv_freq, attention_factor, logit_scale = group.inv_freq, group.attention_factor, group.logit_scale
        plain = geometric(base, group.rotary_dim)
        is_geometric = plain.shape == inv_freq.shape and np.allclose(plain, inv_freq, rtol=1e-6, atol=0.0)
        return Start(
            inv_freq=inv_freq,
            base=base if is_geometric else None,
            nominal_base=base,
            rotary_dim=group.rotary_dim,
            length=self.start_length,
            attention_factor=attention_factor,
            logit_scale=logit_scale,
            temperature_on=group.temperature_on,
        )

    def to_dict(self) -> dict[str, Any]:
        """The document of `inspect --json`."""
        return {
            "model_type": self.model_type,
            "scheme": self.scheme,
            "layout": self.layout,
            "original_length": self.original_length,
            "trained_length": self.trained_length,
            "declared_length": self.declared_length,
            "lineage": self.lineage,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "groups": [group.to_dict() for group in self.groups],
            "varies": self.varies,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Geometry":
        """Back from `to_dict`."""
        fields = {key: value for key, value in content.items() if key != "layout"}
        fields["groups"] = tuple(Group.from_dict(group) for group in content["groups"])
        fields["findings"] = tuple(Finding(**finding) for finding in content.get("findings", ()))
        return cls(**fields)


def rotations(inv_freq: Vector | Sequence[float], length: int) -> Vector:
    """Full turns each dimension makes inside `length` tokens: length * inv_freq / 2 pi (YaRN, arXiv:2309.00071, eq. 17)."""
    return np.asarray(inv_freq, dtype=np.float64) * length / (2.0 * math.pi)
