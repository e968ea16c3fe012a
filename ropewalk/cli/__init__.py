"""The command line: one thin function per verb. Results go to stdout, words to stderr, heavy imports into the verb.

One file holds a group of verbs, as the files of `ropewalk.api` do: `add_VERB` says its arguments, `run_VERB` obeys them.
A new verb is a file and a line of `VERBS`.

Exit codes: 0 done; 1 a stated threshold was missed; 2 the input is wrong, with one sentence; 3 the machine gave up and
`--resume` goes on; 130 interrupted. A traceback is always our own mistake.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from ropewalk.cli import checkpoints, data, plans, reports, runs, tuning, verification
from ropewalk.cli.parser import Parser
from ropewalk.core.errors import RopewalkError, near
from ropewalk.core.terminal import printable

__all__ = ["DESCRIPTION", "Parser", "main", "make_parser", "verbs"]

DESCRIPTION = "Make a transformer language model read further than it was trained to, and show how far it really reads."
VERBS = (
    plans.add_methods,
    plans.add_inspect,
    checkpoints.add_convert,
    checkpoints.add_extend,
    verification.add_verify,
    runs.add_measure,
    runs.add_compare,
    data.add_data,
    tuning.add_tune,
    reports.add_report,
)
"""Every verb, in the order of the flow."""
OTHER_VERBS = {"train": "tune", "finetune": "tune", "fine-tune": "tune", "eval": "measure", "evaluate": "measure"}
"""What others call a verb, and ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit code."""
    parser = make_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = verbs(parser)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        meant = OTHER_VERBS.get(arguments[0])
        tail = f"did you mean {meant}?" if meant else near(arguments[0], known, options=False)
        print(f"ropewalk: unknown verb {arguments[0]!r}; {tail}", file=sys.stderr)
        return 2
    args, rest = parser.parse_known_args(arguments)
    if rest:
        said = known.get(arguments[0], parser)
        tail = near(rest[0].partition("=")[0], said.options()) if rest[0].startswith("-") else "quote a name with spaces"
        said.error(f"{said.prog} does not take {rest[0]!r}; {tail}")
    if not hasattr(args, "verb"):
        parser.print_help()
        return 0
    # Libraries draw bars of their own over ours, terminal or not.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        if getattr(args, "method", None) == "help":
            args = argparse.Namespace(verb=plans.run_methods, method=None, json=args.json)
        code: int = args.verb(args)
        sys.stdout.flush()
        return code
    except RopewalkError as error:
        print(f"ropewalk: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        goes_on = "--resume" in known[arguments[0]].options()
        tail = "; what is finished is kept, and --resume goes on from there" if goes_on else "; nothing is left of it"
        print(f"ropewalk: interrupted{tail}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing can be said to them any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _system(error)
    except MemoryError:
        print("ropewalk: out of memory; free some, or give a smaller --length, and run again", file=sys.stderr)
        return 3


def _system(error: OSError) -> int:
    """What the system refused, in a sentence. Checks come first everywhere; this is for what changes after them."""
    where = f" ({printable(str(error.filename))})" if error.filename else ""
    print(f"ropewalk: {error.strerror or error}{where}; mend that and run the command again", file=sys.stderr)
    return 3 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM) else 2


def verbs(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parser of each verb, in the order of the flow."""
    (actions,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions.choices)


def make_parser() -> Parser:
    """All verbs, in the order of the flow."""
    parser = Parser(prog="ropewalk", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"ropewalk {_version()}")
    added = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for add in VERBS:
        add(added)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return version("ropewalk")
