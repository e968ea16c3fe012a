"""The transformers engine: config dicts to geometry and back. Stdlib and numpy; imports neither torch nor transformers."""

from ropewalk.engines.transformers.reading import read

__all__ = ["read"]
