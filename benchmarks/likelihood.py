"""Likelihood in one pass against the ways in use: time, memory, and the same numbers.

    python -m benchmarks.likelihood [--part curve|call|memory] [--dtype float32] [--points 64] [--model DIR] [--text FILE]

- `curve`: perplexity at 64 lengths up to 8,192 tokens, float32: one pass of ours against 64 truncated passes of the stock
  model with labels, which is what YaRN's evaluation does for its figure.
- `call`: our NLL of every token against one stock `model(ids)` of the same 8,192 tokens, logits included, in turn.
- `memory`: peak resident memory of scoring 16,384 tokens in bfloat16, each way in a process of its own.

The model is the demo's (`make demo` makes it, or `python -m examples.demo`).
"""

import argparse
import json
import sys
import time
from typing import Any

from benchmarks.common import add_inputs, child, resident_peak_bytes, write

NUM_POINTS = 64


def load(args: argparse.Namespace, dtype: str, length: int) -> tuple[Any, Any]:
    """The model and the first `length` token ids of the text."""
    import torch

    import ropewalk
    from ropewalk.data.documents import read_documents

    model, tokenizer = ropewalk.load(args.model, dtype=dtype, device="cpu")
    return model, torch.from_numpy(read_documents([args.text], tokenizer, length)[0].ids[:length])


def opened(model: Any) -> Any:
    """Decoder and head apart, made and checked once for a model."""
    from ropewalk.measure.forward import Forward

    return Forward(model)


def ours(forward: Any, ids: Any) -> Any:
    """NLL of every token, one pass, chunked head."""
    return forward.nll(forward.hidden(ids)[:-1], ids[1:])


def curve(args: argparse.Namespace) -> list[dict[str, Any]]:
    """64 points, one pass against 64."""
    import torch

    model, ids = load(args, args.dtype or "float32", args.length)
    forward = opened(model)
    ours(forward, ids[:256])
    mine: list[float] = []
    theirs: list[float] = []
    ours_runs: list[float] = []
    peer_seconds = 0.0
    for index, n in enumerate(lengths(args)):
        # Ours runs at the start, in the middle and at the end, so that a busy minute cannot favour it.
        if index in (0, args.points // 2, args.points - 1):
            began = time.perf_counter()
            nll = ours(forward, ids)
            mine = [float(nll[: m - 1].double().mean()) for m in lengths(args)]
            ours_runs.append(time.perf_counter() - began)
        began = time.perf_counter()
        with torch.inference_mode():
            theirs.append(float(model(input_ids=ids[None, :n], labels=ids[None, :n], use_cache=False).loss))
        peer_seconds += time.perf_counter() - began
        print(f"  pass {index + 1} of {args.points}, {peer_seconds:.0f} s", file=sys.stderr)
    ours_seconds = sorted(ours_runs)[1]
    worst = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
    return [
        {
            "what": f"perplexity at {args.points} lengths to {args.length} tokens, {args.dtype or 'float32'}",
            "ours": "one pass, prefix means",
            "peer": f"{args.points} truncated passes of stock transformers with labels (YaRN's way)",
            "ours_seconds": ours_seconds,
            "ours_runs_seconds": ours_runs,
            "peer_seconds": peer_seconds,
            "ratio": peer_seconds / ours_seconds,
            "largest_difference_nats": worst,
            "goal": "ratio at least 20 for 64 points, difference at most 1e-4 in float32",
        }
    ]


def lengths(args: argparse.Namespace) -> list[int]:
    """The lengths of the curve."""
    return [args.length * (index + 1) // args.points for index in range(args.points)]


def call(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One pass of ours against one stock call, in turn; medians of pairwise ratios."""
    import torch

    rows = []
    for dtype in [args.dtype] if args.dtype else ["float32", "bfloat16"]:
        model, ids = load(args, dtype, args.length)
        pairs, busy, forward = [], [], opened(model)
        for _ in range(args.repeats):
            clocks = [(time.perf_counter(), time.process_time())]
            ours(forward, ids)
            clocks.append((time.perf_counter(), time.process_time()))
            with torch.inference_mode():
                model(input_ids=ids[None], use_cache=False)
            clocks.append((time.perf_counter(), time.process_time()))
            (a, b, c) = clocks
            pairs.append((b[0] - a[0], c[0] - b[0]))
            busy.append((b[1] - a[1]) / (c[1] - b[1]))
        ratios = sorted(a / b for a, b in pairs)
        rows.append(
            {
                "what": f"NLL of every token of {args.length}, {dtype}",
                "ours": "one pass, chunked head, NLL",
                "peer": "stock model(ids), logits only",
                "ours_seconds": sorted(a for a, _ in pairs)[len(pairs) // 2],
                "peer_seconds": sorted(b for _, b in pairs)[len(pairs) // 2],
                "ratio": ratios[len(ratios) // 2],
                "ratios": ratios,
                "processor_time_ratio": sorted(busy)[len(busy) // 2],
                "goal": "ratio (ours / peer) at most 1.1",
            }
        )
    return rows


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak resident memory of each way, each in its own process."""
    common = ["--model", str(args.model), "--text", str(args.text), "--length", str(2 * args.length), "--part"]
    loaded, mine, naive = (child("benchmarks.likelihood", *common, f"child-{way}") for way in ("load", "ours", "naive"))
    return [
        {
            "what": f"peak resident memory of scoring {2 * args.length} tokens, bfloat16",
            "ours": "one pass, chunked head",
            "peer": "stock model(ids, labels), full logits",
            "loaded_bytes": loaded["peak_bytes"],
            "weights_bytes": loaded["weights_bytes"],
            "layer_bytes": loaded["layer_bytes"],
            "ours_bytes": mine["peak_bytes"],
            "peer_bytes": naive["peak_bytes"],
            "ours_above_loaded_bytes": mine["peak_bytes"] - loaded["peak_bytes"],
            "ratio": naive["peak_bytes"] / mine["peak_bytes"],
            "goal": "ours within 1 GB of the weights plus one layer's working set",
        }
    ]


def one_way(args: argparse.Namespace) -> None:
    """The child's side of `memory`."""
    import torch

    model, ids = load(args, "bfloat16", args.length)
    config = model.config
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # One layer holds its input, queries, keys, values and the two halves of the feed-forward part, in bfloat16.
    width = 4 * config.hidden_size + 3 * config.intermediate_size
    if args.part == "child-ours":
        ours(opened(model), ids)
    elif args.part == "child-naive":
        with torch.inference_mode():
            model(input_ids=ids[None], labels=ids[None], use_cache=False)
    content = {
        "peak_bytes": resident_peak_bytes(),
        "weights_bytes": weights,
        "layer_bytes": 2 * width * args.length,
    }
    print(json.dumps(content))


def main() -> None:
    """Runs the parts asked for and writes one result file for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="all")
    add_inputs(parser)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", help="float32 or bfloat16 (default: float32 for the curve, both for the call)")
    parser.add_argument("--points", type=int, default=NUM_POINTS, help="of the curve")
    args = parser.parse_args()
    if args.part.startswith("child-"):
        one_way(args)
        return
    parts = {"call": call, "memory": memory, "curve": curve}
    for name, part in parts.items():
        if args.part in ("all", name):
            rows = part(args)
            asked = (
                f" --dtype {args.dtype or 'float32'} --points {args.points}"
                if name == "curve"
                else f" --repeats {args.repeats}"
            )
            stem = f"likelihood-{name}" + (
                f"-{args.dtype or 'float32'}-{args.points}" if name == "curve" else f"-{args.dtype}" if args.dtype else ""
            )
            path = write(stem, f"python -m benchmarks.likelihood --part {name}{asked}", rows)
            print(json.dumps(rows, indent=1))
            print(f"written: {path}")


if __name__ == "__main__":
    main()
