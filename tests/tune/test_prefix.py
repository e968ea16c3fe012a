"""A trained prefix: it learns, every document sees it, positions stay inside the length, and reading is what was trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors import safe_open
from small import Tune
from streams import Counting
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, TrainerCallback

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError, UnsupportedError
from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.forward import Forward
from ropewalk.tune.learner import Learner
from ropewalk.tune.recipes import dress
from ropewalk.tune.settings import Settings, Stage

PREFIX: dict[str, Any] = {
    "recipe": "prefix", "num_virtual_tokens": 5, "checkpoint_every": 0, "learning_rate": 1e-1, "steps": 4, "save_every": 2,
}  # fmt: skip
SETTINGS = Settings(length=64, stages=(Stage(window=8, steps=1),), recipe="prefix", num_virtual_tokens=5, checkpoint_every=0)


@pytest.fixture(scope="module")
def trained(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small import tuning

    out = tmp_path_factory.mktemp("prefix") / "run"
    tuning(tied)(out, **PREFIX)
    return out


def dressed(tied: Path) -> tuple[Any, Learner]:
    model, _ = ropewalk.load(tied, device="cpu", dtype="float32")
    torch.manual_seed(0)
    return model, Learner(dress(model, SETTINGS)).train()


def batch(*sizes: int) -> dict[str, torch.Tensor]:
    """One row of documents of these sizes."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, 250, size=sum(sizes)))[None]
    labels = ids.clone()
    labels[0, np.cumsum([0, *sizes[:-1]])] = -100
    return {
        "input_ids": ids, "labels": labels, "position_ids": torch.cat([torch.arange(n) for n in sizes])[None],
        "document_ids": torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])[None],
    }  # fmt: skip


@pytest.mark.parametrize("shifted", [None, Shifted(group=8)], ids=["full", "s2"])
def test_the_prefix_alone_trains_and_every_number_of_it_has_a_gradient(shifted: Shifted | None, tied: Path) -> None:
    model, learner = dressed(tied)
    with put_on(model, shifted):
        learner(**batch(20, 12))["loss"].backward()
    trains = {name: one for name, one in learner.named_parameters() if one.requires_grad}
    assert [one.shape for one in trains.values()] == [(5, 2 * 2 * 1 * 16)]
    (gradient,) = (one.grad for one in trains.values())
    assert gradient is not None
    assert bool(gradient.ne(0).all())


def test_with_checkpointing_it_would_learn_nothing_and_is_refused(tied: Path, tune: Tune, tmp_path: Path) -> None:
    model, learner = dressed(tied)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    with put_on(model):
        learner(**batch(20))["loss"].backward()
    assert [one.grad for one in learner.parameters() if one.requires_grad] == [None]
    with pytest.raises(InputError, match="--checkpoint-every 0"):
        tune(tmp_path / "out", **{**PREFIX, "checkpoint_every": 1})


def test_documents_of_a_pack_see_the_prefix_and_not_each_other(tied: Path) -> None:
    model, learner = dressed(tied)
    whole = batch(20, 12)
    with put_on(model):
        together = learner(**whole)["loss"]
        apart = [
            learner(**{name: one[:, part] for name, one in {**whole, "document_ids": torch.zeros(1, 32)}.items()})["loss"]
            for part in (slice(0, 20), slice(20, 32))
        ]
    torch.testing.assert_close(together, apart[0] + apart[1])


def test_our_loss_is_pefts(tied: Path) -> None:
    model, learner = dressed(tied)
    row = batch(24)
    with put_on(model):
        ours = learner(**row)["loss"] / 23
    for hook in list(model.get_decoder()._forward_pre_hooks):
        del model.get_decoder()._forward_pre_hooks[hook]
    torch.testing.assert_close(ours, learner.model(input_ids=row["input_ids"], labels=row["labels"]).loss)


def test_the_last_position_is_the_last_of_the_length(tied: Path, tune: Tune, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            inner = model.get_base_model() if hasattr(model, "get_base_model") else model
            rotary = inner.get_decoder().rotary_emb
            rotary.register_forward_pre_hook(
                lambda _, __, told: seen.append(int(told["position_ids"].max())), with_kwargs=True
            )

    tune(tmp_path / "out", **{**PREFIX, "window": None, "steps": 1, "callbacks": [Watch()]})
    assert max(seen) == 255
    with pytest.raises(InputError, match="--window of at most 251"):
        tune(tmp_path / "other", **{**PREFIX, "window": 252})


def test_stopped_and_resumed_it_ends_with_the_same_bits(trained: Path, tune: Tune, tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "out", callbacks=[Stop()], **PREFIX)
    tune(tmp_path / "out", resume=True, **PREFIX)
    saved = []
    for folder in (trained, tmp_path / "out"):
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            saved.append(file.get_tensor("prompt_embeddings"))
    assert torch.equal(*saved)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:.*[Pp]osition ids.*")
def test_load_computes_what_stock_peft_does_and_generates_as_it(tied: Path, trained: Path) -> None:
    ids = torch.arange(2, 40)[None]
    ours, _ = ropewalk.load(trained, device="cpu", dtype="float32")
    stock = AutoPeftModelForCausalLM.from_pretrained(trained).eval()
    plan = ropewalk.plan(tied, "yarn", length=256)
    assert ropewalk.read_back(stock.get_base_model()).frequencies.difference(plan.frequencies) < 1e-6
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, stock(ids).logits)
        untrained, _ = ropewalk.load(trained / "base", device="cpu", dtype="float32")
        assert float((ours(ids).logits - untrained(ids).logits).abs().max()) > 1e-2
        mask = torch.ones_like(ids)
        mask[:, :3] = 0
        padded = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 1}
        assert torch.equal(ours.generate(ids, **padded), stock.generate(input_ids=ids, **padded))


def test_a_cache_that_is_read_on_from_and_cut_has_the_prefix(trained: Path) -> None:
    model, _ = ropewalk.load(trained, device="cpu", dtype="float32")
    forward = Forward(model)
    ids = np.arange(2, 50)
    whole = forward.hidden(torch.from_numpy(ids))
    cache = Prefilled(forward)
    for index in cache.stages(ids[:40], (20, 40)):
        start = (20, 40)[index]
        torch.testing.assert_close(cache.read(ids[start : start + 6]), whole[start : start + 6])


def test_the_folder_measures_and_is_not_merged(trained: Path, long_text: Path, tmp_path: Path) -> None:
    def nll(source: Path, name: str) -> float:
        rows = ropewalk.measure(source, text=[long_text], length=96, out=tmp_path / name, device="cpu", dtype="float32")
        return float(next(row.value for row in rows if row.metric == "nll"))

    assert abs(nll(trained, "with") - nll(trained / "base", "without")) > 1e-3
    with pytest.raises(InputError, match="a prefix is no weights"):
        merge(trained, tmp_path / "merged")
    assert [one.field for one in ropewalk.verify(trained).findings if one.severity == "warning"] == ["peft_type"]


def test_merging_windows_and_drawn_positions_are_refused(tied: Path, tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are no weights of a model"):
        tune(tmp_path / "out", merge=True, **PREFIX)
    with pytest.raises(InputError, match="the prefix takes the first"):
        tune(tmp_path / "out", positions="pose", data=Counting, **{**PREFIX, "window": 32})
    config = Gemma3TextConfig(
        vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=16, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="sliding_attention"):
        dress(Gemma3ForCausalLM(config), SETTINGS)
    assert not (tmp_path / "out").exists()
