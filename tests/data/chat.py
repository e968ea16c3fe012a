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
MARKED_INSIDE = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
"""The end marker is not part of what is marked."""
IN_MACRO = (
    "{% macro turn(message) %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}\n{% endmacro %}"
    "{% for message in messages %}{{ turn(message) }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Marks in a macro, whose places nobody can tell while it runs."""
FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content if loop.last else 'gone' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes every turn but the last in another way than when it was the last."""


def chat_tokenizer(template: str | None = CHATML, *, trimmed: bool | None = None) -> Any:
    """Bytes, two newlines as one token, and the marks of ChatML.

    With `trimmed` also a word with the space before it, which a trimmed token's place leaves out (GPT-NeoX, RoBERTa).
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline, word = "Ċ", "ĠS"
    vocabulary = {"<s>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    for piece in (*alphabet, newline + newline, "ab", *([] if trimmed is None else [word])):
        vocabulary[piece] = len(vocabulary)
    merges = [(newline, newline), ("a", "b"), *([] if trimmed is None else [("Ġ", "S")])]
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if trimmed is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trimmed)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = template
    return wrapped
