"""What `transformers.TrainingArguments` are made from: our settings, and what users may pass on beside them.

Every argument of the installed transformers is in one of three lists: passed on (trackers, loaders, logging of the
libraries), owned by a setting of ours (batch, steps, rate), or not served (what our state in safetensors cannot bring back,
or what would take the place of our loss). The last two are refused by name, since the last writer of an argument would
otherwise win in silence. An argument that no list knows is refused as well: it is newer than what was tried.

A process trains on one device, the first that it sees. transformers would put a model on all of them (`nn.DataParallel`),
with as many times the rows of a pass, which are not the rows that a run counts; several devices are several processes.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ropewalk.core.errors import InputError, near
from ropewalk.tune.settings import Settings

PASSED_ON = frozenset({
    "adam_epsilon", "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters",
    "ddp_static_graph", "ddp_timeout", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "debug", "disable_tqdm",
    "full_determinism", "greater_is_better", "include_num_input_tokens_seen", "log_level", "log_level_replica",
    "log_on_each_node", "lr_scheduler_kwargs", "metric_for_best_model", "optim", "optim_args", "optim_target_modules",
    "project", "report_to", "run_name", "skip_memory_metrics", "tf32", "torch_empty_cache_steps", "trackio_bucket_id",
    "trackio_space_id", "trackio_static_space_id",
})  # fmt: skip
HUB = frozenset({"push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_revision"})
"""Taken out by `ropewalk.tune.hub`, which uploads the result at the end."""
OWNED = {
    "output_dir": "out", "per_device_train_batch_size": "batch_size", "num_train_epochs": "steps", "max_steps": "steps",
    "learning_rate": "learning_rate", "lr_scheduler_type": "schedule", "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay", "adam_beta1": "beta1", "adam_beta2": "beta2",
    "gradient_accumulation_steps": "accumulate", "max_grad_norm": "max_grad_norm", "bf16": "dtype", "fp16": "dtype",
    "activation_checkpointing": "checkpoint_every", "activation_checkpointing_kwargs": "checkpoint_every",
    "gradient_checkpointing": "checkpoint_every", "gradient_checkpointing_kwargs": "checkpoint_every",
    "eval_strategy": "validate_every", "eval_steps": "validate_every", "eval_delay": "validate_every",
    "eval_on_start": "validate_every", "do_eval": "validate_every", "per_device_eval_batch_size": "scorer",
    "save_strategy": "save_every", "save_steps": "save_every", "seed": "seed", "data_seed": "seed", "use_cpu": "device",
    "resume_from_checkpoint": "resume",
}  # fmt: skip
"""An argument, and our setting or argument that says it."""
_ROWS = "rows come in an order that a resumed run repeats"
_STATE = "the state of a run is written by tune, in safetensors, and holds the newest parameters alone"
_LOSS = "the loss is tune's own, in chunks, which never makes all logits"
_SHARDS = "parameters in shards are not in tune's state; start plain processes with torchrun instead"
_SCORER = "validation is the scorer that is handed in"
NOT_SERVED = {
    "accelerator_config": _ROWS, "auto_find_batch_size": _ROWS, "dataloader_drop_last": _ROWS, "dataloader_in_order": _ROWS,
    "ignore_data_skip": _ROWS, "label_names": _ROWS, "length_column_name": _ROWS, "remove_unused_columns": _ROWS,
    "train_sampling_strategy": _ROWS, "average_tokens_across_devices": _LOSS, "label_smoothing_factor": _LOSS,
    "liger_kernel_config": _LOSS, "use_liger_kernel": _LOSS, "use_cache": _LOSS,
    "enable_jit_checkpoint": _STATE, "load_best_model_at_end": _STATE, "restore_callback_states_from_checkpoint": _STATE,
    "save_on_each_node": _STATE, "save_only_model": _STATE, "save_total_limit": _STATE,
    "batch_eval_metrics": _SCORER, "bf16_full_eval": _SCORER, "eval_accumulation_steps": _SCORER,
    "eval_do_concat_batches": _SCORER, "eval_use_gather_object": _SCORER, "fp16_full_eval": _SCORER,
    "include_for_metrics": _SCORER, "prediction_loss_only": _SCORER, "do_predict": "tune trains, and measure measures",
    "do_train": "tune trains, and measure measures", "deepspeed": _SHARDS, "fsdp": _SHARDS, "fsdp_config": _SHARDS,
    "parallelism_config": _SHARDS, "local_rank": "the launcher says it in the environment",
    "hub_strategy": "the result is pushed once, at the end", "hub_always_push": "the result is pushed once, at the end",
    "logging_first_step": "every step is told", "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "logging_steps": "every step is told", "logging_strategy": "every step is told",
    "neftune_noise_alpha": "noise on embeddings was not tried with tune's loss",
    "torch_compile": "document ids are read while running, which breaks the graph", "torch_compile_backend":
    "document ids are read while running, which breaks the graph", "torch_compile_mode":
    "document ids are read while running, which breaks the graph",
}  # fmt: skip
"""An argument, and why it is not taken."""


class OneDevice(TrainingArguments):  # type: ignore[misc]
    """Trainer's arguments for a process that trains on one device, however many it sees."""

    @property
    def n_gpu(self) -> int:
        """At most one: from two on Trainer would take `nn.DataParallel`."""
        return min(1, int(super().n_gpu))


def check_device(device: torch.device, *, num_processes: int = 1) -> None:
    """Raises `InputError` for a device that Trainer would not train on."""
    if not device.index:
        return
    if num_processes > 1:
        raise InputError(
            f"each of {num_processes} processes takes a device of its own, got {device}; say --device {device.type}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    name = visible[device.index] if device.index < len(visible) else device.index
    first = f"set CUDA_VISIBLE_DEVICES={name} and say" if device.type == "cuda" else "say"
    raise InputError(f"training takes the first device that a process sees, got {device}; {first} --device {device.type}")


def left_idle(device: torch.device, *, num_processes: int) -> str | None:
    """What there is to say where a process sees devices that it does not train on."""
    seen = torch.cuda.device_count() if device.type == "cuda" and num_processes == 1 else 1
    return None if seen < 2 else f"{seen} devices are visible and one process trains on the first; torchrun starts several"


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raises `InputError` for the first argument that is not passed on to `TrainingArguments`."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    for name in extra:
        if name in OWNED:
            raise InputError(f"the training argument {name} is a setting of tune; give {OWNED[name]} instead")
        if name in NOT_SERVED:
            raise InputError(f"the training argument {name} is not taken: {NOT_SERVED[name]}; leave it out")
        if name not in known:
            raise InputError(f"transformers has no training argument {name!r}; {near(name, sorted(PASSED_ON | HUB))}")
        if name not in PASSED_ON | HUB:
            raise InputError(f"the training argument {name} was not tried with tune, so it is not taken; leave it out")
    _check_wandb(extra)
    _check_trackers(extra)


def _check_trackers(extra: Mapping[str, Any]) -> None:
    """Trackers that transformers would only miss when the model is loaded."""
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    # Flyte has no package to look for: it is a service that a run is started by.
    here = {*integration_utils.get_available_reporting_integrations(), "flyte"}
    for name in _trackers(extra):
        if name not in {*known, "all", "none"}:
            raise InputError(f"transformers knows no tracker {name!r}; {near(name, sorted(known))}")
        if name in known and name not in here:
            raise InputError(f"the tracker {name} is not installed; install its package, or leave it out of --report-to")


def _trackers(extra: Mapping[str, Any]) -> list[str]:
    named = extra.get("report_to") or []
    return [named] if isinstance(named, str) else [str(name) for name in named]


def _check_wandb(extra: Mapping[str, Any]) -> None:
    """W&B's copies of checkpoints are made from folders that only Trainer's own checkpoint has."""
    if {"wandb", "all"} & set(_trackers(extra)) and os.environ.get("WANDB_LOG_MODEL", "").lower() == "checkpoint":
        raise InputError(
            "WANDB_LOG_MODEL=checkpoint uploads Trainer's checkpoint folders, which tune does not write; say "
            "WANDB_LOG_MODEL=end"
        )


def arguments(
    settings: Settings, out: Path, *, device: str = "cpu", bfloat16: bool = False, validate_every: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> TrainingArguments:  # fmt: skip
    """Trainer's arguments for our settings, with what of `extra` it takes. Raises `InputError` as `check_extra` does.

    `validate_every` are the steps between validations, 0 for one at the end, None for none.
    """
    passed = dict(extra or {})
    check_extra(passed)
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
        "restore_callback_states_from_checkpoint": True,
        "eval_strategy": "no" if validate_every is None else "steps",
        "eval_steps": validate_every or settings.steps,
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
        **_direction(passed),
        **{name: value for name, value in passed.items() if name not in HUB},
    }
    return OneDevice(**chosen)


def _direction(passed: Mapping[str, Any]) -> dict[str, Any]:
    """Which scores are better, where only we know: transformers takes names that do not end in `loss` for better where they
    are greater, and ours of one length are called `loss_LENGTH`."""
    name = str(passed.get("metric_for_best_model") or "").removeprefix("eval_")
    return {"greater_is_better": False} if re.fullmatch(r"loss_\d+", name) else {}
