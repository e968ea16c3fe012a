"""`tune`: training with a plan on, and an adapter folder as a full checkpoint."""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from ropewalk.cli.lists import list_presets, list_recipes
from ropewalk.cli.longest import add_longest, run_longest
from ropewalk.cli.options import (
    FORCE_RUN,
    KEEP_SHORT,
    LENGTH_HELP,
    SHORT_SHARE,
    SPECIAL_TOKENS,
    add_json,
    add_lineage,
    print_card,
    print_json,
)
from ropewalk.core.plurals import counted

OWN = (
    "length", "method", "steps", "window", "lineage", "device", "dtype", "merge", "freeze", "curriculum", "prompt_loss",
    "allow_short", "field", "short_share", "keep_short", "special_tokens", "chat_template", "max_broken",
)  # fmt: skip
"""Options that a preset may say too, beside the settings of a training."""
RECIPES = ("full", "longlora", "lora", "qlora", "dora", "rslora", "loha", "lokr", "vera", "oft", "ia3", "prefix")
"""Said here, since a help imports nothing heavy; a test holds them to the settings'."""
NEEDED = {
    ("data",): "--data with texts", ("length",): "--length such as 16k", ("steps", "curriculum"): "--steps such as 400",
}  # fmt: skip
"""What every run is told, by any of some names; and what there is to say where it is not."""
MERGES = ("source", "out", "merge", "dtype", "force", "json", "verb")
"""What merging an adapter folder looks at."""


def add_tune(verbs: Any) -> None:
    """The arguments of `tune`. Every default is None, so that a preset's word is told from the user's."""
    parser = verbs.add_parser("tune", help="train with a plan on: full, LoRA, LongLoRA; PoSE, shifted sparse attention")
    parser.add_argument("source", nargs="?", help="folder or hub id; with --merge and nothing to train, an adapter folder")
    parser.add_argument(
        "--data", nargs="+", action="append", metavar="PATH",
        help="texts, or one folder that ropewalk data made; for a chain once for all runs, or once for each",
    )  # fmt: skip
    parser.add_argument(
        "--length", help=f"the plan's, and the largest position trained on; a prefix counts in: {LENGTH_HELP}"
    )
    parser.add_argument("--method", help="such as yarn (default: the positions that the source carries); help lists them")
    parser.add_argument("--out", metavar="DIR", help="the run folder, which is the result too")
    parser.add_argument(
        "--preset", metavar="FILE|NAME", help="one run or a chain from a file, or a published one by name; help lists them"
    )
    add_lineage(parser)
    parser.add_argument("--freeze", action="store_true", default=None, help="of a dynamic plan, the numbers for --length")
    _add_training(parser)
    _add_attention(parser)
    _add_machine(parser)
    add_longest(parser)
    parser.add_argument("--merge", action="store_true", default=None, help="write whole weights where an adapter is trained")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state; the same result as unbroken")
    parser.add_argument("--force", action="store_true", help=f"{FORCE_RUN}; with --merge alone as extend")
    add_json(parser)
    parser.set_defaults(verb=run_tune)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", help=f"which parameters train: {', '.join(RECIPES)} (default full); help explains them")
    parser.add_argument("--positions", help="which positions training sees: full, pose, randomized (default full)")
    parser.add_argument("--steps", type=int, help="optimizer steps")
    parser.add_argument("--window", help="tokens of a row (default: --length less a prefix, or what the source reads)")
    parser.add_argument("--curriculum", metavar="STAGES", help="such as 4k:100,16k:50: rows and steps of each stage")
    parser.add_argument("--learning-rate", type=float, help="default 2e-5; ia3 and prefix take larger ones, some 5e-3")
    parser.add_argument("--schedule", help="constant, linear or cosine, after the warm-up (default constant)")
    parser.add_argument("--warmup-steps", type=int, help="default 0")
    parser.add_argument("--weight-decay", type=float, help="default 0")
    parser.add_argument("--beta1", type=float, help="AdamW's (default 0.9)")
    parser.add_argument("--beta2", type=float, help="AdamW's (default 0.95)")
    parser.add_argument("--max-grad-norm", type=float, help="gradients are clipped to it (default 1)")
    parser.add_argument("--batch-size", type=int, help="rows of one pass (default 1)")
    parser.add_argument("--accumulate", type=int, help="passes of one step (default 1)")
    parser.add_argument("--seed", type=int, help="of rows, positions and adapters (default 0)")
    parser.add_argument("--rank", type=int, help="of adapters (default 8)")
    parser.add_argument("--alpha", type=int, help="of adapters (default 16)")
    parser.add_argument("--dropout", type=float, help="of adapters (default 0)")
    parser.add_argument("--num-virtual-tokens", type=int, help="of the recipe prefix; they count in --length (default 16)")
    parser.add_argument("--chunks", type=int, help="of PoSE (default 2)")
    parser.add_argument(
        "--prompt-loss", action="store_true", default=None,
        help="learn the prompts of conversations too; of texts every token is learned anyway",
    )  # fmt: skip
    parser.add_argument("--allow-short", action="store_true", default=None, help="take data without long documents")
    parser.add_argument("--short-share", type=float, metavar="S", help=SHORT_SHARE)
    parser.add_argument("--keep-short", type=float, metavar="P", help=KEEP_SHORT)
    parser.add_argument("--special-tokens", action="store_true", default=None, help=SPECIAL_TOKENS)
    parser.add_argument("--field", help="which field of a record is read")
    parser.add_argument("--chat-template", metavar="FILE", help="in place of the tokenizer's own, for --data")
    parser.add_argument("--max-broken", type=int, metavar="N", help="broken records left out before it stops (default 10)")


def _add_attention(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attention", help="while training: full, s2, own (the model's, one document a row; default full)")
    parser.add_argument("--group", type=_group, help="of s2: tokens, or a share of a stage's rows (default 0.25)")
    parser.add_argument("--pattern", help="of s2: heads, layers, unshifted, shifted (default heads)")
    parser.add_argument("--wrap", help="of s2: separate, swap, or rolled, which leaks the future (default separate)")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="N",
        help="one layer in N runs again in the backward pass and keeps its input alone: 1 takes the least memory, a larger "
        "N more memory and less time, 0 runs none again (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", help="what such layers run again: whole (the default), or selective: all but attention"
    )
    parser.add_argument("--offload", action="store_true", default=None, help="keep saved activations in main memory")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps between saved states (default 50)")
    parser.add_argument("--device", help="auto, cpu, cuda, ... (default auto)")
    parser.add_argument("--dtype", help="auto, float32 or bfloat16 (default auto)")
    parser.add_argument("--report-to", metavar="NAMES", help="trackers of transformers: tensorboard, wandb, ...")
    parser.add_argument(
        "--push-to-hub", metavar="REPO", help="upload to me/my-model at the end: the model's files, nothing else"
    )
    parser.add_argument("--validate", nargs="+", metavar="FILE", help="texts to score while training, by the bare model")
    parser.add_argument("--validate-lengths", metavar="LENGTHS", help="such as 1k,4k (default: --length)")
    parser.add_argument("--validate-every", type=int, metavar="N", help="steps (default: at the end only)")


def _passed_on(args: argparse.Namespace) -> dict[str, Any]:
    """What goes to transformers' own training arguments."""
    trackers = {"report_to": args.report_to.split(",")} if args.report_to else {}
    upload = {"push_to_hub": True, "hub_model_id": args.push_to_hub} if args.push_to_hub else {}
    return trackers | upload


def _group(text: str) -> int | float:
    """A number of tokens, or with a point a share. What a group may be is checked where groups are made."""
    from ropewalk.core.plan import parse_length

    try:
        if "." in text:
            return float(text)
        return int(text) if text.lstrip("-").isdecimal() else parse_length(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is tokens such as 2048, or a share such as 0.25; got {text!r}") from None


def run_tune(args: argparse.Namespace) -> int:
    """`ropewalk tune SOURCE --data PATHS --length N --method M --recipe R --steps K --out DIR`."""
    from ropewalk.api.training_request import options_of
    from ropewalk.api.tuning import held_out, tune
    from ropewalk.core.errors import InputError
    from ropewalk.core.output import check_kept
    from ropewalk.core.plan import parse_length
    from ropewalk.core.progress import Progress

    if args.preset == "help":
        return list_presets(args)
    if args.recipe == "help":
        return list_recipes(args)
    if args.longest or args.memory:
        return run_longest(args, _for_memory(args))
    progress = Progress()
    for name, value in (("a SOURCE", args.source), ("--out DIR", args.out)):
        if value is None:
            raise InputError(
                f"tune needs {name}; as in ropewalk tune SOURCE --data BOOKS --length 16k --steps 400 --out DIR"
            )
    if args.merge and args.data is None and args.steps is None and args.preset is None:
        return _merged(args)
    if args.validate is None and (args.validate_lengths or args.validate_every):
        raise InputError("--validate-lengths and --validate-every are of held-out texts; give these with --validate FILE")
    if not args.resume:
        check_kept(args.out, [path for path in (*(args.validate or ()), args.preset) if path and os.path.exists(path)])
    runs, notes = _runs(args)
    for note in notes:
        progress.say(note)
    asked = args.validate_lengths or ",".join(str(run["length"]) for run in runs)
    lengths = [parse_length(text) for text in asked.split(",")]
    one, several = (options_of(runs[0]), None) if len(runs) == 1 else ({}, [options_of(run) for run in runs])
    card = tune(
        args.source, out=args.out, runs=several,
        arguments=_passed_on(args),
        scorer=None if args.validate is None else held_out(args.validate, args.source, max(lengths)),
        validate_lengths=lengths if args.validate_lengths else (), validate_every=args.validate_every or 0,
        force=args.force, resume=args.resume, progress=progress, **one,
    )  # fmt: skip
    # Of several processes the first one speaks.
    return print_card(card, args) if os.environ.get("RANK", "0") == "0" else 0


def _runs(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """The options of each run: the preset's, and over them what the command line says; and lines for the user."""
    from ropewalk.api.tuning import preset_runs, settings_of
    from ropewalk.core.errors import InputError

    named = vars(args)
    said = {key: named[key] for key in (*settings_of(), *OWN) if named.get(key) is not None}
    runs, notes = preset_runs(args.preset, said)
    given = args.data or []
    if len(given) not in (0, 1, len(runs)):
        each = ", or once for each" if len(runs) > 1 else ""
        raise InputError(f"--data is given {len(given)} times for {counted(len(runs), 'run')}; give it once for all{each}")
    for number, run in enumerate(runs):
        if given:
            run["data"] = given[number if len(given) > 1 else 0]
        where = f"run {number + 1} of {len(runs)}: " if len(runs) > 1 else ""
        if missing := _missing(run):
            adapter = "; or --merge and an adapter folder" if len(missing) == len(NEEDED) else ""
            raise InputError(f"{where}tune needs {' and '.join(missing)}{adapter}")
    return runs, notes


def _missing(run: Mapping[str, Any]) -> list[str]:
    """What a run needs and nobody said."""
    return [words for names, words in NEEDED.items() if not any(name in run for name in names)]


def _for_memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The options of each run as far as memory goes: the preset's, and over them what the command line says."""
    from ropewalk.api.tuning import preset_runs, settings_of

    known = {*settings_of(), "device", "dtype", "length", "window", "curriculum"} - {"warmup_steps"}
    said = {key: value for key, value in vars(args).items() if value is not None}
    # A --length is the longest row that is asked for, whatever rows a preset has.
    runs, _ = preset_runs(args.preset, {**said, "window": args.window or args.length} if args.length else said)
    return [{key: value for key, value in run.items() if key in known and value is not None} for run in runs]


def _merged(args: argparse.Namespace) -> int:
    """`ropewalk tune ADAPTER --merge --out NEW`."""
    from ropewalk.api.tuning import merge
    from ropewalk.core.errors import InputError

    for name, value in vars(args).items():
        if name not in MERGES and value is not None and value is not False:
            raise InputError(
                f"--merge with nothing to train takes --out, --dtype, --force and --json, got --{name.replace('_', '-')}; "
                "leave it out, or train with --data, --length and --steps"
            )
    path = merge(args.source, args.out, force=args.force, dtype=args.dtype or "float32")
    if args.json:
        return print_json({"out": str(path)})
    print(path, file=sys.stdout)
    return 0
