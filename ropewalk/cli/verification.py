"""`verify`: what each engine would compute from a checkpoint, and its traps."""

import argparse
import sys
from typing import Any

from ropewalk.cli.options import FORCE_CHECKPOINT, add_json, print_json
from ropewalk.core.terminal import printable

LONGEST_LIMIT = 30 * 24 * 3600
"""Seconds that a run may be given; not every system's clock waits for more."""


def add_verify(verbs: Any) -> None:
    """The arguments of `verify`."""
    parser = verbs.add_parser("verify", help="say what each engine would really compute from a checkpoint, and its traps")
    parser.add_argument("path", help="folder, folder with only config.json, GGUF file, or hub id")
    parser.add_argument("--engines", help="of transformers,vllm,sglang,llama.cpp (default all; a named one must support it)")
    parser.add_argument("--against", metavar="PLAN", help="a file of extend --dry-run --json, or another checkpoint")
    parser.add_argument(
        "--execute", action="store_true",
        help="run the checkpoint in the engines that are installed and hold their answers against transformers'; minutes",
    )  # fmt: skip
    parser.add_argument(
        "--limit-seconds", type=float, metavar="SECONDS", help="with --execute: longest run of one engine (default 1800)"
    )
    parser.add_argument("--fix", action="store_true", help="write a copy without the traps to --out, and judge the copy")
    parser.add_argument("--out", metavar="DIR", help="with --fix: the folder to make")
    parser.add_argument("--force", action="store_true", help=f"with --fix: {FORCE_CHECKPOINT}")
    add_json(parser)
    parser.set_defaults(verb=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """`ropewalk verify PATH`: 1 where an engine differs or refuses, or a finding is an error."""
    from ropewalk.api.verdict_words import table
    from ropewalk.api.verification import fix, verify
    from ropewalk.core.errors import OutputError

    if args.fix != (args.out is not None):
        raise OutputError("--fix writes a mended copy and --out says where; give both, or neither")
    mended, executing = None, _executing(args)
    if args.fix:
        mended, found = fix(args.path, args.out, engines=args.engines, against=args.against, force=args.force, **executing)
        print(args.out if mended else "ropewalk: nothing was written: the config cannot be read", file=sys.stderr)
    else:
        found = verify(args.path, args.engines, args.against, **executing)
    if args.json:
        print_json(found.to_dict() | ({"mended": {"out": args.out, **mended.to_dict()}} if mended else {}))
    else:
        print(printable("\n".join((*(mended.changes if mended else ()), table(found)))))
    return 0 if found.passed else 1


def _executing(args: argparse.Namespace) -> dict[str, Any]:
    """What `verify` is told of executing. Raises `InputError` for a limit that cannot be meant."""
    from ropewalk.core.errors import InputError
    from ropewalk.core.progress import Progress

    if args.limit_seconds is None:
        return {"execute": args.execute, "progress": Progress()}
    if not args.execute:
        raise InputError("--limit-seconds is for --execute; give both, or leave it out")
    if not args.limit_seconds > 0 or args.limit_seconds > LONGEST_LIMIT:
        raise InputError(
            f"--limit-seconds is {args.limit_seconds:g}, expected more than 0 and at most {LONGEST_LIMIT}; give seconds"
        )
    return {"execute": True, "limit_seconds": args.limit_seconds, "progress": Progress()}
