"""The folder of conversations made from documents: asked for span by span, and the same whatever happens in between.

    DIR/card.json         what was asked, who wrote, what came of it; `status` is `running` until all is there
    DIR/drafts.jsonl      one line a span, as soon as it is finished: every reply, and the verdict on each item
    DIR/left_out.jsonl    documents that are not asked about, with the reason
    DIR/messages.jsonl    the kept items, written last; `ropewalk data DIR` and `ropewalk tune --data DIR` read it

A writer that refuses prompts one after another ends the work with a sentence, and what it refused is asked again when the
run goes on: a server was started with too little room, mostly. Given up: two processes that write one folder.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, OutputError
from ropewalk.core.output import check_out, remove
from ropewalk.core.progress import Progress
from ropewalk.core.run import full_disk_is_told, write_atomic
from ropewalk.data.begun import begun
from ropewalk.data.begun import make as make_folder
from ropewalk.data.making.contexts import Contexts
from ropewalk.data.making.drafts import REFUSED, Drafts, Json
from ropewalk.data.making.items import SCHEMA_VERSION, counted, judged, lines
from ropewalk.data.making.settings import Settings, Writing
from ropewalk.data.making.texts import Span, Texts
from ropewalk.data.making.wording import Wordings
from ropewalk.data.reading.made import CARD, MESSAGES, VERB
from ropewalk.data.reading.records import Message, Source, UnreadableError
from ropewalk.data.tokens import Encoder

DRAFTS, LEFT_OUT = "drafts.jsonl", "left_out.jsonl"
PATIENCE = 5
"""Spans in a row that a writer may refuse."""


def make(
    sources: Sequence[Source], encoder: Encoder, settings: Settings, writing: Writing, out: str | Path, *,
    wordings: Wordings | None = None, versions: Mapping[str, str] | None = None, force: bool = False, resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Makes the folder `out`, or goes on with it; its card.

    Raises `InputError` and its kin for what cannot be, before anything is made, and for a writer that refuses everything;
    `MachineError` where the writer is gone or the disk is full: what is finished stays, and `resume` goes on.
    """
    folder = check_out(out, force=force, resume=resume, verb=VERB)
    told, wordings = progress or Progress(), wordings or Wordings()
    _check(encoder)
    texts = Texts(encoder.tokenizer)
    with told.task("reading the documents"):
        texts.read(sources, settings.max_broken)
        spans = texts.spans(settings.span_tokens, settings.seed)[: settings.num_spans]
        asked = {
            "schema_version": SCHEMA_VERSION, "settings": settings.to_dict(), "writer": dict(writing.identity),
            "reads": settings.reads(writing.longest), "wordings": wordings.sha256, "tokenizer": encoder.fingerprint(),
            "versions": dict(versions or {}),
            "sources": [{"name": source.name, "files": source.fingerprint()} for source in sources],
        }  # fmt: skip
    known = _begin(folder, asked, force=force, resume=resume, told=told)
    # A run goes on as of the day on which it was begun.
    encoder = encoder.on(known.get("date"))
    card = {"verb": VERB, "status": "running", "asked": asked, "num_spans": len(spans)}
    card |= {"date": encoder.date} if encoder.date else {}
    _save(folder, card)
    found = [draft for draft in _drafts(folder) if draft["index"] < len(spans)]
    contexts = Contexts(texts, encoder, wordings, settings)
    with told.task("asking about spans"):
        found += _asked(folder, Drafts(contexts, writing, wordings, settings), spans, found, writing.at_once, told)
    said = {"wordings": wordings.sha256, "writer": dict(writing.identity), "agreement": settings.agreement}
    drafts = judged(found)
    left = "".join(json.dumps(each.to_dict()) + "\n" for each in texts.left_out)
    write_atomic(folder / LEFT_OUT, left.encode())
    _write(folder / MESSAGES, lines(drafts, contexts, said))
    card |= {**counted(drafts), "num_documents": len(texts.items), "num_left_out": len(texts.left_out), "status": "done"}
    _save(folder, card)
    return card


def _check(encoder: Encoder) -> None:
    """Raises `InputError` where the tokenizer writes no conversations: nothing could be learned from what is made."""
    trial = (Message(role="user", content="Who?"), Message(role="assistant", content="Nobody."))
    encoder.check(trial)
    try:
        encoder.encode(trial)
    except UnreadableError as error:
        raise InputError(
            f"the chat template does not write a question and its answer ({error.reason} {error.detail}); give another one "
            "with --chat-template FILE"
        ) from error


# --- the folder -------------------------------------------------------------------------------------------------------


def _begin(folder: Path, asked: Mapping[str, Any], *, force: bool, resume: bool, told: Progress) -> dict[str, Any]:
    """A fresh folder, or the card of one begun with the same question. Raises `OutputError` where it was another one."""
    known = begun(folder, asked, verb=VERB, may_differ="--spans") if resume else None
    if known is not None:
        return known
    if force:
        remove(folder, told)
    make_folder(folder)
    return {}


def _drafts(folder: Path) -> list[Json]:
    """The spans that are finished. What a kill cut, and what the writer refused, is taken out to be asked again."""
    path = folder / DRAFTS
    if not path.is_file():
        return []
    found: dict[int, Json] = {}
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            draft = json.loads(line)
            refused = any(item["verdict"] == REFUSED for item in draft["items"])
            found |= {} if refused else {int(draft["index"]): draft}
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path} has a line that is no draft ({error}); start anew with --force") from error
    whole = "".join(json.dumps(draft) + "\n" for draft in found.values()).encode()
    if whole != content:
        write_atomic(path, whole)
    return list(found.values())


def _write(path: Path, parts: Iterator[str]) -> None:
    """Lines under `path`, whole or not at all, without holding them together."""
    stage = path.with_name(f".{path.name}.part")
    with full_disk_is_told(path):
        with stage.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        stage.replace(path)


def _append(path: Path, draft: Json) -> None:
    with full_disk_is_told(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(draft) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _save(folder: Path, card: Mapping[str, Any]) -> None:
    write_atomic(folder / CARD, (json.dumps(card, indent=1) + "\n").encode())


# --- the work ---------------------------------------------------------------------------------------------------------


def _asked(
    folder: Path, drafts: Drafts, spans: Sequence[Span], found: Sequence[Json], at_once: int, told: Progress
) -> list[Json]:  # fmt: skip
    """The drafts that are missing, each on disk as soon as it is there. Raises `InputError` after refusals in a row."""
    known = {draft["index"] for draft in found}
    made: list[Json] = []
    refused = 0
    for draft in _in_turn(drafts, [(i, span) for i, span in enumerate(spans) if i not in known], at_once):
        _append(folder / DRAFTS, draft)
        made.append(draft)
        told.at((len(known) + len(made)) / len(spans))
        details = [item["detail"] for item in draft["items"] if item["verdict"] == REFUSED]
        refused = refused + 1 if details else 0
        if refused == PATIENCE:
            raise InputError(
                f"the writer refused {PATIENCE} spans in a row (the last: {details[0]}); mend that, or lower --check-length "
                "or --span-tokens, and run again with --resume or --force"
            )
    return made


def _in_turn(drafts: Drafts, missing: Sequence[tuple[int, Span]], at_once: int) -> Iterator[Json]:
    """Drafts as they are finished, some at once."""
    if at_once == 1:
        yield from (drafts.draft(index, span) for index, span in missing)
        return
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="asking")
    rest, under_way = iter(missing), set[Future[Json]]()
    try:
        for index, span in rest:
            under_way.add(pool.submit(drafts.draft, index, span))
            if len(under_way) == at_once:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from _results(done)
        yield from _results(wait(under_way).done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _results(done: set[Future[Json]]) -> Iterator[Json]:
    """What is finished first, then what failed."""
    failed = None
    for future in done:
        failed = failed or future.exception()
    yield from (future.result() for future in done if future.exception() is None)
    if failed is not None:
        raise failed
