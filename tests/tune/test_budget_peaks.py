"""The arithmetic of memory against every allocation that torch makes in a real step of tiny models."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ropewalk.api.training_memory import training_of
from ropewalk.attention.registered import put_on
from ropewalk.core.budget import Sizes, Training, budget
from ropewalk.tune import measured
from ropewalk.tune.checkpointing import enable
from ropewalk.tune.learner import Learner
from ropewalk.tune.recipes import dress, num_trained
from ropewalk.tune.settings import Settings, Stage


def small(sizes: Sizes, length: int) -> Any:
    """A random Llama of these sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = sizes.query // sizes.num_heads
    config = LlamaConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.hidden, intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.num_layers, num_attention_heads=sizes.num_heads, num_key_value_heads=sizes.key // size,
        head_dim=size, max_position_embeddings=length, tie_word_embeddings=sizes.tied,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def learner_of(model: Any, training: Training, length: int, kind: str | None = None) -> Learner:
    """The model as a run would train it, `kind` in place of the recipe that is counted."""
    if training.half and training.recipe != "full":
        model = model.to(torch.bfloat16)
    model.train()
    settings = Settings(
        length=length + 16, stages=(Stage(window=length, steps=1),), recipe=kind or training.recipe,
        rank=max(1, training.rank), checkpoint_every=training.checkpoint_every,
        checkpoint="selective" if training.selective else "whole",
    )  # fmt: skip
    enable(model, settings)
    learner = Learner(dress(model, settings))
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return learner


def passes(learner: Learner, training: Training, length: int) -> None:
    """Forward and backward over one row."""
    ids = torch.randint(0, 100, (1, length))
    with torch.autocast("cpu", torch.bfloat16) if training.half else nullcontext():
        loss = learner(ids, ids.clone(), torch.arange(length)[None], torch.zeros_like(ids))["loss"]
    (loss / length).backward()


def peak_of(sizes: Sizes, training: Training, length: int, kind: str | None = None) -> tuple[int, int, int]:
    """(bytes above the weights at the peak of a pass, bytes of the weights, how many train)."""
    model = small(sizes, length)
    with put_on(model):
        learner = learner_of(model, training, length, kind)
        passes(learner, training, 16)
        if not training.accumulated:
            learner.zero_grad(set_to_none=True)
        before = sum(p.grad.numel() * 4 for p in learner.parameters() if p.grad is not None)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            passes(learner, training, length)
    return measured.peak_of(watched) + before, held(learner), num_trained(learner)[0]


def held(module: nn.Module) -> int:
    """Bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def sizes_of(**changes: Any) -> Sizes:
    given = {"hidden": 128, "intermediate": 352, "num_layers": 4, "num_heads": 4, "query": 128, "key": 64,
             "vocabulary": 1000, "tied": True}  # fmt: skip
    return Sizes(**{**given, **changes})


CASES = [
    ("long rows", sizes_of(), Training(), 2048, 0.01),
    ("short rows", sizes_of(), Training(), 512, 0.01),
    ("fewer layers", sizes_of(num_layers=2), Training(), 1024, 0.01),
    ("nothing checkpointed", sizes_of(), Training(checkpoint_every=0), 2048, 0.01),
    ("every second checkpointed", sizes_of(), Training(checkpoint_every=2), 2048, 0.01),
    ("selective", sizes_of(), Training(selective=True), 2048, 0.03),
    ("large vocabulary", sizes_of(num_layers=2, vocabulary=20_000), Training(), 512, 0.02),
    ("head of its own", sizes_of(tied=False), Training(), 2048, 0.03),
    ("wide heads", sizes_of(num_layers=3, hidden=192, num_heads=4, query=256, key=128), Training(), 1024, 0.02),
    ("gradients there", sizes_of(), Training(accumulated=True), 2048, 0.03),
    ("bfloat16", sizes_of(), Training(half=True), 2048, 0.03),
    ("bfloat16, nothing checkpointed", sizes_of(), Training(half=True, checkpoint_every=0), 2048, 0.02),
    ("large vocabulary in bfloat16", sizes_of(num_layers=2, vocabulary=20_000), Training(half=True), 2048, 0.01),
    ("adapters", sizes_of(), Training(recipe="lora"), 2048, 0.05),
    ("longlora", sizes_of(), Training(recipe="longlora"), 2048, 0.03),
    ("longlora in bfloat16", sizes_of(), Training(recipe="longlora", half=True), 2048, 0.03),
    ("adapters in bfloat16", sizes_of(), Training(recipe="lora", half=True), 2048, 0.03),
    ("adapters in bfloat16, deep", sizes_of(num_layers=16), Training(recipe="lora", half=True), 1024, 0.03),
    # With few words it is not the head that takes most.
    ("adapters in bfloat16, few words", sizes_of(vocabulary=100), Training(recipe="lora", half=True), 1024, 0.03),
    ("all kept in bfloat16", sizes_of(vocabulary=100), Training(recipe="lora", half=True, checkpoint_every=0), 512, 0.03),
]


@pytest.mark.parametrize(("name", "sizes", "training", "length", "band"), CASES, ids=[case[0] for case in CASES])
def test_bytes_are_those_that_torch_takes(name: str, sizes: Sizes, training: Training, length: int, band: float) -> None:
    counted = budget(sizes, training, length)
    peak, weights, trained = peak_of(sizes, training, length)
    assert counted.parameters == pytest.approx(weights, rel=1e-4)
    assert counted.optimizer == 8 * trained
    assert counted.gradients + counted.kept + counted.work == pytest.approx(peak, rel=band)


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "vera", "oft", "ia3", "prefix"])
def test_no_adapter_is_counted_for_more_than_it_takes(kind: str) -> None:
    """A run is refused by this sum. A prefix goes with no checkpointing, so none has it here."""
    settings = Settings(length=528, stages=(Stage(window=512, steps=1),), recipe=kind, checkpoint_every=0)  # type: ignore[arg-type]
    sizes, training = sizes_of(vocabulary=100, num_layers=2), training_of(settings, "cpu", bfloat16=True)
    counted = budget(sizes, training, 512)
    peak, weights, trained = peak_of(sizes, training, 512, kind)
    taken = peak + weights + 8 * trained
    assert 0.6 * taken < counted.total - counted.runtime <= taken
