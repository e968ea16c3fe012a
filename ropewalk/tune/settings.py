"""What a tuning run is asked for: one frozen record, checked before anything is made.

A *window* is how many tokens a training row has; the *length* is what the plan is for. They are the same but for training
short (PoSE, randomized positions, a plan for more than the rows hold).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError, near

Recipe = Literal[
    "full", "lora", "longlora", "qlora", "prefix", "dora", "rslora", "loha", "lokr", "vera", "oft", "ia3"
]  # fmt: skip
Positions = Literal["full", "pose", "randomized"]
Attention = Literal["full", "s2", "own"]
Schedule = Literal["constant", "linear", "cosine"]
Checkpoint = Literal["whole", "selective"]
RECIPES: tuple[str, ...] = get_args(Recipe)
POSITIONS: tuple[str, ...] = get_args(Positions)
ATTENTIONS: tuple[str, ...] = get_args(Attention)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
CHECKPOINTS: tuple[str, ...] = get_args(Checkpoint)
SEEDS = 2**32
"""So many seeds numpy's generators take."""
LEFT_OUT = {
    "adalora": "it prunes ranks by a call after every step and adds a loss of its own",
    "boft": "it compiles code of its own when it is first used",
    "prompt": "soft tokens stand in the text, so the loss and every position would shift",
    "p-tuning": "soft tokens stand in the text, so the loss and every position would shift",
    "randlora": "what it merges differs from what was trained ten times more than LoRA's does",
    "xlora": "it mixes adapters that have to be there already",
}
"""Kinds of PEFT's adapters that a user may ask for, and why they are no recipes."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some steps at one window."""

    window: int
    """Tokens of a training row."""
    steps: int

    def __post_init__(self) -> None:
        _at_least("window", self.window, 2)
        _at_least("steps", self.steps, 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run trains by. Raises `InputError` for a value that cannot be meant."""

    length: int
    """What the plan is for, and the largest position that training sees, plus one."""
    stages: tuple[Stage, ...]
    recipe: Recipe = "full"
    positions: Positions = "full"
    attention: Attention = "full"
    """`own` is the model's own attention, for layers with windows or sinks: one document in a row."""
    group: int | float = 0.25
    """Shifted sparse attention: tokens of a group, or a share of a stage's rows (LongLoRA, section 3.2: a quarter)."""
    pattern: str = "heads"
    """Shifted sparse attention: which groups are shifted."""
    wrap: str = "separate"
    """Shifted sparse attention: what becomes of the half groups at a row's ends."""
    chunks: int = 2
    """PoSE: in how many chunks a row's positions are spread (arXiv:2309.10400, section 3.2)."""
    learning_rate: float = 2e-5
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    max_grad_norm: float = 1.0
    batch_size: int = 1
    """Rows of one forward pass, in each process."""
    accumulate: int = 1
    """Forward passes of one step."""
    seed: int = 0
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    num_virtual_tokens: int = 16
    """The recipe prefix: places before every text whose keys and values are trained; they take the first positions."""
    checkpoint_every: int = 1
    """One layer in so many keeps its input alone and runs again in the backward pass; 0 keeps all activations."""
    checkpoint: Checkpoint = "whole"
    """What a layer without saved activations runs again: the whole layer, or (`selective`) all but attention."""
    offload: bool = False
    """Saved activations wait in main memory."""
    save_every: int = 50
    """Steps between saved states."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a run needs a stage; give --steps, or --curriculum 4k:100,16k:50")
        if self.recipe in LEFT_OUT:
            raise InputError(
                f"{self.recipe} is no recipe here: {LEFT_OUT[self.recipe]}; take longlora or another of docs/tune.md"
            )
        for name, known in (
            ("recipe", RECIPES), ("positions", POSITIONS), ("attention", ATTENTIONS), ("schedule", SCHEDULES),
            ("checkpoint", CHECKPOINTS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; {near(str(getattr(self, name)), known)}")
        self._check_activations()
        for name in ("batch_size", "accumulate", "rank", "alpha", "save_every", "chunks", "num_virtual_tokens"):
            _at_least(name, getattr(self, name), 1)
        for name in ("warmup_steps", "checkpoint_every", "seed"):
            _at_least(name, getattr(self, name), 0)
        if self.seed >= SEEDS:
            raise InputError(f"seed {self.seed} is not below {SEEDS}, which is all that generators take; give a smaller one")
        if self.warmup_steps > self.steps:
            raise InputError(
                f"a warm-up of {self.warmup_steps} steps is longer than the run of {self.steps}, which would never come "
                "to its learning rate; give fewer --warmup-steps"
            )
        for name in ("learning_rate", "weight_decay", "dropout", "beta1", "beta2", "max_grad_norm"):
            _number(name, getattr(self, name))
        if not (0 < self.learning_rate < 1):
            raise InputError(f"learning rate {self.learning_rate!r} is not between 0 and 1; recipes use 1e-6 to 1e-3")
        for name in ("weight_decay", "dropout", "beta1", "beta2"):
            if not (0 <= getattr(self, name) < 1):
                raise InputError(f"{name} {getattr(self, name)!r} is not at least 0 and below 1")
        if not (0 < self.max_grad_norm < float("inf")):
            raise InputError(f"max_grad_norm {self.max_grad_norm!r} is not above 0; 1.0 is usual")
        longest = max(stage.window for stage in self.stages)
        if longest > self.length:
            raise InputError(
                f"a stage trains on rows of {longest} tokens, and the length is {self.length}; give a --length of at least "
                f"{longest}, or shorter rows"
            )
        if self.recipe == "prefix" and longest + self.num_virtual_tokens > self.length:
            raise InputError(
                f"rows of {longest} tokens behind a prefix of {self.num_virtual_tokens} pass the length of {self.length}; "
                f"give a --window of at most {self.length - self.num_virtual_tokens}"
            )
        # Groups are checked where they are made.
        _ = self.shifted

    def _check_activations(self) -> None:
        """Raises `InputError` for words about activations that would do nothing."""
        if self.checkpoint_every == 0 and (self.offload or self.checkpoint == "selective"):
            word = "--offload" if self.offload else "--checkpoint selective"
            raise InputError(f"with --checkpoint-every 0 all activations are kept where they are; leave {word} out")
        if self.offload and self.checkpoint == "selective":
            raise InputError("--offload moves the inputs of layers alone; leave it or --checkpoint selective out")

    @property
    def shifted(self) -> Shifted | None:
        """How groups are cut; None where attention is not shifted sparse. Raises `InputError`."""
        if self.attention != "s2":
            return None
        return Shifted(group=self.group, pattern=self.pattern, wrap=self.wrap)  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def reached(self, step: int) -> tuple[Stage, ...]:
        """The stages that a run came to which ended after `step`, the last one as far as it went."""
        found: list[Stage] = []
        for stage in self.stages:
            left = step - sum(one.steps for one in found)
            if left > 0:
                found.append(Stage(window=stage.window, steps=min(left, stage.steps)))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """In JSON types: what a card holds."""
        return {**dataclasses.asdict(self), "stages": [dataclasses.asdict(stage) for stage in self.stages]}


def _at_least(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name.replace('_', ' ')} is a whole number of at least {least}, got {value!r}")


def _number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name.replace('_', ' ')} is a number, got {value!r}")
