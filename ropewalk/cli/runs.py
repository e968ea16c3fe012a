"""`measure` and `compare`: verbs that fill a run folder."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.cli.options import FORCE_RUN, LENGTH_HELP, add_json, add_lineage, count, print_json

PROTOCOL_HELP = (
    "also disjoint, sliding-press, yarn-truncate, longppl, repeated-text, byod-sensitivity or sensitivity-by-distance; the "
    "last four take options, such as longppl:context=2048 (docs/likelihood.md); may be repeated"
)

OF_TASKS = {"depths": 11, "samples": 5, "mode": [], "scoring": "auto", "template": "raw", "stop_early": False}
OF_A_SERVER = {"concurrency": 4, "timeout": 600.0}
OF_SLIDING, OF_WINDOWS = {"stride": "256"}, {"window": None}
OF_A_MAP = {"depths": 5, "haystacks": 1, "mode": [], "lengths": None}
"""Defaults of options that do something only beside another."""


def _add_running(parser: Any, *, out_required: bool = True) -> None:
    """What measure and compare share."""
    parser.add_argument("--out", required=out_required, metavar="DIR", help="the run folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default auto)")
    add_lineage(parser)
    parser.add_argument(
        "--fail-under", nargs="+", default=[], metavar="CONDITION",
        help="exit 1 unless met by the worse end of the interval, such as 'ecl>=16k' or 'short_nll<=+0.01'",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--resume", action="store_true", help="go on with a run folder that is there")
    parser.add_argument("--force", action="store_true", help=FORCE_RUN)
    add_json(parser)


def _add_short_tasks(parser: Any) -> None:
    """What is handed to lm-eval."""
    parser.add_argument(
        "--short-tasks", action="append", default=[], metavar="A,B",
        help="benchmarks that lm-eval asks inside the old window, by its names, such as hellaswag,arc_easy, paired with the "
        "untouched model; lm-eval fetches their data (HF_HUB_OFFLINE is honoured)",
    )  # fmt: skip
    parser.add_argument(
        "--short-tasks-path", metavar="DIR",
        help="a folder of task files (YAML) beside lm-eval's own; refused where one would run code",
    )  # fmt: skip
    parser.add_argument(
        "--short-tasks-fewshot", type=int, metavar="N", help="examples before each question (default: as each task says)"
    )
    parser.add_argument("--short-tasks-limit", type=int, metavar="N", help="first documents of each task (default: all)")
    parser.add_argument("--short-tasks-batch", type=int, default=1, metavar="N", help="prompts in one forward (default 1)")


def add_measure(verbs: Any) -> None:
    """The arguments of `measure`."""
    parser = verbs.add_parser("measure", help="likelihood of texts at every position and every length, in one pass")
    parser.add_argument("source", nargs="?", help="a folder with safetensors weights, or a hub id")
    parser.add_argument(
        "--tasks", action="append", default=[], metavar="A,B",
        help="retrieval and other tasks, separated by ','; 'help' lists them (default: likelihood alone)",
    )  # fmt: skip
    _add_short_tasks(parser)
    parser.add_argument(
        "--lengths",
        help="lengths of the tasks, such as 1k,2k,4k (default: a grid up to --length); a quarter "
        "and a half of the window are asked too",
    )
    parser.add_argument("--depths", type=int, default=OF_TASKS["depths"], help="needles, evenly over the depth (default 11)")
    parser.add_argument(
        "--samples", type=int, default=OF_TASKS["samples"], help="haystacks of each task for each length (default 5)"
    )
    parser.add_argument(
        "--mode", action="append", default=[], choices=["fixed", "grow", "single"],
        help="fixed: a haystack per length, all its needles asked (default); grow: one haystack, asked at every length as "
        "it grows; single: one needle per prompt; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--scoring", default="auto", choices=["auto", "forced", "generate"],
        help="forced: the answer is read; generate: it is decoded and the task's rule reads it (default: as each task says)",
    )  # fmt: skip
    parser.add_argument("--template", default="raw", choices=["raw", "chat"], help="of the prompts (default raw)")
    parser.add_argument("--stop-early", action="store_true", help="end a cell when its interval is clear of the threshold")
    for kind in ("questions", "conversations", "templates"):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"{kind} for the tasks that need them, JSON or JSON lines")
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="UTF-8 texts of at least the length")
    parser.add_argument("--length", help=f"of the plan, and how much of a text is scored: {LENGTH_HELP}")
    _add_running(parser, out_required=False)
    parser.add_argument(
        "--server", metavar="URL",
        help="ask an OpenAI-compatible server, such as http://127.0.0.1:8000, for the answers to --tasks; SOURCE is then "
        "the folder with config and tokenizer of what it serves",
    )  # fmt: skip
    parser.add_argument("--served-model", metavar="NAME", help="which model of the server (default: the only one it serves)")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=OF_A_SERVER["concurrency"],
        help="questions that a server is asked at once (default 4)",
    )
    parser.add_argument(
        "--timeout", type=float, default=OF_A_SERVER["timeout"], help="seconds a server has for an answer (default 600)"
    )
    parser.add_argument(
        "--base-run", metavar="DIR",
        help="an earlier run of the untouched model with the same tasks: its short score is what a served model's effective "
        "length is held against",
    )  # fmt: skip
    parser.add_argument("--method", help="put this method on; the untouched model is measured beside it")
    parser.add_argument("--protocol", action="append", default=[], metavar="P", help=PROTOCOL_HELP)
    parser.add_argument("--window", help="window of disjoint and sliding-press (default: the trained length)")
    parser.add_argument("--stride", default=OF_SLIDING["stride"], help="stride of sliding-press (default 256)")
    parser.add_argument("--control-tokens", default="0", help="tokens of the float32 control (default 0: none)")
    parser.set_defaults(verb=run_measure)


def run_measure(args: argparse.Namespace) -> int:
    """`ropewalk measure SOURCE [--tasks A,B] [--text FILE...] [--length L] --out DIR`."""
    if "help" in args.tasks:
        return list_tasks(args)
    from ropewalk.api.runs import measure
    from ropewalk.api.short_tasks import ShortTasks
    from ropewalk.api.thresholds import Threshold
    from ropewalk.core.errors import InputError
    from ropewalk.core.plan import parse_length

    if args.source is None or args.out is None:
        raise InputError("measure needs a SOURCE and --out DIR; see ropewalk measure --help")
    sliding, windowed = "sliding-press" in args.protocol, {"sliding-press", "disjoint"} & {*args.protocol}
    _check_idle(args, OF_TASKS, bool(args.tasks), "--tasks, and none are named; name some")
    _check_idle(args, OF_A_SERVER, args.server is not None, "a server, and none is asked; give its address with --server")
    _check_idle(args, OF_SLIDING, sliding, "--protocol sliding-press; name it")
    _check_idle(args, OF_WINDOWS, bool(windowed), "the protocols disjoint and sliding-press; name one")
    conditions = [Threshold.parse(text) for text in args.fail_under]
    rows = measure(
        args.source,
        text=args.text,
        length=args.length,
        out=args.out,
        method=args.method,
        tasks=args.tasks,
        short_tasks=ShortTasks(
            names=args.short_tasks,
            path=args.short_tasks_path,
            fewshot=args.short_tasks_fewshot,
            limit=args.short_tasks_limit,
            batch=args.short_tasks_batch,
        ),
        lengths=args.lengths.split(",") if args.lengths else None,
        depths=args.depths,
        samples=args.samples,
        modes=args.mode or ["fixed"],
        scoring=args.scoring,
        template=args.template,
        stop_early=args.stop_early,
        handed_in={kind: getattr(args, kind) for kind in ("questions", "conversations", "templates")},
        protocols=[name for name in args.protocol if name != "prefix"],
        window=parse_length(args.window) if args.window else None,
        stride=parse_length(args.stride),
        device=args.device,
        dtype=args.dtype,
        lineage=args.lineage,
        seed=args.seed,
        control_tokens=count(args.control_tokens),
        server=args.server,
        served_model=args.served_model,
        concurrency=args.concurrency,
        timeout=args.timeout,
        base_run=args.base_run,
        force=args.force,
        resume=args.resume,
    )
    return _finish(rows, args, conditions)


def _check_idle(args: argparse.Namespace, options: Mapping[str, Any], used: bool, what: str) -> None:
    """Raises `InputError` for an option that was given and that nothing looks at; one at its default asks for nothing."""
    from ropewalk.core.errors import InputError

    for name, default in options.items():
        if not used and getattr(args, name) != default:
            raise InputError(f"--{name.replace('_', '-')} is of {what}, or leave it out")


def list_tasks(args: argparse.Namespace) -> int:
    """`ropewalk measure SOURCE --tasks help`."""
    from ropewalk.api.maps import described_tasks

    described = described_tasks()
    if args.json:
        return print_json({"tasks": described})
    width = max(len(task["id"]) for task in described)
    for task in described:
        needs = f"; needs --{', --'.join(task['needs'])}" if task["needs"] else ""
        print(f"{task['id']:<{width}}  {task['summary']}")
        print(f"{'':<{width}}  {task['family']}, scored {task['scoring']}{needs}; {task['source']}")
    return 0


def add_compare(verbs: Any) -> None:
    """The arguments of `compare`."""
    parser = verbs.add_parser("compare", help="carry each method onto a model, measure it, and draw the report")
    parser.add_argument("source", help="a folder with safetensors weights, or a hub id")
    parser.add_argument(
        "--methods", required=True, action="append",
        help="separated by ',' (by ';' where an option contains a comma), or repeated; none and crop are always there",
    )  # fmt: skip
    parser.add_argument("--text", required=True, nargs="+", metavar="FILE", help="UTF-8 texts of at least the length")
    parser.add_argument("--length", required=True, help=LENGTH_HELP)
    _add_running(parser)
    parser.add_argument("--crop-windows", type=int, default=8, help="windows of the crop baseline (default 8)")
    parser.add_argument("--control-tokens", default="4k", help="tokens of the float32 control (default 4k; 0: none)")
    parser.add_argument(
        "--retrieval", help="methods of the retrieval map, or 'off' (default: none,crop and yarn or else the last method)"
    )
    parser.add_argument(
        "--lengths",
        help="lengths of the map, such as 4k,16k (default: half the trained length, --length); a "
        "quarter and a half of the window are asked too",
    )
    parser.add_argument("--depths", type=int, default=OF_A_MAP["depths"], help="needles, evenly over the depth (default 5)")
    parser.add_argument("--haystacks", type=int, default=OF_A_MAP["haystacks"], help="haystacks for each length (default 1)")
    parser.add_argument(
        "--mode", action="append", default=[], choices=["fixed", "grow", "single"],
        help="all needles in one haystack (fixed, default), one haystack for all lengths, or one prompt for each needle; "
        "may be repeated",
    )  # fmt: skip
    parser.add_argument("--protocol", action="append", default=[], metavar="P", help=PROTOCOL_HELP)
    parser.set_defaults(verb=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """`ropewalk compare SOURCE --methods ... --length L --text FILE... --out DIR`."""
    from ropewalk.api.runs import compare
    from ropewalk.api.thresholds import Threshold

    _check_idle(args, OF_A_MAP, args.retrieval != "off", "the retrieval map, which --retrieval off leaves out; draw it")
    conditions = [Threshold.parse(text) for text in args.fail_under]
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
        control_tokens=count(args.control_tokens),
        retrieval="" if args.retrieval == "off" else args.retrieval,
        lengths=args.lengths.split(",") if args.lengths else None,
        depths=args.depths,
        haystacks=args.haystacks,
        modes=args.mode or ["fixed"],
        protocols=[name for name in args.protocol if name != "prefix"],
        force=args.force,
        resume=args.resume,
    )
    return _finish(rows, args, conditions)


def _finish(rows: Sequence[Any], args: argparse.Namespace, conditions: Sequence[Any]) -> int:
    """The table on stdout (or the rows as JSON), where the report is, and on stderr every condition that is not met."""
    from ropewalk.api.runs import table
    from ropewalk.api.thresholds import missed

    reasons = missed(conditions, rows)
    for reason in reasons:
        print(f"ropewalk: not met: {reason}", file=sys.stderr)
    code = 1 if reasons else 0

    page = Path(args.out) / "report.html"
    if not page.is_file():
        print(
            "no report was drawn: it needs matplotlib; run pip install '.[report]' in a checkout of ropewalk",
            file=sys.stderr,
        )
    if args.json:
        print_json({"rows": [row.to_dict() for row in rows]})
        return code
    print(table(args.out))
    print(f"run folder: {args.out}")
    if page.is_file():
        print(f"report: {page}")
    return code
