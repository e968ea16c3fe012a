"""The arithmetic of a training step's bytes, by numbers worked out by hand."""

from dataclasses import replace

import pytest

from ropewalk.core.budget import RUNTIME, Sizes, Training, budget, layer_bytes, longest, parts, tokens_within
from ropewalk.core.errors import UnsupportedError
from ropewalk.engines.transformers.sizes import sizes

CONFIG = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": True,
}  # fmt: skip
SMOLLM2 = sizes(CONFIG)
SQUARE = Sizes(hidden=10, intermediate=30, num_layers=4, num_heads=2, query=10, key=10, vocabulary=100, tied=True)


def test_parameters_of_a_known_model() -> None:
    assert SMOLLM2.num_parameters == 134_515_008
    assert replace(SMOLLM2, tied=False).num_parameters == 134_515_008 + 49_152 * 576


def test_a_layer_keeps_what_was_counted_by_hand() -> None:
    # 3h + 3h + 2q + 2k + 4f = 60 + 20 + 20 + 120 elements of four bytes, and a log-sum-exp for each head.
    assert layer_bytes(SQUARE, Training()) == (4 * 220 + 8, 4 * (2 * 30 + 10))


def test_facts_say_nineteen_hidden_sizes_for_a_third_of_keys() -> None:
    kept, _ = layer_bytes(SMOLLM2, Training())
    assert kept / 4 / 576 == pytest.approx(19.4, abs=0.1)


def test_parts_of_full_training() -> None:
    found = budget(SQUARE, Training(), 1000)
    assert found.parameters == 4 * SQUARE.num_parameters
    assert found.optimizer == 8 * SQUARE.num_parameters
    assert found.total == found.parameters + found.optimizer + found.gradients + found.kept + found.work + RUNTIME


def test_long_rows_peak_before_gradients_come_and_short_ones_after() -> None:
    assert budget(SQUARE, Training(), 100_000).gradients == 4 * 1000
    assert budget(SQUARE, Training(), 2).gradients == 4 * SQUARE.num_parameters


def test_accumulation_finds_gradients_at_any_length() -> None:
    assert budget(SQUARE, Training(accumulated=True), 100_000).gradients == 4 * SQUARE.num_parameters


def test_checkpoints_cost_their_inputs() -> None:
    """One more layer costs one more input of h elements a token where all are checkpointed, and all of it where none is."""
    more = replace(SQUARE, num_layers=5)
    for every, bytes_per_token in ((1, 40), (0, 888)):
        training = Training(checkpoint_every=every)
        step = budget(more, training, 100_000).kept - budget(SQUARE, training, 100_000).kept
        assert step == 100_000 * bytes_per_token


def test_every_second_checkpoint_keeps_every_second_layer_whole() -> None:
    found = budget(SQUARE, Training(checkpoint_every=2), 100_000)
    assert found.kept == 100_000 * (2 * 40 + 2 * 888 + 8 * 5 + 32)


def test_selective_keeps_attention_outputs() -> None:
    plain, kept = budget(SQUARE, Training(), 100_000), budget(SQUARE, Training(selective=True), 100_000)
    assert kept.kept - plain.kept == 4 * 100_000 * (4 * 10 + 8)


def test_offloaded_inputs_are_not_on_the_device() -> None:
    """But for the one that came back for the layer that runs again; layers that are not checkpointed keep what they keep."""
    few_words = replace(SQUARE, vocabulary=10)
    plain, moved = (budget(few_words, Training(offload=offload), 100_000) for offload in (False, True))
    assert moved.kept == 100_000 * (8 * 5 + 32)
    assert plain.kept - moved.kept == 4 * 100_000 * 40
    assert moved.work - plain.work == 100_000 * 40
    every = budget(SQUARE, Training(offload=True, checkpoint_every=2), 100_000)
    assert every.kept == 100_000 * (2 * 888 + 8 * 5 + 32)


def test_the_residual_stream_of_a_frozen_base_is_bfloat16() -> None:
    """One more layer costs one more input, of two bytes an element where neither embedding nor norms train."""
    more = replace(SQUARE, num_layers=5)
    for recipe, bytes_per_token in (("lora", 20), ("longlora", 40), ("full", 40)):
        training = Training(recipe=recipe, half=True)
        assert budget(more, training, 100_000).kept - budget(SQUARE, training, 100_000).kept == 100_000 * bytes_per_token


def test_an_optimizer_keeps_what_it_keeps() -> None:
    for num_bytes in (8, 4, 0):
        assert budget(SQUARE, Training(optimizer_bytes=num_bytes), 10).optimizer == num_bytes * SQUARE.num_parameters


def test_adapters_train_what_peft_trains() -> None:
    # r (in + out) for q, k, v and o.
    assert parts(SQUARE, Training(recipe="lora", rank=3)).layer == 3 * (20 + 20 + 20 + 20)
    longlora = parts(SQUARE, Training(recipe="longlora", rank=3))
    assert (longlora.layer, longlora.ends) == (240 + 20, 1000 + 10)


def test_the_longest_is_the_last_that_fits() -> None:
    limit = 8 * 1024**3
    found = tokens_within(limit, SMOLLM2, Training(), step=1)
    assert budget(SMOLLM2, Training(), found).total <= limit < budget(SMOLLM2, Training(), found + 1).total
    assert tokens_within(limit, SMOLLM2, Training()) == found // 1024 * 1024


def test_nothing_fits_into_too_little() -> None:
    assert tokens_within(100 * 1024**2, SMOLLM2, Training()) == 0


def test_longest_of_any_rising_need() -> None:
    assert [longest(limit, lambda n: n * n, step=3) for limit in (8, 9, 80, 81, 82)] == [0, 3, 6, 9, 9]


def test_families_that_were_not_counted_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="memory of gemma3_text is not known by arithmetic"):
        sizes({**CONFIG, "model_type": "gemma3_text"})
