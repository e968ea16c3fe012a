"""A whole training step with shifted sparse attention against one with full attention: seconds, and the limit by arithmetic.

    python -m benchmarks.shifted [--length 16384] [--dtype bfloat16] [--repeats 2] [--group 0.25] [--model DIR] [--text FILE]

A step is forward, backward and AdamW over one row of one document, every layer checkpointed, the loss from chunks of
logits. Both kinds of step are the same program (`ropewalk.attention.registered.put_on` with and without `Shifted`), run in
turn in one process after a short step of each; without it the row is one causal `scaled_dot_product_attention`. Positions
stand as the model has them: a step takes as long whatever they are. `cpu_seconds`, the processor's own, stay comparable on
a machine that others use.

The limit is the ratio of the operations that the two steps must do: 8 for each weight of the layers and token (forward,
again for the checkpoint, and twice backward), 6 for the head, and 18 for each pair of tokens that attend and dimension of a
head (4 forward, 4 again, 10 backward, the fused kernel's own second computation included). It bounds the time only where all
operations run equally fast: on cores with bfloat16 units attention is slower than linear layers, and the ratio may pass it.
"""

import argparse
import json
import time
from typing import Any

from benchmarks.common import add_inputs, resident_peak_bytes, write

GOAL = 1.7
FULL = "full"
SHIFTED = "s2"


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model, ready to be trained, and the ids [1, T] of a row."""
    import torch

    import ropewalk
    from ropewalk.data.documents import read_documents

    torch.manual_seed(0)
    model, tokenizer = ropewalk.load(args.model, dtype=args.dtype, device="cpu")
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    ids = torch.from_numpy(read_documents([args.text], tokenizer, args.length)[0].ids[: args.length])
    return model, ids[None].long()


def step(model: Any, optimizer: Any, row: Any, setting: Any) -> tuple[float, float, float]:
    """Seconds of one step, those of the processor alone, and the step's loss."""
    import torch

    from ropewalk.attention.registered import put_on
    from ropewalk.tune.loss import summed_loss

    began, busy = time.perf_counter(), time.process_time()
    with put_on(model, setting and setting.at(row.shape[1])):
        document = torch.zeros_like(row)
        hidden = model.get_decoder()(row, document_ids=document, use_cache=False).last_hidden_state
        # Our own loop: torch 2.13's operator took 60 times longer in bfloat16 on a CPU, and would hide the rest.
        loss = summed_loss(hidden, row, model.get_output_embeddings().weight, own_loop=True) / (row.shape[1] - 1)
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began, time.process_time() - busy, float(loss.detach())


def num_pairs(parts: Any) -> float:
    """Pairs of tokens that attend, of a head on average."""
    lengths = [[sum(end - start for start, end in segment) for segment in part] for part in parts]
    return sum(length * (length + 1) / 2 for part in lengths for length in part) / len(parts)


def operations(model: Any, length: int, setting: Any) -> dict[str, float]:
    """Operations of one step, by arithmetic."""
    layers = sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2)
    config = model.config
    parts = setting.parts([length], 0) if setting else [(((0, length),),)]
    pairs = num_pairs(parts) * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    linear = length * (8 * layers + 6 * config.vocab_size * config.hidden_size)
    return {"linear": float(linear), "attention": 18.0 * pairs, "all": linear + 18.0 * pairs}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Steps of each kind in turn."""
    import torch

    from ropewalk.attention.shifted import Shifted

    model, row = load(args)
    settings = {FULL: None, SHIFTED: Shifted(group=args.group)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
    for setting in settings.values():
        step(model, optimizer, row[:, :256], setting)
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in settings}
    losses: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(args.repeats):
        for name, setting in settings.items():
            taken, busy, loss = step(model, optimizer, row, setting)
            seconds[name].append(round(taken, 2))
            cpu_seconds[name].append(round(busy, 2))
            losses[name].append(round(loss, 4))
            print(f"{name}: {taken:.1f} s ({busy:.1f} s of processor time), loss {loss:.4f}", flush=True)
    needed = {name: operations(model, args.length, setting) for name, setting in settings.items()}
    return {
        "what": f"training step, SmolLM2-135M, {args.length} tokens, {args.dtype}, checkpointed, groups of {args.group:g}",
        "seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses, "peak_bytes": resident_peak_bytes(),
        "ratio": min(seconds[FULL]) / min(seconds[SHIFTED]), "goal": GOAL,
        "cpu_ratio": min(cpu_seconds[FULL]) / min(cpu_seconds[SHIFTED]),
        "operations": needed, "limit": needed[FULL]["all"] / needed[SHIFTED]["all"],
    }  # fmt: skip


def main() -> None:
    """Both kinds side by side, written to `results/shifted.json` at the full length."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_inputs(parser)
    parser.add_argument("--length", type=int, default=16_384)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--group", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trial", action="store_true", help="print only, write no result")
    args = parser.parse_args()
    row = compare(args)
    print(json.dumps(row, indent=1))
    if not args.trial:
        asked = f"--length {args.length} --dtype {args.dtype} --repeats {args.repeats} --group {args.group:g}"
        print(f"written: {write('shifted', f'python -m benchmarks.shifted {asked}', [row])}")


if __name__ == "__main__":
    main()
