"""GGUF files: read their headers, their geometry, and make transformers folders or extended files of them."""

from ropewalk.hosts.gguf.conversion import convert, quantisation_of
from ropewalk.hosts.gguf.header import Header, read_header
from ropewalk.hosts.gguf.patch import write_patched
from ropewalk.hosts.gguf.positions import config_of, geometry, is_convertible, reference
from ropewalk.hosts.gguf.verification import verify

__all__ = [
    "Header",
    "config_of",
    "convert",
    "geometry",
    "is_convertible",
    "quantisation_of",
    "read_header",
    "reference",
    "verify",
    "write_patched",
]
