"""`transformers.Trainer` with our loss, our rows and our state.

What is ours: the loss is a sum over tokens, divided by the number of learned tokens of the whole accumulated batch over all
processes, so that no mean of means weighs a short document's tokens more; rows come in order; a state in safetensors takes
the place of Trainer's pickled checkpoint; a watch stops what runs away. Callbacks, trackers (`report_to`), accelerate's
launchers and precision are Trainer's own.

Five of the methods that are overridden begin with an underscore: they are how Trainer writes and reads its checkpoint, and
there is no other way to leave its pickles out. The tests of resuming hold them to the transformers that is installed.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ropewalk.tune import state
from ropewalk.tune.batches import Rows, collate
from ropewalk.tune.faults import DivergedError, Watch, message
from ropewalk.tune.settings import Settings

Log = Callable[[dict[str, Any]], None]
Validate = Callable[[nn.Module, int], dict[str, float]]
"""Held-out scores of the bare model at a step, by name."""


def arguments(
    settings: Settings, out: Path, *, device: str = "cpu", bfloat16: bool = False, extra: Mapping[str, Any] | None = None
) -> TrainingArguments:
    """Trainer's arguments for our settings; `extra` is passed on as it is (`report_to`, `push_to_hub`, `run_name`, ...)."""
    chosen: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.beta1,
        "adam_beta2": settings.beta2,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        "average_tokens_across_devices": True,
        "dataloader_num_workers": 0,
        "report_to": [],
        "disable_tqdm": True,
        "bf16": bfloat16,
        "use_cpu": device == "cpu",
        **(extra or {}),
    }
    return TrainingArguments(**chosen)


class Tuner(Trainer):  # type: ignore[misc]
    """Trains a `Learner` on `Rows`, writes its state below `states`, and tells every step to `log`."""

    def __init__(
        self, learner: nn.Module, args: TrainingArguments, rows: Rows, *, states: Path, log: Log | None = None,
        validate: Validate | None = None, validate_every: int = 0, callbacks: Sequence[TrainerCallback] = (),
    ) -> None:  # fmt: skip
        super().__init__(model=learner, args=args, train_dataset=rows, data_collator=collate, callbacks=[*callbacks])
        self.rows, self.states, self.told = rows, states, log
        self.watch = Watch()
        self.validate, self.validate_every = validate, validate_every
        # The loss is divided by the labels of the whole batch here, so Trainer is to count them and divide no more.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._losses: list[Tensor] = []
        # Results go to stdout, and a step's line is none.
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self))

    def go(self) -> None:
        """Trains to the end, from the newest state where there is one."""
        newest = state.latest(self.states)
        if newest is not None and state.read(newest)["step"] >= self.args.max_steps:
            # Killed between the last step and the writing of the result.
            state.load_parameters(newest, self.model)
            return
        self.train(resume_from_checkpoint=None if newest is None else str(newest))

    # --- the loss -------------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This process's share of the batch's mean loss over learned tokens."""
        outputs = model(**inputs)
        items = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != -100).sum()
        loss = outputs["loss"] / torch.as_tensor(items, device=outputs["loss"].device).clamp(min=1)
        # Gradients are averaged over processes, and this loss is divided by the labels of all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass; the losses of a step's passes add up to the step's loss."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(loss)
        return loss

    def judge(self) -> None:
        """Before a step is taken: raises `DivergedError`, the state saved, where loss or gradients are not to be trusted."""
        loss = torch.stack(self._losses).sum()
        self._losses = []
        loss = self.accelerator.gather(loss[None]).mean()
        fault = self.watch.fault(float(loss))
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        if fault is None and not all(bool(torch.isfinite(grad).all()) for grad in grads):
            fault = "a gradient is not finite"
        if fault is not None:
            self.save_state()
            raise DivergedError(message(fault, self.state.global_step + 1, self._rows_of_step(), str(self.states)))

    def _rows_of_step(self) -> str:
        per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        low = self.state.global_step * per_step
        return self.rows.describe(low, low + per_step)

    # --- the state ------------------------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Writes our state, in place of Trainer's own (`Trainer.save_state` writes its progress alone)."""
        if self.args.should_save:
            state.save(
                self.states, self.state.global_step, model=self.model, optimizer=self.optimizer,
                scheduler=self.lr_scheduler, watch=self.watch.to_dict(), trainer=dataclasses.asdict(self.state),
            )  # fmt: skip

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_state()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        state.load_parameters(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            path = Path(checkpoint)
            state.load_rest(path, optimizer=self.optimizer, scheduler=self.lr_scheduler)
            self.watch = Watch(state.read(path)["watch"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state.load_generators(Path(checkpoint))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing: float16 with a scaler is not offered."""


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Judges a step before it is taken, tells its log, and validates."""

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner

    def on_pre_optimizer_step(self, args: Any, trainer_state: Any, control: Any, **kwargs: Any) -> None:
        """Between the gradients and the step."""
        self.tuner.judge()

    def on_log(self, args: Any, trainer_state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One line for each step; the summary at the end has other keys and is left out."""
        if self.tuner.told is not None and logs and "loss" in logs and trainer_state.is_world_process_zero:
            kept = {key: logs[key] for key in ("loss", "grad_norm", "learning_rate") if key in logs}
            self.tuner.told({"step": trainer_state.global_step, **kept})

    def on_step_end(self, args: Any, trainer_state: Any, control: Any, **kwargs: Any) -> None:
        """Validation, where it is asked for: every so many steps and at the last one."""
        tuner, step = self.tuner, trainer_state.global_step
        every = tuner.validate_every
        if tuner.validate is None or not (step == args.max_steps or (every and step % every == 0)):
            return
        model = tuner.model
        model.eval()
        with torch.no_grad():
            scores = tuner.validate(model, step)
        model.train()
        if tuner.told is not None and trainer_state.is_world_process_zero:
            tuner.told({"step": step, "validation": scores})


def steps_told(path: Path, upto: int) -> list[dict[str, Any]]:
    """The lines of a log up to a step; half a line at its end, and what was told after the last state, are left out."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told["step"] <= upto:
            kept.append(told)
    return kept
