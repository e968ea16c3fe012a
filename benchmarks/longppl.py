"""LongPPL beside its authors' package: the same key tokens, the same value, and the memory each way takes.

    pip install --no-deps --target FOLDER longppl==0.3.0
    python -m benchmarks.longppl --package FOLDER [--length 2048] [--context 512] [--shared 128] [--text FILE]

Both read the same text with the demo's model (`make demo` leaves both in `runs/inputs`), in float32, evaluator and subject
the same. The package makes the logits of the whole text, ours a chunk at a time. Each way runs in a process of its own; the
peak is that of the process, and what loading alone takes is told beside it.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import add_inputs, child, resident_peak_bytes, write


def loaded(args: argparse.Namespace) -> tuple[Any, Any, str]:
    """Model, tokenizer, and a text whose tokens are `length` and come back from their decoding."""
    import ropewalk
    from ropewalk.data.documents import read_documents

    model, tokenizer = ropewalk.load(args.model, dtype="float32", device="cpu")
    text = tokenizer.decode(read_documents([args.text], tokenizer, args.length)[0].ids[: args.length])
    return model, tokenizer, text


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """The count and the value by `ropewalk.measure.key_tokens`."""
    import numpy as np
    import torch

    from ropewalk.core.progress import Progress
    from ropewalk.measure.forward import Forward
    from ropewalk.measure.key_tokens import mark, short_nll, short_windows
    from ropewalk.measure.probes import KeyTokens

    model, tokenizer, text = loaded(args)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    forward, began = Forward(model), time.perf_counter()
    long = forward.nll(forward.hidden(ids)[:-1], ids[1:]).numpy()
    short = short_nll(forward, ids, short_windows(len(ids), args.context, args.shared), Progress())
    keys = mark(long, short, KeyTokens(alpha=args.alpha))
    return told(began, int(keys.sum()), float(np.exp(long[keys].mean())))


def package(args: argparse.Namespace) -> dict[str, Any]:
    """The count and the value by the package."""
    sys.path.insert(0, str(args.package))
    from longppl.longppl import compute_longppl

    model, tokenizer, text = loaded(args)
    began = time.perf_counter()
    found = compute_longppl(
        text, model, model, tokenizer, tokenizer, trunc_len=args.context, sliding_window=args.shared, alpha=args.alpha
    )
    return told(began, int(found["n_key_token"] or 0), float(found["longppl"] or "nan"))


def told(began: float, count: int, value: float) -> dict[str, Any]:
    return {
        "seconds": time.perf_counter() - began, "key_tokens": count, "longppl": value, "peak_bytes": resident_peak_bytes()
    }  # fmt: skip


def load_only(args: argparse.Namespace) -> dict[str, Any]:
    """What loading takes."""
    loaded(args)
    return {"peak_bytes": resident_peak_bytes()}


PARTS = {"ours": ours, "package": package, "load": load_only}


def main() -> None:
    """Each way in its own process, side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    add_inputs(parser)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--shared", type=int, default=128)
    parser.add_argument("--alpha", type=float, default=2.0)
    parser.add_argument("--child", choices=PARTS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(PARTS[args.child](args)))
        return
    given = [
        text
        for name in ("package", "model", "text", "length", "context", "shared", "alpha")
        for text in (f"--{name}", str(getattr(args, name)))
    ]
    found = {part: child("benchmarks.longppl", *given, "--child", part) for part in PARTS}
    mine, theirs, base = found["ours"], found["package"], found["load"]["peak_bytes"]
    row = {
        "what": f"LongPPL of {args.length} tokens, float32, K {args.context}, d {args.shared}, alpha {args.alpha:g}",
        "ours": mine, "peer": theirs, "loaded_bytes": base,
        "same_count": mine["key_tokens"] == theirs["key_tokens"],
        "relative_difference": abs(mine["longppl"] / theirs["longppl"] - 1.0),
        "peak_ratio": theirs["peak_bytes"] / mine["peak_bytes"],
        "above_loading_ratio": (theirs["peak_bytes"] - base) / max(1, mine["peak_bytes"] - base),
        "goal": "same count, value to 1e-4, at least 3 times less peak memory",
    }  # fmt: skip
    asked = f"--length {args.length} --context {args.context} --shared {args.shared} --alpha {args.alpha:g}"
    path = write("longppl", f"python -m benchmarks.longppl --package FOLDER {asked}", [row])
    print(json.dumps(row, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
