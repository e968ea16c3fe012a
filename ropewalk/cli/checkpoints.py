"""`convert` and `extend`: verbs that write a checkpoint, or say how to launch an engine without writing one."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from ropewalk.cli.options import FORCE_CHECKPOINT, LENGTH_HELP, add_json, add_lineage, print_card, print_json


def add_convert(verbs: Any) -> None:
    """The arguments of `convert`."""
    parser = verbs.add_parser("convert", help="make a transformers folder of a GGUF file, RoPE scaling kept")
    parser.add_argument("source", help="a GGUF file")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--dtype", default="float32", help="of the weights written (default float32)")
    parser.add_argument("--force", action="store_true", help=FORCE_CHECKPOINT)
    add_json(parser)
    parser.set_defaults(verb=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    """`ropewalk convert MODEL.gguf --out DIR`."""
    from ropewalk.api.checkpoints import convert
    from ropewalk.core.progress import Progress

    card = convert(args.source, args.out, dtype=args.dtype, force=args.force, progress=Progress())
    return print_card(card, args)


def add_extend(verbs: Any) -> None:
    """The arguments of `extend`."""
    parser = verbs.add_parser(
        "extend", help="write a checkpoint with a plan on, for stock transformers, vLLM, SGLang or llama.cpp"
    )
    parser.add_argument(
        "source",
        help="folder, folder with only config.json, or hub id, of which a folder is made; or a GGUF file, of which a GGUF "
        "file is made: the same tensors byte for byte, the plan in its header",
    )
    parser.add_argument("--method", required=True, help="such as yarn, or yarn:ramp=rotations,beta_fast=16")
    parser.add_argument("--length", required=True, help=LENGTH_HELP)
    parser.add_argument("--out", metavar="PATH", help="the folder to make, or of a GGUF file the file, such as other.gguf")
    add_lineage(parser)
    parser.add_argument(
        "--freeze", action="store_true",
        help="of a plan that changes with the length of the text, such as dynamic:ntk, write the numbers for --length",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument(
        "--flags", choices=["vllm", "sglang", "llama.cpp", "transformers"],
        help="print the launch line that makes this engine compute the plan from the unchanged checkpoint, write nothing",
    )  # fmt: skip
    parser.add_argument(
        "--profiles", metavar="FACTORS", help="such as 1,2,4: print the smallest sufficient factor for each request length"
    )
    parser.add_argument("--text", nargs="+", metavar="FILE", help="with --profiles: measure what each costs in the window")
    parser.add_argument("--copy", action="store_true", help="copy the weights, where links to the source would do")
    parser.add_argument("--force", action="store_true", help=f"{FORCE_CHECKPOINT}; or a GGUF file that extend wrote")
    add_json(parser)
    parser.set_defaults(verb=run_extend)


def run_extend(args: argparse.Namespace) -> int:
    """`ropewalk extend SOURCE --method M --length N --out DIR`."""
    from ropewalk.api.checkpoints import extend, plan_to_write
    from ropewalk.api.launching import source_words
    from ropewalk.core.errors import OutputError
    from ropewalk.core.progress import Progress

    if args.flags is not None:
        return _flags(args)
    if args.profiles is not None:
        return _profiles(args)
    if args.text is not None:
        raise OutputError("--text is what --profiles are priced on; say --profiles 1,2,4 too, or leave it out")
    if args.dry_run:
        plan, found = plan_to_write(
            args.source, args.method, length=args.length, lineage=args.lineage, freeze=args.freeze
        )  # fmt: skip
        _say(source_words(found))
        return print_json(plan.to_dict()) if args.json else _print_plan(plan)
    if args.out is None:
        raise OutputError("extend needs a folder or file to make; say --out PATH, or --dry-run to see the plan")
    card = extend(
        args.source, args.method, length=args.length, out=args.out, lineage=args.lineage, freeze=args.freeze,
        force=args.force, copy=args.copy, progress=Progress(),
    )  # fmt: skip
    return print_card(card, args)


def _flags(args: argparse.Namespace) -> int:
    """The launch line alone on stdout; 1 where the engine would not compute the plan, 2 where no line says it."""
    from ropewalk.api.launching import launch_line, line_document, quoted

    line, verdict = launch_line(
        args.source, args.method, length=args.length, engine=args.flags, lineage=args.lineage, freeze=args.freeze
    )  # fmt: skip
    exact = verdict.status == "exact"
    if args.json:
        print_json(line_document(line, verdict))
    else:
        # A line that the engine would not compute is shown, but never where a shell would take it in.
        print(quoted(line), file=sys.stdout if exact else sys.stderr)
    _say(line.says)
    if not exact:
        print(f"ropewalk: with this line {line.engine} {verdict.status}: {verdict.reason}; {verdict.mend}", file=sys.stderr)
    return 0 if exact else 1


def _say(words: Iterable[str]) -> None:
    for said in words:
        print(said, file=sys.stderr)


def _profiles(args: argparse.Namespace) -> int:
    from ropewalk.api.launching import priced, profile_table, profiles

    rows = profiles(args.source, args.method, length=args.length, factors=args.profiles, lineage=args.lineage)
    if args.text is not None:
        rows = priced(args.source, rows, text=args.text, out=args.out, lineage=args.lineage, force=args.force)
    if args.json:
        return print_json({"method": args.method, "profiles": [row.to_dict() for row in rows]})
    print(profile_table(rows))
    return 0


def _print_plan(plan: Any) -> int:
    options = ", ".join(f"{key}={value}" for key, value in plan.options.items() if value is not None)
    # A stretch that is on without training may be planned smaller, from the origin.
    start = plan.trained_length if plan.length > plan.trained_length else plan.original_length
    print(f"{plan.method} ({plan.kind}): {start} to {plan.length} tokens, factor {plan.factor:g}")
    if options:
        print(f"options: {options}")
    for label, word in plan.groups.items():
        if word is None:
            print(f"  {label}: left alone")
            continue
        head = ", ".join(f"{x:.4e}" for x in word.inv_freq[:3])
        print(
            f"  {label}: {word.inv_freq.size} frequencies {head}, ..., {word.inv_freq[-1]:.4e}; "
            f"attention factor {word.attention_factor:.6g}, logit scale {word.logit_scale:.6g}"
        )
    return 0
