"""`tune --longest`: the longest row that a training has memory for."""

import argparse
from typing import Any

from ropewalk.cli.options import print_json

HOW = ("confirm", "estimate")


def add_longest(parser: argparse.ArgumentParser) -> None:
    """The options of `--longest`."""
    parser.add_argument(
        "--longest", nargs="?", const="confirm", choices=HOW,
        help="train nothing: find the longest row that fits, with one real step, or only an estimate of it; options of the "
        "training may stay, and with --window or --length nothing longer is tried (exit code 1 where that does not fit)",
    )  # fmt: skip
    parser.add_argument("--memory", metavar="SIZE", help="of --longest: such as 24G (default: 0.9 of what is free)")


def run_longest(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    """`ropewalk tune SOURCE --longest [--recipe R] [--memory 24G]`; `settings` are those of the training."""
    from ropewalk.api.training_memory import check_found, longest, told
    from ropewalk.core.errors import InputError
    from ropewalk.core.progress import Progress

    if args.longest is None:
        raise InputError("--memory says what --longest may take; give both, or leave --memory out")
    if args.source is None:
        raise InputError("tune --longest needs a SOURCE; as in ropewalk tune SOURCE --longest --memory 24G")
    found = longest(
        args.source, length=args.window or args.length, memory=args.memory, confirm=args.longest == "confirm",
        device=settings.pop("device", "auto"), dtype=settings.pop("dtype", "auto"), progress=Progress(), **settings,
    )  # fmt: skip
    if not found.missed:
        check_found(found)
    if args.json:
        print_json(found.to_dict())
    else:
        print(told(found))
    return 1 if found.missed else 0
