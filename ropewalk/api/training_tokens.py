"""Whether a model can read the tokens of prepared data, found before its run folder is made.

An id beyond the model's embedding ends in an index error after everything was made; ids of another vocabulary that fit train
on nonsense and end in nothing. Only the ids that the data use are held against the model, so a tokenizer that has grown
since is the same one to them.
"""

import math
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, SourceError


def check_own(folder: Path, source: Path) -> None:
    """Raises `SourceError` where the source's own tokenizer made tokens that its model has no row for."""
    from ropewalk.data.shards import Documents, read_shards
    from ropewalk.data.stream import SHARDS

    ids, rows = Documents(folder / SHARDS, read_shards(folder / SHARDS)).used_ids(), num_rows(source)
    if ids.size and ids[-1] >= rows:
        raise SourceError(
            f"the tokenizer of {source} gives token {ids[-1]}, and the model has an embedding of {rows}, 0 to {rows - 1}; "
            "put the tokenizer that it was trained with into the folder"
        )


def check_folder(folder: Path, documents: Any, source: Path) -> str | None:
    """A line where a prepared folder was tokenized with another template, which may be meant.

    Raises `InputError` where its tokens are not those of the source: none of its model, or other words.
    """
    from ropewalk.data.stream import read_card
    from ropewalk.data.tokens import Encoder
    from ropewalk.hosts.live import load_tokenizer

    card, ids = read_card(folder), documents.used_ids()
    rows, mend = num_rows(source), f"prepare the data anew with ropewalk data --tokenizer {source}"
    if ids.size and ids[-1] >= rows:
        raise InputError(f"{folder} holds token {ids[-1]}, and {source} has an embedding of {rows}, 0 to {rows - 1}; {mend}")
    tokenizer = load_tokenizer(source)
    if "vocabulary" in card and card["vocabulary"] != Encoder(tokenizer=tokenizer).vocabulary(ids):
        raise InputError(f"{folder} was tokenized with another vocabulary than that of {source}; {mend}")
    # Folders of before `special_tokens` read them as tokens.
    prompt, special = bool(card.get("prompt_loss")), bool(card.get("special_tokens", True))
    known = {
        Encoder(tokenizer=tokenizer, end=end, prompt_loss=prompt, special_tokens=special).fingerprint()
        for end in (False, True)
    }
    if card["asked"]["tokenizer"] in known:
        return None
    return f"{folder} was tokenized with another tokenizer or chat template than that of {source}"


def num_rows(source: Path) -> float:
    """How many tokens the source's model embeds; no limit where its config does not say."""
    from ropewalk.engines.transformers.families import enter, field
    from ropewalk.hosts import folder

    model_type, text, _ = enter(folder.open_checkpoint(source, weights=False).config)
    rows = field(model_type, text, "vocab_size")
    return rows if isinstance(rows, int) else math.inf
