"""The longest training row in a given memory, and peak memory and speed at one length, beside HF Trainer and TRL.

    python -m venv runs/peers/trl
    runs/peers/trl/bin/pip install trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
    python -m benchmarks.training_memory --part ladder [--memory 24G] [--who ours,hf,hf-checkpointed,trl] [--dtype float32]
    python -m benchmarks.training_memory --part length [--length 8192] [--repeats 3]

The ladder: one optimizer step of all of SmolLM2-135M's weights on one row, in a child process for each rung, ended where its
resident memory passes the limit; the first rung that does not fit is the last. Every rung is kept in `runs/training-memory`
the moment it is done, and a second call does what is missing. Bytes per token are those between a side's last two rungs.

At one length the sides take turns in one run, step by step: the first step of each is not counted, medians are compared, and
ratios are to the first side. Processor seconds are told beside seconds: they say what a step costs on a busy machine too.
Peak is the process's own high-water mark, libraries and weights included, moments of AdamW there.

`hf` is `transformers.Trainer` as it comes, `hf-checkpointed` with `gradient_checkpointing=True`, `trl` SFTTrainer with its
defaults (checkpointing, its head without whole logits). The same ids, precision, optimizer and seed. `--layers N` takes the
first N layers: for trying it out.
"""

import argparse
import json
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import add_inputs, write
from benchmarks.peer import SCRIPTS, Peer
from ropewalk.api.training_memory import parse_memory
from ropewalk.core.budget import GIGABYTE
from ropewalk.core.plan import parse_length
from ropewalk.hosts.watched import watch

KEPT = Path("runs/training-memory")
TRL = Path("runs/peers/trl/bin/python")
SIDES = ("ours", "ours-selective", "hf", "hf-checkpointed", "trl")
RUNGS = "8k,12k,16k,24k,32k,48k,64k"
FIRST = {"ours": 32 * 1024, "ours-selective": 32 * 1024}
"""Where a side begins that is known to reach it."""
GOALS = {
    "ladder": "ours at least 64k in 24 GB",
    "length": "at most 0.4 of HF Trainer's peak, not above TRL's; tokens a second not below TRL's",
}


def ids_of(args: argparse.Namespace, num: int) -> list[int]:
    """The first tokens of the text."""
    from transformers import AutoTokenizer

    from ropewalk.data.documents import read_documents

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    return [int(one) for one in read_documents([args.text], tokenizer, num)[0].ids[:num]]


def job_of(args: argparse.Namespace, who: str, length: int, steps: int, *, turns: bool, **rows: Any) -> dict[str, Any]:
    """What a side is asked."""
    return {
        "who": who, "model": str(args.model), "num_layers": args.layers, "length": length, "steps": steps,
        "bfloat16": args.dtype == "bfloat16", "threads": args.threads, "turns": turns, **rows,
    }  # fmt: skip


def with_rows(args: argparse.Namespace, who: str, length: int, rows: list[list[int]], *, turns: bool) -> dict[str, Any]:
    """A job on rows of one document each; ours is told rows as lists of documents."""
    told = [[row] for row in rows] if who.startswith("ours") else rows
    return job_of(args, who, length, len(rows), turns=turns, rows=told)


def script_of(who: str) -> tuple[str, Path]:
    """The name of a side's script and the Python that runs it: HF Trainer runs in the peer's environment too."""
    return ("training_ours", Path(sys.executable)) if who.startswith("ours") else ("training", TRL)


def rung(args: argparse.Namespace, who: str, length: int, ids: list[int]) -> dict[str, Any]:
    """One step in a child under the limit; a rung that is on disk already is read."""
    kept = KEPT / f"{who}-{length}-{args.dtype}-{args.layers or 'all'}-{args.memory / GIGABYTE:g}.json"
    if kept.is_file() and not args.again:
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    name, python = script_of(who)
    done = watch(
        [str(python), "-s", str(SCRIPTS / f"{name}_peer.py")], with_rows(args, who, length, [ids[:length]], turns=False),
        limit_bytes=args.memory, environment={**os.environ, "OMP_NUM_THREADS": str(args.threads)},
    )  # fmt: skip
    if not done.fits and not done.too_large:
        raise SystemExit(f"{who} at {length} failed:\n{done.words}")
    row = {
        "who": who, "length": length, "fits": done.fits, "ended": done.ended, "peak_bytes": done.peak_bytes,
        "wall_seconds": round(done.seconds, 1),
        **{name: done.answer.get(name) for name in ("seconds", "cpu_seconds", "loss")},
    }  # fmt: skip
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return row


def ladder(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each side's rungs up to the first that does not fit."""
    rungs = [parse_length(text) for text in args.rungs.split(",")]
    ids = ids_of(args, max(rungs))
    rows = []
    for who in args.who:
        climbed: list[dict[str, Any]] = []
        for length in [one for one in rungs if one >= min(FIRST.get(who, 0), max(rungs))]:
            climbed.append(rung(args, who, length, ids))
            print(json.dumps(climbed[-1]), flush=True)
            if not climbed[-1]["fits"]:
                break
        rows.append(summary(who, climbed, args))
    return rows


def summary(who: str, climbed: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """A side's longest rung, and what a token costs."""
    fits = [one for one in climbed if one["fits"]]
    cost = None
    if len(fits) > 1:
        low, high = fits[-2:]
        cost = (high["peak_bytes"] - low["peak_bytes"]) / (high["length"] - low["length"])
    return {
        "what": f"longest row, one step, {args.dtype}, {args.memory / GIGABYTE:g} GB", "who": who,
        "longest": max((one["length"] for one in fits), default=0), "bytes_per_token": cost, "rungs": climbed,
        "goal": GOALS["ladder"],
    }  # fmt: skip


def at_length(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Steps of each side in turn."""
    length, steps = args.length, args.repeats + 1
    ids = ids_of(args, length * steps)
    rows = [ids[start : start + length] for start in range(0, length * steps, length)]
    told: dict[str, list[dict[str, Any]]] = {who: [] for who in args.who}
    with ExitStack() as stack:
        peers = {}
        for who in args.who:
            name, python = script_of(who)
            peers[who] = stack.enter_context(Peer(name, python, with_rows(args, who, length, rows, turns=True)))
        for _ in range(steps):
            for who, peer in peers.items():
                told[who].append(peer.run())
                print(who, json.dumps(told[who][-1]), flush=True)
        versions = {who: peer.first["version"] for who, peer in peers.items()}
    found = {who: side(rows[1:], length, versions[who]) for who, rows in told.items()}
    ours = found[args.who[0]]
    return [
        {
            "what": f"training step, {length} tokens, {args.dtype}, {args.layers or 'all'} layers", "who": who, **one,
            "peak_ratio": ours["peak_bytes"] / one["peak_bytes"],
            "speed_ratio": ours["tokens_per_second"] / one["tokens_per_second"], "goal": GOALS["length"],
        }
        for who, one in found.items()
    ]  # fmt: skip


def side(rows: list[dict[str, Any]], length: int, version: Any) -> dict[str, Any]:
    """A side's peak, its speed by the median step, and its losses."""
    seconds, busy = ([row[name] for row in rows] for name in ("seconds", "cpu_seconds"))
    return {
        "peak_bytes": max(row["resident_bytes"] for row in rows), "seconds": seconds, "cpu_seconds": busy,
        "tokens_per_second": length / statistics.median(seconds), "losses": [row["loss"] for row in rows],
        "version": version,
    }  # fmt: skip


def add_training(parser: argparse.ArgumentParser) -> None:
    """What training benchmarks are asked alike."""
    add_inputs(parser)
    parser.add_argument("--length", type=parse_length, default=8192)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, help="the first so many alone (default: all)")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trial", action="store_true", help="print only, write no result")


def main() -> None:
    """One part, written to `results/training-PART-DTYPE-SIDES.json` unless it is a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["ladder", "length"], required=True)
    add_training(parser)
    parser.add_argument("--who", default="ours,hf,hf-checkpointed,trl", help=f"of {', '.join(SIDES)}")
    parser.add_argument("--rungs", default=RUNGS)
    parser.add_argument("--memory", type=parse_memory, default=24 * GIGABYTE)
    parser.add_argument("--again", action="store_true", help="measure rungs that are on disk anew")
    args = parser.parse_args()
    args.who = args.who.split(",")
    rows = ladder(args) if args.part == "ladder" else at_length(args)
    print(json.dumps(rows, indent=1))
    if not args.trial:
        asked = " ".join(sys.argv[1:])
        name = f"training-{args.part}-{args.dtype}-{'-'.join(args.who)}"
        print(write(name, f"python -m benchmarks.training_memory {asked}", rows))


if __name__ == "__main__":
    main()
