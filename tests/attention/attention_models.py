"""Tiny models for the tests of attention, rows of documents, and whether one token sees another."""

from typing import Any

import torch
from tolerances import RELATIVE
from torch import Tensor, nn

VOCABULARY = 50
TOLERANCE = 20 * RELATIVE["float32"]
"""Two layers with their products, each of some hundred roundings."""
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


def llama(**fields: Any) -> Any:
    """A random Llama; weights larger than usual, so that what a token sees shows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, "max_position_embeddings": 512, "initializer_range": 0.3, **fields}))


def windowed(family: str, **fields: Any) -> Any:
    """A model of a family whose layers have windows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SHAPE, "sliding_window": 4, **fields}))


def ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def documents(lengths: list[int]) -> Tensor:
    """Document ids [1, T] of a row with documents of these lengths."""
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]


def positions(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def close(got: Tensor, expected: Tensor) -> bool:
    """NaN is never close."""
    return bool((got - expected).abs().max() <= TOLERANCE * expected.abs().max())


def sees(model: Any, row: Tensor, later: int, earlier: int, **keywords: Any) -> bool:
    """Whether what the model says at one token has a gradient with respect to another's embedding."""
    embeddings = model.get_input_embeddings()(row).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False, **keywords).logits
    (gradient,) = torch.autograd.grad(logits[0, later].square().sum(), embeddings)
    return bool(gradient[0, earlier].abs().sum() > 0)
