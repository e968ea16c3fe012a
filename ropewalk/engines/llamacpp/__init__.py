"""llama.cpp: GGUF metadata as a transformers config, what llama.cpp computes from it, and how to say a plan in it.

`reading` says what a file's author meant, `compute` what llama.cpp makes of it, `geometry` the same as a geometry,
`conversion` what its stock converter would write for a transformers config, `spelling` how a plan is said in metadata.
Dicts only; no I/O.
"""

from ropewalk.engines.llamacpp.compute import NAME, VERSIONS, compute, compute_metadata
from ropewalk.engines.llamacpp.geometry import geometry
from ropewalk.engines.llamacpp.reading import (
    DIVISORS,
    FACTOR_TENSORS,
    FAMILIES,
    LONG,
    QUANTISATIONS,
    SHORT,
    Family,
    Reading,
    family_of,
    read,
    recognise_llama3,
)
from ropewalk.engines.llamacpp.spelling import spell_metadata

__all__ = [
    "DIVISORS",
    "FACTOR_TENSORS",
    "FAMILIES",
    "LONG",
    "NAME",
    "QUANTISATIONS",
    "SHORT",
    "VERSIONS",
    "Family",
    "Reading",
    "compute",
    "compute_metadata",
    "family_of",
    "geometry",
    "read",
    "recognise_llama3",
    "spell_metadata",
]
