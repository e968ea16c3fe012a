"""What a GGUF file says of positions: its metadata as a transformers config, and that config as a `Geometry`.

Where a folder can be made from the file, going through the config means that the two can never be read differently. Other
files - more architectures, mixtures of experts, partial rotary - have no config here: their geometry is what llama.cpp turns
by. The only tensor data read here are the factors of RoPE scaling, a few hundred numbers.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Geometry, Vector
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock
from ropewalk.engines.reference import reference_of
from ropewalk.engines.transformers import block as own_block
from ropewalk.hosts.gguf.header import Header, TensorInfo

MAX_FACTORS = 1 << 15
BLOCK = "ropewalk.block"
"""The metadata key that holds our own block as JSON: what a folder's config.json has under `ropewalk`."""


def geometry(header: Header) -> Geometry:
    """Positions of the model in a GGUF file; of one that we extended, with the origin that its block tells.

    Raises `UnsupportedError` for an architecture whose code in llama.cpp was not read, and `SourceError` for a broken file.
    """
    if is_convertible(header):
        return stock.read(with_block(config_of(header), header))
    found = llamacpp.geometry(header.metadata, factors_of(header))
    known = own_block.find(with_block({}, header))
    return found if known is None else own_block.settle(found, known)


def is_convertible(header: Header) -> bool:
    """Whether the metadata can be said as a transformers config, so that a folder may be made. Raises `SourceError`."""
    try:
        config_of(header)
    except UnsupportedError:
        return False
    return True


def reference(header: Header) -> Plan:
    """What a file that has no config here is to compute: the words of its block, else what llama.cpp makes of it."""
    block = with_block({}, header)
    if own_block.find(block) is not None:
        return reference_of(block)
    found = geometry(header)
    length = max(found.trained_length, found.declared_length)
    return Plan(
        method="as-is",
        options={},
        kind="static",
        original_length=found.original_length,
        trained_length=found.trained_length,
        length=length,
        factor=length / found.original_length,
        groups=words_of(found),
    )


def words_of(found: Geometry) -> dict[str, Frequencies | None]:
    """What each group uses now; None for a group without positions."""
    return {
        group.label: None
        if group.inv_freq is None
        else Frequencies(
            inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale
        )
        for group in found.groups
    }  # fmt: skip


def with_block(config: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """`config` with our own block, where the file has one. Raises `SourceError` where that is damaged."""
    said = header.metadata.get(BLOCK)
    if said is None:
        return dict(config)
    try:
        content = json.loads(said) if isinstance(said, str) else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise SourceError(
            f"GGUF key {BLOCK} of {header.path} is damaged, expected a JSON object; get the file anew, or extend its source"
        )
    return {**config, own_block.KEY: content}


def config_of(header: Header) -> dict[str, Any]:
    """The config.json that a conversion of this file would write, without our own block. Raises as `geometry` does."""
    return reading_of(header).config


def reading_of(header: Header) -> llamacpp.Reading:
    """The config and the notes that go with it. Raises as `geometry` does."""
    return llamacpp.read(
        header.metadata,
        shapes={name: tensor.shape for name, tensor in header.tensors.items()},
        factors=factors_of(header),
    )


def factors_of(header: Header) -> dict[str, Vector]:
    """The factor tensors that a file has, float64 [rotary_dim/2] each. Raises `SourceError` for a broken one."""
    return {name: _factors(header, name) for name in llamacpp.FACTOR_TENSORS if name in header.tensors}


def _factors(header: Header, name: str) -> Vector:
    tensor: TensorInfo = header.tensors[name]
    if tensor.type_name not in ("F32", "F16") or len(tensor.shape) != 1 or tensor.num_elements > MAX_FACTORS:
        raise SourceError(
            f"GGUF tensor {name} is {tensor.type_name} of shape {tensor.shape}, expected one row of F32 numbers; "
            "the file is broken, get it anew"
        )
    dtype = "<f4" if tensor.type_name == "F32" else "<f2"
    try:
        vector = np.fromfile(header.path, dtype=dtype, count=tensor.num_elements, offset=tensor.offset)
    except OSError as error:
        raise SourceError(f"GGUF file {header.path} cannot be read: {error.strerror or error}") from error
    # A damaged file may hold a signalling NaN; what is wrong with it is said by whoever uses the numbers.
    with np.errstate(invalid="ignore"):
        return np.asarray(vector, dtype=np.float64)
