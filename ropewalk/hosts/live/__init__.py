"""A plan on a live transformers model: put on, read back, compared, taken off again. Nothing is replaced for good.

`carry` swaps numbers (a buffer, a factor, a scaling) and the type label that would overwrite them; `places` finds where a
model keeps those numbers; `loading` loads a checkpoint the way its numbers survive. No `forward` is touched, nothing is
registered or patched, and no state is kept outside the `with` block.
"""

from ropewalk.hosts.live.carry import apply, geometry_of, read_back
from ropewalk.hosts.live.loading import DTYPES, choose_device, choose_dtype, load, load_tokenizer
from ropewalk.hosts.live.places import decoder_of
from ropewalk.hosts.live.tuning import build, skeleton, with_adapter

__all__ = [
    "DTYPES",
    "apply",
    "build",
    "choose_device",
    "choose_dtype",
    "decoder_of",
    "geometry_of",
    "load",
    "load_tokenizer",
    "read_back",
    "skeleton",
    "with_adapter",
]
