"""A retrieval map from one prefill against the peers that reuse a cache: kvpress's pipeline, and vLLM with its prefix cache.

    python -m venv runs/peers/kvpress
    runs/peers/kvpress/bin/pip install kvpress==0.5.5 torch==2.13.0
    python -m benchmarks.retrieval_peers --peer kvpress [--part grow|fixed] [--dtype bfloat16] [--lengths 1k,2k,...]
    python -m benchmarks.retrieval_peers --peer vllm [--part grow|fixed] [--block 32] [--compile]

The same 88 prompts as `benchmarks.retrieval_map`, by token ids, the same number of new tokens, loads left out. kvpress reads
one context for each length and asks its 11 questions; vLLM is given all prompts in branch order. Ours and the peer take
turns, three runs each, after a warm-up on the shortest length; medians are compared. Ours is timed in both ways of scoring,
`generate`, which decodes as many tokens as the peer, and `forced`, which reads the answer instead; each answer is ranked
among five, which the peers do not do, and in the ways named `unranked` it is not. Each answer of `forced` that differs from
the peer's is looked at in `flips.py`.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import add_inputs, write
from benchmarks.flips import explained
from benchmarks.peer import Peer, job_of
from benchmarks.retrieval_map import haystacks, length

GOALS = {
    "kvpress": "at least 2 times less wall time, the same answers",
    "vllm": "equal: a ratio of at least 1, the same answers",
}
HOW = {
    "kvpress": "one context a length, its questions one after another, no press",
    "vllm": "every prompt whole, in branch order, prefix cache on, all handed over at once",
}
WAYS = ("generate", "forced", "generate-unranked", "forced-unranked")
"""Ours: the scoring, and whether each answer is also ranked among five, which the peers do not do."""


def ours(forward: Any, tokenizer: Any, stacks: list[Any], way: str) -> tuple[float, float, list[Any]]:
    """Seconds, processor seconds and answers to all questions."""
    from ropewalk.measure.answering.local import answer_all

    scoring: Any = way.split("-")[0]
    stacks = [unranked(stack) for stack in stacks] if way.endswith("unranked") else stacks
    wall, busy = time.perf_counter(), time.process_time()
    found = [answer for stack in stacks for answer in answer_all(forward, tokenizer, stack, scoring=scoring)]
    return time.perf_counter() - wall, time.process_time() - busy, found


def unranked(stack: Any) -> Any:
    """The same haystack with nothing to rank answers among."""
    return replace(stack, questions=tuple(replace(question, candidates=()) for question in stack.questions))


def peer_of(args: argparse.Namespace, stacks: list[Any]) -> Peer:
    """The peer, ready."""
    from ropewalk.hosts.executed import python_of

    python = args.python if args.peer == "kvpress" else python_of("vllm")
    if python is None or not python.exists():
        raise SystemExit(f"{args.peer} is not installed; see the commands in this file or `python tools/engines.py vllm`")
    settings = {
        "enforce_eager": not args.compile, "block_size": args.block, "max_num_batched_tokens": args.batched,
        "max_num_seqs": 128,
    }  # fmt: skip
    job = job_of(stacks, checkpoint=str(args.model.absolute()), dtype=args.dtype, threads=args.threads, settings=settings)
    return Peer(args.peer, python.absolute(), job)


def says(said: Any, question: Any, tokenizer: Any) -> bool:
    """Whether a peer's answer, text or ids, begins with the right one."""
    text = said if isinstance(said, str) else tokenizer.decode(said)
    return str(text).startswith(tokenizer.decode(question.answer.tolist()))


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Ours and the peer in turns."""
    import torch

    import ropewalk
    from ropewalk.measure.forward import Forward

    torch.set_num_threads(args.threads)
    model, tokenizer = ropewalk.load(args.model, dtype=args.dtype, device="cpu")
    stacks, forward = haystacks(args, tokenizer), Forward(model)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in (*WAYS, "peer")}
    found: dict[str, list[Any]] = {}
    with peer_of(args, stacks) as peer:
        peer.run("warm")
        small = haystacks(argparse.Namespace(**{**vars(args), "lengths": args.lengths[:1]}), tokenizer)
        for way in WAYS:
            ours(forward, tokenizer, small, way)
        for _ in range(args.repeats):
            for way in WAYS:
                wall, busy, found[way] = ours(forward, tokenizer, stacks, way)
                runs[way].append((wall, busy))
            told = peer.run()
            found["peer"] = told["said"]
            runs["peer"].append((told["seconds"], told["cpu_seconds"]))
            print("  " + ", ".join(f"{name} {one[-1][0]:.1f} s" for name, one in runs.items()), file=sys.stderr)
        version = peer.version
    asked = [(stack, question) for stack in stacks for question in stack.questions]
    theirs = [
        says(said, question, tokenizer) for (_, question), said in zip(asked, ordered(asked, found["peer"]), strict=True)
    ]
    return row(args, version, runs, [one.exact for one in found["forced"]], theirs) | {
        "exact": {way: sum(one.exact for one in found[way]) for way in WAYS},
        "flips": flips(args, model, asked, found["forced"], theirs),
    }


def ordered(asked: list[Any], said: list[Any]) -> list[Any]:
    """What was said, in the order of the questions; peers go through a haystack stage by stage."""
    places, begin = [], 0
    for stack in dict.fromkeys(stack for stack, _ in asked):
        stages = [question.stage for question in stack.questions]
        places += [begin + index for index in sorted(range(len(stages)), key=stages.__getitem__)]
        begin += len(stages)
    return [one for _, one in sorted(zip(places, said, strict=True), key=lambda pair: pair[0])]


def row(args: argparse.Namespace, version: str, runs: Any, mine: list[bool], theirs: list[bool]) -> dict[str, Any]:
    """The numbers."""
    wall = {name: statistics.median(one[0] for one in some) for name, some in runs.items()}
    busy = {name: statistics.median(one[1] for one in some) for name, some in runs.items()}
    return {
        "what": f"retrieval map, {args.part}: {args.depths} depths by {len(args.lengths)} lengths to {args.lengths[-1]} "
        f"tokens, {args.dtype}",
        "peer": f"{HOW[args.peer]}; {version}",
        "settings": {"block": args.block, "batched": args.batched, "compile": args.compile} if args.peer == "vllm" else {},
        "seconds": wall,
        "runs_seconds": {name: [one[0] for one in some] for name, some in runs.items()},
        "ratio": {way: wall["peer"] / wall[way] for way in WAYS},
        "processor_time_ratio": {way: busy["peer"] / busy[way] for way in WAYS},
        "num_prompts": len(mine), "ours_exact": sum(mine), "peer_exact": sum(theirs), "goal": GOALS[args.peer],
    }  # fmt: skip


def flips(
    args: argparse.Namespace, model: Any, asked: list[Any], mine: list[Any], theirs: list[bool]
) -> list[dict[str, Any]]:
    """Each prompt whose answer is right on one side only, with how close the call was."""
    import numpy as np

    import ropewalk

    differ = [
        (stack, question, one.exact) for (stack, question), one, other in zip(asked, mine, theirs, strict=True)
        if one.exact != other
    ]  # fmt: skip
    exact = ropewalk.load(args.model, dtype="float32", device="cpu")[0] if differ else None
    told = []
    for stack, question, is_ours in differ:
        prompt = np.concatenate([stack.context[: stack.cuts[question.stage]], question.question])
        told.append({
            "length": stack.lengths[question.stage], "depth": question.depth, "key": question.key, "ours": is_ours,
            **explained(model, exact, prompt, question.answer),
        })  # fmt: skip
    return told


def main() -> None:
    """One race, one result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, choices=GOALS)
    parser.add_argument("--part", default="grow", choices=["grow", "fixed"])
    parser.add_argument("--python", type=Path, default=Path("runs/peers/kvpress/bin/python"), help="kvpress's Python")
    add_inputs(parser)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lengths", default=",".join(f"{n}k" for n in range(1, 9)))
    parser.add_argument("--depths", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--block", type=int, default=32, help="vLLM: tokens of a cache block")
    parser.add_argument("--batched", type=int, default=4096, help="vLLM: most tokens of one forward")
    parser.add_argument("--compile", action="store_true", help="vLLM: compiled instead of eager")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    given = f"--peer {args.peer} --part {args.part} --dtype {args.dtype} --lengths {args.lengths} --depths {args.depths}"
    if args.peer == "vllm":
        given += f" --block {args.block} --batched {args.batched}" + (" --compile" if args.compile else "")
    args.lengths = tuple(length(text) for text in args.lengths.split(","))
    found = measured(args)
    variant = f"-block{args.block}" + ("-compiled" if args.compile else "") if args.peer == "vllm" else ""
    stem = f"retrieval-{args.peer}-{args.part}-{args.dtype}-{args.depths}x{len(args.lengths)}-{args.lengths[-1]}{variant}"
    path = write(stem, f"python -m benchmarks.retrieval_peers {given}", [found])
    print(json.dumps(found, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
