"""Documents of a row on real transformers models: packs, positions that jump, padding, a trained prefix."""

from typing import Any

import pytest
import torch
from attention_models import VOCABULARY, close, documents, gradients, ids, positions, sees
from torch import Tensor

from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted


def test_packed_documents_equal_separate_runs(model: Any) -> None:
    lengths = [5, 1, 9, 4]
    row = ids(1, sum(lengths))
    logits, weights = [], torch.linspace(-1, 1, VOCABULARY)
    for document in row.split(lengths, dim=1):
        logits.append(model(document, use_cache=False).logits)
        (logits[-1] @ weights).square().sum().backward()
    apart = gradients(model)
    model.zero_grad()
    with put_on(model):
        packed = model(row, position_ids=positions(lengths), document_ids=documents(lengths), use_cache=False).logits
        (packed @ weights).square().sum().backward()
    assert close(packed, torch.cat(logits, dim=1))
    together = gradients(model)
    assert together.keys() == apart.keys()
    assert all(close(together[name], apart[name]) for name in apart)


@pytest.mark.parametrize("setting", [None, Shifted(group=6), Shifted(group=6, wrap="rolled")])
def test_packed_documents_never_see_each_other(model: Any, setting: Shifted | None) -> None:
    lengths = [5, 7, 4]
    row, where = ids(1, 16), documents([5, 7, 4])[0]
    given = {"position_ids": positions(lengths), "document_ids": documents(lengths)}
    model.train()
    with put_on(model, setting):
        for later in range(16):
            found = {earlier for earlier in range(16) if sees(model, row, later, earlier, **given)}
            assert {int(where[earlier]) for earlier in found} == {int(where[later])}


def test_chunks_whose_positions_jump_see_each_other(model: Any) -> None:
    """PoSE on stock transformers trains nothing: each jump reads as a new document."""
    row, jumping = ids(1, 12), torch.cat((torch.arange(6), torch.arange(300, 306)))[None]
    given = {"position_ids": jumping, "document_ids": torch.zeros(1, 12, dtype=torch.int64)}
    assert not sees(model, row, 11, 0, position_ids=jumping)
    with put_on(model):
        assert sees(model, row, 11, 0, **given)
        assert sees(model, row, 11, 0, position_ids=jumping)
        ours = model(row, use_cache=False, **given).logits
    explicit = model(row, position_ids=jumping, attention_mask=torch.ones(1, 12, dtype=torch.int64), use_cache=False).logits
    assert close(ours, explicit)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_by_a_mask_and_by_ids(model: Any, side: str) -> None:
    row, real = ids(2, 11), torch.ones(2, 11, dtype=torch.int64)
    padded = slice(0, 4) if side == "left" else slice(7, 11)
    kept = slice(4, 11) if side == "left" else slice(0, 7)
    real[1, padded] = 0
    numbers = (real.cumsum(1) - 1).clamp(min=0)
    plain = [model(row[:1], use_cache=False).logits[0], model(row[1:, kept], use_cache=False).logits[0]]
    by_ids = (1 - real if side == "right" else real * (1 - real[:, :1])).contiguous()
    with put_on(model):
        for given in ({"attention_mask": real}, {"document_ids": by_ids}, {"attention_mask": real, "document_ids": by_ids}):
            got = model(row, position_ids=numbers, use_cache=False, **given).logits
            assert got.isfinite().all()
            assert close(got[0], plain[0])
            assert close(got[1, kept], plain[1])


@pytest.mark.parametrize("lengths", [[12], [5, 7]])
@pytest.mark.parametrize("setting", [None, Shifted(group=4)])
def test_a_trained_prefix_is_seen_by_every_document(model: Any, setting: Shifted | None, lengths: list[int]) -> None:
    from transformers import DynamicCache

    model.train(setting is not None)
    prefix = torch.randn(2, 2, 1, 2, 3, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()

    def run(row: Tensor, **given: Any) -> Tensor:
        cache = DynamicCache()
        for layer, (key, value) in enumerate(prefix):
            cache.update(key, value, layer)
        given["position_ids"] = 3 + given["position_ids"]
        logits: Tensor = model(row, past_key_values=cache, **given).logits
        return logits

    row, given = ids(1, 12), {"position_ids": positions(lengths), "document_ids": documents(lengths)}
    with put_on(model, setting):
        packed = run(row, **given)
        (gradient,) = torch.autograd.grad(packed[0, -1].square().sum(), prefix)
        with torch.no_grad():
            assert close(run(row, **given), packed)
    assert (gradient.flatten(3).abs().sum(-1) > 0).all()
    if setting is None:
        apart = [run(part, position_ids=torch.arange(part.shape[1])[None]) for part in row.split(lengths, dim=1)]
        assert close(packed, torch.cat(apart, dim=1))


def test_ids_that_change_in_place_are_read_anew(model: Any) -> None:
    row, where = ids(1, 8), documents([3, 5])
    with put_on(model):
        first = model(row, document_ids=where, use_cache=False).logits
        where[:] = 0
        second = model(row, document_ids=where, use_cache=False).logits
    assert close(second, model(row, use_cache=False).logits)
    assert not close(first, second)


def test_ids_and_masks_that_are_made_in_inference_mode(model: Any) -> None:
    """Such tensors have no version counter, by which a change in place is seen."""
    row, real, where = ids(1, 8), torch.ones(1, 8, dtype=torch.int64), documents([3, 5])
    real[0, 6:] = 0
    with put_on(model):
        padded, packed = model(row, attention_mask=real).logits, model(row, document_ids=where, use_cache=False).logits
        with torch.inference_mode():
            assert close(model(row, attention_mask=real.clone()).logits, padded)
            changed = where.clone()
            assert close(model(row, document_ids=changed, use_cache=False).logits, packed)
            changed[:] = 0
            assert not close(model(row, document_ids=changed, use_cache=False).logits, packed)


def test_values_narrower_than_keys() -> None:
    """Multi-head latent attention: keys of 12 dimensions, values of 8."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    torch.manual_seed(3)
    model = DeepseekV3ForCausalLM(
        DeepseekV3Config(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8,
            first_k_dense_replace=1, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    row, lengths = ids(1, 12), [5, 7]
    apart = [model(part, use_cache=False).logits for part in row.split(lengths, dim=1)]
    with put_on(model):
        packed = model(row, position_ids=positions(lengths), document_ids=documents(lengths), use_cache=False).logits
    assert close(packed, torch.cat(apart, dim=1))
