"""Our own block in a config: what was done to a checkpoint, so that it is neither stretched twice nor reset."""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.geometry import Geometry


def settle(config: Mapping[str, Any], geometry: Geometry) -> Geometry:
    """The geometry with what the block of `config`, if any, knows better."""
    return geometry
