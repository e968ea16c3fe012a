"""`tune --longest`: the longest row that a training has memory for.

Of a preset with several runs each is asked for, since one may train more weights and another longer rows: all of them are to
fit. Runs that take memory alike are asked for once, at the longest of their rows.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from ropewalk.cli.options import print_json

HOW = ("confirm", "estimate")


def add_longest(parser: argparse.ArgumentParser) -> None:
    """The options of `--longest`."""
    parser.add_argument(
        "--longest", nargs="?", const="confirm", choices=HOW,
        help="train nothing: find the longest row that fits, with one real step, or only an estimate of it; options of the "
        "training may stay, and with --window or --length, or those of a preset, nothing longer is tried (exit code 1 where "
        "that does not fit)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", metavar="SIZE",
        help="of --longest: such as 24G, which is 24 GB of 10^9 bytes, or 24GiB, of 2^30 (default: 0.9 of what is free)",
    )  # fmt: skip


def run_longest(args: argparse.Namespace, runs: Sequence[dict[str, Any]]) -> int:
    """`ropewalk tune SOURCE --longest [--recipe R] [--memory 24G]`; `runs` are the options of each run of the training."""
    from ropewalk.api.training_longest import check_found, longest, told
    from ropewalk.core.errors import InputError
    from ropewalk.core.progress import Progress

    if args.longest is None:
        raise InputError("--memory says what --longest may take; give both, or leave --memory out")
    if args.source is None:
        raise InputError("tune --longest needs a SOURCE; as in ropewalk tune SOURCE --longest --memory 24G")
    progress, answers = Progress(), []
    for numbers, rows, options in needs(runs):
        found = longest(
            args.source, length=rows, memory=args.memory, confirm=args.longest == "confirm", progress=progress, **options
        )
        if not found.missed:
            check_found(found)
        answers.append((numbers, found))
    missed = any(found.missed for _, found in answers)
    if args.json:
        several = [{**found.to_dict(), "numbers": numbers} for numbers, found in answers]
        print_json(answers[0][1].to_dict() if len(runs) == 1 else {"missed": missed, "runs": several})
    else:
        for numbers, found in answers:
            if len(runs) > 1:
                print(f"run {', '.join(map(str, numbers))}" + (": does not fit" if found.missed else ""))
            print(told(found))
    return 1 if missed else 0


def needs(runs: Sequence[dict[str, Any]]) -> list[tuple[list[int], int | None, dict[str, Any]]]:
    """The runs by what they take memory for: their numbers, the longest of their rows if any says one, their settings."""
    from ropewalk.api.training_longest import memory_of
    from ropewalk.core.plan import parse_length

    found: list[tuple[list[int], int | None, dict[str, Any]]] = []
    for number, run in enumerate(runs, 1):
        settings = {key: value for key, value in run.items() if key not in ("length", "window", "curriculum")}
        parts = [part.partition(":")[0] for part in run["curriculum"].split(",")] if "curriculum" in run else []
        said = parts or [run.get("window") or run.get("length")]
        rows = max((parse_length(one) for one in said if one is not None), default=None)
        for place, (numbers, most, same) in enumerate(found):
            if memory_of(same) == memory_of(settings) and (most is None) == (rows is None):
                found[place] = ([*numbers, number], max(most, rows) if most is not None and rows is not None else None, same)
                break
        else:
            found.append(([number], rows, settings))
    return found
