"""Folders that `ropewalk data` itself wrote, as sources: of conversations the finished items are read, of rows nothing."""

import json
from pathlib import Path

from ropewalk.core.errors import InputError

CARD, MESSAGES, VERB = "card.json", "messages.jsonl", "make"


def messages_of(folder: Path) -> Path | None:
    """The file of items of a folder; None where it is not ours. Raises `InputError` for rows, and what is not finished."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        verb, status = card["verb"], card["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if verb == "data" and status != "done":
        raise InputError(
            f"the rows in {folder} are not finished; repeat the ropewalk data command that makes them with --resume, then "
            "give the folder to ropewalk tune"
        )
    if verb == "data":
        raise InputError(f"{folder} is prepared already; give it to ropewalk tune, or the sources it was made from to data")
    if verb != VERB:
        return None
    if status != "done" or not (folder / MESSAGES).is_file():
        raise InputError(f"the conversations in {folder} are not finished; repeat the command that makes them with --resume")
    if not (folder / MESSAGES).stat().st_size:
        raise InputError(f"of the conversations in {folder} none was kept; see its drafts.jsonl, and try another writer")
    return folder / MESSAGES
