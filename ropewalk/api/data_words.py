"""Prepared data in words, for a terminal: how long the documents are, what was taken, what was left out."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.core.plurals import counted
from ropewalk.data.histogram import BEYOND, table

MANY_STEPS = 400
"""As many as YaRN's authors made."""
STRETCH = 4
"""How many times the old window PoSE is shown to reach, where nobody has said it."""
MANY_EPOCHS = 20
"""So often nothing is read to learn from it: the number of steps is of other data."""


def lines(card: Mapping[str, Any], out: str | Path) -> list[str]:
    """What a person wants to know before training on it."""
    sources, packed = card["sources"], card["packed"]
    rows = [(said["name"], said) for said in sources]
    rows += [("all", card["all"])] if len(sources) > 1 else []
    found = ["share of tokens by length of document, and at positions beyond (pos>)", *table(rows), ""]
    for edge in BEYOND:
        name = f"{edge // 1024}k"
        found.append(
            f"beyond {name}: {card['all']['in_documents_beyond'][str(edge)]:.1%} of the tokens are in longer documents, "
            f"{card['all']['at_positions_beyond'][str(edge)]:.1%} at such positions; in the rows "
            f"{packed['at_positions_beyond'][str(edge)]:.1%}"
        )
    found += [_mix(card), *_over_limit(card)]
    if card["length"] <= card["window"]:
        found.append("the rows lie inside the old window: they extend it with pose or randomized positions only")
    cut = packed["cut_documents"]
    found.append(
        f"{counted(packed['num_rows'], 'row')} of {card['length']:,} tokens, {packed['padding']:.1%} of it padding; "
        f"{counted(cut, 'document')} {'is' if cut == 1 else 'are'} longer than a row and cut into several"
        + _unlearned(packed)
    )
    return found + _spelled(card) + _left_out(sources, out) + [f"next, for example: {command(card, out)}"]


def command(card: Mapping[str, Any], out: str | Path) -> str:
    """A command that trains on the rows, about once: beyond the old window where they are longer, by PoSE where they are not
    and a document fills one, else at the length that they have."""
    length, window, packed = card["length"], card["window"], card["packed"]
    steps = min(MANY_STEPS, packed["num_rows"] - packed.get("num_rows_without_labels", 0))
    if length > window:
        how = f"--length {length} --method yarn"
    elif card["all"]["longest"] >= length:
        how = f"--length {STRETCH * window} --method yarn --positions pose --window {length}"
    else:
        how = f"--length {length}"
    model, folder = (shlex.quote(str(part)) for part in (card.get("model", "MODEL"), out))
    return f"ropewalk tune {model} --data {folder} {how} --steps {steps} --out tuned"


def taken(card: Mapping[str, Any], out: str | Path) -> list[str]:
    """The same in short, for a run that is to train on it: what is taken and what is left out."""
    return [_mix(card), *_over_limit(card), *_spelled(card), *_left_out(card["sources"], out)]


def _spelled(card: Mapping[str, Any]) -> list[str]:
    """Special tokens that the user's own words spell, and what became of them."""
    how = "are read as tokens" if card.get("special_tokens") else "stay text, and --special-tokens reads them as tokens"
    return [
        f"special tokens that documents of {said['name']} spell {how}: "
        + ", ".join(f"{token} in {count:,}" for token, count in said["spelled"].items())
        for said in card["sources"]
        if said.get("spelled")
    ]


def rows(streams: Sequence[Any], settings: Any, *, num_processes: int = 1) -> list[str]:
    """A line for each stage: how many rows there are, how many the positions cannot use, and how often each is read."""
    found = []
    for number, (stage, stream) in enumerate(zip(settings.stages, streams, strict=True), 1):
        read = stage.steps * settings.batch_size * settings.accumulate * num_processes
        left, unlearned = (getattr(stream, name, 0) for name in ("num_rows_left_out", "num_rows_without_labels"))
        why = [f"{_others(left, 'is', 'are')} not filled by one document, and {settings.positions} leaves "
               f"{'it' if left == 1 else 'them'} out"] if left else []  # fmt: skip
        verb = "is" if unlearned == 1 else "are"
        why += [f"{_others(unlearned, 'has', 'have')} no token to learn and {verb} left out"] if unlearned else []
        others = f" ({'; '.join(why)})" if why else ""
        where, epochs = f"stage {number}: " if len(streams) > 1 else "", read / len(stream)
        found.append(
            f"{where}rows of {stage.window:,} tokens: {len(stream):,}{others}; {counted(stage.steps, 'step')} read "
            f"{counted(read, 'row')}, {f'{epochs:,.0f}' if epochs >= 100 else f'{epochs:.3g}'} epoch{'s' * (epochs != 1)}"
        )
        if epochs > MANY_EPOCHS:
            found.append(
                f"warning: {where}each row is read {epochs:,.0f} times, and a model learns by heart what comes so often; "
                "give more texts or fewer --steps"
            )
    return found


def _others(number: int, one: str, many: str) -> str:
    """So many other rows, with their verb."""
    return f"{counted(number, 'other')} {one if number == 1 else many}"


def _unlearned(packed: Mapping[str, Any]) -> str:
    """Rows that hold prompts alone; a folder of before does not count them."""
    number = packed.get("num_rows_without_labels", 0)
    what, whom = ("has", "it") if number == 1 else ("have", "them")
    return f"; {counted(number, 'row')} {what} no token to learn, and training leaves {whom} out" if number else ""


def _mix(card: Mapping[str, Any]) -> str:
    packed = card["packed"]
    return (
        f"the mix takes {packed['num_tokens']:,} of {card['all']['num_tokens']:,} tokens: "
        + ", ".join(f"{said['name']} {said['share']:.1%}" for said in card["sources"])
        + f"; {packed['short_share']:.1%} are in short documents (up to {packed['short_up_to']:,} tokens), "
        f"{packed['beyond_window']:.1%} at positions beyond the old window of {card['window']:,}"
    )


def _over_limit(card: Mapping[str, Any]) -> list[str]:
    """A line where the limit on short documents leaves out most of what there is."""
    packed, total = card["packed"], card["all"]["num_tokens"]
    over = packed.get("over_short_limit", 0)
    if 2 * over <= total:
        return []
    return [
        f"warning: {over:,} of {total:,} tokens are left out, because at most {packed['short_limit']:.0%} may be in short "
        "documents and few are in long ones; --short-share 1 takes them all"
    ]


def _left_out(sources: list[dict[str, Any]], out: str | Path) -> list[str]:
    found = [
        f"left out of {said['name']}: " + ", ".join(f"{count:,} {reason}" for reason, count in said["left_out"].items())
        for said in sources
        if said["left_out"]
    ]
    return found + ([f"each is named in {Path(out) / 'left_out.jsonl'}"] if found else [])
