"""What several verbs share: the words of an option's help, options that come in sets, and how a result is printed."""

import argparse
import json
import sys
from typing import Any

from ropewalk.core.terminal import printable

LENGTH_HELP = "tokens, such as 65536 or 64k (k = 1024)"
FORCE_RUN = "start anew: remove the folder of such a run that is there, as stderr says"
FORCE_CHECKPOINT = "replace a folder that extend, convert, verify --fix or tune --merge wrote, if it is as they left it"
SHORT_SHARE = (
    "largest share of tokens in documents that fit into the old window (default 0.4; no limit with --allow-short, or for "
    "rows that lie inside it)"
)
KEEP_SHORT = "keep such a document with this probability instead"
SPECIAL_TOKENS = "read special tokens that documents spell, such as <|im_end|>, as tokens and not as text"
LINEAGE_HELP = "how the source came to the stretch its config carries: trained at it, or put on at runtime"


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, which every verb has."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def add_lineage(parser: argparse.ArgumentParser) -> None:
    """`--lineage`, for every verb that plans."""
    parser.add_argument("--lineage", choices=["trained", "runtime"], help=LINEAGE_HELP)


def count(text: str) -> int:
    """A number of tokens where 0 means: leave it out."""
    from ropewalk.core.plan import parse_length

    return 0 if text.strip() == "0" else parse_length(text)


def print_json(content: Any) -> int:
    """One JSON document on stdout; exit code 0."""
    print(json.dumps(content, allow_nan=False))
    return 0


def print_card(card: Any, args: argparse.Namespace) -> int:
    """What was written: its findings on stderr, the path or the card on stdout; exit code 0.

    Errors and warnings are on stderr beside the document of `--json` too.
    """
    for finding in card.findings:
        if finding["severity"] != "note":
            print(printable("{severity}: {field}: {problem}; {mend}".format(**finding)), file=sys.stderr)
        elif not args.json:
            print(printable("; ".join(filter(None, (finding["problem"], finding["mend"])))), file=sys.stderr)
    if args.json:
        return print_json(card.to_dict())
    print(args.out)
    return 0
