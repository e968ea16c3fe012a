"""Cells: one training or one reading, a pure function of the seed and what it says, kept on disk when it is done.

    OUT/tuned/SEED-ARM/              the folder that `ropewalk.tune` leaves: a source, with its card and its log
    OUT/read/SEED-SPLIT-NAME.npy     NLL of every token; .json beside it says with what it was made

What is there is not made again, and a training that was killed goes on where it was. Several processes may share a folder:
who comes second to a cell waits for it.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ropewalk
from experiments.miniature import reading
from experiments.miniature.base import base
from experiments.miniature.corpus import Corpus, Ids
from experiments.miniature.locks import alone
from experiments.miniature.probe import first_sentence
from experiments.miniature.sizes import Sizes
from experiments.miniature.windows import streams
from ropewalk.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training, but for its seed."""

    method: str
    """A plan; `none` keeps positions as they are."""
    length: int
    """What the plan is for."""
    window: int
    steps: int
    recipe: str = "full"
    attention: str = "full"
    group: int = 0
    """Tokens of a group of shifted sparse attention."""
    pattern: str = "heads"
    positions: str = "full"
    parent: "Arm | None" = None
    """What it begins from; the base where there is none. Rows go on where the parent's ended."""

    def __post_init__(self) -> None:
        """Raises `InputError` where rows could not go on."""
        if self.parent and self.parent.window != self.window:
            raise InputError(
                f"rows of {self.window} tokens after a parent's of {self.parent.window}: the order of rows is another, so "
                "texts would come again; give both the same window"
            )

    @property
    def num_steps_before(self) -> int:
        """Steps of everything that it begins from, the base apart."""
        return self.parent.steps + self.parent.num_steps_before if self.parent else 0

    @property
    def name(self) -> str:
        """A folder's name that says everything."""
        parts = [self.method.replace(":", "_"), str(self.length), f"w{self.window}", f"{self.steps}steps"]
        parts += [self.recipe] if self.recipe != "full" else []
        parts += [f"s2_{self.group}_{self.pattern}"] if self.attention == "s2" else []
        parts += [self.positions] if self.positions != "full" else []
        return "-".join(parts) + (f"+{self.parent.name}" if self.parent else "")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A reading of a base under a method, or of what a training left, but for its seed."""

    arm: Arm | None = None
    """None reads the base."""
    method: str = "own"
    """A plan to put on the base; `own` what the folder carries, `crop` the baseline."""
    length: int = 0
    """What the plan is for; 0 where there is none."""
    what: str = "nll"
    """`nll` of every token, or the `probe` of the first sentence."""

    @property
    def name(self) -> str:
        """A file's name that says everything."""
        read = self.method.replace(":", "_") + (f"-{self.length}" if self.length else "")
        read += "-probe" if self.what == "probe" else ""
        return f"{self.arm.name}~{read}" if self.arm else f"base~{read}"


def untrained(arm: Arm) -> Reading:
    """The plan of a training on the base, before its first step."""
    return Reading(method=arm.method, length=arm.length)


@dataclass(kw_only=True)
class Cells:
    """Everything that is trained and read in one folder."""

    out: Path
    sizes: Sizes
    corpus: Corpus
    watched: frozenset[Arm]
    """Trainings that are validated as they go on."""
    make: bool = True
    """False only reads what is there."""
    only: str = ""
    """A part of the names of the cells that are made."""

    def __post_init__(self) -> None:
        """Raises `SystemExit` where the folder was made with other sizes or another corpus."""
        path = self.out / "sizes.json"
        asked = {**dataclasses.asdict(self.sizes), "lengths": list(self.sizes.lengths), "corpus": self.corpus.fingerprint}
        if not path.is_file():
            path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        held = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in asked if held.get(key) != asked[key])
        if differing:
            raise SystemExit(f"{self.out} was made with another {', '.join(differing)}; give another --out")

    def base(self, seed: int) -> Path:
        """The trained base of a seed."""
        return base(self.out, self.sizes, self.corpus, seed)

    def folder(self, seed: int, arm: Arm | None) -> Path:
        """Where a training leaves its result."""
        return self.out / f"base-{seed}" if arm is None else self.out / "tuned" / f"{seed}-{arm.name}"

    def tuned(self, seed: int, arm: Arm) -> Path:
        """The folder of a training, trained where it is not there yet."""
        final = self.folder(seed, arm)
        with alone(final):
            if not (final / "config.json").is_file():
                source = self.tuned(seed, arm.parent) if arm.parent else self.base(seed)
                self._train(seed, arm, source, final)
        return final

    def _train(self, seed: int, arm: Arm, source: Path, final: Path) -> None:
        sizes = self.sizes
        rows = sizes.step_tokens // arm.window
        group: dict[str, Any] = {"group": arm.group, "pattern": arm.pattern}
        data = streams(
            self.corpus, seed=1000 + seed, positions=arm.positions, target_length=arm.length,
            first=rows * arm.num_steps_before,
        )  # fmt: skip
        # In bfloat16 an adapter's base would be held rounded, where full weights stay in float32 under autocast.
        whole, watched = arm.recipe == "full", arm in self.watched
        began, used = time.monotonic(), time.process_time()
        ropewalk.tune(
            source, data, length=arm.length, out=final, method=None if arm.method == "none" else arm.method,
            # Another plan on a tuned model departs from the origin, as the paper's does.
            lineage="runtime" if arm.parent and arm.method != "none" else None, steps=arm.steps, window=arm.window,
            recipe=arm.recipe, attention=arm.attention, positions=arm.positions, **(group if arm.attention == "s2" else {}),
            learning_rate=sizes.tune_rate, schedule="constant", warmup_steps=sizes.tune_warmup, batch_size=rows, seed=seed,
            checkpoint_every=0, save_every=50, dtype=sizes.dtype if whole else "float32", device="cpu", merge=not whole,
            scorer=self._scorer() if watched else None, validate_lengths=[arm.length] if watched else [],
            validate_every=sizes.validate_every if watched else 0, resume=final.exists(),
        )  # fmt: skip
        self._told(f"{seed} train {arm.name}", time.monotonic() - began, time.process_time() - used)

    def _scorer(self) -> Any:
        def scorer(model: Any, length: int) -> float:
            short = dataclasses.replace(self.sizes, lengths=(length, length))
            # Training multiplies in bfloat16 around this; readings, step 0 among them, are float32.
            with torch.autocast("cpu", enabled=False):
                curves = reading.as_loaded(model, self.corpus.validation, short)
            return float(reading.beyond(curves, short, length).mean())

        return scorer

    def validations(self, seed: int, arm: Arm) -> list[tuple[int, float]]:
        """(step, NLL beyond the window on the validation documents) of a finished training, the untuned plan as step 0.

        Empty where the training is not there, or was not watched.
        """
        first = self.read(seed, untrained(arm), split="validation")
        path = self.folder(seed, arm) / "log.jsonl"
        if first is None or not (path.with_name("config.json").is_file() and path.is_file()):
            return []
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        told = [(line["step"], float(line["validation"][str(arm.length)])) for line in lines if "validation" in line]
        return [(0, float(reading.beyond(first, self.sizes, arm.length).mean())), *told] if told else []

    def _told(self, name: str, seconds: float, busy: float) -> None:
        """What a cell took, on the clock and of processors; a killed and resumed one tells its last part alone."""
        line = json.dumps({"cell": name, "seconds": round(seconds, 1), "cpu_seconds": round(busy, 1)})
        with (self.out / "times.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)

    def path(self, seed: int, cell: Reading, split: str = "held-out") -> Path:
        """Where a reading is kept."""
        return self.out / "read" / f"{seed}-{split}-{cell.name}.npy"

    def read(self, seed: int, cell: Reading, split: str = "held-out") -> reading.Curves | None:
        """A reading; None where it is not there and is not to be made."""
        path = self.path(seed, cell, split)
        if not path.is_file():
            if not self.make or self.only not in cell.name:
                return None
            source = self.tuned(seed, cell.arm) if cell.arm else self.base(seed)
            with alone(path):
                if not path.is_file():
                    self._keep(seed, cell, split, source, path)
        found: reading.Curves = np.load(path)
        return found

    def _keep(self, seed: int, cell: Reading, split: str, source: Path, path: Path) -> None:
        began, used = time.monotonic(), time.process_time()
        documents = self.corpus.validation if split == "validation" else self.corpus.held_out
        curves = self._curves(source, cell, documents)
        told = {
            "seed": seed, "split": split, "cell": dataclasses.asdict(cell), "documents": list(documents),
            "corpus": self.corpus.fingerprint, "torch": torch.__version__, "ropewalk": ropewalk.__version__,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        part = path.with_suffix(".part.npy")
        np.save(part, curves)
        part.replace(path)
        self._told(f"{seed} read {cell.name} {split}", time.monotonic() - began, time.process_time() - used)

    def _curves(self, source: Path, cell: Reading, documents: Mapping[str, Ids]) -> reading.Curves:
        model, tokenizer = ropewalk.load(source, dtype="float32", device="cpu")
        if cell.what == "probe":
            return first_sentence(model, tokenizer, documents, self.sizes)
        if cell.method == "crop":
            return reading.cropped(model, documents, self.sizes)
        if cell.method in ("own", "none"):
            return reading.as_loaded(model, documents, self.sizes)
        plan = ropewalk.plan(source, cell.method, length=cell.length)
        return reading.under(model, plan, documents, self.sizes)
