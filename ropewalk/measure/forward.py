"""One forward of a causal language model, without ever holding the logits of the whole text.

A stock call makes logits [T, V] in the model's dtype and again in float32: 6.4 GB for 32k tokens of a 49k vocabulary. Here
the decoder runs once, its last hidden states [T, D] are kept, and the head runs over them in chunks of rows.

What was given up: only the usual head is known (a linear layer, a logit divisor or multiplier, soft-capping). `Forward`
proves on a few tokens that its logits equal the model's own, and refuses the model where they do not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ropewalk.core.errors import UnsupportedError

CHUNK_BYTES = 24 * 1024 * 1024
"""Float32 logits held at one time; 128 rows of a 49k vocabulary. Small enough that an allocator reuses the memory instead of
asking the system for fresh pages each time, which costs more than the arithmetic."""

Tick = Callable[[float], None]


class Forward:
    """The decoder and the head of a live model, apart."""

    def __init__(self, model: Any) -> None:
        """Raises `UnsupportedError` where the model has no head of the known kind."""
        self.model = model
        self.body = model.get_decoder()
        self.head = model.get_output_embeddings()
        if self.body is None or self.head is None or self.body is model:
            raise UnsupportedError(f"{type(model).__name__} has no decoder and output head that can be run apart")
        text = model.config.get_text_config()
        self.softcap = getattr(text, "final_logit_softcapping", None)
        self.multiplier = 1.0
        if getattr(text, "logits_scaling", None):
            self.multiplier = 1.0 / float(text.logits_scaling)
        elif getattr(model, "logit_scale", None) is not None:
            self.multiplier = float(model.logit_scale)
        self.device = self.head.weight.device
        self.vocabulary = int(self.head.weight.shape[0])
        self._check()

    @torch.inference_mode()
    def _check(self) -> None:
        ids = torch.arange(3, 11, device=self.device).remainder(self.vocabulary)[None]
        mine = self.logits(self.hidden(ids[0]))
        theirs = self.model(input_ids=ids, use_cache=False).logits[0].float()
        scale = theirs.abs().max().clamp(min=1e-6)
        if mine.shape != theirs.shape or not torch.allclose(mine / scale, theirs / scale, atol=2e-2, rtol=0.0):
            raise UnsupportedError(
                f"the output head of {type(self.model).__name__} does more than this version knows "
                "(linear, soft-cap, multiplier), so its likelihood would be wrong"
            )

    @torch.inference_mode()
    def hidden(self, ids: Tensor, *, tick: Tick | None = None, **kwargs: Any) -> Tensor:
        """Last hidden states [T, D] of token ids [T], in the model's dtype, in one forward without a cache.

        `tick` is told the share of layers that are done.
        """
        kwargs.setdefault("use_cache", False)
        with layers_ticking(self.body, tick):
            out = self.body(input_ids=ids.to(self.device)[None], **kwargs)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, D]."""
        return self._logits(hidden).float()

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Float32 log-probabilities [N, V] of hidden states [N, D], converted and normalised in one pass."""
        return torch.log_softmax(self._logits(hidden), dim=1, dtype=torch.float32)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits in the model's own dtype."""
        logits = self.head(hidden)
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits  # type: ignore[no-any-return]

    def chunks(self, num_rows: int) -> Iterator[slice]:
        """Slices that cover `num_rows` rows, each within `CHUNK_BYTES` of float32 logits."""
        rows = max(1, CHUNK_BYTES // (4 * self.vocabulary))
        for low in range(0, num_rows, rows):
            yield slice(low, min(num_rows, low + rows))

    @torch.inference_mode()
    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """NLL in nats, float32 [N], of target ids [N] under the logits of hidden states [N, D], chunk by chunk."""
        out = torch.empty(targets.shape[0], dtype=torch.float32)
        targets = targets.to(self.device)
        for part in self.chunks(targets.shape[0]):
            out[part] = -self.log_probabilities(hidden[part]).gather(1, targets[part, None])[:, 0].cpu()
        return out

    @torch.inference_mode()
    def price(self, reference: Tensor, hidden: Tensor) -> Tensor:
        """KL(reference || plan) in nats and whether the first choice agrees: float32 [2, N], from hidden states [N, D]."""
        return divergence(self, reference, self, hidden)


@torch.inference_mode()
def divergence(reference: Forward, reference_hidden: Tensor, other: Forward, other_hidden: Tensor) -> Tensor:
    """KL(reference || other) in nats and first-choice agreement, float32 [2, N], chunk by chunk.

    The two may be one model under two plans, or the same model in two dtypes.
    """
    num_rows = reference_hidden.shape[0]
    out = torch.empty(2, num_rows, dtype=torch.float32)
    for part in reference.chunks(num_rows):
        logp = reference.log_probabilities(reference_hidden[part])
        logq = other.log_probabilities(other_hidden[part])
        out[1, part] = (logp.argmax(1) == logq.argmax(1)).float().cpu()
        # In place: two more chunks of logits would double the working set.
        logq.neg_().add_(logp)
        out[0, part] = logq.mul_(logp.exp_()).sum(1).clamp_(min=0.0).cpu()
    return out


@contextmanager
def layers_ticking(body: Any, tick: Tick | None) -> Iterator[None]:
    """Calls `tick(share)` as the decoder's layers finish, by hooks that are taken off again."""
    layers = getattr(body, "layers", None)
    if tick is None or layers is None:
        yield
        return
    total = len(layers)

    def make(index: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            tick((index + 1) / total)

        return hook

    handles = [layer.register_forward_hook(make(index)) for index, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
