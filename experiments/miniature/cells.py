"""Cells: one training or one reading, a pure function of the seed and what it says, kept on disk when it is done.

    OUT/tuned/SEED-ARM/              the folder that `ropewalk.tune` leaves: a source, with its card and its log
    OUT/read/SEED-SPLIT-NAME.npy     NLL of every token; .json beside it says with what it was made

What is there is not made again, and a training that was killed goes on where it was. Two processes may share a folder where
they are given different seeds or cells; nothing else keeps them apart.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ropewalk
from experiments.miniature import reading
from experiments.miniature.base import base
from experiments.miniature.corpus import Corpus, Ids
from experiments.miniature.sizes import Sizes
from experiments.miniature.windows import streams


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
    """What it begins from; the base where there is none."""

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

    @property
    def name(self) -> str:
        """A file's name that says everything."""
        read = self.method.replace(":", "_") + (f"-{self.length}" if self.length else "")
        return f"{self.arm.name}~{read}" if self.arm else f"base~{read}"


@dataclass(kw_only=True)
class Cells:
    """Everything that is trained and read in one folder."""

    out: Path
    sizes: Sizes
    corpus: Corpus
    make: bool = True
    """False only reads what is there."""
    _seconds: dict[str, float] = field(default_factory=dict)

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
        final, sizes = self.folder(seed, arm), self.sizes
        if (final / "config.json").is_file():
            return final
        source = self.tuned(seed, arm.parent) if arm.parent else self.base(seed)
        final.parent.mkdir(exist_ok=True)
        rows, group = sizes.step_tokens // arm.window, {"group": arm.group, "pattern": arm.pattern}
        data = streams(self.corpus, seed=1000 + seed, positions=arm.positions, target_length=arm.length)
        whole, watched = arm.recipe == "full", arm.recipe == "full" and arm.length > sizes.window
        began = time.monotonic()
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
        _say(f"seed {seed}: trained {arm.name}, {time.monotonic() - began:.0f} s")
        return final

    def _scorer(self) -> Any:
        def scorer(model: Any, length: int) -> float:
            curves = reading.as_loaded(model, self.corpus.validation, dataclasses.replace(self.sizes, lengths=(length, length)))
            return float(reading.beyond(curves, self.sizes, length).mean())

        return scorer

    def validations(self, seed: int, arm: Arm) -> list[tuple[int, float]]:
        """(step, NLL beyond the window on the validation documents) of a finished training, the untuned plan as step 0."""
        first = self.read(seed, Reading(method=arm.method, length=arm.length), split="validation")
        path = self.folder(seed, arm) / "log.jsonl"
        if first is None or not path.is_file():
            return []
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        told = [(line["step"], float(line["validation"][str(arm.length)])) for line in lines if "validation" in line]
        return [(0, float(reading.beyond(first, self.sizes, arm.length).mean())), *told]

    def path(self, seed: int, cell: Reading, split: str = "held-out") -> Path:
        """Where a reading is kept."""
        return self.out / "read" / f"{seed}-{split}-{cell.name}.npy"

    def read(self, seed: int, cell: Reading, split: str = "held-out") -> reading.Curves | None:
        """A reading; None where it is not there and nothing is to be made."""
        path = self.path(seed, cell, split)
        if path.is_file():
            found: reading.Curves = np.load(path)
            return found
        if not self.make:
            return None
        source = self.tuned(seed, cell.arm) if cell.arm else self.base(seed)
        began = time.monotonic()
        documents = self.corpus.validation if split == "validation" else self.corpus.held_out
        curves = self._curves(source, cell, documents)
        seconds = time.monotonic() - began
        path.parent.mkdir(exist_ok=True)
        told = {
            "seed": seed, "split": split, "cell": dataclasses.asdict(cell), "documents": list(documents),
            "seconds": round(seconds, 2), "corpus": self.corpus.fingerprint, "torch": torch.__version__,
            "ropewalk": ropewalk.__version__,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        part = path.with_suffix(".part.npy")
        np.save(part, curves)
        part.replace(path)
        _say(f"seed {seed}: read {cell.name} ({split}), {seconds:.0f} s")
        return curves

    def _curves(self, source: Path, cell: Reading, documents: Mapping[str, Ids]) -> reading.Curves:
        model, _ = ropewalk.load(source, dtype="float32", device="cpu")
        if cell.method == "crop":
            return reading.cropped(model, documents, self.sizes)
        if cell.method in ("own", "none"):
            return reading.as_loaded(model, documents, self.sizes)
        plan = ropewalk.plan(source, cell.method, length=cell.length)
        return reading.under(model, plan, documents, self.sizes)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
