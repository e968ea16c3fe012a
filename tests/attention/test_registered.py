"""Our attention on real transformers models: what training sees, what is computed, and what is left as it was."""

import copy
from typing import Any

import pytest
import torch
from attention_models import VOCABULARY, close, documents, gradients, ids, llama, sees
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ropewalk.attention.registered import PACKED, put_on, register
from ropewalk.attention.shifted import Shifted


@pytest.mark.parametrize("training", [False, True])
def test_a_single_document_is_full_attention(model: Any, training: bool) -> None:
    row = ids(2, 19)
    model.train(training)
    plain = model(row, use_cache=False).logits
    for setting in (None, Shifted(group=19), *([] if training else [Shifted(group=5)])):
        with put_on(model, setting):
            assert close(model(row, use_cache=False).logits, plain)


@pytest.mark.parametrize(
    "setting", [Shifted(group=4), Shifted(group=3), Shifted(group=4, pattern="layers"), Shifted(group=4, wrap="swap")]
)
def test_training_never_sees_the_future(model: Any, setting: Shifted) -> None:
    model.train()
    row = ids(1, 13)
    with put_on(model, setting):
        assert not any(sees(model, row, early, late) for early in range(13) for late in range(early + 1, 13))
    with put_on(model, Shifted(group=4, wrap="rolled")):
        assert sees(model, row, 0, 12)


def test_layers_take_turns(model: Any) -> None:
    row, first = ids(1, 16), llama(num_hidden_layers=1).train()
    model.train()
    with put_on(first, Shifted(group=4, pattern="layers")):
        assert not sees(first, row, 4, 3)
    with put_on(model, Shifted(group=4, pattern="layers")):
        assert sees(model, row, 4, 3)
        assert not sees(model, row, 8, 1)


def test_shifted_attention_is_for_training_only(model: Any) -> None:
    row = ids(1, 16)
    plain = model(row, use_cache=False).logits
    with put_on(model, Shifted(group=4)):
        assert close(model(row, use_cache=False).logits, plain)
        model.train()
        assert not close(model(row, use_cache=False).logits, plain)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("padded", [False, True])
def test_generation_is_that_of_the_untouched_model(model: Any, cache: str | None, padded: bool) -> None:
    prompt, real = ids(2, 9), torch.ones(2, 9, dtype=torch.int64)
    if padded:
        real[1, :4] = 0
    asked = {
        "attention_mask": real,
        "max_new_tokens": 8,
        "do_sample": False,
        "cache_implementation": cache,
        "pad_token_id": 0,
    }
    plain = model.generate(prompt, **asked)
    for setting in (None, Shifted(group=4)):
        with put_on(model, setting):
            assert model.generate(prompt, **asked).tolist() == plain.tolist()


def products(model: Any, row: Tensor, **given: Any) -> int:
    """Operations of two products of attention, as often as a kernel of it runs, forward or backward."""
    counted = []

    def forward(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
        rows, heads, length, width = query
        counted.append(2 * rows * heads * length * key[2] * (width + value[3]))
        return counted[-1]

    def backward(_: list[int], *tensors: Any, **__: Any) -> int:
        return forward(*tensors)

    ops = torch.ops.aten
    kernels = {
        ops._scaled_dot_product_flash_attention_for_cpu: forward,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=kernels):
        model(row, use_cache=False, **given).logits.sum().backward()
    return sum(counted)


@pytest.mark.parametrize(
    ("setting", "lengths", "share"),
    [
        # Squares over the square of the row: four groups; three and two halves where shifted; documents.
        (Shifted(group=16), [64], (4 / 16 + 3 / 16 + 2 / 64) / 2),
        (Shifted(group=16, pattern="unshifted"), [64], 1 / 4),
        (None, [16, 48], (1 + 9) / 16),
        (Shifted(group=16), [32, 32], (4 / 16 + 2 / 16 + 4 / 64) / 2),
        (Shifted(group=16), [40, 24], (2 + 1 / 4 + 1 + 1 / 4) / 16),
    ],
)
def test_what_is_not_seen_is_not_computed(model: Any, setting: Any, lengths: list[int], share: float) -> None:
    model.train()
    row = ids(1, 64)
    with put_on(model):
        full = products(model, row)
    with put_on(model, setting):
        assert products(model, row, document_ids=documents(lengths)) == full * share


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("setting", [None, Shifted(group=4)])
def test_gradient_checkpointing_gives_the_same_gradients(setting: Shifted | None, reentrant: bool) -> None:
    model, row = llama().train(), ids(2, 16)
    given = {"document_ids": documents([5, 11]).repeat(2, 1), "use_cache": False}
    with put_on(model, setting):
        model(row, **given).logits.square().mean().backward()
        plain = gradients(model)
        model.zero_grad()
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model(row, **given).logits.square().mean().backward()
    assert plain.keys() == gradients(model).keys()
    assert all(close(gradients(model)[name], plain[name]) for name in plain)


def test_only_the_language_model_of_a_larger_one_is_changed() -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, head_dim=8
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=1)).train()
    row = ids(1, 8).clamp(min=2)
    with put_on(model, Shifted(group=4, pattern="unshifted")):
        assert model.config.vision_config._attn_implementation == "sdpa"
        assert not sees(model, row, 4, 3)
    assert model.config.text_config._attn_implementation == "sdpa"
    assert sees(model, row, 4, 3)


def test_registering_twice_changes_nothing() -> None:
    from transformers import AttentionInterface

    assert register() == PACKED
    assert register(Shifted(group=6)) == "ropewalk_s2_6"
    before = AttentionInterface._global_mapping["ropewalk_s2_6"]
    assert register(Shifted(group=6)) == "ropewalk_s2_6"
    assert AttentionInterface._global_mapping["ropewalk_s2_6"] is before


def test_the_setting_is_taken_off_after_an_error_and_kept_by_a_copy(model: Any) -> None:
    setting = Shifted(group=4, pattern="unshifted")

    def fail() -> None:
        with put_on(model, setting):
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert model.config._attn_implementation == "sdpa"
    model.train()
    with put_on(model, setting):
        twin = copy.deepcopy(model)
    assert twin.config._attn_implementation == setting.name
    assert not sees(twin, ids(1, 8), 4, 3)


def test_no_setting_is_written_into_a_checkpoint(model: Any, tmp_path: Any) -> None:
    with put_on(model, Shifted(group=4)):
        model.save_pretrained(tmp_path)
    assert "ropewalk" not in (tmp_path / "config.json").read_text()
