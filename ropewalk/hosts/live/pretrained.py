"""Stock transformers' `from_pretrained` as it is called everywhere here: files of this machine alone, and no code of theirs.

What it raises is told in one sentence; that a family lacks an attention is told apart, since whoever asks may take another.

Given up: a class of errors for each of its failures. It raises four kinds for one cause, and one kind for several.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AttentionInterface

from ropewalk.core.errors import InputError, SourceError, near


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
        first = str(error).strip().partition("\n")[0]
        # Every complaint about attention names the argument or the package; the classes of the errors do not tell.
        if "attn_implementation" in str(error) or "FlashAttention" in first:
            raise AttentionMissingError(first) from error
        raise SourceError(
            f"{path} cannot be loaded as a causal language model with safetensors weights and a tokenizer ({first}); "
            "give a complete folder, with pickled weights saved again as safetensors"
        ) from error
