"""The transformers engine: config dicts to geometry and back. Stdlib and numpy; imports neither torch nor transformers."""

from ropewalk.engines.transformers.reading import groups_at, read
from ropewalk.engines.transformers.spelling import spell

__all__ = ["groups_at", "read", "spell"]
