"""Training on packs of several documents beside TRL's packing: seconds of a step, and the same loss.

    python -m venv runs/peers/trl
    runs/peers/trl/bin/pip install trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
    python -m benchmarks.packs [--length 8192] [--documents 8] [--repeats 3] [--dtype float32]

TRL packs the documents itself (`packing=True`, best fit decreasing, its default); ours is given the rows that it made, so
both train on the same ids in the same order, with the same seed, optimizer and precision, every layer checkpointed. Steps
are taken in turn; the first of each is not counted. In float32 the losses of all steps are to agree to 1e-5. Processor
seconds are told beside seconds: they say what a step costs on a busy machine too.

What TRL's attention is given on a CPU is told: with positions that begin anew at each document and no mask, transformers
makes a dense mask of T x T booleans, and `scaled_dot_product_attention` computes all of it. TRL documents packing for
FlashAttention alone, which has no CPU kernel.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import write
from benchmarks.peer import Peer
from benchmarks.training_memory import TRL, add_training, ids_of, job_of

GOAL = "at least 2 times TRL's tokens a second, losses equal to 1e-5 in float32"


def documents_of(args: argparse.Namespace) -> list[list[int]]:
    """Stretches of the text, `--documents` to a row."""
    size = args.length // args.documents
    num = args.documents * (args.repeats + 1)
    ids = ids_of(args, size * num)
    return [ids[start : start + size] for start in range(0, size * num, size)]


def cut(row: dict[str, Any]) -> list[list[int]]:
    """A row as TRL packed it, document by document."""
    ids, start, found = row["ids"], 0, []
    for size in row["sizes"]:
        found.append(ids[start : start + size])
        start += size
    return found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Steps of both in turn."""
    asked = {"length": args.length, "steps": args.repeats + 1, "turns": True}
    trl = job_of(args, "trl-packed", documents=documents_of(args), **asked)
    told: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    with Peer("training", TRL, trl) as theirs:
        rows = [cut(row) for row in theirs.first["rows"]]
        assert len(rows) == args.repeats + 1, f"TRL made {len(rows)} rows of {args.documents} documents each"
        with Peer("training_ours", Path(sys.executable), job_of(args, "ours", rows=rows, **asked)) as ours:
            for _ in rows:
                for name, peer in (("ours", ours), ("trl", theirs)):
                    told[name].append(peer.run())
                    print(name, json.dumps(told[name][-1]), flush=True)
            versions = {"ours": ours.first["version"], "trl": theirs.first["version"]}
    return summary(args, told, versions, [len(row) for row in rows])


def summary(
    args: argparse.Namespace, told: dict[str, list[dict[str, Any]]], versions: dict[str, Any], per_row: list[int]
) -> dict[str, Any]:
    """Ratio of medians, and the largest difference of losses."""
    seconds = {name: [one["seconds"] for one in steps[1:]] for name, steps in told.items()}
    losses = {name: [one["loss"] for one in steps] for name, steps in told.items()}
    busy = {name: statistics.median(one["cpu_seconds"] for one in steps[1:]) for name, steps in told.items()}
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "what": f"packs of {args.documents} documents, rows of {args.length}, {args.dtype}, {args.layers or 'all'} layers",
        "documents_per_row": per_row, "seconds": seconds, "losses": losses,
        "cpu_seconds": {name: [one["cpu_seconds"] for one in steps[1:]] for name, steps in told.items()},
        "tokens_per_second": {name: args.length / value for name, value in middle.items()},
        "ratio": middle["trl"] / middle["ours"],
        "cpu_ratio": busy["trl"] / busy["ours"],
        "loss_difference": max(abs(a - b) for a, b in zip(losses["ours"], losses["trl"], strict=True)),
        "peak_bytes": {name: max(one["resident_bytes"] for one in steps) for name, steps in told.items()},
        "trl_attention": {key: told["trl"][0].get(key) for key in ("attention", "mask")}, "versions": versions,
        "goal": GOAL,
    }  # fmt: skip


def main() -> None:
    """Both side by side, written to `results/packs-....json` unless it is a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training(parser)
    parser.add_argument("--documents", type=int, default=8, help="of one size, in each row")
    args = parser.parse_args()
    row = compare(args)
    print(json.dumps(row, indent=1))
    if not args.trial:
        print(write(f"packs-{args.dtype}", f"python -m benchmarks.packs {' '.join(sys.argv[1:])}", [row]))


if __name__ == "__main__":
    main()
