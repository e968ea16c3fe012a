"""Document ids reach attention in families whose layers hand it no keywords, also when a layer is run again."""

from threading import Thread
from typing import Any

import pytest
import torch
from attention_models import SHAPE, VOCABULARY, close, documents, gradients, ids, positions, sees
from torch import Tensor, nn

from ropewalk.attention.documents import GIVEN
from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import UnsupportedError

DEAF = ("stablelm", "nemotron")
"""Families whose layers call attention without their keywords."""
LENGTHS = [5, 7, 4]
SETTINGS = pytest.mark.parametrize("setting", [None, Shifted(group=4)], ids=["packed", "s2"])


def made(family: str, **fields: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    shape = {**SHAPE, "max_position_embeddings": 512, "initializer_range": 0.3}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**shape, **fields})).train()


def given(lengths: list[int]) -> dict[str, Tensor]:
    return {"position_ids": positions(lengths), "document_ids": documents(lengths)}


@pytest.mark.parametrize("family", DEAF)
@SETTINGS
def test_packed_documents_equal_separate_runs(family: str, setting: Shifted | None) -> None:
    model, row = made(family), ids(1, 16)
    with put_on(model, setting):
        apart = torch.cat([model(one, use_cache=False).logits for one in row.split(LENGTHS, dim=1)], dim=1)
        assert close(model(row, use_cache=False, **given(LENGTHS)).logits, apart)
        assert not sees(model, row, 5, 4, **given(LENGTHS))
        assert sees(model, row, 5, 4)
    assert GIVEN.get() is None
    assert sees(model, row, 5, 4, document_ids=documents(LENGTHS))


@pytest.mark.parametrize("family", [*DEAF, "llama"])
@SETTINGS
def test_a_layer_that_is_run_again_has_the_ids_of_its_own_batch(family: str, setting: Shifted | None) -> None:
    """Two forwards before their backwards, which run in another thread, as autograd's for CUDA do."""
    model, rows, cuts = made(family), (ids(1, 16), ids(1, 16, seed=1)), (LENGTHS, [11, 5])
    wanted = backward(model, rows, cuts, setting)
    model.zero_grad()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    got = backward(model, rows, cuts, setting)
    assert got.keys() == wanted.keys()
    assert all(close(got[name], wanted[name]) for name in wanted)


def backward(
    model: Any, rows: tuple[Tensor, ...], cuts: tuple[list[int], ...], setting: Shifted | None
) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, VOCABULARY)
    with put_on(model, setting):
        heads = [model(row, use_cache=False, **given(cut)).logits for row, cut in zip(rows, cuts, strict=True)]
        loss = sum((logits @ weights).square().sum() for logits in heads)
        thread = Thread(target=loss.backward)
        thread.start()
        thread.join()
    return gradients(model)


@pytest.mark.parametrize("family", DEAF)
def test_ids_that_are_lost_are_an_error(family: str) -> None:
    """Beside a padding mask there is no room for them."""
    model, row, real = made(family), ids(1, 16), torch.ones(1, 16, dtype=torch.int64)
    real[0, 12:] = 0
    with put_on(model):
        with pytest.raises(UnsupportedError, match=r"Attention was not told the document_ids .*--attention own"):
            model(row, attention_mask=real, use_cache=False, **given(LENGTHS))
        assert GIVEN.get() is None
        assert model(row, attention_mask=real, use_cache=False).logits.isfinite().all()


def test_what_is_noted_is_taken_off(model: nn.Module) -> None:
    with put_on(model):
        assert model._forward_pre_hooks
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_window_of_zero_is_none() -> None:
    model, row = made("qwen2_moe", moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4), ids(1, 16)
    plain = model(row, use_cache=False).logits
    assert model.config.sliding_window == 0
    with put_on(model):
        assert close(model(row, use_cache=False).logits, plain)
        assert not sees(model, row, 5, 4, **given(LENGTHS))


def test_a_model_that_makes_a_mask_for_each_pair_is_told_what_to_do() -> None:
    with (
        pytest.raises(UnsupportedError, match=r"layers of doge make a mask of their own .*--attention own"),
        put_on(made("doge")),
    ):
        pass
