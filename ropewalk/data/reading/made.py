"""A folder of conversations that `ropewalk data --writer` made, as a source: of it, the finished items are read alone."""

import json
from pathlib import Path

from ropewalk.core.errors import InputError

CARD, MESSAGES, VERB = "card.json", "messages.jsonl", "make"


def messages_of(folder: Path) -> Path | None:
    """The file of items of such a folder; None for any other. Raises `InputError` where it is not finished."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        verb, status = card["verb"], card["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if verb != VERB:
        return None
    if status != "done" or not (folder / MESSAGES).is_file():
        raise InputError(f"the conversations in {folder} are not finished; repeat the command that makes them with --resume")
    if not (folder / MESSAGES).stat().st_size:
        raise InputError(f"of the conversations in {folder} none was kept; see its drafts.jsonl, and try another writer")
    return folder / MESSAGES
