"""Causal attention inside segments: the one primitive behind packed documents and shifted sparse attention.

A segment is a list of spans, read one after another, that attend causally to each other and to nothing else. Nearly always
it is one span, so that a row's segments are a list of ends; only the wrapped groups of shifted sparse attention have two.
The heads may be cut into parts, each with segments of its own.

Segments of one length run as one batch of `scaled_dot_product_attention` with `is_causal`, so no mask and no T x T product
exists on any path, and what lies outside the segments is never computed. Tensors are cut by `split` and put together by
`cat`, whose backward is the other: slicing instead would write a zeroed row for every segment.

Keys may begin before the queries (a trained prefix). Those are seen by every segment. As many blind queries are set before
each segment, which keeps the product square and the mask unneeded; their outputs are dropped.

Given up: segments of many different lengths are one call each; a long prefix costs as many queries in every segment; with
dropout PyTorch itself falls back to a kernel that holds the product of each segment.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ropewalk.core.errors import UnsupportedError

Span = tuple[int, int]
"""First token, and the one after the last."""
Segment = tuple[Span, ...]
"""Spans in the order in which they attend: a token sees what stands before it in this order."""
Segments = tuple[Segment, ...]
"""Segments of a row that hold each of its tokens exactly once."""
FLASH_HEAD_DIM = 256
"""Largest head size of the CUDA kernel that reads grouped keys without repeating them."""


def until(ends: Sequence[int]) -> Segments:
    """Segments of one span each that end at `ends` (rising, the last is the row's length)."""
    return tuple(((start, end),) for start, end in zip((0, *ends[:-1]), ends, strict=True))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layouts: Sequence[Sequence[Segments]],
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of query [B, H, T, D] over key [B, G, P + T, D] and value [B, G, P + T, E]; the result is [B, T, H, E].

    `layouts` has for each row the segments of each part of the heads; parts are as equal as can be, the larger first. G
    divides H. The first P keys are a prefix that every token sees.
    """
    parts = len(layouts[0])
    if query.shape[1] < parts:
        raise UnsupportedError(
            f"attention over {parts} parts of the heads got {query.shape[1]} heads; use a pattern that takes all heads alike"
        )
    width = value.shape[-1]
    if width < query.shape[-1]:
        # Values narrower than keys have no kernel on a CPU but the one that holds the dense product.
        value = functional.pad(value, (0, query.shape[-1] - width))
    queries = query.chunk(parts, dim=1)
    pairs = grouped(key, value, [part.shape[1] for part in queries], query.shape[1])
    outputs = [
        attend_part(part, *pair, [row[index] for row in layouts], scale=scale, dropout=dropout)
        for index, (part, pair) in enumerate(zip(queries, pairs, strict=True))
    ]
    joined = outputs[0] if parts == 1 else torch.cat(outputs, dim=2)
    return joined[..., :width]


def grouped(key: Tensor, value: Tensor, sizes: list[int], num_heads: int) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of each part of the heads, repeated only where parts cut a group of heads that share them."""
    num_kv, per = key.shape[1], num_heads // key.shape[1]
    if len(sizes) == 1 or num_kv == 1:
        return [(key, value)] * len(sizes)
    if any(size % per for size in sizes):
        key, value = key.repeat_interleave(per, dim=1), value.repeat_interleave(per, dim=1)
        per = 1
    shares = [size // per for size in sizes]
    return list(zip(torch.split(key, shares, dim=1), torch.split(value, shares, dim=1), strict=True))


def attend_part(
    query: Tensor, key: Tensor, value: Tensor, rows: Sequence[Segments], *, scale: float | None, dropout: float
) -> Tensor:
    """One part of the heads: [B, T, h, E], with the segments of each row."""
    if all(row == rows[0] for row in rows):
        blocks = [rows[0]]  # One block of B rows: rows that are cut alike run together.
    else:
        blocks = list(rows)
    prefix = key.shape[2] - query.shape[2]
    heads = [cut(key[:, :, :prefix], len(blocks)), cut(value[:, :, :prefix], len(blocks))] if prefix else None
    pieces = [
        [pieces_of(part, segments) for part, segments in zip(cut(tensor, len(blocks)), blocks, strict=True)]
        for tensor in (query, key[:, :, prefix:], value[:, :, prefix:])
    ]
    by_length: dict[int, list[tuple[int, Segment]]] = {}
    for block, segments in enumerate(blocks):
        for segment in segments:
            by_length.setdefault(sum(end - start for start, end in segment), []).append((block, segment))
    done: list[dict[Span, Tensor]] = [{} for _ in blocks]
    for members in by_length.values():
        q, k, v = (stacked(tensor, members) for tensor in pieces)
        if heads is not None:
            k, v = (torch.cat((stacked_rows(head, members), own), dim=2) for head, own in zip(heads, (k, v), strict=True))
            q = functional.pad(q, (0, 0, prefix, 0))
        out = causal(q, k, v, scale=scale, dropout=dropout)[:, :, prefix:].transpose(1, 2)
        for (block, segment), own in zip(members, out.chunk(len(members)), strict=True):
            done[block].update(zip(segment, torch.split(own, [end - start for start, end in segment], dim=1), strict=True))
    return joined([joined([block[span] for span in sorted(block)], dim=1) for block in done], dim=0)


def cut(tensor: Tensor, num_blocks: int) -> tuple[Tensor, ...]:
    """Rows apart, or all together where there is one block."""
    return (tensor,) if num_blocks == 1 else torch.split(tensor, 1)


def pieces_of(tensor: Tensor, segments: Segments) -> dict[Span, Tensor]:
    """The spans of rows [b, h, T, D], each a view [b, h, n, D]."""
    spans = sorted(span for segment in segments for span in segment)
    return dict(zip(spans, torch.split(tensor, [end - start for start, end in spans], dim=2), strict=True))


def stacked(pieces: list[dict[Span, Tensor]], members: list[tuple[int, Segment]]) -> Tensor:
    """Segments of one length as one batch [n * b, h, L, D]."""
    return joined([joined([pieces[block][span] for span in segment], dim=2) for block, segment in members], dim=0)


def stacked_rows(heads: tuple[Tensor, ...], members: list[tuple[int, Segment]]) -> Tensor:
    """The prefix of each segment's rows, in the order of the segments."""
    return joined([heads[block] for block, _ in members], dim=0)


def joined(tensors: list[Tensor], *, dim: int) -> Tensor:
    """`cat` without a copy where there is nothing to join."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)


def causal(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float) -> Tensor:
    """Square causal attention by PyTorch's kernels; shared keys are repeated only where no kernel reads them as they are."""
    per = query.shape[1] // key.shape[1]
    native = per > 1 and reads_groups(query)
    if per > 1 and not native:
        key, value = key.repeat_interleave(per, dim=1), value.repeat_interleave(per, dim=1)
    return functional.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=native
    )


def reads_groups(query: Tensor) -> bool:
    """Whether a kernel without a dense product takes shared keys: PyTorch's for CPUs, and the half-precision one of CUDA."""
    if query.device.type == "cuda":
        return query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= FLASH_HEAD_DIM
    return query.device.type == "cpu"
