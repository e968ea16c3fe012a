"""Models of tuning runs: built from a planned config with the weights of another folder, and adapters on their base.

The config with the plan is there before the model is built, so the vectors are computed once, by transformers, from the
numbers that are written; they are read back and compared before anything trains. An adapter folder is loaded the same way
(the config of its planned base, the base's weights), and its adapter is added into the weights, for a plain model.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from ropewalk.core.errors import InputError, SourceError
from ropewalk.hosts import folder
from ropewalk.hosts.folder.files import GENERATION
from ropewalk.hosts.live.carry import check_as_loaded, geometry_of
from ropewalk.hosts.live.places import places_of
from ropewalk.hosts.live.prefix import put_prefix
from ropewalk.hosts.live.pretrained import (
    AttentionMissingError,
    check_attention,
    from_config,
    from_pretrained,
    model_from_pretrained,
)


def build(
    weights: Path, config: Path, *, dtype: torch.dtype, device: torch.device, four_bits: bool = False,
    attention: str = "sdpa",
) -> tuple[Any, Any]:  # fmt: skip
    """(model, tokenizer): the weights of one folder under the config and tokenizer of another, read back and compared.

    A family without `sdpa` (gpt-oss) gets `eager`, with a warning. Raises `SourceError` where something is missing,
    `HostError` where the model does not use the numbers of its config.
    """
    check_attention(attention)
    planned = from_pretrained(AutoConfig, config)
    options: dict[str, Any] = {"dtype": dtype}
    if four_bits:
        from transformers import BitsAndBytesConfig

        options |= {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
            ),
            "device_map": {"": device},
        }
    model, notes = model_from_pretrained(weights, attention=attention, config=planned, **options)
    missing = sorted(notes["missing_keys"])
    if missing:
        raise SourceError(f"{weights} lacks {len(missing)} tensors of its model, the first is {missing[0]}")
    if not four_bits:
        model.to(device)
    geometry = geometry_of(model)
    check_as_loaded(places_of(model, geometry), geometry.declared_length)
    if (config / GENERATION).is_file():
        # The loader took the one beside the weights, whose length is the old one.
        model.generation_config = GenerationConfig.from_pretrained(str(config), local_files_only=True)
    return model, from_pretrained(AutoTokenizer, config)


def skeleton(path: Path) -> Any:
    """The model of a config without any weights, on no device: its layers and their names, in a fraction of a second.

    Raises `SourceError` where transformers makes no causal language model of the config.
    """
    config = from_pretrained(AutoConfig, path)
    # Some families draw random numbers even here.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return untrained(config)


def untrained(config: Any, **options: Any) -> Any:
    """The model of a config with random weights; a family without `sdpa` gets `eager`, as `build` gives it.

    Raises `SourceError` where transformers makes no causal language model of the config.
    """
    try:
        return from_config(config, attention="sdpa", **options)
    except AttentionMissingError:
        return from_config(config, attention="eager", **options)


def load_adapter(path: Path, *, dtype: torch.dtype, device: torch.device, attention: str = "sdpa") -> tuple[Any, Any]:
    """(model, tokenizer) of an adapter folder: its base under its own config, the adapter in the weights.

    Raises `SourceError` where the base is gone, `HostError` where it is not the one that the adapter was trained on.
    """
    checkpoint = folder.open_checkpoint(path)
    if not checkpoint.is_own_adapter:
        raise folder.adapter_refused(checkpoint)
    base = folder.base_of(checkpoint)
    model, tokenizer = build(base.path, checkpoint.home, dtype=dtype, device=device, attention=attention)
    return with_adapter(model, path), tokenizer


ADAPTER = "adapter_model.safetensors"
"""PEFT's name of an adapter's weights."""


@contextmanager
def peft_is_quiet() -> Iterator[None]:
    """Without the warning that PEFT 0.21 causes by asking transformers 5.23 by a name that has become another."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def with_adapter(model: Any, path: Path) -> Any:
    """The model with the adapter of a folder added into its weights, or the prefix put before every text.

    Raises `SourceError` where its weights are missing or do not fit.
    """
    if not (path / ADAPTER).is_file():
        # PEFT would take a pickle in its place, and without one ask the hub for a repository of the folder's name.
        raise SourceError(f"{path} is an adapter folder without {ADAPTER}; get the complete folder, or train it again")
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            f"{path} is an adapter, which needs peft; pip install '.[tune]' in a checkout of ropewalk"
        ) from error
    with peft_is_quiet():
        try:
            dressed = PeftModel.from_pretrained(model, str(path.resolve()), local_files_only=True)
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            first = str(error).strip().partition("\n")[0]
            raise SourceError(f"the adapter in {path} does not fit its base ({first}); train it again") from error
    if dressed.active_peft_config.is_prompt_learning:
        plain = put_prefix(dressed, trains=False)
    else:
        plain = dressed.merge_and_unload()
    plain.eval().requires_grad_(False)
    return plain
