"""Long documents as token ids, counted with the model's own tokenizer.

The rule of four characters a token is wrong by a factor of two outside English prose, so nothing here guesses: a text is
tokenised whole, and one that is too short is refused with the number of tokens it has.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import TextError


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """One text, tokenised."""

    name: str
    ids: NDArray[np.int64]
    """[num_tokens], with what the tokenizer itself puts in front (BOS where it does)."""
    prefix: NDArray[np.int64]
    """[0] or [1]: the BOS token, where the tokenizer puts one in front of a text."""
    sha256: str
    """Of the text's bytes."""

    @property
    def num_tokens(self) -> int:
        """Tokens in the whole text."""
        return int(self.ids.size)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file. Raises `TextError` where it is missing, no file, empty, or not UTF-8."""
    file = Path(path)
    try:
        # A mark of its byte order is no part of a text.
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{file} is not UTF-8 text (byte {error.start}); convert it to UTF-8 first") from error
    except OSError as error:
        raise TextError(f"the text {file} cannot be read ({error.strerror}); expected a UTF-8 text file") from error
    if not text.strip():
        raise TextError(f"the text {file} is empty; expected a UTF-8 text file with something to read")
    return text


def tokenize(text: str, tokenizer: Any, name: str) -> Document:
    """A `Document` from text, special tokens as the tokenizer adds them by default."""
    ids = np.asarray(tokenizer(text, verbose=False)["input_ids"], dtype=np.int64)
    bos = getattr(tokenizer, "bos_token_id", None)
    has_bos = bos is not None and ids.size > 0 and int(ids[0]) == bos and int(_first_id(tokenizer)) == bos
    return Document(
        name=name,
        ids=ids,
        prefix=ids[:1] if has_bos else ids[:0],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _first_id(tokenizer: Any) -> int:
    """The first id of a text that surely does not begin with BOS itself; -1 for an empty result."""
    ids = tokenizer("a")["input_ids"]
    return ids[0] if len(ids) > 1 else -1


def read_documents(paths: Sequence[str | Path], tokenizer: Any, length: int, *, option: str = "--length") -> list[Document]:
    """The documents of a run, each of at least `length` tokens, which `option` says, and each under a name of its own.

    Raises `TextError`: unreadable, too short (with the tokens it has), the same text twice.
    """
    if not paths:
        raise TextError("no text was given; say --text FILE with a text of at least the length")
    documents: list[Document] = []
    for path in paths:
        document = tokenize(read_text(path), tokenizer, Path(path).name)
        if document.num_tokens < length:
            raise TextError(
                f"the text {path} has {document.num_tokens} tokens, expected at least {length}; "
                f"give a longer text or a smaller {option}"
            )
        if any(document.sha256 == other.sha256 for other in documents):
            raise TextError(f"the text {path} is given twice; each document counts once")
        if any(document.name == other.name for other in documents):
            document = Document(name=str(path), ids=document.ids, prefix=document.prefix, sha256=document.sha256)
        documents.append(document)
    return documents
