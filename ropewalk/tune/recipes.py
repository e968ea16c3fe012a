"""Which parameters train: all, adapters, adapters with embeddings and norms, or a prefix.

LongLoRA (arXiv:2309.12307, section 3.3 and table 2): adapters on q, k, v, o alone do not learn a longer context (perplexity
11.4 against 8.1 of full training at 32k, whatever the rank); with embeddings and norms trained too they do (8.1). In the
authors' code a parameter trains where its name has `embed` or `norm` in it; here too, through PEFT's `modules_to_save`.

Tied embeddings stay tied (`ensure_weight_tying`): without it PEFT copies the embedding, the head keeps the old one, and the
two drift apart until the merge throws one of them away.

`qlora` is `longlora` on a base held in 4 bits (arXiv:2305.14314), since adapters alone do not learn length.

Other kinds of adapters are in `adapters`. What no text comes to is never trained, see `text_part`.

Given up: adapters on the head, which the chunked loss would have to know of, and on MLPs.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ropewalk.core.errors import InputError, UnsupportedError
from ropewalk.hosts.live.prefix import put_prefix
from ropewalk.hosts.live.tuning import peft_is_quiet
from ropewalk.tune import adapters
from ropewalk.tune.settings import Settings
from ropewalk.tune.text_part import adapted, freeze_the_rest, kept_whole, text_modules

ATTENTION_NAMES = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("qkv_proj", "o_proj"),
    ("query_key_value", "dense"),
    ("c_attn", "c_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
)
"""Names of attention's linear layers, by family; the first set that a model has whole is taken."""
WHOLE = ("embed", "norm", "wte")
"""LongLoRA: modules whose names hold one of these train whole."""


def dress(model: Any, settings: Settings) -> nn.Module:
    """The model made ready to train by a recipe: itself, or inside PEFT's wrapper with the base frozen.

    Adapters begin with random numbers of torch's global generator. Raises `UnsupportedError` where no attention layer of a
    known name is there, `InputError` where a recipe cannot run here.
    """
    refuse(settings.recipe)
    if settings.recipe == "full":
        freeze_the_rest(model)
        bare: nn.Module = model
        return bare
    from peft import get_peft_model

    whole = kept_whole(model, whole_modules(model)) if settings.recipe in ("longlora", "qlora") else []
    names = [] if settings.recipe == "prefix" else adapted(model, attention_modules(model))
    config = adapters.config_of(model, settings, names, whole, tied=is_tied(model))
    with peft_is_quiet():
        dressed: nn.Module = get_peft_model(model, config)
    if settings.recipe == "prefix":
        put_prefix(dressed, trains=True)
        _check_prefix(model)
    return dressed


@torch.no_grad()
def _check_prefix(model: Any) -> None:
    """Raises `UnsupportedError` where a model's keys have another shape than its config lets one think."""
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    except RuntimeError as error:
        raise UnsupportedError(
            f"{type(model).__name__} keeps keys and values of a shape that a prefix is not known for ({error}); say "
            "--recipe longlora"
        ) from error


def refuse(recipe: str) -> None:
    """Raises `InputError` where a recipe cannot run on this machine, before any work is done."""
    if recipe != "full" and find_spec("peft") is None:
        raise InputError(f"the recipe {recipe} needs peft; install it with pip install '.[tune]' in a checkout of ropewalk")
    if recipe != "qlora":
        return
    if not torch.cuda.is_available():
        raise InputError(
            "the recipe qlora holds the base in 4 bits on a CUDA device and there is none; say --recipe longlora, which "
            "trains the same on a base that is not rounded"
        )
    if find_spec("bitsandbytes") is None:
        raise InputError("the recipe qlora needs bitsandbytes, which is not installed; pip install bitsandbytes")


def is_tied(model: Any) -> bool:
    """Whether head and input embedding are one tensor."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is embedding.weight


def attention_modules(model: nn.Module) -> list[str]:
    """Last parts of the names of attention's linear layers in the text part. Raises `UnsupportedError` where none are
    known."""
    there = {name.rpartition(".")[2] for name, module in text_modules(model).items() if isinstance(module, nn.Linear)}
    for names in ATTENTION_NAMES:
        if there.issuperset(names):
            return list(names)
    raise UnsupportedError(
        f"{type(model).__name__} has no attention layers of a name that adapters are known for (q_proj, k_proj, ...); say "
        "--recipe full"
    )


def whole_modules(model: nn.Module) -> list[str]:
    """Last parts of the names of the text part's embeddings and norms, sorted: what LongLoRA trains whole."""
    found = set()
    for name, module in text_modules(model).items():
        own = [parameter for parameter, _ in module.named_parameters(recurse=False)]
        last = name.rpartition(".")[2]
        if own and any(word in last.lower() for word in WHOLE):
            found.add(last)
    return sorted(found)


def num_trained(model: nn.Module) -> tuple[int, int]:
    """Parameters that train, and all of them, tied ones counted once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
