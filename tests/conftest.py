"""What every test has: no network, no progress bars, fresh memory full of NaN, and one tiny checkpoint with a text.

The checkpoint is a random Llama of 20,000 weights with a byte-level tokenizer, trained (it says) to 64 tokens, saved the
way people save theirs. It reads nothing well; what is tested with it is the way from an input to a record.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read when huggingface_hub and transformers are imported, so before any test imports them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

TRAINED_LENGTH = 64
TEXT_TOKENS = 40_000


@pytest.fixture(autouse=True, scope="session")
def fresh_memory_is_nan() -> Iterator[None]:
    """Memory that was never written reads as NaN, so that using it shows; operations without a fixed order warn."""
    import torch

    torch.set_num_threads(1)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, **fields: object) -> Path:
    """A random Llama with a byte-level tokenizer, as `save_pretrained` writes them; `fields` change its config."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: index + 2 for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=TRAINED_LENGTH
    )
    wrapped.save_pretrained(folder)
    config = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": TRAINED_LENGTH,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **fields,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder that says it was trained to 64 tokens. Shared: never written to."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture(scope="session")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 characters of ASCII, which are as many tokens of the tiny tokenizer, in sentences that never repeat whole."""
    path = tmp_path_factory.mktemp("texts") / "long.txt"
    lines, size = [], 0
    while size < TEXT_TOKENS:
        number = len(lines)
        lines.append(f"Keeper {number} of the light wrote down {number * 7919 % 1009} ships and {number % 13} gulls.\n")
        size += len(lines[-1])
    path.write_text("".join(lines)[:TEXT_TOKENS], encoding="ascii")
    return path
