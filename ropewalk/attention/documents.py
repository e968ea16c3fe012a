"""Where documents end in the rows of a batch, from their ids and from a padding mask.

Found once for a batch and not once for each layer: on a GPU each look at the ids waits for all work before it.

Some families (StableLM, Nemotron) hand no keywords from their layers to attention, so the ids of a batch would be lost
without a word. `noted` keeps them while the model's forward runs, for whoever makes its mask.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.core.errors import InputError

Ends = tuple[int, ...]
"""Where the documents of one row end; the last is its length."""

GIVEN: ContextVar[Tensor | None] = ContextVar("document_ids", default=None)
"""The document ids [B, T] that the model's running forward was given. A layer that is run again in the backward pass, maybe
in another thread, finds none here: what it needs has to come to it in its arguments."""


@contextmanager
def noted(*models: nn.Module) -> Iterator[None]:
    """While it lasts, each forward of these modules has its `document_ids` in `GIVEN`."""
    with ExitStack() as hooks:
        for model in models:
            hooks.callback(model.register_forward_pre_hook(_note, with_kwargs=True).remove)
            hooks.callback(model.register_forward_hook(_forget, always_call=True).remove)
        yield


def _note(model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    if keywords.get("document_ids") is not None:
        GIVEN.set(keywords["document_ids"])


def _forget(model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    GIVEN.set(None)


class EndsOfBatch:
    """The ends of the batch asked for last, kept while its tensors live unchanged, where these can tell."""

    def __init__(self) -> None:
        self._kept: tuple[list[tuple[weakref.ref[Tensor], int]], list[Ends]] | None = None

    def __call__(self, document_ids: Tensor | None, real: Tensor | None, *, num_rows: int, length: int) -> list[Ends]:
        """For each row; one document each where neither ids nor mask (both [B, T]) is given."""
        given = [tensor for tensor in (document_ids, real) if tensor is not None]
        if not given:
            return [(length,)] * num_rows
        if any(tensor.is_inference() for tensor in given):
            # Made under torch.inference_mode(), these count no versions, so a change in place would not show.
            return ends_of(document_ids, real, num_rows=num_rows, length=length)
        kept = self._kept
        if kept is not None and len(kept[0]) == len(given):
            same = (ref() is one and version == one._version for (ref, version), one in zip(kept[0], given, strict=True))
            if all(same):
                return kept[1]
        found = ends_of(document_ids, real, num_rows=num_rows, length=length)
        self._kept = ([(weakref.ref(tensor), tensor._version) for tensor in given], found)
        return found


def ends_of(document_ids: Tensor | None, real: Tensor | None, *, num_rows: int, length: int) -> list[Ends]:
    """A document ends where its id changes, and where padding begins or ends."""
    for name, tensor in (("document_ids", document_ids), ("attention_mask", real)):
        if tensor is not None and tuple(tensor.shape) != (num_rows, length):
            raise InputError(
                f"{name} has the shape {tuple(tensor.shape)}, and the rows have {(num_rows, length)}; give one number for "
                "each token"
            )
    if document_ids is None:
        assert real is not None
        document_ids = torch.zeros_like(real, dtype=torch.int64)
    elif bool((document_ids[:, 1:] < document_ids[:, :-1]).any()):
        raise InputError("document_ids fall inside a row; number the documents of each row in their order, from 0")
    change = document_ids[:, 1:] != document_ids[:, :-1]
    if real is not None:
        real = real.bool()
        change = change | (real[:, 1:] != real[:, :-1])
        refuse_holes(document_ids, real, change)
    ends: list[list[int]] = [[] for _ in range(num_rows)]
    for row, place in change.nonzero().tolist():
        ends[row].append(place + 1)
    return [(*row, length) for row in ends]


def refuse_holes(document_ids: Tensor, real: Tensor, change: Tensor) -> None:
    """Padding inside a document would cut it in two: what follows the hole could not see what stands before."""
    begins = real.clone()
    begins[:, 1:] &= change
    rows, places = begins.nonzero().unbind(1)
    runs = torch.stack((rows, document_ids[rows, places]))
    if torch.unique(runs, dim=1).shape[1] < runs.shape[1]:
        raise InputError(
            "attention_mask has a hole inside a document; pad only before or after documents, or leave the mask out"
        )
