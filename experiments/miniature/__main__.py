"""One command for each table; what is there is not made again, and a killed command goes on when it is given again.

    python -m experiments.miniature bases
    python -m experiments.miniature stretched [--seeds 0] [--cells yarn] [--table-only]

`--seeds` and `--cells` (a part of a cell's name) divide a table's work over processes; the page is written at the end of each.
"""

import argparse
import sys
from pathlib import Path

from experiments.miniature.base import base
from experiments.miniature.cells import Cells
from experiments.miniature.corpus import corpus
from experiments.miniature.sizes import SIZES


def main() -> int:
    """Makes what is missing of a table and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["bases"])
    parser.add_argument("--seeds", default="0,1,2", help="divided by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--inputs", type=Path, default=Path("runs/inputs/miniature"))
    parser.add_argument("--size", choices=SIZES, default="full")
    args = parser.parse_args()
    sizes, out = SIZES[args.size], args.out / args.size
    out.mkdir(parents=True, exist_ok=True)
    cells = Cells(out=out, sizes=sizes, corpus=corpus(out, sizes, args.inputs))
    for seed in map(int, args.seeds.split(",")):
        print(base(out, sizes, cells.corpus, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
