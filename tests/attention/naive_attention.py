"""Attention inside segments, slowly: a dense mask for each head of each row, and softmax by hand in float64.

It shares nothing with the fast one but what segments mean: a token sees itself, and what stands before it in its segment.
"""

import torch
from torch import Tensor

from ropewalk.attention.segments import Segments


def dense_mask(segments: Segments, length: int) -> Tensor:
    """Whether token i sees token j, bool [T, T]."""
    sees = torch.zeros(length, length, dtype=torch.bool)
    for segment in segments:
        order = [token for start, end in segment for token in range(start, end)]
        for place, token in enumerate(order):
            sees[token, order[: place + 1]] = True
    return sees


def picture(segments: Segments, length: int) -> list[str]:
    """A mask as text: a line for each query, `#` where it sees."""
    return ["".join(".#"[int(seen)] for seen in row) for row in dense_mask(segments, length)]


def part_of_head(head: int, num_heads: int, num_parts: int) -> int:
    """Parts are as equal as can be, the larger first."""
    return 0 if num_parts == 1 or head < (num_heads + 1) // 2 else 1


def attend(query: Tensor, key: Tensor, value: Tensor, layouts: list[list[Segments]], scale: float | None = None) -> Tensor:
    """[B, T, H, E] from query [B, H, T, D], key [B, G, P + T, D] and value [B, G, P + T, E], in float64."""
    rows, heads, length, width = query.shape
    per, prefix = heads // key.shape[1], key.shape[2] - length
    outputs = []
    for row in range(rows):
        for head in range(heads):
            segments = layouts[row][part_of_head(head, heads, len(layouts[row]))]
            sees = torch.cat((torch.ones(length, prefix, dtype=torch.bool), dense_mask(segments, length)), dim=1)
            q, k, v = query[row, head].double(), key[row, head // per].double(), value[row, head // per].double()
            scores = (q @ k.T) * (width**-0.5 if scale is None else scale)
            outputs.append(scores.masked_fill(~sees, float("-inf")).softmax(dim=-1) @ v)
    return torch.stack(outputs).view(rows, heads, length, -1).transpose(1, 2)
