"""The models from scratch: Llama's architecture with random weights as a folder, trained at 512 tokens by `ropewalk.tune`.

The folder with random weights is a source like any other, so the base is trained by the same loop, with the same state and
the same resume, as every arm. One base for each seed; the seed draws the weights and the order of the rows.
"""

from pathlib import Path
from typing import Any

import ropewalk
from experiments.miniature.corpus import Corpus
from experiments.miniature.locks import alone
from experiments.miniature.sizes import Sizes
from experiments.miniature.windows import streams
from ropewalk.core.progress import Progress


def random_folder(path: Path, sizes: Sizes, corpus: Corpus, seed: int) -> Path:
    """A checkpoint with random weights, made where it is not there yet."""
    if (path / "model.safetensors").is_file():
        return path
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.hidden, intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads,
        max_position_embeddings=sizes.window, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.base},
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(corpus.tokenizer).save_pretrained(path)
    return path


def base(out: Path, sizes: Sizes, corpus: Corpus, seed: int, progress: Progress | None = None) -> Path:
    """The trained base of a seed; what is missing of it is trained first."""
    final = out / f"base-{seed}"
    with alone(final):
        if not (final / "config.json").is_file():
            _train(final, out, sizes, corpus, seed, progress)
    return final


def _train(final: Path, out: Path, sizes: Sizes, corpus: Corpus, seed: int, progress: Progress | None) -> None:
    ropewalk.tune(
        random_folder(out / f"random-{seed}", sizes, corpus, seed), streams(corpus, seed=seed), length=sizes.window,
        out=final, steps=sizes.base_steps, recipe="full", learning_rate=sizes.base_rate, schedule="cosine",
        warmup_steps=sizes.base_warmup, weight_decay=0.1, batch_size=sizes.base_rows, seed=seed, checkpoint_every=0,
        save_every=200, dtype=sizes.dtype, device="cpu", resume=final.exists(), progress=progress,
    )  # fmt: skip
