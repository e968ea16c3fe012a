"""Data from sources to a folder of rows: look through them, tokenize once, mix, pack, and say what came of it.

    DIR/card.json         what was asked and what came of it; `status` is `running` until all is there
    DIR/shards/           tokenized documents (see `shards`)
    DIR/kept.npy          [num_documents] how many tokens of each the mix takes
    DIR/left_out.jsonl    every record that is not learned from, with its reason

What was tokenized stays when the mix is refused or another is wanted: the same command with `resume` and another length or
mix tokenizes nothing again. Only where each source is less than one shard, so that little is lost, is a refused folder taken
away.
"""

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, RopewalkError
from ropewalk.core.output import check_out, say_removed
from ropewalk.core.progress import Progress
from ropewalk.core.run import full_disk_is_told, write_atomic
from ropewalk.data.assembly import LEFT_OUT, Settings, assembled
from ropewalk.data.begun import begun, make
from ropewalk.data.reading.files import RECORDS
from ropewalk.data.reading.records import Content, LeftOut, Record, Source, stop_at
from ropewalk.data.shards import Shard, broken_of, read_shards, write_shards
from ropewalk.data.stream import CARD, KEPT, SHARDS
from ropewalk.data.tokens import Encoder

SCHEMA_VERSION = 1
NEW_PAIRS = ("prompt", "question")
"""Fields that once were read as texts even where their answer stands beside them."""
LOOK = 1000
"""Records in which the first document of a file is looked for before anything is made."""


def prepare(
    sources: Sequence[Source], encoder: Encoder, settings: Settings, out: str | Path, *,
    versions: Mapping[str, str], model: str | None = None, force: bool = False, resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Makes the folder `out`, or goes on with it; its card, which says whose tokenizer it is by the name `model`.

    Raises `InputError` for a mix that cannot be, too many broken records or sources that have changed; `TextError` for data
    that are too short; `OutputError`; `MachineError` where the disk is full.
    """
    folder = check_out(out, force=force, resume=resume, verb="data")
    names = [source.name for source in sources]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"two sources are called {twice[0]}; name them, as in first={twice[0]}")
    settings.mix.vector(names)
    told = progress or Progress()
    with told.task("looking through the sources"):
        _look_through(sources, encoder, settings.max_broken)
        asked = {
            "schema_version": SCHEMA_VERSION,
            "shard_tokens": settings.shard_tokens,
            "versions": dict(versions),
            "tokenizer": encoder.fingerprint(),
            "special_ids": encoder.special_ids,
            "sources": [{"name": source.name, "files": source.fingerprint()} for source in sources],
        }
        asked |= {"pairs": "read"} if any(getattr(source, "field", None) in NEW_PAIRS for source in sources) else {}
    known = begun(folder, asked, verb="data", later=["special_ids"]) if resume else None
    with _begun(folder, force=force, told=told) if known is None else full_disk_is_told(folder):
        field = next((name for source in sources if (name := getattr(source, "field", None))), None)
        card = {"verb": "data", "status": "running", "asked": asked, "prompt_loss": encoder.prompt_loss, "field": field}
        card |= {"special_tokens": encoder.special_tokens, **({} if model is None else {"model": model})}
        # A run goes on as of the day on which it was begun.
        encoder = encoder.on((known or {}).get("date"))
        card |= {"date": encoder.date} if encoder.date else {}
        if known is None:
            _save(folder, card)
        shards = _tokenize(folder / SHARDS, sources, encoder, settings, told)
        # Another mix of finished data that is refused leaves the finished one as it was.
        card |= {**assembled(folder, shards, sources, encoder, settings), "status": "done"}
        _save(folder, card)
    return card


def _look_through(sources: Sequence[Source], encoder: Encoder, max_broken: int) -> None:
    """Finds what would stop the work later, before anything is made."""
    # Each once: what is looked through is met again before the first documents.
    broken: dict[tuple[str, str, int], LeftOut] = {}
    conversation: Content = ()
    for source in sources:
        for found in itertools.chain(source.check(), _first(source)):
            if isinstance(found, Record):
                conversation = found.content if not isinstance(found.content, str) else conversation
            elif found.broken:
                broken[source.name, found.file, found.number] = found
                stop_at(list(broken.values()), len(broken), max_broken)
        if conversation:
            encoder.check(conversation)
    if encoder.prompt_loss and not conversation and not any(source.has_prompts() for source in sources):
        raise InputError(
            "--prompt-loss learns the prompts of conversations, and there are only texts, of which every token is learned; "
            "leave it out, or take the line prompt_loss out of the preset"
        )


def _first(source: Source) -> Iterator[Record | LeftOut]:
    """The first document of a source and of each of its files of records, with what is left out before it."""
    file = 0
    while file < len(source.files):
        reached = file
        for count, found in enumerate(source.records(file, 0), start=1):
            yield found
            if isinstance(found, Record):
                reached = found.file
                break
            if count == LOOK:
                break
        else:
            return
        rest = range(reached + 1, len(source.files))
        file = next((index for index in rest if Path(source.files[index]).suffix.lower() in RECORDS), len(source.files))


@contextmanager
def _begun(folder: Path, *, force: bool, told: Progress) -> Iterator[None]:
    """A fresh folder, taken away again where the input is refused and less than a shard is lost by it.

    What it takes the place of goes at the end, and is named before: a mix that is refused gives it back.
    """
    made = next((p for p in (*reversed(folder.absolute().parents), folder.absolute()) if not p.exists()), None)
    aside = folder.absolute().with_name(f".{folder.name}.old-{os.getpid()}")
    if force and folder.is_dir():
        folder.rename(aside)
    make(folder)
    try:
        yield
    except RopewalkError as error:
        if error.exit_code == 2 and all(shard.last for shard in read_shards(folder / SHARDS)):
            for path in (folder / SHARDS, folder / CARD, folder / KEPT, folder / LEFT_OUT):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if aside.exists():
                shutil.rmtree(folder)
                aside.rename(folder)
            elif made is not None:
                shutil.rmtree(made)
        raise
    finally:
        if aside.is_dir():
            say_removed(aside, told, called=folder)
            shutil.rmtree(aside, ignore_errors=True)


def _tokenize(
    folder: Path, sources: Sequence[Source], encoder: Encoder, settings: Settings, progress: Progress
) -> list[Shard]:
    shards = read_shards(folder)
    for index, source in enumerate(sources):
        with progress.task(f"tokenizing {source.name}"):
            how = {"shard_tokens": settings.shard_tokens, "max_broken": settings.max_broken}
            for shard in write_shards(folder, source, index, encoder, shards, **how):
                shards.append(shard)
                progress.at((shard.file + 1) / max(1, len(source.files)))
    # What an earlier run allowed may be more than this one does.
    stop_at(broken_of(shards), sum(each.num_broken for each in shards), settings.max_broken)
    return shards


def _save(folder: Path, card: Mapping[str, Any]) -> None:
    write_atomic(folder / CARD, (json.dumps(card, indent=1) + "\n").encode())
