"""`data`: sources into rows that training reads, with how long they are."""

import argparse
import sys
from typing import Any

from ropewalk.cli.options import LENGTH_HELP, add_json, print_json


def add_data(verbs: Any) -> None:
    """The arguments of `data`."""
    parser = verbs.add_parser("data", help="texts, conversations and data sets into packed rows for training")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="files and folders: texts, JSON lines, JSON, Parquet; each is a source of the mix, NAME=PATH names it",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="NAME",
        help="a data set of the Hugging Face hub, streamed; options after a colon: "
        "owner/name:config=C,split=S,revision=R,documents=N; may be repeated",
    )  # fmt: skip
    parser.add_argument("--tokenizer", required=True, metavar="SOURCE", help="the folder of the model that will be tuned")
    parser.add_argument("--length", required=True, help=f"of a row: {LENGTH_HELP}")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of rows")
    parser.add_argument("--window", help="what the model reads before it is tuned (default: as its config says)")
    _add_reading(parser)
    _add_mixing(parser)
    parser.add_argument("--seed", type=int, default=0, help="of which documents the mix takes (default 0)")
    parser.add_argument(
        "--resume", action="store_true", help="go on; with another length or mix, nothing is tokenized again"
    )
    parser.add_argument("--force", action="store_true", help="start anew in a folder of rows that is there")
    add_json(parser)
    parser.set_defaults(verb=run_data)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--field", help="which field of a record is read (default: the one that is known)")
    parser.add_argument(
        "--include", nargs="+", default=[], metavar="GLOB", help="files of folders that are read, such as '*.py'"
    )
    parser.add_argument("--chat-template", metavar="FILE", help="in place of the tokenizer's own")
    parser.add_argument("--prompt-loss", action="store_true", help="learn the prompts of conversations too")
    parser.add_argument("--no-end", action="store_true", help="put no end-of-text token after a text")
    parser.add_argument(
        "--max-broken", type=int, default=10, metavar="N", help="broken records left out before it stops (default 10)"
    )


def _add_mixing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mix", nargs="+", default=[], metavar="NAME=SHARE", help="share of each source in the tokens, in any unit"
    )
    parser.add_argument(
        "--short-share", type=float, metavar="S",
        help="largest share of tokens in documents that fit into the old window (default 0.4)",
    )  # fmt: skip
    parser.add_argument("--keep-short", type=float, metavar="P", help="keep such a document with this probability instead")
    parser.add_argument(
        "--min-beyond", type=float, default=0.1, metavar="S",
        help="least share of tokens at positions beyond the old window (default 0.1)",
    )  # fmt: skip
    parser.add_argument("--allow-short", action="store_true", help="take a mix with fewer of them")


def run_data(args: argparse.Namespace) -> int:
    """`ropewalk data PATH... --tokenizer SOURCE --length N --out DIR`."""
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
        end=not args.no_end,
        mix=_shares(args.mix),
        short_share=args.short_share,
        keep_short=args.keep_short,
        min_beyond=args.min_beyond,
        allow_short=args.allow_short,
        max_broken=args.max_broken,
        seed=args.seed,
        force=args.force,
        resume=args.resume,
    )
    if args.json:
        return print_json({"out": args.out, **card})
    from ropewalk.api.data_words import lines

    print("\n".join(lines(card, args.out)), file=sys.stderr)
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
