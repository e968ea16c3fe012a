"""A byte-level tokenizer with ChatML, and pieces that join across a turn's border."""

from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}"
)
FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content if loop.last else 'gone' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes every turn but the last in another way than when it was the last."""


def chat_tokenizer(template: str | None = CHATML) -> Any:
    """Bytes, two newlines as one token, and the marks of ChatML."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = "Ċ"
    vocabulary = {"<s>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    for piece in (*alphabet, newline + newline, "ab"):
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocabulary, [(newline, newline), ("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = template
    return wrapped
