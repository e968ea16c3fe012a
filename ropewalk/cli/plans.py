"""`methods` and `inspect`: what there is to choose from, and what a checkpoint says of positions."""

import argparse
from typing import Any

from ropewalk.cli.options import LENGTH_HELP, add_json, add_lineage, print_json
from ropewalk.core.errors import near
from ropewalk.core.plurals import counted
from ropewalk.core.terminal import printable

LINEAGES = {
    "plain": "never stretched",
    "runtime": "stretched without training",
    "trained": "trained at its stretch",
    "unknown": "stretched, and nothing says whether it was trained so; say --lineage trained or runtime",
}
"""Lineage to what it means."""


def add_methods(verbs: Any) -> None:
    """The arguments of `methods`."""
    parser = verbs.add_parser("methods", help="list the methods with their options and papers")
    parser.add_argument("method", nargs="?", help="only this one, with its options explained")
    add_json(parser)
    parser.set_defaults(verb=run_methods)


def run_methods(args: argparse.Namespace) -> int:
    """`ropewalk methods [METHOD]`."""
    from ropewalk.core.errors import MethodError
    from ropewalk.core.method import describe, methods

    known = methods()
    if args.method and args.method not in known:
        raise MethodError(f"unknown method {args.method!r}; {near(args.method, known)}")
    chosen = [args.method] if args.method else list(known)
    described = [describe(known[name]) for name in chosen]
    if args.json:
        return print_json({"methods": described})
    if args.method:
        (one,) = described
        print(f"{one['id']}: {one['summary']}\n{one['paper']}\n")
        for option in one["options"]:
            print(f"  {option['name']} = {option['default']}\n      {option['help']}")
        return 0
    width = max(len(d["id"]) for d in described)
    for d in described:
        print(f"{d['id']:<{width}}  {d['summary']}")
        names = ", ".join(option["name"] for option in d["options"])
        print(f"{'':<{width}}  {d['paper']}" + (f"\n{'':<{width}}  options: {names}" if names else ""))
    return 0


def add_inspect(verbs: Any) -> None:
    """The arguments of `inspect`."""
    parser = verbs.add_parser("inspect", help="say what a checkpoint says of positions")
    parser.add_argument("source", help="folder, folder with only config.json, GGUF file, or hub id")
    add_lineage(parser)
    parser.add_argument(
        "--probe", action="store_true", help="run the model as it is on --text and measure where it stops reading"
    )
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="UTF-8 texts for --probe")
    parser.add_argument("--length", help=f"how far --probe looks (default: twice what the config says); {LENGTH_HELP}")
    parser.add_argument("--device", default="auto", help="of --probe: auto, cpu, cuda, ... (default auto)")
    parser.add_argument("--dtype", default="auto", help="of --probe: auto, float32, bfloat16, float16 (default auto)")
    add_json(parser)
    parser.set_defaults(verb=run_inspect)


def run_inspect(args: argparse.Namespace) -> int:
    """`ropewalk inspect SOURCE`."""
    from ropewalk.api.plans import geometry

    found = geometry(args.source, lineage=args.lineage)
    knee = _probe(args) if args.probe else None
    if args.json:
        return print_json(found.to_dict() | ({} if knee is None else {"probe": knee.to_dict()}))
    model = printable(found.model_type, lines=False)
    heads = f"{counted(found.num_heads, 'head')} ({found.num_kv_heads} for keys)"
    print(f"{model}: {counted(found.num_layers, 'layer')}, {heads}, head dimension {found.head_dim}")
    scheme = "no scaling" if found.scheme == "default" else f"scaling {found.scheme}"
    print(f"{scheme}, lineage {found.lineage}: {LINEAGES[found.lineage]}")
    print(f"trained for {found.original_length} tokens, reads {found.trained_length}, declares {found.declared_length}")
    for group in found.groups:
        print(f"  {group.label}: {counted(len(group.layers), 'layer')}, {_group_words(group, found.trained_length)}")
    for finding in found.findings:
        print(printable(f"{finding.severity}: {finding.field}: {finding.problem}; {finding.mend}"))
    if knee is not None:
        print(f"probe: {knee.words(found.trained_length)} (harm above {knee.margin} nats, "
              f"{knee.num_documents} {'text' if knee.num_documents == 1 else 'texts'})")  # fmt: skip
        for point in knee.points:
            interval = "no interval" if point.low is None else f"[{point.low:+.3f}, {point.high:+.3f}]"
            print(f"  {point.length:>7} tokens: {point.harm:+.3f} {interval} nats against a tail of 1024")
    return 0


def _probe(args: argparse.Namespace) -> Any:
    from ropewalk.api.probing import probe
    from ropewalk.core.errors import InputError

    if not args.text:
        raise InputError("--probe reads texts; give --text FILE with a text of at least twice the trained length")
    return probe(args.source, text=args.text, length=args.length, device=args.device, dtype=args.dtype)


def _group_words(group: Any, length: int) -> str:
    if not group.rotated:
        return "no positions"
    from ropewalk.core.geometry import rotations

    turns = rotations(group.inv_freq, length)
    words = f"{group.position}, {group.rotary_dim} of {group.head_dim} dimensions rotated ({group.layout}), "
    words += "no single base" if group.base is None else f"base {group.base:g}"
    words += f", {int((turns >= 1).sum())} of {turns.size} pairs turn at least once in {length} tokens"
    if group.attention_factor != 1.0:
        words += f", attention factor {group.attention_factor:.4f}"
    if group.logit_scale != 1.0:
        words += f", logit scale {group.logit_scale:.4f}"
    return words + (f", sliding window {group.window}" if group.window else "")
