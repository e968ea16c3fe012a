"""Conversations for tuning on long text, made from documents: the verb `data` with a writer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.api.checkpoints import need
from ropewalk.api.data import TOKENIZING, chat_template_of, dataset_of, folders_read, model_of, tokenizer_of
from ropewalk.core.errors import InputError
from ropewalk.core.output import check_kept, check_out, check_outside, say_beginning
from ropewalk.core.plan import parse_length
from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress


def make(
    paths: Sequence[str | Path] = (), *, writer: str | Path | Callable[[str, int], Any], tokenizer: str | Path,
    length: int | str, out: str | Path, spans: int, span_tokens: int | str = 256, rewrite: Sequence[str] = (),
    distractors: bool = True, check_length: int | str | None = None, agreement: float = 0.6,
    wordings: str | Path | None = None, temperature: float = 0.0, top_p: float = 1.0, answer_tokens: int = 128,
    served_model: str | None = None, concurrency: int = 1, timeout: float = 600.0, device: str = "auto", dtype: str = "auto",
    datasets: Sequence[str] = (), field: str | None = None, include: Sequence[str] = (),
    chat_template: str | Path | None = None, max_broken: int = 10, seed: int = 0, force: bool = False, resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A folder of conversations of at most `length` tokens, from `spans` spans of the documents; its card.

    `writer` is a model's folder or hub id, the address of a server that speaks OpenAI's protocol, or a function from a
    prompt and a seed to a text. `tokenizer` is that of the model that will be tuned. Raises `InputError` and its kin for
    whatever is wrong with the input, `MachineError` where the writer is gone or the disk is full: `resume` goes on.
    """
    need("hf", "torch", "transformers")
    from ropewalk.api.writers import Decoding, opened
    from ropewalk.data.making.folder import make as write
    from ropewalk.data.making.settings import Settings
    from ropewalk.data.making.wording import Wordings
    from ropewalk.data.reading.files import check_options, open_files
    from ropewalk.data.reading.made import VERB
    from ropewalk.data.reading.records import Source
    from ropewalk.data.tokens import Encoder

    if not paths and not datasets:
        raise InputError(
            "there are no documents to ask about; give files or folders, or a data set of the hub with --dataset"
        )
    check_out(out, force=force, resume=resume, verb=VERB)
    settings = Settings(
        length=parse_length(length),
        num_spans=spans,
        span_tokens=parse_length(span_tokens),
        rewrites=tuple(rewrite),
        distractors=distractors,
        check_length=None if check_length is None else parse_length(check_length),
        agreement=agreement,
        seed=seed,
        max_broken=max_broken,
    )
    decoding = Decoding(temperature=temperature, top_p=top_p, answer_tokens=answer_tokens)
    said = Wordings() if wordings is None else Wordings.read(wordings)
    files = [open_files(str(path), field=field, include=include) for path in paths]
    check_options(files, num_datasets=len(datasets), include=include)
    model = model_of(tokenizer)
    asked = (chat_template, wordings, None if callable(writer) else writer)
    read = [model, *folders_read([], datasets), *(path for path in asked if path is not None)]
    check_kept(out, [*(source.root / name for source in files for name in source.files), *read])
    check_outside(out, folders_read(files, datasets))
    sources: list[Source] = [*files, *(dataset_of(text, field=field) for text in datasets)]
    encoder = Encoder(tokenizer=tokenizer_of(model), chat_template=chat_template_of(chat_template))
    told = progress or Progress()
    if resume:
        say_beginning(out, told)
    with opened(
        writer, decoding, served_model=served_model, concurrency=concurrency, timeout=timeout, device=device, dtype=dtype,
        seed=seed,
    ) as writing:  # fmt: skip
        return write(
            sources, encoder, settings, writing, out, wordings=said, versions=_versions(writing.identity), force=force,
            resume=resume, progress=told,
        )  # fmt: skip


def _versions(identity: Mapping[str, Any]) -> dict[str, str]:
    """Of what may change a token; of a local writer, of what writes too."""
    names = (*TOKENIZING, "torch") if identity.get("kind") == "local" else TOKENIZING
    return {name: version for name, version in provenance.versions().items() if name in names}


def lines(card: Mapping[str, Any], out: str | Path) -> list[str]:
    """What came of it, in words for a terminal."""
    found = []
    for kind, said in card["kinds"].items():
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in said["dropped"].items())
        found.append(f"{kind}: {said['kept']:,} of {said['tried']:,} kept{f'; dropped: {dropped}' if dropped else ''}")
    if card["num_kept"]:
        found.append(
            f"{counted(card['num_kept'], 'conversation')} of {card['shortest']:,} to {card['longest']:,} tokens; without "
            f"its span each was read up to {card['asked']['reads']:,} tokens"
        )
    else:
        found.append("nothing was kept: the writer is too weak for these documents, or its replies are not as asked")
    if card["num_left_out"]:
        found.append(
            f"left out, documents and files: {card['num_left_out']:,}, each named in {Path(out) / 'left_out.jsonl'}"
        )
    found.append(f"every reply with its verdict is in {Path(out) / 'drafts.jsonl'}")
    return found + ([f"next: give {out} to ropewalk data, or to ropewalk tune as --data"] if card["num_kept"] else [])
