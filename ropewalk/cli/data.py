"""`data`: sources into rows that training reads, with how long they are; or, with a writer, conversations made from them."""

import argparse
import sys
from typing import Any

from ropewalk.cli.options import FORCE_RUN, KEEP_SHORT, LENGTH_HELP, SHORT_SHARE, SPECIAL_TOKENS, add_json, print_json
from ropewalk.core.terminal import printable


def add_data(verbs: Any) -> None:
    """The arguments of `data`."""
    parser = verbs.add_parser("data", help="texts, conversations and data sets into packed rows for training")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="files and folders: texts, JSON lines, JSON, Parquet; each is a source of the mix, NAME=PATH names it",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="ID",
        help="a data set of the Hugging Face hub, streamed; options after a colon: "
        "owner/name:config=C,split=S,revision=R,documents=N; NAME=owner/name... calls it otherwise; may be repeated",
    )  # fmt: skip
    parser.add_argument("--tokenizer", required=True, metavar="SOURCE", help="the folder of the model that will be tuned")
    parser.add_argument("--length", required=True, help=f"of a row, or of a conversation: {LENGTH_HELP}")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of rows")
    parser.add_argument("--window", help="what the model reads before it is tuned (default: as its config says)")
    _add_reading(parser)
    _add_mixing(parser)
    _add_making(parser)
    parser.add_argument("--seed", type=int, default=0, help="of which documents the mix takes, of spans (default 0)")
    parser.add_argument(
        "--resume", action="store_true", help="go on; with another length or mix, nothing is tokenized again"
    )
    parser.add_argument("--force", action="store_true", help=FORCE_RUN)
    add_json(parser)
    parser.set_defaults(verb=run_data)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--field", help="which field of a record is read (default: the one that is known)")
    parser.add_argument(
        "--include", nargs="+", default=[], metavar="GLOB", help="files of folders that are read, such as '*.py'"
    )
    parser.add_argument("--chat-template", metavar="FILE", help="in place of the tokenizer's own")
    parser.add_argument(
        "--prompt-loss", action="store_true",
        help="learn the prompts of conversations too; of texts every token is learned anyway",
    )  # fmt: skip
    parser.add_argument("--special-tokens", action="store_true", help=SPECIAL_TOKENS)
    parser.add_argument("--no-end", action="store_true", help="put no end-of-text token after a text")
    parser.add_argument(
        "--max-broken", type=int, default=10, metavar="N", help="broken records left out before it stops (default 10)"
    )


def _add_mixing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mix", nargs="+", default=[], metavar="NAME=SHARE", help="share of each source in the tokens, in any unit"
    )
    parser.add_argument("--short-share", type=float, metavar="S", help=SHORT_SHARE)
    parser.add_argument("--keep-short", type=float, metavar="P", help=KEEP_SHORT)
    parser.add_argument(
        "--min-beyond", type=float, metavar="S",
        help="least share of tokens at positions beyond the old window (default 0.1)",
    )  # fmt: skip
    parser.add_argument("--allow-short", action="store_true", help="take a mix with fewer, and any share of short documents")


def _add_making(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conversations made from documents")
    group.add_argument(
        "--writer", metavar="MODEL|URL",
        help="who asks and answers: a model's folder, or a server that speaks OpenAI's protocol, such as http://host:8000",
    )  # fmt: skip
    group.add_argument("--spans", type=int, metavar="N", help="spans of the documents that are asked about")
    group.add_argument("--span-tokens", metavar="N", help="of a span, about (default 256)")
    group.add_argument(
        "--rewrite", metavar="NAMES", help="more questions of each that is kept: rephrase, self-verification, fobar"
    )
    group.add_argument(
        "--no-distractors", action="store_true", default=None, help="put no other documents beside one that is short"
    )
    group.add_argument(
        "--check-length", metavar="N", help="tokens that are read in search of the answer elsewhere (default: all it takes)"
    )
    group.add_argument(
        "--agreement", type=float, metavar="S", help="share of words from which two answers agree (default 0.6)"
    )
    group.add_argument("--wordings", metavar="FILE", help="JSON: what the writer is told, in your own words")
    group.add_argument("--temperature", type=float, help="of the writer; 0 takes the likeliest token (default 0)")
    group.add_argument("--top-p", type=float, help="of the writer (default 1)")
    group.add_argument("--answer-tokens", type=int, metavar="N", help="of one reply, at most (default 128)")
    group.add_argument("--served-model", metavar="NAME", help="of a server that serves several")
    group.add_argument("--concurrency", type=int, metavar="N", help="spans a server is asked about at once (default 1)")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="for one answer of a server (default 600)")
    group.add_argument("--device", help="of a local writer: auto, cpu, cuda, ... (default auto)")
    group.add_argument("--dtype", help="of a local writer: auto, float32 or bfloat16 (default auto)")


MAKING = (
    "spans", "span_tokens", "rewrite", "no_distractors", "check_length", "agreement", "wordings", "temperature", "top_p",
    "answer_tokens", "served_model", "concurrency", "timeout", "device", "dtype",
)  # fmt: skip
MIXING = (
    "window", "mix", "short_share", "keep_short", "min_beyond", "allow_short", "prompt_loss", "no_end", "special_tokens",
)  # fmt: skip
"""What only the one or only the other has."""


def run_data(args: argparse.Namespace) -> int:
    """`ropewalk data PATH... --tokenizer SOURCE --length N --out DIR`."""
    from ropewalk.core.errors import InputError

    # A 0 that was said is a word too; what was not said is None, False or no list at all.
    values = {name: getattr(args, name) for name in (MAKING if args.writer is None else MIXING)}
    foreign = [name for name, value in values.items() if not (value is None or value is False or value == [])]
    if foreign:
        option = "--" + foreign[0].replace("_", "-")
        if args.writer is None:
            raise InputError(f"{option} is of conversations made from documents; say who writes them with --writer")
        raise InputError(f"{option} is of rows, and --writer makes conversations; give it to ropewalk data {args.out}")
    return _rows(args) if args.writer is None else _made(args)


def _made(args: argparse.Namespace) -> int:
    from ropewalk.api.making import lines, make
    from ropewalk.core.errors import InputError

    if args.spans is None:
        raise InputError("a writer needs a number of spans to ask about; give it with --spans, such as 100")
    said = {name: getattr(args, name) for name in MAKING if getattr(args, name) is not None}
    said |= {"rewrite": [name.strip() for name in said["rewrite"].split(",") if name.strip()]} if args.rewrite else {}
    said |= {"distractors": False} if said.pop("no_distractors", None) else {}
    card = make(
        args.paths, writer=args.writer, tokenizer=args.tokenizer, length=args.length, out=args.out, datasets=args.dataset,
        field=args.field, include=args.include, chat_template=args.chat_template, max_broken=args.max_broken,
        seed=args.seed, force=args.force, resume=args.resume, **said,
    )  # fmt: skip
    if args.json:
        return print_json({"out": args.out, **card})
    print(printable("\n".join(lines(card, args.out))), file=sys.stderr)
    print(args.out)
    return 0


def _rows(args: argparse.Namespace) -> int:
    from ropewalk.api.data import data

    card = data(
        args.paths,
        tokenizer=args.tokenizer,
        length=args.length,
        out=args.out,
        datasets=args.dataset,
        window=args.window,
        field=args.field,
        include=args.include,
        chat_template=args.chat_template,
        prompt_loss=args.prompt_loss,
        special_tokens=args.special_tokens,
        end=not args.no_end,
        mix=_shares(args.mix),
        short_share=args.short_share,
        keep_short=args.keep_short,
        min_beyond=0.1 if args.min_beyond is None else args.min_beyond,
        allow_short=args.allow_short,
        max_broken=args.max_broken,
        seed=args.seed,
        force=args.force,
        resume=args.resume,
    )
    if args.json:
        return print_json({"out": args.out, **card})
    from ropewalk.api.data_words import lines

    print(printable("\n".join(lines(card, args.out))), file=sys.stderr)
    print(args.out)
    return 0


def _shares(given: list[str]) -> dict[str, float]:
    from ropewalk.core.errors import InputError

    shares = {}
    for text in given:
        name, _, share = text.rpartition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--mix takes NAME=SHARE, such as books=60 code=40; got {text!r}")
    return shares
