"""Stock transformers' `from_pretrained` as it is called everywhere here: files of this machine alone, and no code of theirs.

What it raises is told in one sentence; that a family lacks an attention is told apart, since whoever asks may take another.

Given up: a class of errors for each of its failures. It raises four kinds for one cause, and one kind for several.
"""

import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AttentionInterface, AutoModelForCausalLM

from ropewalk.core.errors import HostError, InputError, SourceError, near


def check_attention(attention: str) -> None:
    """Raises `InputError` for a name not registered: transformers would take it for a repository, and run its code."""
    known = ["eager", *AttentionInterface().valid_keys()]
    if attention not in known:
        raise InputError(f"unknown attention {attention!r}; {near(attention, known)}")


class AttentionMissingError(Exception):
    """The loader said that this family, or this machine, does not have the attention asked for."""


def from_pretrained(cls: Any, path: str | Path, **options: Any) -> Any:
    """What `cls` makes of a folder. Raises `SourceError` where it cannot, and `AttentionMissingError`."""
    try:
        return cls.from_pretrained(str(path), trust_remote_code=False, local_files_only=True, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        first = _first_line(error)
        raise SourceError(
            f"{path} cannot be loaded as a causal language model with safetensors weights and a tokenizer ({first}); "
            "give a complete folder, with pickled weights saved again as safetensors"
        ) from error


def from_config(config: Any, *, attention: str, **options: Any) -> Any:
    """The causal language model of a config, with random weights. Raises as `from_pretrained` does."""
    try:
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention, trust_remote_code=False, **options)
    except (ValueError, ImportError) as error:
        raise SourceError(
            f"transformers makes no causal language model of a {config.model_type} config "
            f"({_first_line(error)}); give a folder of one"
        ) from error


def _first_line(error: Exception) -> str:
    """What an error says, in short. Raises `AttentionMissingError` where it is about attention."""
    first = str(error).strip().partition("\n")[0]
    # Every complaint about attention names the argument or the package; the classes of the errors do not tell.
    if "attn_implementation" in str(error) or "FlashAttention" in first:
        raise AttentionMissingError(first) from error
    return first


def model_from_pretrained(path: str | Path, *, attention: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The causal language model of a folder of safetensors and the loader's notes on missing keys.

    A family without `sdpa` gets `eager`, with a warning; `HostError` where another attention is not to be had.
    """
    options = {**options, "use_safetensors": True, "output_loading_info": True}
    try:
        model, notes = from_pretrained(AutoModelForCausalLM, path, attn_implementation=attention, **options)
    except AttentionMissingError as error:
        if attention != "sdpa":
            raise HostError(f"this model cannot run {attention!r} attention ({error}); use sdpa or eager") from error
        warnings.warn(
            "this family has no sdpa attention, eager is used instead: same numbers, slower, more memory", stacklevel=4
        )
        model, notes = from_pretrained(AutoModelForCausalLM, path, attn_implementation="eager", **options)
    return model, notes
