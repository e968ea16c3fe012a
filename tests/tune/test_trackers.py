"""Trackers through transformers' own callbacks: TensorBoard itself; of W&B a stand-in, which notes what it is handed."""

import json
import sys
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from command import Command
from safetensors.torch import load, load_file
from small import Tune


class Artifact:
    def __init__(self, name: str, type: str, metadata: dict[str, Any]) -> None:
        self.name, self.metadata, self.files = name, metadata, dict[str, BytesIO]()

    @contextmanager
    def new_file(self, name: str, mode: str) -> Any:
        self.files[name] = BytesIO()
        yield self.files[name]


class Config(dict[str, Any]):
    def update(self, content: Any, allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(content)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What W&B was told: `config`, `lines` and `artifacts`."""
    module: Any = ModuleType("wandb")
    module.config, module.summary, module.lines, module.artifacts = Config(), {}, [], []
    module.run = SimpleNamespace(
        id="1", name="mine", url="", summary=module.summary, _label=lambda **_: None,
        log_artifact=lambda artifact, aliases: module.artifacts.append((aliases, artifact)),
    )  # fmt: skip
    module.Artifact, module.log = Artifact, module.lines.append
    util: Any = ModuleType("wandb.sdk.lib.config_util")
    util.ConfigError = type("ConfigError", (Exception,), {})
    for name in ("wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util"):
        monkeypatch.setitem(sys.modules, name, {"wandb": module, util.__name__: util}.get(name, ModuleType(name)))
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: True)
    return module


@pytest.mark.parametrize(("recipe", "file"), [("full", "model.safetensors"), ("longlora", "adapter_model.safetensors")])
def test_wandb_gets_names_size_and_the_trained_model(
    recipe: str, file: str, wandb: Any, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    tune(
        tmp_path / "out", recipe=recipe, steps=2, arguments={"report_to": ["wandb"], "run_name": "mine"},
        scorer=lambda model, length: 1.5, validate_lengths=(64,),
    )  # fmt: skip
    assert [line["eval/loss_64"] for line in wandb.lines if "eval/loss" in line] == [1.5]
    assert [line["train/global_step"] for line in wandb.lines if "train/loss" in line] == [1, 2]
    assert wandb.config["model/num_parameters"] > 20_000
    assert wandb.config["model_type"] == "llama"
    aliases, artifact = wandb.artifacts[-1]
    assert aliases == ["final_model"]
    told, written = load(artifact.files[file].getvalue()), load_file(tmp_path / "out" / file)
    assert told.keys() == written.keys()
    assert all(torch.equal(told[name], written[name]) for name in written)


def test_tensorboard_reads_back_what_the_log_says(
    tied: Path, books: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    """TensorBoard itself, offline: its files lie below the run, and hold every step's loss and the held-out one."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    out = tmp_path / "out"
    said = command(
        "tune", tied, "--data", books, "--length", "256", "--method", "yarn", "--steps", "3", "--device", "cpu", "--dtype",
        "float32", "--out", out, "--validate", long_text, "--validate-lengths", "64", "--report-to", "tensorboard",
    )  # fmt: skip
    assert said.code == 0, said.err
    (file,) = (out / "trainer").rglob("events.out.tfevents.*")
    told = EventAccumulator(str(file)).Reload()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [1, 2, 3]
    assert {event.step: event.value for event in told.Scalars("train/loss")} == pytest.approx(losses, rel=1e-6)
    (score,) = [line["validation"]["64"] for line in lines if "validation" in line]
    assert [event.value for event in told.Scalars("eval/loss_64")] == pytest.approx([score], rel=1e-6)
