"""The model and its loss as one module: token ids and labels in, the summed loss out.

One module, because whatever wraps a model for several processes hooks into the `forward` of what it wraps: a loss that calls
the backbone behind the wrapper's back trains each process alone, and nothing says so.

The backbone is given `position_ids` and `document_ids`, and never an attention mask: what attends to what is said by the
documents alone, so that positions with a jump (PoSE) are not taken for packed documents.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.core.errors import InputError, UnsupportedError
from ropewalk.tune.loss import IGNORED, HeadForm, summed_loss

TOLERANCE = 2e-2
"""Largest difference of logits, relative to the largest one: a head that does more differs by far more; bfloat16 by less."""


class Learner(nn.Module):
    """A causal language model (bare, or inside PEFT's wrapper) with its chunked loss."""

    def __init__(self, model: nn.Module, *, own_attention: bool = False) -> None:
        """With `own_attention` documents are not told apart, and rows hold one each.

        Raises `UnsupportedError` where the model's head does more than is known here."""
        super().__init__()
        self.model = model
        self.own_attention = own_attention
        self.form = head_form(self.bare)
        _check_head(self.bare, self.form)

    @property
    def bare(self) -> Any:
        """The transformers model without PEFT's wrapper; adapters inside it stay."""
        inner: Any = self.model
        return inner.get_base_model() if hasattr(inner, "get_base_model") else inner

    @property
    def config(self) -> Any:
        """The model's config: trackers write it down."""
        return self.bare.config

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor, document_ids: Tensor, **unused: Any
    ) -> dict[str, Tensor]:
        """`{"loss": sum in nats over learned tokens}`; all arguments int64 [B, T]."""
        told = {} if self.own_attention else {"position_ids": position_ids, "document_ids": document_ids}
        if self.own_attention:
            _check_one_document(labels, document_ids)
        bare = self.bare
        hidden = bare.get_decoder()(input_ids=input_ids, use_cache=False, **told).last_hidden_state
        head = bare.get_output_embeddings()
        weight: Tensor = head.weight
        bias: Tensor | None = getattr(head, "bias", None)
        # Under autocast hidden states come in less than the weight's dtype.
        weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        return {"loss": summed_loss(hidden, labels, weight, bias, form=self.form)}


def _check_one_document(labels: Tensor, document_ids: Tensor) -> None:
    """Raises `InputError` where a second document of a row is learned: padding after the first harms nobody."""
    if bool(((document_ids > 0) & (labels != IGNORED)).any()):
        raise InputError(
            "a row packs several documents, and the model's own attention would let them see each other; give "
            "--attention full, or rows of one document"
        )


def head_form(model: Any) -> HeadForm:
    """What the head of a model does beside its product. Raises `UnsupportedError` for a model without a known head."""
    body, head = model.get_decoder(), model.get_output_embeddings()
    # What ModernBERT calls its decoder is the last layer of its head.
    if body is None or head is None or body is model or body is head:
        raise UnsupportedError(f"{type(model).__name__} has no decoder and output head that can be run apart")
    text = model.config.get_text_config()
    multiplier = 1.0
    if getattr(text, "logits_scaling", None):
        multiplier = 1.0 / float(text.logits_scaling)
    elif getattr(model, "logit_scale", None) is not None:
        multiplier = float(model.logit_scale)
    return HeadForm(multiplier=multiplier, softcap=getattr(text, "final_logit_softcapping", None))


@torch.no_grad()
def _check_head(model: Any, form: HeadForm) -> None:
    """Raises `UnsupportedError` unless `form` gives the model's own logits on a few tokens."""
    was_training = model.training
    model.eval()
    head = model.get_output_embeddings()
    ids = torch.arange(3, 11, device=head.weight.device).remainder(head.weight.shape[0])[None]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    mine = form.logits(hidden, head.weight, getattr(head, "bias", None))
    theirs = model(input_ids=ids, use_cache=False).logits[0].float()
    model.train(was_training)
    scale = theirs.abs().max().clamp(min=1e-6)
    if mine.shape != theirs.shape or not torch.allclose(mine / scale, theirs / scale, atol=TOLERANCE, rtol=0.0):
        raise UnsupportedError(
            f"the output head of {type(model).__name__} does more than this version knows (linear, multiplier, soft-cap), "
            "so it would be trained on a wrong loss"
        )
