"""A retrieval map from one prefill against stand-alone prompts through stock `generate`: time, and the same answers.

    python -m benchmarks.retrieval_map [--part grow|fixed] [--dtype bfloat16] [--lengths 1k,2k,...] [--depths 11]
                                       [--budget N] [--model DIR] [--text FILE]

- `grow`: 11 depths by 8 lengths to 8,192 tokens, one haystack, one prefill, a tree of questions at each length.
- `fixed`: the same map from 8 haystacks, one for each length, one prefill each.

Each against the very same 88 prompts, one `model.generate` each, which is what a user without ropewalk does. Ours also
ranks each answer among five. The peer generates as many tokens as the answer has, or `--budget`. The needle's five digits
are right in ours when each is the first choice, in the peer's when the generated ids begin with them.

The model is the demo's (`make demo` makes it, or `python -m examples.demo`).
"""

import argparse
import json
import sys
import time
from typing import Any

from benchmarks.common import add_inputs, write

GOALS = {"grow": 20, "fixed": 8}
REPEATS = 3
"""How often ours runs: at the start, in the middle and at the end, so that a busy minute cannot favour it."""


def haystacks(args: argparse.Namespace, tokenizer: Any) -> list[Any]:
    """One growing haystack, or one for each length."""
    import numpy as np

    from ropewalk.data.documents import read_documents
    from ropewalk.data.tasks.encoding import Encoder
    from ropewalk.data.tasks.task import Ask, find_task

    document = read_documents([args.text], tokenizer, 4 * args.lengths[-1])[0]
    filler = np.asarray(document.ids[document.prefix.size :])
    depths = tuple((index + 0.5) / args.depths for index in range(args.depths))
    stages = [args.lengths] if args.part == "grow" else [(length,) for length in args.lengths]
    encoder = Encoder(tokenizer=tokenizer, prefix=document.prefix)
    return [
        find_task("needle").build(Ask(encoder=encoder, lengths=tuple(lengths), depths=depths, seed=args.seed, filler=filler))
        for lengths in stages
    ]


def ours(forward: Any, tokenizer: Any, stacks: list[Any]) -> list[Any]:
    """Answers to all questions of all haystacks."""
    from ropewalk.measure.answering.local import answer_all

    return [answer for stack in stacks for answer in answer_all(forward, tokenizer, stack)]


def stock(model: Any, stack: Any, question: Any, budget: int | None) -> bool:
    """Whether stock generation begins with the answer."""
    import numpy as np
    import torch

    ids = np.concatenate([stack.context[: stack.cuts[question.stage]], question.question])
    out = model.generate(
        torch.from_numpy(ids)[None],
        attention_mask=torch.ones(1, ids.size, dtype=torch.long),
        max_new_tokens=budget or int(question.answer.size),
        do_sample=False,
        pad_token_id=0,
    )
    said = out[0, ids.size :].numpy()
    return bool(np.array_equal(said[: question.answer.size], question.answer))


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours in three runs around the peer's prompts."""
    import ropewalk
    from ropewalk.measure.forward import Forward

    model, tokenizer = ropewalk.load(args.model, dtype=args.dtype, device="cpu")
    stacks, forward = haystacks(args, tokenizer), Forward(model)
    asked = [(stack, question) for stack in stacks for question in stack.questions]
    ours(forward, tokenizer, haystacks(argparse.Namespace(**{**vars(args), "lengths": args.lengths[:1]}), tokenizer))
    mine: list[Any] = []
    theirs: list[bool] = []
    runs: list[tuple[float, float]] = []
    peer = [0.0, 0.0]
    for index, (stack, question) in enumerate(asked):
        if index in (0, len(asked) // 2, len(asked) - 1):
            began = (time.perf_counter(), time.process_time())
            mine = ours(forward, tokenizer, stacks)
            runs.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        began = (time.perf_counter(), time.process_time())
        theirs.append(stock(model, stack, question, args.budget))
        peer = [peer[0] + time.perf_counter() - began[0], peer[1] + time.process_time() - began[1]]
        print(f"  prompt {index + 1} of {len(asked)}, {peer[0]:.0f} s", file=sys.stderr)
    wall, busy = (sorted(run[which] for run in runs)[REPEATS // 2] for which in (0, 1))
    return [
        {
            "what": f"retrieval map, {args.part}: {args.depths} depths by {len(args.lengths)} lengths to {args.lengths[-1]} "
            f"tokens, {args.dtype}",
            "ours": "one prefill, questions with five candidates each as trees" if args.part == "grow" else
            "one prefill a length, questions with five candidates each as trees",
            "peer": f"{len(asked)} stand-alone prompts, stock generate, {args.budget or 'as many tokens as the answer has'}",
            "ours_seconds": wall,
            "ours_runs_seconds": [run[0] for run in runs],
            "peer_seconds": peer[0],
            "ratio": peer[0] / wall,
            "processor_time_ratio": peer[1] / busy,
            "num_prompts": len(asked),
            "ours_exact": sum(answer.exact for answer in mine),
            "peer_exact": sum(theirs),
            "flips": [
                {"stage": q.stage, "length": s.lengths[q.stage], "depth": q.depth, "key": q.key, "ours": a.exact, "peer": b}
                for (s, q), a, b in zip(asked, mine, theirs, strict=True) if a.exact != b
            ],
            "goal": f"ratio at least {GOALS[args.part]}, the same answers",
        }
    ]  # fmt: skip


def length(text: str) -> int:
    """`1k` is 1,024."""
    return int(text[:-1]) * 1024 if text.endswith("k") else int(text)


def main() -> None:
    """Runs the parts asked for and writes one result file for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="all", choices=["all", *GOALS])
    add_inputs(parser)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lengths", default=",".join(f"{n}k" for n in range(1, 9)))
    parser.add_argument("--depths", type=int, default=11)
    parser.add_argument("--budget", type=int, help="tokens that the peer generates (default: the answer's own)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    asked = f"--dtype {args.dtype} --lengths {args.lengths} --depths {args.depths}"
    asked += f" --budget {args.budget}" if args.budget else ""
    lengths = tuple(length(text) for text in args.lengths.split(","))
    for part in GOALS if args.part == "all" else [args.part]:
        rows = measured(argparse.Namespace(**{**vars(args), "part": part, "lengths": lengths}))
        stem = f"retrieval-map-{part}-{args.dtype}-{args.depths}x{len(lengths)}-{lengths[-1]}"
        path = write(stem, f"python -m benchmarks.retrieval_map --part {part} {asked}", rows)
        print(json.dumps(rows, indent=1))
        print(f"written: {path}")


if __name__ == "__main__":
    main()
