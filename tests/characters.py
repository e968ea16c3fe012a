"""A tokenizer of single characters, so that lengths are exact."""

from typing import Any

NEWLINE = chr(31)
"""What stands for a line break, so that the ids are dense."""


class Characters:
    """A tokenizer of 96 printable characters and a newline: one token each, an optional BOS in front."""

    bos_token_id: int | None = None

    def __init__(self, *, bos: bool = False) -> None:
        self.bos_token_id = 1 if bos else None

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        ids = [3 + (ord(c) - 31) % 97 for c in text.replace("\n", NEWLINE)]
        return {"input_ids": [1, *ids] if add_special_tokens and self.bos_token_id is not None else ids}

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(31 + (i - 3)) if i >= 3 else "" for i in ids).replace(NEWLINE, "\n")

    def batch_decode(self, rows: list[list[int]]) -> list[str]:
        return [self.decode(row) for row in rows]
