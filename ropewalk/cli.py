"""The command line: one thin function per verb. Results go to stdout, words to stderr, heavy imports into the verb.

Exit codes: 0 done; 1 a stated threshold was missed; 2 the input is wrong, with one sentence; 3 the machine gave up and
`--resume` goes on; 130 interrupted. A traceback is always our own mistake.
"""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ropewalk.core.errors import RopewalkError, near

DESCRIPTION = "Make a transformer language model read further than it was trained to, and show how far it really reads."
LENGTH_HELP = "tokens, such as 65536 or 64k (k = 1024)"
LINEAGE_HELP = "how the source came to the stretch its config carries: trained at it, or put on at runtime"


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one sentence and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(2, f"ropewalk: {message}; see {self.prog} --help\n")

    def options(self) -> list[str]:
        """Every long option it takes."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit code."""
    parser = make_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = verbs(parser)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        print(f"ropewalk: unknown verb {arguments[0]!r}; {near(arguments[0], known)}", file=sys.stderr)
        return 2
    args, rest = parser.parse_known_args(arguments)
    if rest:
        said = known.get(arguments[0], parser)
        tail = near(rest[0].partition("=")[0], said.options()) if rest[0].startswith("-") else "quote a name with spaces"
        said.error(f"{said.prog} does not take {rest[0]!r}; {tail}")
    if not hasattr(args, "verb"):
        parser.print_help()
        return 0
    # Libraries draw bars of their own over ours, terminal or not.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code: int = args.verb(args)
        sys.stdout.flush()
        return code
    except RopewalkError as error:
        print(f"ropewalk: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ropewalk: interrupted; what is finished is kept, and --resume goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing can be said to them any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _system(error)
    except MemoryError:
        print("ropewalk: out of memory; free some, or give a smaller --length, and run again", file=sys.stderr)
        return 3


def _system(error: OSError) -> int:
    """What the system refused, in a sentence. Checks come first everywhere; this is for what changes after them."""
    where = f" ({error.filename})" if error.filename else ""
    print(f"ropewalk: {error.strerror or error}{where}; mend that and run the command again", file=sys.stderr)
    return 3 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM) else 2


def verbs(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parser of each verb, in the order of the flow."""
    (actions,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions.choices)


def make_parser() -> Parser:
    """All verbs, in the order of the flow."""
    parser = Parser(prog="ropewalk", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"ropewalk {_version()}")
    added = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for add in (_add_methods, _add_inspect, _add_convert, _add_extend, _add_verify, _add_measure, _add_compare, _add_report):
        add(added)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return version("ropewalk")


# --- methods ----------------------------------------------------------------------------------------------------------


def _add_methods(verbs: Any) -> None:
    parser = verbs.add_parser("methods", help="list the methods with their options and papers")
    parser.add_argument("method", nargs="?", help="only this one, with its options explained")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
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
        return _print_json({"methods": described})
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


# --- inspect ----------------------------------------------------------------------------------------------------------


def _add_inspect(verbs: Any) -> None:
    parser = verbs.add_parser("inspect", help="say what a checkpoint says of positions")
    parser.add_argument("source", help="folder, folder with only config.json, GGUF file, or hub id")
    parser.add_argument("--lineage", choices=["trained", "runtime"], help=LINEAGE_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=run_inspect)


def run_inspect(args: argparse.Namespace) -> int:
    """`ropewalk inspect SOURCE`."""
    from ropewalk.api.plans import geometry

    found = geometry(args.source, lineage=args.lineage)
    if args.json:
        return _print_json(found.to_dict())
    print(f"{found.model_type}: {found.num_layers} layers, {found.num_heads} heads ({found.num_kv_heads} for keys), "
          f"head dimension {found.head_dim}, layout {found.layout}")  # fmt: skip
    print(f"scaling {found.scheme}, lineage {found.lineage}")
    print(f"trained for {found.original_length} tokens, reads {found.trained_length}, declares {found.declared_length}")
    for group in found.groups:
        print(f"  {group.label}: {len(group.layers)} layers, {_group_words(group, found.trained_length)}")
    for finding in found.findings:
        print(f"  {finding.severity}: {finding.field}: {finding.problem}; {finding.mend}")
    return 0


def _group_words(group: Any, length: int) -> str:
    if not group.rotated:
        return "no positions"
    from ropewalk.core.geometry import rotations

    turns = rotations(group.inv_freq, length)
    words = f"{group.position}, {group.rotary_dim} of {group.head_dim} dimensions rotated, base {group.base:g}"
    words += f", {int((turns >= 1).sum())} of {turns.size} pairs turn at least once in {length} tokens"
    if group.attention_factor != 1.0:
        words += f", attention factor {group.attention_factor:.4f}"
    if group.logit_scale != 1.0:
        words += f", logit scale {group.logit_scale:.4f}"
    return words + (f", sliding window {group.window}" if group.window else "")


# --- convert and extend -----------------------------------------------------------------------------------------------


def _add_convert(verbs: Any) -> None:
    parser = verbs.add_parser("convert", help="make a transformers folder of a GGUF file, RoPE scaling kept")
    parser.add_argument("source", help="a GGUF file")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--dtype", default="float32", help="of the weights written (default float32)")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint folder that is there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    """`ropewalk convert MODEL.gguf --out DIR`."""
    from ropewalk.api.checkpoints import convert
    from ropewalk.core.progress import Progress

    card = convert(args.source, args.out, dtype=args.dtype, force=args.force, progress=Progress())
    return _print_card(card, args)


def _add_extend(verbs: Any) -> None:
    parser = verbs.add_parser("extend", help="write a checkpoint with a plan on, for stock transformers")
    parser.add_argument("source", help="folder, folder with only config.json, or hub id")
    parser.add_argument("--method", required=True, help="such as yarn, or yarn:ramp=rotations,beta_fast=16")
    parser.add_argument("--length", required=True, help=LENGTH_HELP)
    parser.add_argument("--out", metavar="DIR", help="the folder to make")
    parser.add_argument("--lineage", choices=["trained", "runtime"], help=LINEAGE_HELP)
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
    parser.add_argument("--force", action="store_true", help="replace a checkpoint folder that is there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=run_extend)


def run_extend(args: argparse.Namespace) -> int:
    """`ropewalk extend SOURCE --method M --length N --out DIR`."""
    from ropewalk.api.checkpoints import extend, plan_to_write
    from ropewalk.core.errors import OutputError

    if args.flags is not None:
        return _flags(args)
    if args.profiles is not None:
        return _profiles(args)
    if args.text is not None:
        raise OutputError("--text is what --profiles are priced on; say --profiles 1,2,4 too, or leave it out")
    if args.dry_run:
        plan, _ = plan_to_write(args.source, args.method, length=args.length, lineage=args.lineage)
        return _print_json(plan.to_dict()) if args.json else _print_plan(plan)
    if args.out is None:
        raise OutputError("extend needs a folder to make; say --out DIR, or --dry-run to see the plan")
    card = extend(
        args.source, args.method, length=args.length, out=args.out, lineage=args.lineage, force=args.force, copy=args.copy
    )  # fmt: skip
    return _print_card(card, args)


def _flags(args: argparse.Namespace) -> int:
    """The launch line alone on stdout; 1 where the engine would not compute the plan."""
    from ropewalk.api.launching import launch_line, line_document, quoted
    from ropewalk.core.errors import HostError

    try:
        line, verdict = launch_line(args.source, args.method, length=args.length, engine=args.flags, lineage=args.lineage)
    except HostError as error:
        print(f"ropewalk: {error}", file=sys.stderr)
        return 1
    _print_json(line_document(line, verdict)) if args.json else print(quoted(line))
    for said in line.says:
        print(said, file=sys.stderr)
    if verdict.status != "exact":
        print(f"ropewalk: with this line {line.engine} {verdict.status}: {verdict.reason}; {verdict.mend}", file=sys.stderr)
    return 0 if verdict.status == "exact" else 1


def _profiles(args: argparse.Namespace) -> int:
    from ropewalk.api.launching import priced, profile_table, profiles

    rows = profiles(args.source, args.method, length=args.length, factors=args.profiles, lineage=args.lineage)
    if args.text is not None:
        rows = priced(args.source, rows, text=args.text, out=args.out, lineage=args.lineage, force=args.force)
    if args.json:
        return _print_json({"method": args.method, "profiles": [row.to_dict() for row in rows]})
    print(profile_table(rows))
    return 0


def _print_plan(plan: Any) -> int:
    options = ", ".join(f"{key}={value}" for key, value in plan.options.items() if value is not None)
    print(f"{plan.method} ({plan.kind}): {plan.trained_length} to {plan.length} tokens, factor {plan.factor:g}")
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


def _print_card(card: Any, args: argparse.Namespace) -> int:
    if args.json:
        return _print_json(card.to_dict())
    for finding in card.findings:
        print(finding["problem"], file=sys.stderr)
    print(args.out)
    return 0


# --- verify -----------------------------------------------------------------------------------------------------------


def _add_verify(verbs: Any) -> None:
    parser = verbs.add_parser("verify", help="say what each engine would really compute from a checkpoint, and its traps")
    parser.add_argument("path", help="folder, folder with only config.json, GGUF file, or hub id")
    parser.add_argument("--engines", help="of transformers,vllm,sglang,llama.cpp (default all; a named one must support it)")
    parser.add_argument("--against", metavar="PLAN", help="a file of extend --dry-run --json, or another checkpoint")
    parser.add_argument("--fix", action="store_true", help="write a copy without the traps to --out, and judge the copy")
    parser.add_argument("--out", metavar="DIR", help="with --fix: the folder to make")
    parser.add_argument("--force", action="store_true", help="with --fix: replace a checkpoint folder that is there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """`ropewalk verify PATH`: 1 where an engine differs or refuses, or a finding is an error."""
    from ropewalk.api.verification import fix, table, verify
    from ropewalk.core.errors import OutputError

    if args.fix != (args.out is not None):
        raise OutputError("--fix writes a mended copy and --out says where; give both, or neither")
    mended = None
    if args.fix:
        mended, found = fix(args.path, args.out, engines=args.engines, against=args.against, force=args.force)
        print(args.out if mended else "ropewalk: nothing was written: the config cannot be read", file=sys.stderr)
    else:
        found = verify(args.path, args.engines, args.against)
    if args.json:
        _print_json(found.to_dict() | ({"mended": {"out": args.out, **mended.to_dict()}} if mended else {}))
    else:
        print(*(mended.changes if mended else ()), table(found), sep="\n")
    return 0 if found.passed else 1


# --- measure, compare, report -----------------------------------------------------------------------------------------


def _add_running(parser: Any) -> None:
    """What measure and compare share."""
    parser.add_argument("--text", required=True, nargs="+", metavar="FILE", help="UTF-8 texts of at least the length")
    parser.add_argument("--length", required=True, help=LENGTH_HELP)
    parser.add_argument("--out", required=True, metavar="DIR", help="the run folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default auto)")
    parser.add_argument("--lineage", choices=["trained", "runtime"], help=LINEAGE_HELP)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--resume", action="store_true", help="go on with a run folder that is there")
    parser.add_argument("--force", action="store_true", help="start anew in a run folder that is there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_measure(verbs: Any) -> None:
    parser = verbs.add_parser("measure", help="likelihood of texts at every position and every length, in one pass")
    parser.add_argument("source", help="a folder with safetensors weights, or a hub id")
    _add_running(parser)
    parser.add_argument("--method", help="put this method on; the untouched model is measured beside it")
    parser.add_argument(
        "--protocol", action="append", default=[], help="also disjoint, sliding-press or yarn-truncate; may be repeated"
    )
    parser.add_argument("--window", help="window of disjoint and sliding-press (default: the trained length)")
    parser.add_argument("--stride", default="256", help="stride of sliding-press (default 256)")
    parser.add_argument("--control-tokens", default="0", help="tokens of the float32 control (default 0: none)")
    parser.set_defaults(verb=run_measure)


def run_measure(args: argparse.Namespace) -> int:
    """`ropewalk measure SOURCE --text FILE... --length L --out DIR`."""
    from ropewalk.api.runs import measure
    from ropewalk.core.plan import parse_length

    rows = measure(
        args.source,
        text=args.text,
        length=args.length,
        out=args.out,
        method=args.method,
        protocols=[name for name in args.protocol if name != "prefix"],
        window=parse_length(args.window) if args.window else None,
        stride=parse_length(args.stride),
        device=args.device,
        dtype=args.dtype,
        lineage=args.lineage,
        seed=args.seed,
        control_tokens=_count(args.control_tokens),
        force=args.force,
        resume=args.resume,
    )
    return _finish(rows, args)


def _add_compare(verbs: Any) -> None:
    parser = verbs.add_parser("compare", help="carry each method onto a model, measure it, and draw the report")
    parser.add_argument("source", help="a folder with safetensors weights, or a hub id")
    parser.add_argument(
        "--methods", required=True, action="append",
        help="separated by ',' (by ';' where an option contains a comma), or repeated; none and crop are always there",
    )  # fmt: skip
    _add_running(parser)
    parser.add_argument("--crop-windows", type=int, default=8, help="windows of the crop baseline (default 8)")
    parser.add_argument("--control-tokens", default="4k", help="tokens of the float32 control (default 4k; 0: none)")
    parser.add_argument(
        "--retrieval", help="methods of the retrieval map, or 'off' (default: none,crop and yarn or else the last method)"
    )
    parser.add_argument("--lengths", help="lengths of the map, such as 4k,16k (default: half the trained length, --length)")
    parser.add_argument("--depths", type=int, default=5, help="needles, evenly over the depth (default 5)")
    parser.add_argument("--haystacks", type=int, default=1, help="haystacks for each length (default 1)")
    parser.add_argument(
        "--retrieval-protocol", action="append", choices=["multikey-branch", "single-key"],
        help="all needles in one haystack (default), or one prompt for each; may be repeated",
    )  # fmt: skip
    parser.set_defaults(verb=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """`ropewalk compare SOURCE --methods ... --length L --text FILE... --out DIR`."""
    from ropewalk.api.runs import compare

    rows = compare(
        args.source,
        methods=args.methods,
        length=args.length,
        text=args.text,
        out=args.out,
        device=args.device,
        dtype=args.dtype,
        lineage=args.lineage,
        seed=args.seed,
        crop_windows=args.crop_windows,
        control_tokens=_count(args.control_tokens),
        retrieval="" if args.retrieval == "off" else args.retrieval,
        lengths=args.lengths.split(",") if args.lengths else None,
        depths=args.depths,
        haystacks=args.haystacks,
        retrieval_protocols=args.retrieval_protocol or ["multikey-branch"],
        force=args.force,
        resume=args.resume,
    )
    return _finish(rows, args)


def _finish(rows: Sequence[Any], args: argparse.Namespace) -> int:
    """The table on stdout (or the rows as JSON), and where the report is: the verb has drawn it if it could."""
    from ropewalk.api.runs import table

    page = Path(args.out) / "report.html"
    if not page.is_file():
        print("no report was drawn: it needs matplotlib; run pip install 'ropewalk[report]'", file=sys.stderr)
    if args.json:
        return _print_json({"rows": [row.to_dict() for row in rows]})
    print(table(args.out))
    print(f"run folder: {args.out}")
    if page.is_file():
        print(f"report: {page}")
    return 0


def _add_report(verbs: Any) -> None:
    parser = verbs.add_parser("report", help="draw report.html and its pictures from a run folder")
    parser.add_argument("folder", help="a run folder that compare or measure wrote")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=run_report)


def run_report(args: argparse.Namespace) -> int:
    """`ropewalk report DIR`."""
    from ropewalk.api.runs import report

    page = report(args.folder)
    if args.json:
        return _print_json({"report": str(page)})
    print(page)
    return 0


# --- small things -----------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    """A number of tokens where 0 means: leave it out."""
    from ropewalk.core.plan import parse_length

    return 0 if text.strip() == "0" else parse_length(text)


def _print_json(content: Any) -> int:
    print(json.dumps(content, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
