"""What `tune` is told of its data beside their place: which options there are, and which have been answered already.

Files and folders take all of them. A folder that `ropewalk data` made has answers of its own, and rows given as a function
in Python are read as they are: what cannot be done to them is refused, and what changes nothing is said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, near

OF_THE_MIX = ("window", "mix", "short_share", "keep_short", "min_beyond", "allow_short")
"""Options of what is taken of the tokens, which are the same whatever these say."""
KNOWN = (
    "field", "include", "datasets", "chat_template", "prompt_loss", "special_tokens", "end", "max_broken", "seed",
    *OF_THE_MIX,
)  # fmt: skip


def check_options(given: Any, options: Mapping[str, Any]) -> None:
    """Raises `InputError` for options that are none, and for any beside rows that are given as a function."""
    said = sorted(name for name, value in options.items() if _asks(value))
    if callable(given) and said:
        raise InputError(
            f"the rows are given as a function and read as they are, and the data options {', '.join(said)} are of files; "
            "leave them out"
        )
    for name in options:
        if name not in KNOWN:
            raise InputError(f"there is no data option {name!r}; {near(name, KNOWN)}")


def _asks(value: Any) -> bool:
    """Whether a value asks for something: a 0 that was said does, what is off or empty does not."""
    return bool(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def has_prompts(paths: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether files have conversations; of data sets of the hub, which are asked for when they are read, it may be."""
    from ropewalk.data.reading.files import open_files

    files = (open_files(str(path), field=options.get("field"), include=options.get("include", ())) for path in paths)
    return bool(options.get("datasets")) or any(source.has_prompts() for source in files)


def passed_over(
    folder: Path, card: Mapping[str, Any], options: Mapping[str, Any], *, only_texts: bool, chain: bool
) -> list[str]:
    """What to say of options that a prepared folder has answered already, most likely a preset's.

    Raises `InputError` for those that ask for something else than it holds. `allow_short` is of the run and no such one.
    """
    mix = card["settings"]["mix"]
    held = {**card["settings"], **mix, "mix": mix["shares"], **{key: card.get(key) for key in ("prompt_loss", "field")}}
    held["special_tokens"] = card.get("special_tokens")
    other = [key for key, value in options.items() if key != "allow_short" and _asks(value) and value != held.get(key)]
    if other == ["prompt_loss"]:
        return [_prompts(folder, only_texts=only_texts, chain=chain)]
    if other:
        raise InputError(
            f"{folder} is prepared already, and not with {', '.join(f'{key} {options[key]}' for key in sorted(other))}; "
            "leave that out, or prepare the data anew with ropewalk data"
        )
    # A folder with prompts was asked for; that they are not learned is what everybody gets who does not ask.
    if held["prompt_loss"] and options.get("prompt_loss") is False:
        return [f"{folder} was prepared with prompt_loss, so the prompts of its conversations are learned too"]
    return []


def _prompts(folder: Path, *, only_texts: bool, chain: bool) -> str:
    """A line where prompts are asked for and there are none, in a chain. Raises `InputError` elsewhere."""
    if only_texts and chain:
        return f"prompt_loss does nothing to {folder}, which holds texts, of which every token is learned"
    if only_texts:
        raise InputError(
            f"{folder} holds only texts, of which every token is learned, so --prompt-loss does nothing; leave it out, or "
            "take the line prompt_loss out of the preset"
        )
    raise InputError(
        f"{folder} is prepared already, and without prompt_loss; leave --prompt-loss out, take the line prompt_loss out "
        "of the preset, or prepare the conversations anew with ropewalk data --prompt-loss"
    )
