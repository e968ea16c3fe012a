"""A checkpoint so small that a whole comparison takes a second. It reads nothing well; what is tested is the way through."""

from pathlib import Path

TRAINED_LENGTH = 64
"""Tokens the tiny checkpoint says it was trained to read."""
TEXT_TOKENS = 40_000
"""Tokens of the long text: as many as it has characters."""


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
        # Larger than usual, so that a change of positions shows in what the model says.
        "initializer_range": 0.4,
        **fields,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    return folder
