"""One table of all methods: likelihood, price inside the window, net gain over cropping, retrieval with intervals.

    python -m experiments.methods [--model DIR] [--out runs/methods] [--until first|rest|32k] [--haystacks 24]
    python -m experiments.methods --table-only

Ten documents of three kinds (`experiments/texts.py`), a needle map at 8k and 16k of 24 haystacks with 11 needles each. It
is one run folder that grows: first `none`, `crop`, `ntk` and `yarn` at 16k, with few haystacks and then with all, next each
other method at 16k, last four of them at 32k in a folder of its own. After each step the table is written anew, and it names
the rows that were not run. A killed run goes on where it was when the command is given again; nothing is measured twice.

The model is the demo's. Capability-lifted, it comes from `python -m experiments.lifted`; the table says which one it was.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ropewalk
from examples.demo import model_folder
from experiments.texts import texts
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement, Record

FIRST = ("none", "crop", "ntk", "yarn")
REST = ("pi", "ntk-mixed", "ntk-by-parts", "yarn:ramp=rotations", "abf", "dynamic:yarn")
LONGER = FIRST
STEPS = ("first", "rest", "32k")
HAYSTACKS = (6, 12)
"""How many the first steps have, so that a table is there early."""
DEPTHS = 11


@dataclass(frozen=True, kw_only=True)
class Step:
    """One growth of a run folder."""

    folder: str
    length: int
    methods: tuple[str, ...]
    haystacks: int


def steps(until: str, haystacks: int) -> Iterator[Step]:
    """Every step in its order."""
    for few in (*(n for n in HAYSTACKS if n < haystacks), haystacks):
        yield Step(folder="16k", length=16384, methods=FIRST, haystacks=few)
    if until == "first":
        return
    for end in range(1, len(REST) + 1):
        yield Step(folder="16k", length=16384, methods=FIRST + REST[:end], haystacks=haystacks)
    if until == "32k":
        yield Step(folder="32k", length=32768, methods=LONGER, haystacks=haystacks)


def has(record: Record | None, step: Step) -> bool:
    """Whether a step's rows are there."""
    if record is None or record.card.status != "done":
        return False
    asked = record.card.config["map"]
    return set(step.methods) <= set(record.card.plans) and asked["num_haystacks"] >= step.haystacks


def read(folder: Path) -> Record | None:
    """A run folder, where there is one."""
    return Record.read(folder) if (folder / "card.json").is_file() else None


def run(step: Step, model: Path, out: Path, documents: Sequence[Path], progress: Progress) -> None:
    """One growth. What the folder holds already stays in the question."""
    folder = out / step.folder
    held = read(folder)
    methods = list(dict.fromkeys([*step.methods, *(held.card.plans if held else ())]))
    num_held = held.card.config["map"]["num_haystacks"] if held else 0
    ropewalk.compare(
        model, methods=";".join(methods), length=step.length, text=documents, out=folder, retrieval=";".join(methods),
        lengths=[step.length // 2, step.length], depths=DEPTHS, haystacks=max(step.haystacks, num_held), dtype="bfloat16",
        crop_windows=4, resume=held is not None, progress=progress,
    )  # fmt: skip


# --- the table --------------------------------------------------------------------------------------------------------


def number(row: Measurement | None, form: str = "+.3f") -> str:
    """A value with its interval, or why there is none."""
    if row is None:
        return "not run"
    if row.value is None:
        return "none"
    if row.ci_low is None or row.ci_high is None:
        return f"{row.value:{form}}"
    return f"{row.value:{form}} [{row.ci_low:{form}}, {row.ci_high:{form}}]"


def one(record: Record, metric: str, method: str, **where: object) -> Measurement | None:
    """The row of this name, where it is there."""
    found = record.rows(metric, method=method, **where)
    return found[0] if found else None


def seconds(folder: Path, record: Record, method: str) -> float:
    """What a method's cells took."""
    cells = [json.loads(line) for line in (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [s["seconds"] for s in record.samples if s["method"] == method and s["seconds"] is not None]
    return float(sum(cell["seconds"] for cell in cells if cell["method"] == method) + sum(asked))


def line(folder: Path, record: Record, method: str, length: int) -> str:
    """A method's line of the table."""
    trained = int(record.card.geometry["trained_length"])
    asked = {"protocol": "multikey-branch", "depth": None}
    short, long = (one(record, "retrieval_exact", method, length=n, **asked) for n in (length // 2, length))
    beyond = {"position_low": trained, "position_high": length}
    cells = [
        "as none" if method == "crop" else number(one(record, "nll_inside", method), ".3f"),
        number(one(record, "nll_beyond", method), ".3f"),
        "0" if method == "crop" else number(one(record, "net_gain", method, **beyond)),
        "0" if method in ("none", "crop") else number(one(record, "price_nll", method)),
        number(short, ".2f"),
        number(long, ".2f"),
        *(
            "-"
            if method in ("none", "crop")
            else number(one(record, "retrieval_gain", method, length=length, reference=baseline), "+.2f")
            for baseline in ("none", "crop")
        ),
        f"{seconds(folder, record, method) / 3600:.2f}",
    ]
    return f"| `{method}` | {' | '.join(cells)} |"


COLUMNS = (
    "method", "NLL inside", "NLL beyond", "gain over crop, beyond", "price inside", "needle at half", "needle at all",
    "needle, minus none", "needle, minus crop", "hours",
)  # fmt: skip


def section(folder: Path, length: int, methods: Sequence[str]) -> list[str]:
    """The table of one run folder, with the rows that were not run named."""
    record = read(folder)
    if record is None or not record.measurements:
        return [f"## {length // 1024}k", "", f"Not run: {', '.join(methods)}.", ""]
    card, held = record.card, [method for method in methods if method in record.card.plans]
    total = sum(seconds(folder, record, method) for method in held) / 3600
    stacks = max((row.num_clusters for row in record.rows("retrieval_exact")), default=0)
    lines = [
        f"## {card.model}, {length // 1024}k", "",
        f"{len(card.documents)} documents; {stacks} haystacks of {DEPTHS} needles for each length; "
        f"{card.dtype}, {card.quantisation or 'weights as they come'}; {total:.1f} hours on "
        f"{card.hardware.get('threads')} threads; torch {card.versions['torch']}, transformers "
        f"{card.versions['transformers']}; card {card.hash}.", "",
        "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS),
        *(line(folder, record, method, length) for method in held), "",
    ]  # fmt: skip
    missing = [method for method in methods if method not in held]
    return lines + ([f"Not run: {', '.join(missing)}.", ""] if missing else [])


INTRODUCTION = """# All methods, one table

Written by `{command}`, which grows one run folder for each length. NLL in nats a token; *inside* and *beyond* the trained
length, mean over documents; *gain over crop* is what reading all saves against reading the last 8,192 tokens, on the same
targets; *price* is the NLL lost inside the window, paired. The needle is five digits, right where each is the first choice.
Brackets are 95% intervals: over documents, or clustered over haystacks; differences are paired.
"""


def write_table(out: Path, page: Path, command: str) -> None:
    """The page with both tables."""
    lines = [*section(out / "16k", 16384, FIRST + REST), *section(out / "32k", 32768, LONGER)]
    page.write_text("\n".join([INTRODUCTION.format(command=command), *lines]), encoding="utf-8")


def main() -> int:
    """Runs what is missing, step by step, and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder (default: the demo's)")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--page", type=Path, default=Path("docs/methods-measured.md"))
    parser.add_argument("--until", choices=STEPS, default="first")
    parser.add_argument("--haystacks", type=int, default=24)
    parser.add_argument("--table-only", action="store_true", help="write the table of what is there")
    args = parser.parse_args()
    command = "python -m experiments.methods" + (f" --model {args.model}" if args.model else "")
    if not args.table_only:
        model, documents = args.model or model_folder(Path("runs/inputs")), texts(Path("runs/inputs/texts"))
        for step in steps(args.until, args.haystacks):
            if not has(read(args.out / step.folder), step):
                print(f"{step.folder}: {', '.join(step.methods)}; {step.haystacks} haystacks", file=sys.stderr, flush=True)
                run(step, model, args.out, documents, Progress())
                write_table(args.out, args.page, command)
    write_table(args.out, args.page, command)
    print(args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
