"""NLL of every token of the held-out documents under a plan: what all tables are made from.

A static plan is read once to the longest length: a token's NLL depends on what stands before it alone, so every shorter
length is a prefix of that pass. A dynamic plan has other numbers at each length, so its octaves are read one by one: the
tokens from half a length on under that length's numbers, all keys rotated alike. Cropping is the untouched model in windows
that end `crop_stride` tokens apart, of which the last tokens count; inside its window it is the untouched model itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ropewalk
from experiments.miniature.corpus import Ids
from experiments.miniature.sizes import Sizes
from ropewalk.core.plan import Plan
from ropewalk.measure.forward import Forward

Curves = NDArray[np.float32]
"""[num_documents, longest]: NLL in nats of token t given those before it; token 0 is never predicted (NaN)."""
BATCH = 16
"""Windows of cropping in one forward pass."""


def tensors(documents: Mapping[str, Ids], sizes: Sizes) -> Iterator[torch.Tensor]:
    """The first `longest` token ids of each document."""
    for ids in documents.values():
        yield torch.from_numpy(ids[: sizes.longest].astype(np.int64))


def as_loaded(model: Any, documents: Mapping[str, Ids], sizes: Sizes) -> Curves:
    """With whatever plan the model carries."""
    forward = Forward(model)
    out = np.full((len(documents), sizes.longest), np.nan, dtype=np.float32)
    for row, ids in zip(out, tensors(documents, sizes), strict=True):
        row[1:] = forward.nll(forward.hidden(ids)[:-1], ids[1:]).numpy()
    return out


def under(model: Any, plan: Plan, documents: Mapping[str, Ids], sizes: Sizes) -> Curves:
    """With a plan put on; one that changes with length is read octave by octave."""
    if plan.kind == "static":
        with ropewalk.apply(model, plan):
            return as_loaded(model, documents, sizes)
    out = np.full((len(documents), sizes.longest), np.nan, dtype=np.float32)
    length = sizes.window
    while length <= sizes.longest:
        low = 1 if length == sizes.window else length // 2
        with ropewalk.apply(model, plan.at(length)):
            forward = Forward(model)
            for row, ids in zip(out, tensors(documents, sizes), strict=True):
                hidden = forward.hidden(ids[:length])
                row[low:length] = forward.nll(hidden[low - 1 : -1], ids[low:length]).numpy()
        length *= 2
    return out


@torch.inference_mode()
def cropped(model: Any, documents: Mapping[str, Ids], sizes: Sizes) -> Curves:
    """The model as it is, given the last tokens that fit."""
    forward, window, stride = Forward(model), sizes.window, sizes.crop_stride
    out = np.full((len(documents), sizes.longest), np.nan, dtype=np.float32)
    ends = np.arange(window + stride, sizes.longest + stride, stride).clip(max=sizes.longest)
    for row, ids in zip(out, tensors(documents, sizes), strict=True):
        row[1:window] = forward.nll(forward.hidden(ids[:window])[:-1], ids[1:window]).numpy()
        for part in np.array_split(ends, -(-ends.size // BATCH)):
            batch = torch.stack([ids[end - window : end] for end in part])
            hidden = forward.body(input_ids=batch, use_cache=False).last_hidden_state
            for end, states in zip(part, hidden, strict=True):
                row[end - stride : end] = forward.nll(states[-stride - 1 : -1], ids[end - stride : end]).numpy()
    return out


def beyond(curves: Curves, sizes: Sizes, length: int) -> NDArray[np.float64]:
    """Mean NLL of each document from the trained window on, up to `length`."""
    means: NDArray[np.float64] = curves[:, sizes.window : length].astype(np.float64).mean(axis=1)
    return means


def inside(curves: Curves, sizes: Sizes) -> NDArray[np.float64]:
    """Mean NLL of each document inside the trained window."""
    means: NDArray[np.float64] = curves[:, 1 : sizes.window].astype(np.float64).mean(axis=1)
    return means


def octave(curves: Curves, length: int) -> NDArray[np.float64]:
    """Mean NLL of each document over the last half of `length`."""
    means: NDArray[np.float64] = curves[:, length // 2 : length].astype(np.float64).mean(axis=1)
    return means
