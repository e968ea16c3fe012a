"""One tuning run, from a planned config to a folder that is a source: build, dress, train, write.

DIR/card.json  log.jsonl      what was asked, and a line for each step
    state/plan/               config and tokenizer with the plan on, before any weight
    state/step-000050/        what a killed run goes on from
    config.json, weights or adapter, tokenizer     at the end; then the card says done, and state/ goes
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ropewalk.core.errors import MachineError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.core.run import Run
from ropewalk.hosts import folder, live
from ropewalk.hosts.watched import out_of_memory
from ropewalk.tune import checkpointing, faults, hub, state
from ropewalk.tune.arguments import arguments, left_idle
from ropewalk.tune.attention import StageAttention
from ropewalk.tune.batches import RunRows, Stream
from ropewalk.tune.callbacks import steps_told
from ropewalk.tune.heap import give_back_large
from ropewalk.tune.learner import Learner
from ropewalk.tune.processes import Processes
from ropewalk.tune.recipes import dress, num_trained
from ropewalk.tune.settings import Settings
from ropewalk.tune.text_part import num_unseen
from ropewalk.tune.ticker import Ticker
from ropewalk.tune.trainer import Tuner

LOG = "log.jsonl"
TRAINER = "trainer"
"""Where callbacks and trackers of Trainer write; it goes where they wrote nothing."""
Scorer = Callable[[Any, int], float]
"""A held-out score of the bare model at a length."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a run is made of, checked."""

    checkpoint: folder.Checkpoint
    source: str
    plan: Plan | None
    """None keeps what the source carries."""
    geometry: Geometry
    settings: Settings
    streams: Sequence[Stream]
    device: torch.device
    bfloat16: bool
    merge: bool = False
    """A full checkpoint is written where an adapter was trained."""
    scorer: Scorer | None = None
    validate_lengths: tuple[int, ...] = ()
    validate_every: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to `TrainingArguments`, see `ropewalk.tune.arguments`."""
    callbacks: Sequence[Any] = ()
    progress: Progress = field(default_factory=Progress)
    processes: Processes = field(default_factory=Processes)

    def run(self, run: Run) -> None:
        """Trains what is missing and writes the result into the run's folder. The card says how it ended."""
        try:
            self._run(run)
        except KeyboardInterrupt:
            self._told(run, "interrupted")
            raise
        except (MemoryError, RuntimeError) as error:
            self._told(run, "failed")
            if not out_of_memory(error):
                raise
            raise MachineError(
                f"out of memory at rows of {max(s.window for s in self.settings.stages)} tokens; give a smaller "
                "--batch-size or --window, and a new --out or --force; --longest says what fits"
            ) from error
        except Exception:
            self._told(run, "failed")
            raise
        # First the card: killed between the two, a run whose states are gone would be trained again.
        self._told(run, "done")
        if self.processes.first:
            swept(run.path)

    def _told(self, run: Run, status: str) -> None:
        if self.processes.first:
            run.save_card(status)

    def _run(self, run: Run) -> None:
        states, start = run.path / "state", run.path / "state" / "plan"
        upload = hub.asked(self.extra)
        self.processes.lead(lambda: self._prepare(states, start, upload))
        give_back_large()
        with self.progress.task("loading the model"):
            model, _ = self._build(start)
        with StageAttention(model, self.settings) as attention:
            learner = dressed(model, self.settings)
            trained, total = num_trained(learner)
            self.progress.say(f"{trained:,} of {total:,} parameters train")
            if unseen := num_unseen(learner.bare):
                self._note(
                    run, f"{unseen:,} parameters are of parts that no text comes to (images, sound), and stay as they are"
                )
            if (words := left_idle(self.device, num_processes=self.processes.count)) is not None:
                self.progress.say(words)
            with self.progress.task("training") as shown:
                step = self._train(learner, run, states, shown, attention)
        if step < self.settings.steps:
            self._say_stopped(run, step)
        self.processes.lead(lambda: self._finish(learner.model, run.path, start, step, upload))

    def _say_stopped(self, run: Run, step: int) -> None:
        self._note(
            run, f"a callback stopped the run after step {step} of {self.settings.steps}; what is written says {step}"
        )

    def _note(self, run: Run, words: str) -> None:
        """Says it, and lets the card say so: its configuration is what was asked for."""
        self.progress.say(words)
        finding = {"field": "tune", "severity": "note", "problem": words, "mend": ""}
        if finding not in run.card.findings:
            run.card.findings.append(finding)

    def _prepare(self, states: Path, start: Path, upload: hub.Upload | None) -> None:
        """Everything on disk that the training begins with."""
        if not (start / "config.json").is_file():
            for note in folder.write_start(
                self.checkpoint, self.plan, start, length=self.settings.length, geometry=self.geometry
            ):
                self.progress.say(note)
        folder.name_base(start, self.checkpoint, self.source)
        faults.leave(states, self.settings.learning_rate)
        if upload is not None:
            upload.prepare()

    def _finish(self, model: Any, out: Path, start: Path, step: int, upload: hub.Upload | None) -> None:
        with self.progress.task("writing"):
            self._write(model, out, start, step)
        if upload is not None:
            # Before the states go: where the hub is not reached, --resume comes back to this place.
            with self.progress.task(f"uploading to {upload.repository}"):
                upload.push(out, start)

    def _build(self, start: Path) -> tuple[Any, Any]:
        return live.build(
            self.checkpoint.path, start, dtype=held_dtype(self.settings, bfloat16=self.bfloat16), device=self.device,
            four_bits=self.settings.recipe == "qlora",
        )  # fmt: skip

    def _train(self, learner: Learner, run: Run, states: Path, shown: Progress, attention: StageAttention) -> int:
        """The steps that were made, fewer than the settings' where a callback stopped the run."""
        settings = self.settings
        newest = state.latest(states)
        if self.processes.first:
            run.rewrite(LOG, steps_told(run.path / LOG, 0 if newest is None else state.read(newest)["step"]))

        def log(told: dict[str, Any]) -> None:
            run.append(LOG, [told])
            ticker.tell(told)

        args = arguments(
            settings, run.path / TRAINER, device=self.device.type, bfloat16=self.bfloat16, extra=self.extra,
            validate_every=None if self.scorer is None else self.validate_every,
        )  # fmt: skip
        rows = RunRows(settings, self.streams, processes=args.world_size)
        metric = getattr(self.scorer, "metric", "loss")
        ticker = Ticker(settings, shown, metric=metric, num_processes=args.world_size)
        tuner = Tuner(
            learner, args, rows, states=states, log=log, validate=self._validate(),
            metric=metric, callbacks=[attention, *self.callbacks],
        )  # fmt: skip
        with accumulation_in_order():
            step = tuner.go()
        ticker.end()
        return step

    def _validate(self) -> Callable[[nn.Module, int], dict[str, float]] | None:
        scorer = self.scorer
        if scorer is None:
            return None

        def validate(learner: Any, step: int) -> dict[str, float]:
            scores = {str(length): float(scorer(learner.bare, length)) for length in self.validate_lengths}
            for length, score in scores.items():
                if not math.isfinite(score):
                    self.progress.say(f"held-out score at {length} tokens is {score} after step {step}; the log has null")
            return scores

        return validate

    def _write(self, model: Any, out: Path, start: Path, step: int) -> None:
        adapter = self.settings.recipe != "full" and not self.merge
        plain = self._merged(model, start) if self.merge and self.settings.recipe != "full" else model
        stages = [dataclasses.asdict(stage) for stage in self.settings.reached(step)]
        tuning = {"steps": step, "recipe": self.settings.recipe, "attention": self.settings.attention,
                  "positions": self.settings.positions, "stages": stages}  # fmt: skip

        def save(stage: Path) -> None:
            plain.save_pretrained(stage, safe_serialization=True)
            (stage / "README.md").unlink(missing_ok=True)

        notes = folder.write_end(
            start, out, save, tuning=tuning, dtype="float32", base=self.checkpoint if adapter else None
        )  # fmt: skip
        for note in notes:
            self.progress.say(note)

    def _merged(self, model: Any, start: Path) -> Any:
        """Adapters added to the base as it was, in float32 on the processor: what `load` of their folder reads.

        The base here may be held in bfloat16, which keeps nothing of a change below 1/256 of a weight, or in 4 bits; and a
        device that trained may have no room for whole weights in float32.
        """
        scratch = start.parent / "adapter"
        shutil.rmtree(scratch, ignore_errors=True)
        model.save_pretrained(scratch, safe_serialization=True)
        base, _ = live.build(self.checkpoint.path, start, dtype=torch.float32, device=torch.device("cpu"))
        return live.with_adapter(base, scratch)


def held_dtype(settings: Settings, *, bfloat16: bool) -> torch.dtype:
    """What weights are held in: adapters train in float32 on a base that may be bfloat16, full weights train in float32."""
    return torch.bfloat16 if bfloat16 and settings.recipe != "full" else torch.float32


def dressed(model: Any, settings: Settings) -> Learner:
    """The model made ready to train by its recipe, with its loss; what trains of it is float32."""
    # Adapters begin with random numbers.
    torch.manual_seed(settings.seed)
    checkpointing.enable(model, settings)
    learner = Learner(dress(model, settings), own_attention=settings.attention == "own")
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return learner


def swept(out: Path) -> None:
    """Takes what only an unfinished run needs out of a finished one's folder."""
    shutil.rmtree(out / "state", ignore_errors=True)
    if (out / TRAINER).is_dir() and not any((out / TRAINER).iterdir()):
        (out / TRAINER).rmdir()


@contextmanager
def accumulation_in_order() -> Iterator[None]:
    """cuBLAS and others may add in any order unless told; a resumed run is to end as an unbroken one.

    An operator that cannot is a warning; an error where the mode was strict before (`full_determinism` of Trainer).
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=before != (True, False))
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
