"""`tune`: training with a plan on, and an adapter folder as a full checkpoint."""

import argparse
import sys
from typing import Any

from ropewalk.cli.options import LENGTH_HELP, add_json, add_lineage, print_card, print_json

DATA_OPTIONS = ("prompt_loss", "allow_short", "field")
OWN = ("source", "data", "out", "length", "method", "steps", "window", "lineage", "device", "dtype", "merge", "freeze")


def add_tune(verbs: Any) -> None:
    """The arguments of `tune`. Every default is None, so that a preset's word is told from the user's."""
    parser = verbs.add_parser("tune", help="train with a plan on: full, LoRA, LongLoRA; PoSE, shifted sparse attention")
    parser.add_argument("source", help="folder or hub id; with --merge and nothing to train, an adapter folder")
    parser.add_argument("--data", nargs="+", metavar="PATH", help="texts, or one folder that ropewalk data made")
    parser.add_argument("--length", help=f"the plan's, and the largest position trained on: {LENGTH_HELP}")
    parser.add_argument("--method", help="such as yarn (default: the positions that the source carries)")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run folder, which is the result too")
    parser.add_argument("--preset", metavar="FILE|NAME", help="options from a file or a published recipe; see docs/tune.md")
    add_lineage(parser)
    parser.add_argument("--freeze", action="store_true", default=None, help="of a dynamic plan, the numbers for --length")
    _add_training(parser)
    _add_attention(parser)
    _add_machine(parser)
    parser.add_argument("--merge", action="store_true", default=None, help="write whole weights where an adapter is trained")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state; the same result as unbroken")
    parser.add_argument("--force", action="store_true", help="start anew in a run folder that is there")
    add_json(parser)
    parser.set_defaults(verb=run_tune)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", help="which parameters train: full, lora, longlora, qlora (default full)")
    parser.add_argument("--positions", help="which positions training sees: full, pose, randomized (default full)")
    parser.add_argument("--steps", type=int, help="optimizer steps")
    parser.add_argument("--window", help="tokens of a row (default: --length, or with pose what the source reads)")
    parser.add_argument("--curriculum", metavar="STAGES", help="such as 4k:100,16k:50: rows and steps of each stage")
    parser.add_argument("--learning-rate", type=float, help="default 2e-5")
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
    parser.add_argument("--chunks", type=int, help="of PoSE (default 2)")
    parser.add_argument("--prompt-loss", action="store_true", default=None, help="learn the prompts of conversations too")
    parser.add_argument("--allow-short", action="store_true", default=None, help="take data without long documents")
    parser.add_argument("--field", help="which field of a record is read")


def _add_attention(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attention", help="while training: full, s2, own (the model's, one document a row; default full)")
    parser.add_argument("--group", type=_group, help="of s2: tokens, or a share of the row (default 0.25)")
    parser.add_argument("--pattern", help="of s2: heads, layers, unshifted, shifted (default heads)")
    parser.add_argument("--wrap", help="of s2: separate, swap, or rolled, which leaks the future (default separate)")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-every", type=int, metavar="N", help="layers between saved activations, 0 saves all")
    parser.add_argument("--offload", action="store_true", default=None, help="keep saved activations in main memory")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps between saved states (default 50)")
    parser.add_argument("--device", help="auto, cpu, cuda, ... (default auto)")
    parser.add_argument("--dtype", help="auto, float32 or bfloat16 (default auto)")
    parser.add_argument("--report-to", metavar="NAMES", help="trackers of transformers: tensorboard, wandb, ...")
    parser.add_argument("--validate", nargs="+", metavar="FILE", help="texts to score while training, by the bare model")
    parser.add_argument("--validate-lengths", metavar="LENGTHS", help="such as 1k,4k (default: --length)")
    parser.add_argument("--validate-every", type=int, metavar="N", help="steps (default: at the end only)")


def _group(text: str) -> int | float:
    """A number of tokens, or with a point a share."""
    return float(text) if "." in text else int(text)


def run_tune(args: argparse.Namespace) -> int:
    """`ropewalk tune SOURCE --data PATHS --length N --method M --recipe R --steps K --out DIR`."""
    from ropewalk.api.tuning import held_out, merge, preset, settings_of, tune
    from ropewalk.core.errors import InputError
    from ropewalk.core.plan import parse_length
    from ropewalk.core.progress import Progress

    said: dict[str, Any] = {} if args.preset is None else preset(args.preset)
    named = vars(args)
    said |= {key: named[key] for key in (*settings_of(), *OWN, *DATA_OPTIONS, "curriculum") if named.get(key) is not None}
    data, length = said.pop("data", None), said.pop("length", None)
    if args.merge and data is None and said.get("steps") is None:
        return _merged(args, merge(args.source, args.out, force=args.force))
    if data is None or length is None:
        raise InputError("tune needs --data with texts, --length such as 16k, and --steps; or --merge and an adapter folder")
    if "curriculum" in said:
        said["stages"] = _stages(said.pop("curriculum"))
    lengths = [parse_length(text) for text in (args.validate_lengths or str(length)).split(",")]
    card = tune(
        said.pop("source"), data, length=length, out=said.pop("out"),
        data_options={key: said.pop(key) for key in DATA_OPTIONS if key in said},
        arguments={"report_to": args.report_to.split(",")} if args.report_to else None,
        scorer=None if args.validate is None else held_out(args.validate, args.source, max(lengths)),
        validate_lengths=lengths if args.validate else (), validate_every=args.validate_every or 0,
        force=args.force, resume=args.resume, progress=Progress(), **said,
    )  # fmt: skip
    return print_card(card, args)


def _stages(text: str) -> list[tuple[int, int]]:
    from ropewalk.core.errors import InputError
    from ropewalk.core.plan import parse_length

    stages = []
    for part in str(text).split(","):
        window, colon, steps = part.partition(":")
        if not colon or not steps.strip().isdecimal():
            raise InputError(f"a curriculum is rows and steps of each stage, such as 4k:100,16k:50, got {part!r}")
        stages.append((parse_length(window), int(steps)))
    return stages


def _merged(args: argparse.Namespace, path: Any) -> int:
    if args.json:
        return print_json({"out": str(path)})
    print(path, file=sys.stdout)
    return 0
