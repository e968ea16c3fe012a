"""Callbacks and trackers are given the real model, and our validation under the names that they know."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small import Tune
from test_resume import At, killed
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, PreTrainedModel, TrainerCallback

from ropewalk.core.errors import InputError
from ropewalk.tune.arguments import HUB, NOT_SERVED, OWNED, PASSED_ON, arguments
from ropewalk.tune.settings import Settings, Stage

EVENTS = (
    "on_init_end",
    "on_train_begin",
    "on_step_begin",
    "on_step_end",
    "on_log",
    "on_evaluate",
    "on_save",
    "on_train_end",
)


class Watching(TrainerCallback):
    """Notes what it was given at each event."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.logs: list[dict[str, Any]] = []
        self.metrics: list[dict[str, float]] = []
        for event in EVENTS:
            setattr(self, event, self.noting(event))

    def noting(self, event: str) -> Any:
        def called(*_: Any, model: Any = None, logs: Any = None, metrics: Any = None, **__: Any) -> None:
            self.models[event] = model
            self.logs += [dict(logs)] if logs else []
            self.metrics += [dict(metrics)] if metrics else []

        return called


def rising(model: Any, length: int) -> float:
    """A held-out score that is worse at each call."""
    rising.calls += 1  # type: ignore[attr-defined]
    return float(rising.calls * 1000 + length)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("recipe", "kind"), [("full", PreTrainedModel), ("longlora", PeftModel)])
def test_every_event_gets_the_real_model(recipe: str, kind: type, tune: Tune, tmp_path: Path) -> None:
    watching = Watching()
    tune(tmp_path / "out", recipe=recipe, steps=2, callbacks=[watching], scorer=lambda *_: 1.0, validate_lengths=(64,))
    assert set(watching.models) == set(EVENTS)
    assert all(isinstance(model, kind) for model in watching.models.values())


def test_validation_is_told_under_names_that_trackers_know(tune: Tune, tmp_path: Path) -> None:
    watching = Watching()
    tune(
        tmp_path / "out", steps=3, callbacks=[watching], validate_every=2, validate_lengths=(64, 256),
        scorer=lambda model, length: 1.0 + length,
    )  # fmt: skip
    expected = {"eval_loss_64": 65.0, "eval_loss_256": 257.0, "eval_loss": 257.0}
    assert watching.metrics == [expected, expected]
    assert [line["eval_loss"] for line in watching.logs if "eval_loss" in line] == [257.0, 257.0]
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 3]


def test_a_scorer_names_what_it_scores(tune: Tune, tmp_path: Path) -> None:
    def scorer(model: Any, length: int) -> float:
        return 0.5

    scorer.metric = "accuracy"  # type: ignore[attr-defined]
    watching = Watching()
    tune(tmp_path / "out", steps=1, callbacks=[watching], scorer=scorer, validate_lengths=(64,))
    assert watching.metrics == [{"eval_accuracy_64": 0.5, "eval_accuracy": 0.5}]


class Saving(TrainerCallback):
    """Saves and generates in the midst of training, as users' callbacks do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text: list[int] = []

    def on_step_end(self, args: Any, progress: Any, control: Any, model: Any = None, **_: Any) -> None:
        if progress.global_step == 2:
            model.save_pretrained(self.folder)
            model.eval()
            prompt = torch.arange(5, 25)[None]
            self.text = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)[
                0
            ].tolist()


def test_a_callback_saves_and_generates_as_with_any_model(tune: Tune, tmp_path: Path) -> None:
    plain, saving = tmp_path / "plain", Saving(tmp_path / "saved")
    tune(plain)
    tune(tmp_path / "out", callbacks=[saving])
    # Nothing of it reaches the training, and the text is that of the saved model under stock transformers.
    assert (plain / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert stock.lm_head.weight is stock.model.embed_tokens.weight
    prompt = torch.arange(5, 25)[None]
    assert stock.generate(prompt, max_new_tokens=8, do_sample=False)[0].tolist() == saving.text


@pytest.mark.parametrize("recipe", ["lora", "longlora"])
def test_a_callback_generates_in_bfloat16_with_parts_in_float32(recipe: str, tune: Tune, tmp_path: Path) -> None:
    saving, seen = Saving(tmp_path / "saved"), []

    def scorer(model: Any, length: int) -> float:
        hidden = model.get_decoder()(torch.arange(length)[None]).last_hidden_state
        seen.append(hidden.dtype)
        return float(hidden.float().square().mean())

    tune(
        tmp_path / "out", recipe=recipe, dtype="bfloat16", steps=3, callbacks=[saving], scorer=scorer, validate_every=1,
        validate_lengths=(64,),
    )  # fmt: skip
    assert len(saving.text) == 28
    assert len(seen) == 3
    adapter = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


# --- early stopping, as a callback with a state ----------------------------------------------------------------------------


STOPPING: dict[str, Any] = {
    "steps": 9, "save_every": 1, "scorer": rising, "validate_every": 1, "validate_lengths": (64,),
    "arguments": {"metric_for_best_model": "loss", "greater_is_better": False},
}  # fmt: skip


def validated(out: Path) -> list[int]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "validation" in line]


@pytest.mark.parametrize(
    ("passed", "greater"),
    [
        ({"metric_for_best_model": "loss"}, False),
        ({"metric_for_best_model": "loss_64"}, False),
        ({"metric_for_best_model": "eval_loss_64"}, False),
        ({"metric_for_best_model": "accuracy"}, True),
        ({"metric_for_best_model": "loss_64", "greater_is_better": True}, True),
    ],
)
def test_a_loss_at_one_length_is_better_where_it_is_lower(passed: dict[str, Any], greater: bool, tmp_path: Path) -> None:
    settings = Settings(length=64, stages=(Stage(window=64, steps=1),))
    assert arguments(settings, tmp_path, extra=passed).greater_is_better is greater


def test_early_stopping_counts_on_after_a_kill(tune: Tune, tmp_path: Path) -> None:
    rising.calls = 0  # type: ignore[attr-defined]
    tune(tmp_path / "whole", callbacks=[EarlyStoppingCallback(early_stopping_patience=4)], **STOPPING)
    # The first score is the best one; four that are worse stop it.
    assert validated(tmp_path / "whole") == [1, 2, 3, 4, 5]
    rising.calls = 0  # type: ignore[attr-defined]
    out = tmp_path / "killed"
    stopping = EarlyStoppingCallback(early_stopping_patience=4)
    assert killed(lambda: tune(out, callbacks=[stopping, At("on_step_begin", 3)], **STOPPING))
    rising.calls = 3  # type: ignore[attr-defined]
    tune(out, callbacks=[EarlyStoppingCallback(early_stopping_patience=4)], resume=True, **STOPPING)
    assert validated(out) == [1, 2, 3, 4, 5]
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def told(out: Path) -> dict[str, Any]:
    """What a folder says of the run that wrote it."""
    from ropewalk.engines.transformers import block

    found = block.find(json.loads((out / "config.json").read_text()))
    assert found is not None
    (run,) = block.runs(found["steps"][-1])
    return dict(run)


def test_what_was_stopped_early_says_the_steps_it_made(
    tune: Tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rising.calls = 0  # type: ignore[attr-defined]
    out, given = tmp_path / "out", {**STOPPING, "steps": None, "window": None, "stages": [(24, 2), (48, 3), (24, 3)]}
    card = tune(out, callbacks=[EarlyStoppingCallback(early_stopping_patience=3)], **given)
    assert told(out)["steps"] == 4
    assert told(out)["stages"] == [{"window": 24, "steps": 2}, {"window": 48, "steps": 2}]
    words = "a callback stopped the run after step 4 of 8"
    assert words in capsys.readouterr().err
    assert [finding["problem"].startswith(words) for finding in card.findings][-1:] == [True]
    assert card.config["stages"] == [{"window": w, "steps": s} for w, s in given["stages"]]


def test_a_run_that_was_stopped_early_and_killed_while_writing_does_not_train_on(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.engines.transformers import block

    rising.calls = 0  # type: ignore[attr-defined]
    out, stopping = tmp_path / "out", EarlyStoppingCallback(early_stopping_patience=2)
    with monkeypatch.context() as patch:
        patch.setattr(block, "marked", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tune(out, callbacks=[stopping], **STOPPING)
    tune(out, callbacks=[EarlyStoppingCallback(early_stopping_patience=2)], resume=True, **STOPPING)
    assert validated(out) == [1, 2, 3]
    assert told(out)["steps"] == 3
    card = json.loads((out / "card.json").read_text())
    assert len([one for one in card["findings"] if "after step 3 of 9" in one["problem"]]) == 1


# --- arguments that are passed on ----------------------------------------------------------------------------------------


def test_every_argument_of_transformers_is_in_one_list() -> None:
    import dataclasses

    from transformers import TrainingArguments

    lists = [set(PASSED_ON), set(HUB), set(OWNED), set(NOT_SERVED)]
    listed = set().union(*lists)
    assert sum(map(len, lists)) == len(listed)
    assert {field.name for field in dataclasses.fields(TrainingArguments)} == listed


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"max_steps": 3}, "max_steps is a setting of tune; give steps"),
        ({"gradient_checkpointing": True}, "give checkpoint_every"),
        ({"load_best_model_at_end": True}, "newest parameters alone"),
        ({"auto_find_batch_size": True}, "order that a resumed run repeats"),
        ({"fsdp": "full_shard"}, "shards"),
        ({"deepspeed": {}}, "shards"),
        ({"report_too": "wandb"}, "report_to"),
    ],
)
def test_an_argument_that_is_not_passed_on_is_refused_by_name(
    argument: dict[str, Any], words: str, tune: Tune, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", arguments=argument)
    assert not (tmp_path / "out").exists()


def test_wandb_copies_of_checkpoints_that_are_not_there_are_refused(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    with pytest.raises(InputError, match="WANDB_LOG_MODEL=end"):
        tune(tmp_path / "out", arguments={"report_to": ["wandb"]})


def test_activations_are_not_offloaded_from_the_processor(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave --offload out"):
        tune(tmp_path / "out", offload=True)
    assert not (tmp_path / "out").exists()


class Modes(TrainerCallback):
    """Whether an operator that cannot add in order is an error, at each step."""

    def __init__(self) -> None:
        self.strict: list[bool] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        self.strict.append(torch.are_deterministic_algorithms_enabled() and not warned)


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Full determinism is of the process: modes, and variables of the environment."""
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC",
                 "FLASH_ATTENTION_DETERMINISTIC"):  # fmt: skip
        monkeypatch.setenv(name, "")
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("strict", [False, True])
def test_determinism_is_as_strict_as_was_asked(strict: bool, tune: Tune, tmp_path: Path) -> None:
    modes = Modes()
    tune(tmp_path / "out", steps=1, callbacks=[modes], arguments={"full_determinism": True} if strict else {})
    assert modes.strict == [strict]
