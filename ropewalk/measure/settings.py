"""What shapes a run beside the plans and the texts, and the labels and protocols that have a meaning of their own."""

from dataclasses import dataclass, field
from typing import Literal

from ropewalk.data.tasks.encoding import Template
from ropewalk.measure.probes import Probes
from ropewalk.measure.windows import TARGETS

NONE, CROP, CONTROL = "none", "crop", "none@float32"
"""Labels: the two baselines, and the untouched model in float32."""
SERVED = "served"
"""Label: what a server computes, whatever it was started with."""
MULTIKEY, GROW, SINGLE, ALONE = "multikey-branch", "multikey-grow", "single-key", "one-question"
"""Retrieval protocols."""
NO_CONTEXT, STAND_ALONE = "no-context", "stand-alone"
"""Retrieval controls: the question without its haystack; prompts that share nothing, against their branches."""
DISJOINT, SLIDING, TRUNCATE = "disjoint", "sliding-press", "yarn-truncate"
"""Likelihood protocols beside `prefix`, which is always there."""
SHORT = "lm-eval"
"""Protocol of the short tasks: whatever lm-eval does under its own names."""
Mode = Literal["fixed", "grow", "single"]
Scoring = Literal["auto", "forced", "generate"]


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """The retrieval map. Lengths are tokens."""

    methods: tuple[str, ...]
    """Labels."""
    lengths: tuple[int, ...]
    """Rising; those of `inside` are among them."""
    window: int | None = None
    """The untouched model's window; None where it is not known."""
    inside: tuple[int, ...] = ()
    """Lengths that nobody named: a quarter and a half of the window, where price and s0 are measured."""
    no_room: tuple[tuple[str, int], ...] = ()
    """Tasks and those lengths of `inside` in which they cannot be built, so that they are not asked there."""
    tasks: tuple[str, ...] = ("needle",)
    modes: tuple[Mode, ...] = ("fixed",)
    num_depths: int = 5
    num_haystacks: int = 1
    scoring: Scoring = "auto"
    """`auto` is what each task says of itself."""
    template: Template = "raw"
    check_branches: bool = False
    """Whether one haystack is asked by stand-alone prompts too, to count the answers that rounding flips."""
    stop_early: bool = False
    """Whether a sequential test may end a cell before its last haystack."""
    untouched: str = NONE
    """Label of who answers the controls, and whose short score s0 is unless an earlier run is given."""
    base: str = NONE
    """Label under which the samples stand whose short score is s0."""

    @property
    def depths(self) -> tuple[float, ...]:
        """Middles of equal parts of the text."""
        return tuple((index + 0.5) / self.num_depths for index in range(self.num_depths))

    def lengths_of(self, task: str) -> tuple[int, ...]:
        """The lengths at which a task is asked."""
        return tuple(length for length in self.lengths if (task, length) not in self.no_room)

    def checked_of(self, task: str) -> tuple[int, ...]:
        """The lengths at which branches are held against stand-alone prompts: the ends of what lies in the window."""
        lengths = self.lengths_of(task)
        within = [length for length in lengths if self.window is not None and length <= self.window] or lengths[:1]
        return tuple(dict.fromkeys((within[0], within[-1])))

    def scoring_of(self, usual: Literal["forced", "generate"]) -> Literal["forced", "generate"]:
        """How a task is scored whose own way is `usual`."""
        return usual if self.scoring == "auto" else self.scoring


@dataclass(frozen=True, kw_only=True)
class ShortSettings:
    """Tasks that are handed to lm-eval, asked inside the old window."""

    names: tuple[str, ...]
    """Tasks, tags and groups by lm-eval's names."""
    path: str | None = None
    """Folder of the user's own task files; None where lm-eval's alone are meant."""
    sha256: str | None = None
    """Of the task files in that folder, so that a run is not mixed from two versions of them."""
    num_fewshot: int | None = None
    """Examples before each question; None is what each task says of itself."""
    limit: int | None = None
    """Documents of each task, the first ones; None is all."""
    batch_size: int = 1
    """Prompts in one forward."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that shapes a run beside the plans and the texts. Lengths are tokens."""

    length: int
    crop_windows: int = 8
    targets: int = TARGETS
    control_tokens: int = 4096
    """Tokens of the bf16-against-float32 control; 0 leaves it out."""
    num_bins: int = 16
    num_points: int = 64
    """Points of the perplexity curve."""
    map: MapSettings | None = None
    """None where nothing is retrieved."""
    protocols: tuple[str, ...] = ()
    """Likelihood protocols beside `prefix`."""
    protocol_window: int | None = None
    """Window of `disjoint` and `sliding-press`; the old window where nothing is said."""
    protocol_stride: int = 256
    """Stride of `sliding-press`: the papers' S."""
    probes: Probes = field(default_factory=Probes)
    """Likelihood protocols that have options of their own."""
    short: ShortSettings | None = None
    """None where no short task is asked."""
    seed: int = 0
