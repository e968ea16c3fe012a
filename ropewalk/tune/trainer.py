"""`transformers.Trainer` with our loss, our rows and our state.

What is ours: the loss is a sum over tokens, divided by the number of learned tokens of the whole accumulated batch over all
processes, so that no mean of means weighs a short document's tokens more; rows come in order; a state in safetensors takes
the place of Trainer's pickled checkpoint; a watch stops what runs away; validation is a scorer that is handed in, told under
Trainer's names (`eval_...`), so that trackers and early stopping know it. Callbacks, trackers (`report_to`), accelerate's
launchers and precision are Trainer's own, and callbacks see the real model.

Six of the methods that are overridden begin with an underscore. Five are how Trainer writes and reads its checkpoint, and
there is no other way to leave its pickles out; one hands over the gradients' norm, which is taken before they are clipped.
The tests of resuming and of faults hold them to the transformers that is installed.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ropewalk.core.errors import InputError
from ropewalk.core.plurals import counted
from ropewalk.tune import state
from ropewalk.tune.batches import RunRows, collate
from ropewalk.tune.callbacks import Callbacks, Steps
from ropewalk.tune.faults import DivergedError, Watch, message, note
from ropewalk.tune.learner import Learner
from ropewalk.tune.loss import num_learned

Log = Callable[[dict[str, Any]], None]
Validate = Callable[[Learner, int], dict[str, float]]
"""Held-out scores of the bare model at a step, by length."""


class Tuner(Trainer):  # type: ignore[misc]
    """Trains a `Learner` on `RunRows`, writes its state below `states`, and tells every step to `log`."""

    callback_handler: Any
    control: Any

    def __init__(
        self, learner: Learner, args: TrainingArguments, rows: RunRows, *, states: Path, log: Log | None = None,
        validate: Validate | None = None, metric: str = "loss", callbacks: Sequence[TrainerCallback] = (),
    ) -> None:  # fmt: skip
        """`metric` names the validation's scores, in trackers and for early stopping."""
        # Validation is ours, but Trainer asks for some data set where it is to happen.
        super().__init__(model=learner, args=args, train_dataset=rows, eval_dataset=rows, data_collator=collate)
        self.rows, self.states, self.told = rows, states, log
        self.watch = Watch()
        self.validate, self.metric = validate, metric
        # The loss is divided by the labels of the whole batch here, so Trainer is to count them and divide no more; a row's
        # first label is never learned.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._loss_shifts_labels = True
        self._losses: list[Tensor] = []
        self._norm = 0.0
        self._learned: list[Tensor] = []
        self._before: dict[str, Tensor] | None = None
        # Results go to stdout, and a step's line is none.
        self.remove_callback(PrinterCallback)
        self._hand_over([Steps(self), *self.callback_handler.callbacks], callbacks)

    def _hand_over(self, own: Sequence[TrainerCallback], users: Sequence[TrainerCallback]) -> None:
        """Callbacks are given the real model from the beginning, so the users' are added after Trainer's are made."""
        self.callback_handler = Callbacks(own, self.model.model, self.callback_handler, self.accelerator.autocast)
        for callback in users:
            self.add_callback(callback)
            added = self.callback_handler.callbacks[-1]
            added.on_init_end(self.args, self.state, self.control, model=self.callback_handler.model)

    def go(self) -> int:
        """Trains to the end, from the newest state where there is one; the steps by then, fewer than were asked for where a
        callback stopped it. Raises `InputError` for other processes than those the state was written by."""
        newest = state.latest(self.states)
        content = None if newest is None else state.read(newest)
        if newest is None or content is None:
            self.train()
            return int(self.state.global_step)
        if content["processes"] != self.args.world_size:
            raise InputError(
                f"the run was begun by {counted(content['processes'], 'process', 'processes')}, and this is one of "
                f"{self.args.world_size}; start as many, or begin anew with --force"
            )
        if content["finished"]:
            # Killed between the last step and the writing of the result.
            state.load_parameters(newest, self.model)
            return int(content["step"])
        self.train(resume_from_checkpoint=str(newest))
        return int(self.state.global_step)

    # --- the loss -------------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This process's share of the batch's mean loss over learned tokens."""
        outputs = model(**inputs)
        items = num_items_in_batch if num_items_in_batch is not None else num_learned(inputs["labels"])
        items = torch.as_tensor(items, device=outputs["loss"].device)
        self._learned.append(items.detach().float())
        loss = outputs["loss"] / items.clamp(min=1)
        # Gradients are averaged over processes, and this loss is divided by the labels of all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass; the losses of a step's passes add up to the step's loss."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(loss)
        return loss

    def begin(self) -> None:
        """Before a step: what its dropout will draw from is kept, for a state that is written where the step fails."""
        self._before = state.generators()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """The norm of the gradients as they were; what is judged are clipped ones."""
        self._norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        return self._norm

    def judge(self) -> None:
        """Before a step is taken: raises `DivergedError`, the state saved, where loss or gradients are not to be trusted."""
        step = torch.stack([torch.stack(self._losses).sum(), torch.stack(self._learned).sum()])
        self._losses, self._learned = [], []
        losses, learned = self.accelerator.gather(step[None]).unbind(1)
        fault = self.watch.fault(float(losses.mean()), learned=bool((learned > 0).any()))
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        if fault is None and not all(bool(torch.isfinite(grad).all()) for grad in grads):
            fault = "a gradient is not finite"
        if fault is None and not math.isfinite(self._norm):
            # Its squares were too large for float32, and gradients were clipped to zeros.
            fault = f"the norm of the gradients is {self._norm}"
        if fault is not None:
            self.save_state(fault=fault)
            raise DivergedError(message(fault, self.state.global_step + 1, self._rows_of_step(), self.states))

    def _rows_of_step(self) -> str:
        per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        low = self.state.global_step * per_step
        return self.rows.describe(low, low + per_step)

    def tell(self, line: dict[str, Any]) -> None:
        """A line for the log, from one process."""
        if self.told is not None and self.is_world_process_zero():
            self.told(line)

    # --- validation -----------------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The scorer's scores: `eval_loss_LENGTH` for each length, and `eval_loss` for the longest."""
        assert self.validate is not None, "validation without a scorer"
        step = self.state.global_step
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            scores = self.validate(self.model, step)
        self.model.train()
        if self.accelerator.num_processes > 1:
            # All decide by the same numbers, to the last bit: one that stops early alone would leave the others waiting.
            told = torch.tensor(list(scores.values()), dtype=torch.float64, device=self.accelerator.device)
            first = self.accelerator.gather(told[None])[0].tolist()
            scores = dict(zip(scores, first, strict=True))
        finite = {length: score if math.isfinite(score) else None for length, score in scores.items()}
        self.tell({"step": step, "validation": finite})
        name = f"{metric_key_prefix}_{self.metric}"
        metrics = {f"{name}_{length}": score for length, score in scores.items()}
        metrics[name] = scores[max(scores, key=int)]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- the state ------------------------------------------------------------------------------------------------------

    def save_state(self, *, fault: str | None = None) -> None:
        """Writes our state, in place of Trainer's own (`Trainer.save_state` writes its progress alone).

        With a `fault` it is the state before the failed step, and the one before it stays.
        """
        generators = self._of_all(state.generators() if fault is None or self._before is None else self._before)
        if self.is_world_process_zero():
            if fault is not None:
                note(self.states, self.state.global_step, fault, self.args.learning_rate)
            self.state.stateful_callbacks = self.callback_handler.exported(self.control)
            finished = self.state.global_step >= self.args.max_steps or (fault is None and self.control.should_training_stop)
            state.save(
                self.states, self.state.global_step, model=self.model, optimizer=self.optimizer,
                scheduler=self.lr_scheduler, watch=self.watch.to_dict(), trainer=dataclasses.asdict(self.state),
                generators=generators, processes=self.args.world_size, rate=self.args.learning_rate, finished=finished,
                keep=fault is not None,
            )  # fmt: skip
        self.accelerator.wait_for_everyone()

    def _of_all(self, generators: dict[str, Tensor]) -> dict[str, Tensor]:
        """The generators of every process, by process and device."""
        if self.args.world_size == 1:
            return {f"0/{name}": value for name, value in generators.items()}
        found: dict[str, Tensor] = {}
        for name, value in generators.items():
            gathered = self.accelerator.gather(value.to(self.accelerator.device)[None])
            found |= {f"{rank}/{name}": row.cpu() for rank, row in enumerate(gathered)}
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The real model, as `save_pretrained` writes it."""
        if self.is_world_process_zero():
            self.model.model.save_pretrained(output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_state()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        state.load_parameters(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            path = Path(checkpoint)
            state.load_rest(path, optimizer=self.optimizer, scheduler=self.lr_scheduler, rate=self.args.learning_rate)
            self.watch = Watch(state.read(path)["watch"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state.load_generators(Path(checkpoint), self.args.process_index)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing: float16 with a scaler is not offered."""
