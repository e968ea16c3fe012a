"""The tokenizer of a GGUF file, written the way transformers wants it.

Stock transformers rebuilds it. One thing is mended: where the file names a way of splitting text that the stock loader
does not know, it falls back to GPT-2's without a word. SmolLM's (single digits first, then GPT-2) is known here and put
in; others that are not known are said in a note.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.hosts.gguf.header import Header

DIGITS_FIRST = ("smollm",)
"""llama.cpp splits these at every digit before it splits like GPT-2."""
KNOWN_SPLITS = (
    *DIGITS_FIRST,
    "default",
    "gpt-2",
    "llama3",
    "llama-v3",
    "llama-bpe",
    "smaug-bpe",
    "tekken",
    "qwen2",
    "deepseek-r1-qwen",
)
"""Values of `tokenizer.ggml.pre` under which the written tokenizer splits as llama.cpp does."""
BROKEN = (ValueError, OSError, LookupError, TypeError, AttributeError)
"""What stock raises while it rebuilds a tokenizer from a file that does not fit together."""
RUN_DEPENDENT = ("is_local", "local_files_only", "name_or_path")
"""What stock writes into tokenizer_config.json about the machine and not about the tokenizer."""


def write(header: Header, folder: Path) -> list[str]:
    """Writes tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json; returns notes.

    Raises `SourceError` where the file's tokenizer is broken, `UnsupportedError` where its kind is not known.
    """
    metadata = header.metadata
    _write_generation(header, folder)
    if "tokenizer.ggml.model" not in metadata:
        return ["the GGUF file has no tokenizer, so the folder has none"]
    tokenizer = _load(header)
    split = metadata.get("tokenizer.ggml.pre", "default")
    notes = []
    if metadata["tokenizer.ggml.model"] == "gpt2" and isinstance(split, str):
        if split in DIGITS_FIRST:
            _split_digits(tokenizer)
        elif split not in KNOWN_SPLITS:
            notes.append(
                f"the tokenizer splits text by {split!r}, which is not known here: it may cut some texts differently"
            )
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {k: v for k, v in json.loads(path.read_text("utf-8")).items() if k not in RUN_DEPENDENT}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return notes


def _load(header: Header) -> Any:
    from transformers import AutoTokenizer

    kind = header.metadata["tokenizer.ggml.model"]
    if not isinstance(kind, str) or kind not in ("gpt2", "llama"):
        raise UnsupportedError(
            f"tokenizer model {str(kind)[:40]!r} of {header.path} is not supported yet, known are gpt2 and llama"
        )
    # A folder of its own, so that files which lie beside the GGUF file have no say.
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as alone:
        link = Path(alone) / "model.gguf"
        try:
            link.symlink_to(header.path.resolve())
        except OSError:
            link = header.path
        try:
            return AutoTokenizer.from_pretrained(str(link.parent), gguf_file=link.name, local_files_only=True)
        except Exception as error:
            # The Rust part has no exceptions of its own and raises the bare class.
            if type(error) is not Exception and not isinstance(error, BROKEN):
                raise
            reason = " ".join(str(error).split())[:200]
            raise SourceError(f"the tokenizer of {header.path} cannot be rebuilt ({reason}); get the file anew") from error


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _write_generation(header: Header, folder: Path) -> None:
    ids: dict[str, Any] = {
        name: header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding"))
    }
    # A chat model ends its turn with a token of its own.
    turn = header.metadata.get("tokenizer.ggml.eot_token_id")
    if type(turn) is int and turn != ids["eos_token_id"] and turn < header.tensors["token_embd.weight"].shape[0]:
        ids["eos_token_id"] = [token for token in (ids["eos_token_id"], turn) if token is not None]
    content = {name: value for name, value in ids.items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
