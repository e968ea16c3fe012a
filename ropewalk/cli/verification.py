"""`verify`: what each engine would compute from a checkpoint, and its traps."""

import argparse
import sys
from typing import Any

from ropewalk.cli.options import add_json, print_json


def add_verify(verbs: Any) -> None:
    """The arguments of `verify`."""
    parser = verbs.add_parser("verify", help="say what each engine would really compute from a checkpoint, and its traps")
    parser.add_argument("path", help="folder, folder with only config.json, GGUF file, or hub id")
    parser.add_argument("--engines", help="of transformers,vllm,sglang,llama.cpp (default all; a named one must support it)")
    parser.add_argument("--against", metavar="PLAN", help="a file of extend --dry-run --json, or another checkpoint")
    parser.add_argument("--fix", action="store_true", help="write a copy without the traps to --out, and judge the copy")
    parser.add_argument("--out", metavar="DIR", help="with --fix: the folder to make")
    parser.add_argument("--force", action="store_true", help="with --fix: replace a checkpoint folder that is there")
    add_json(parser)
    parser.set_defaults(verb=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """`ropewalk verify PATH`: 1 where an engine differs or refuses, or a finding is an error."""
    from ropewalk.api.verification import fix, table, verify
    from ropewalk.core.errors import OutputError

    if args.fix != (args.out is not None):
        raise OutputError("--fix writes a mended copy and --out says where; give both, or neither")
    mended = None
    if args.fix:
        mended, found = fix(args.path, args.out, engines=args.engines, against=args.against, force=args.force)
        print(args.out if mended else "ropewalk: nothing was written: the config cannot be read", file=sys.stderr)
    else:
        found = verify(args.path, args.engines, args.against)
    if args.json:
        print_json(found.to_dict() | ({"mended": {"out": args.out, **mended.to_dict()}} if mended else {}))
    else:
        print(*(mended.changes if mended else ()), table(found), sep="\n")
    return 0 if found.passed else 1
