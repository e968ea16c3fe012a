"""One command for each table; what is there is not made again, and a killed command goes on when it is given again.

    python -m experiments.miniature bases
    python -m experiments.miniature stretched [--seeds 0] [--cells yarn] [--table-only]

`--seeds` and `--cells` (a part of a cell's name) divide a table's work over processes. The page is written after each seed,
of the seeds 0, 1 and 2: others, and options that would do nothing, are refused before anything is made.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from experiments.miniature.arms import TABLES, watched
from experiments.miniature.cells import Cells
from experiments.miniature.corpus import KINDS, corpus
from experiments.miniature.page import write
from experiments.miniature.sizes import SIZES
from experiments.miniature.smollm2 import asked_of, run
from experiments.miniature.tables import make, names

ALL_SEEDS = (0, 1, 2)


def main() -> int:
    """Makes what is missing of a table and writes the page."""
    parser = _parser()
    args = parser.parse_args()
    if idle := _idle(args):
        parser.error(idle)
    sizes, out = SIZES[args.size], args.out / args.size
    out.mkdir(parents=True, exist_ok=True)
    found = corpus(out, sizes, args.inputs, tuple(args.kinds.split(",")))
    cells = Cells(out=out, sizes=sizes, corpus=found, watched=watched(sizes), make=not args.table_only, only=args.cells)
    if args.table == "smollm2" and not args.table_only:
        # One training, whatever the seeds.
        run(asked_of(out, args.inputs.parent))
    seeds = () if args.table_only or args.table == "smollm2" else args.seeds or ALL_SEEDS
    for seed in seeds:
        if args.table == "bases":
            cells.base(seed)
        else:
            make(cells, (seed,), args.table)
        write(replace(cells, make=False), ALL_SEEDS, args.page, args.page.parent / "images")
    if not seeds:
        write(replace(cells, make=False), ALL_SEEDS, args.page, args.page.parent / "images")
    print(args.page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["bases", *TABLES, "smollm2"])
    parser.add_argument("--seeds", type=seeds_of, help="of 0, 1 and 2, divided by commas; all of them where it is left out")
    parser.add_argument("--cells", default="", help="a part of the names of the cells to make")
    parser.add_argument("--table-only", action="store_true", help="make nothing, write the page of what is there")
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--inputs", type=Path, default=Path("runs/inputs/miniature"))
    parser.add_argument("--page", type=Path, default=Path("docs/miniature.md"))
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of documents, divided by commas")
    parser.add_argument("--size", choices=SIZES, default="full")
    return parser


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds that the page shows; raises `ArgumentTypeError` for any other."""
    words = [word.strip() for word in text.split(",")]
    if not set(words) <= set(map(str, ALL_SEEDS)):
        raise argparse.ArgumentTypeError(f"got {text}; the page has seeds 0, 1 and 2: give those, divided by commas")
    return tuple(sorted(set(map(int, words))))


def _idle(args: argparse.Namespace) -> str:
    """The sentence on an option that would do nothing; empty where all do something."""
    chosen = " and ".join(f"--{name}" for name in ("seeds", "cells") if getattr(args, name))
    if chosen and (args.table_only or args.table == "smollm2"):
        return f"{chosen} would change nothing: {'--table-only' if args.table_only else 'smollm2'} has no use for it"
    if args.cells and args.table == "bases":
        return "--cells would change nothing: a base is one cell; leave it out"
    if args.cells:
        known = names(TABLES[args.table](SIZES[args.size]))
        if not any(args.cells in name for name in known):
            return f"no cell of {args.table} has {args.cells} in its name; it has {', '.join(sorted(known))}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
