"""Cross entropy of a linear head, without ever holding the logits of all tokens.

The logits of 32k tokens of a 49k vocabulary take 6.4 GB in float32, and the naive loss holds them 2.8 times. Here each chunk
of rows is multiplied, scored and differentiated at once, so one chunk of logits lives at a time; the backward pass only
scales gradients that are there already. torch 2.13 does the same in `torch.nn.functional.linear_cross_entropy`, which is
used where it is present, the head is plain, the device is no CPU and all is float32. Our loop serves the rest: older torch;
heads with soft-capping; half precision, in which the operator adds the loss up too (8.375 nats a token for 8.616 over 8k
tokens in bfloat16), and autocast, under which it multiplies in float32; and CPUs, where it is slower: its chunks shrink with
the rows, and each adds a whole weight's gradient (in float32, processor seconds of both passes with a 49k vocabulary,
operator and loop: 512 rows 9.0 and 1.2, 2,048 rows 10.3 and 4.4, 8,192 rows 19.2 and 18.0; in bfloat16 128 rows 17 and 0.3).

Given up: second derivatives and label smoothing, which no recipe uses.

Sources: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (arXiv:2411.09009), section 3, for why the
loss needs one row of logits at a time; Gemma 2's report (arXiv:2408.00118), section 2, for soft-capping.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ropewalk.core.budget import CHUNK_BYTES

IGNORED = -100
"""The label of a token that is not learned, as everywhere in torch."""


@dataclass(frozen=True, kw_only=True)
class HeadForm:
    """What a head does to the product of hidden states and weight."""

    multiplier: float = 1.0
    softcap: float | None = None
    """logits become softcap * tanh(logits / softcap)."""

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, D]."""
        logits = functional.linear(hidden, weight, bias)
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits.float()


PLAIN = HeadForm()


def has_torch_chunks() -> bool:
    """Whether this torch has the chunked operator."""
    return hasattr(functional, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions")


def summed_loss(
    hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None, *, form: HeadForm = PLAIN,
    chunk_bytes: int = CHUNK_BYTES, own_loop: bool | None = None,
) -> Tensor:  # fmt: skip
    """The sum in nats over learned tokens of -log p(label), a scalar, from hidden states [B, T, D] and labels [B, T].

    A label stands at its own token's place, so token t is predicted from hidden state t - 1; the first token of a row is
    never learned. `own_loop` says which of the two ways is taken where torch has an operator; None asks `operator_serves`.
    """
    rows, targets = learned(hidden, labels)
    if targets.numel() == 0:
        # A zero that still hangs on the parameters: other ranks wait for its gradient.
        return (rows.sum() + hidden.sum() + weight.sum()) * 0.0
    autocast = torch.is_autocast_enabled(rows.device.type)
    own = not operator_serves(rows, form, autocast=autocast) if own_loop is None else own_loop
    if has_torch_chunks() and form.softcap is None and not own:
        return _by_torch(rows, targets, weight, bias, form.multiplier)
    num_rows = max(1, chunk_bytes // (4 * weight.shape[0]))
    loss: Tensor = _Chunks.apply(rows, weight, bias, targets, form, num_rows)  # type: ignore[no-untyped-call]
    return loss


def operator_serves(hidden: Tensor, form: HeadForm, *, autocast: bool) -> bool:
    """Whether torch's operator, where there is one, is exact and no slower than our loop for these hidden states."""
    return hidden.device.type != "cpu" and hidden.dtype is torch.float32 and not autocast and form.softcap is None


def learned(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [N, D] that predict something, and what they predict [N]."""
    targets = labels[:, 1:]
    where = targets != IGNORED
    return hidden[:, :-1][where], targets[where]


def num_learned(labels: Tensor) -> int:
    """How many tokens of labels [B, T] are learned: what the sum is divided by."""
    return int((labels[:, 1:] != IGNORED).sum())


def multiplied(x: Tensor) -> Tensor:
    """A tensor as autocast multiplies it. Left to autocast, the cast of every chunk's leaf would be kept until the forward
    ends: a copy of the whole head in half precision for each chunk."""
    device = x.device.type
    if x.dtype is torch.float32 and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def _by_torch(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, multiplier: float) -> Tensor:
    """torch's operator. A multiplier of the logits is one of the hidden states and of the bias."""
    if multiplier != 1.0:
        hidden, bias = hidden * multiplier, None if bias is None else bias * multiplier
    operator: Any = functional.linear_cross_entropy
    options = torch.nn.LinearCrossEntropyOptions()
    loss: Tensor = operator(hidden, weight, targets, linear_bias=bias, reduction="sum", options=options)
    return loss


class _Chunks(torch.autograd.Function):
    """Our loop: gradients are made in the forward pass, chunk by chunk, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, form: HeadForm, num_rows: int
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        inputs = (hidden, weight, bias)
        # Sums over chunks are float32: in half precision the later chunks would be rounded away.
        kept = [
            None if x is None else x.dtype if x is hidden else torch.promote_types(x.dtype, torch.float32) for x in inputs
        ]
        grads = [
            torch.zeros_like(x, dtype=dtype) if want and x is not None else None
            for x, dtype, want in zip(inputs, kept, wanted, strict=True)
        ]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        weight = multiplied(weight)
        for low in range(0, hidden.shape[0], num_rows):
            part = slice(low, low + num_rows)
            total += _chunk(hidden[part], weight, bias, targets[part], form, grads, part)
        ctx.save_for_backward(*(g if g is None or x is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True)))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if grad is None else grad * outer[0].to(grad.dtype) for grad in ctx.saved_tensors]
        return (*scaled, None, None, None)


def _chunk(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, form: HeadForm, grads: list[Tensor | None],
    part: slice,
) -> Tensor:  # fmt: skip
    """The summed loss of one chunk; its gradients are added to `grads` (hidden rows in `part`, weight, bias)."""
    leaves = [
        None if x is None else multiplied(x).detach().requires_grad_(grad is not None)
        for x, grad in zip((hidden, weight, bias), grads, strict=True)
    ]
    with torch.enable_grad():
        assert leaves[0] is not None
        assert leaves[1] is not None
        loss = functional.cross_entropy(form.logits(leaves[0], leaves[1], leaves[2]), targets, reduction="sum")
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    if asked:
        found = iter(torch.autograd.grad(loss, asked))
        for index, leaf in enumerate(leaves):
            grad = grads[index]
            if leaf is None or not leaf.requires_grad or grad is None:
                continue
            place = grad[part] if index == 0 else grad
            place += next(found)
    return loss.detach()
