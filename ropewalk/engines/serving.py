"""What the readers of vLLM and SGLang share: how a config comes in, which layers rotate, what stops both at load.

Both engines let transformers read a config, hand what it says to `get_rope` layer by layer, and run a family that they have
no code for through transformers' own modules. An `Engine` turns that order into a `Computed`: what would stop the engine is
`refuses`, what it does not have or what cannot be told is `unsupported`, and nothing is ever raised on a config.

Given up: remote code. A family whose config class neither the engine nor its transformers has is `unsupported`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.core.errors import RopewalkError, SourceError, UnsupportedError
from ropewalk.engines.computed import Computed
from ropewalk.engines.transformers import compute as stock
from ropewalk.engines.transformers.reading import Shape, make_groups, measure, parameters
from ropewalk.engines.transformers.spellings import Parameters

NEEDED: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
"""Fields without which transformers' check of a config stops the engine that lets it read one."""
STOCK = "runs through transformers' own modules"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine, as its reader introduces it."""

    name: str
    """As in a `Computed`."""
    title: str
    """As people write it."""
    versions: str
    read: Callable[[str], bool]
    """Whether what the engine does with a model type was read."""
    unsupported: Mapping[str, str]
    """Model types that the engine cannot load, or not so that its numbers could be told, and why."""

    def nothing(self, *, refuses: str | None = None, unsupported: str | None = None) -> Computed:
        """A `Computed` without numbers."""
        return Computed(
            engine=self.name,
            versions=self.versions,
            groups={},
            max_length=None,
            refuses=refuses,
            unsupported=unsupported,
        )

    def answer(
        self,
        config: Mapping[str, Any],
        see: Callable[[Shape], Shape],
        compute: Callable[[Shape, Parameters], Computed],
    ) -> Computed:
        """What `compute` says of a config whose fields `see` may change first, errors turned into words."""
        try:
            shape = see(measure(config))
        except RopewalkError as error:
            return self.nothing(unsupported=str(error))
        if shape.model_type in self.unsupported:
            return self.nothing(unsupported=f"{shape.model_type} in {self.title}: {self.unsupported[shape.model_type]}")
        if not self.read(shape.model_type):
            return self.nothing(unsupported=f"{self.title}'s code for {shape.model_type} was not read")
        try:
            params = parameters(shape)
        except UnsupportedError as error:
            # A family that names its types has transformers refuse the others while the engine loads the config.
            return self.nothing(refuses=str(error)) if shape.family.rope_types else self.nothing(unsupported=str(error))
        except SourceError as error:
            # What transformers takes as it stands, an engine's own code may take otherwise.
            return self.nothing(unsupported=str(error)) if shape.family.whole else self.nothing(refuses=str(error))
        try:
            return compute(shape, params)
        except SourceError as error:
            return self.nothing(refuses=str(error))
        except (RopewalkError, OverflowError) as error:
            return self.nothing(unsupported=str(error))

    def through_transformers(
        self, config: Mapping[str, Any], length: int, longest: int, notes: tuple[str, ...] = ()
    ) -> Computed:
        """transformers' numbers under the engine's name and length."""
        computed = stock.compute(config, length=length)
        return replace(
            computed,
            engine=self.name,
            versions=self.versions,
            max_length=longest if computed.groups else None,
            notes=(*computed.notes, STOCK, *(notes if computed.depends_on == "batch" else ())),
        )


def layers(shape: Shape, params: Parameters) -> list[tuple[str, str | None]]:
    """Labels of the groups, in the order of `transformers.read`, and where their parameters lie; None: not rotated."""
    neutral = {label: {"rope_type": "default", "rope_theta": 10000.0} for label in params.by_type}
    groups = make_groups(shape, replace(params, by_type=neutral), None)
    place = {group.label: group.label if group.label in params.by_type else "" for group in groups}
    return [(group.label, place[group.label] if group.rotated else None) for group in groups]


def check_needed(values: Mapping[str, Any]) -> None:
    """Raises `SourceError` for fields without which transformers' check of the config stops the engine."""
    missing = [key for key in NEEDED.get(values["rope_type"], ()) if key not in values]
    if missing:
        raise SourceError(f"rope_parameters of type {values['rope_type']} lack {' and '.join(missing)}")


def check_unread(shape: Shape, keys: Mapping[str, tuple[str, ...]]) -> None:
    """Raises `UnsupportedError` for fields that an engine reads, and that its reader does not follow."""
    if shape.text.get("dual_chunk_attention_config") is not None:
        raise UnsupportedError("dual chunk attention was not read; remove dual_chunk_attention_config")
    for key in keys.get(shape.model_type, ()):
        if shape.text.get(key) is not None:
            raise UnsupportedError(f"what the engine does with {key} in a {shape.model_type} was not read; remove it")
