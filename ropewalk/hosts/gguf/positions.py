"""What a GGUF file says of positions: its metadata as a transformers config, and that config as a `Geometry`.

Going through the config means that a GGUF file and the folder made from it can never be read differently. The only tensor
data read here are the factors of RoPE scaling, a few hundred numbers.
"""

from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError
from ropewalk.core.geometry import Geometry, Vector
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock
from ropewalk.hosts.gguf.header import Header, TensorInfo

MAX_FACTORS = 1 << 15


def geometry(header: Header) -> Geometry:
    """Positions of the model in a GGUF file.

    Raises `UnsupportedError` for a family that cannot be converted, and `SourceError` for a broken file.
    """
    return stock.read(config_of(header))


def config_of(header: Header) -> dict[str, Any]:
    """The config.json that a conversion of this file would write, without our own block. Raises as `geometry` does."""
    return reading_of(header).config


def reading_of(header: Header) -> llamacpp.Reading:
    """The config and the notes that go with it. Raises as `geometry` does."""
    return llamacpp.read(
        header.metadata,
        shapes={name: tensor.shape for name, tensor in header.tensors.items()},
        factors={name: _factors(header, name) for name in llamacpp.FACTOR_TENSORS if name in header.tensors},
    )


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
    return np.asarray(vector, dtype=np.float64)
