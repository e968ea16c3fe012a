"""PEFT's kinds beside LoRA: each learns, goes on after a stop to the same bits, loads with the plan, and merges alike."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from small import Tune, tuning
from transformers import AutoModelForCausalLM, TrainerCallback

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.core.errors import InputError
from ropewalk.tune.adapters import KINDS
from ropewalk.tune.recipes import dress
from ropewalk.tune.settings import LEFT_OUT, RECIPES, Settings, Stage

SMALL: dict[str, Any] = {"rank": 4, "alpha": 8, "learning_rate": 1e-2, "steps": 3, "save_every": 2}


class Stop(TrainerCallback):
    """Ends a run in its third step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 60)[None]).logits


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_every_recipe_has_a_kind() -> None:
    assert set(RECIPES) - set(KINDS) == {"full", "lora", "longlora", "qlora", "prefix"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("recipe", KINDS)
def test_every_parameter_that_trains_gets_a_gradient(recipe: str, tied: Path) -> None:
    model, _ = ropewalk.load(tied, device="cpu", dtype="float32")
    before = logits(model)
    torch.manual_seed(0)
    dressed = dress(model, Settings(length=64, stages=(Stage(window=8, steps=1),), recipe=recipe, rank=4))
    # Half of LoRA's kind begins at zero, and the other half has no gradient until it has moved.
    assert float((logits(model) - before).abs().max()) < 1e-4
    trained = [parameter for parameter in dressed.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        ids = torch.arange(2, 60)[None]
        torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)


@pytest.mark.parametrize("recipe", KINDS)
def test_it_goes_on_to_the_same_bits_loads_with_the_plan_and_merges_alike(
    recipe: str, tied: Path, tune: Tune, tmp_path: Path
) -> None:
    tune(tmp_path / "whole", recipe=recipe, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "stopped", recipe=recipe, callbacks=[Stop()], **SMALL)
    tune(tmp_path / "stopped", recipe=recipe, resume=True, **SMALL)
    whole, resumed = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    merge(tmp_path / "whole", tmp_path / "merged")
    ours, _ = ropewalk.load(tmp_path / "whole", device="cpu", dtype="float32")
    merged, _ = ropewalk.load(tmp_path / "merged", device="cpu", dtype="float32")
    base, _ = ropewalk.load(tmp_path / "whole" / "base", device="cpu", dtype="float32")
    plan = ropewalk.plan(tied, "yarn", length=256)
    assert ropewalk.read_back(ours).frequencies.difference(plan.frequencies) < 1e-6
    torch.testing.assert_close(logits(ours), logits(merged))
    assert float((logits(ours) - logits(base)).abs().max()) > 1e-2


def test_the_merge_at_once_is_the_later_one(tied: Path, tmp_path: Path) -> None:
    tune = tuning(tied)
    tune(tmp_path / "adapter", recipe="dora", **SMALL)
    tune(tmp_path / "at-once", recipe="dora", merge=True, **SMALL)
    merge(tmp_path / "adapter", tmp_path / "later")
    loaded = [ropewalk.load(tmp_path / name, device="cpu", dtype="float32")[0] for name in ("at-once", "later")]
    torch.testing.assert_close(logits(loaded[0]), logits(loaded[1]), rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_stock_peft_reads_the_same_numbers(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out", recipe="oft", **SMALL)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    dressed = PeftModel.from_pretrained(stock, tmp_path / "out").eval()
    ours, _ = ropewalk.load(tmp_path / "out", device="cpu", dtype="float32")
    torch.testing.assert_close(logits(dressed), logits(ours), rtol=1e-4, atol=1e-4)
    assert [one.field for one in ropewalk.verify(tmp_path / "out").findings if one.severity == "warning"] == ["peft_type"]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_kind_that_is_left_out_is_refused_with_its_reason(name: str, tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no recipe here: "):
        tune(tmp_path / "out", recipe=name)
    assert not (tmp_path / "out").exists()
