"""What shapes a comparison beside the plans and the texts, and the labels that have a meaning of their own."""

from dataclasses import dataclass

from ropewalk.measure.windows import TARGETS

NONE, CROP, CONTROL = "none", "crop", "none@float32"
"""Labels: the two baselines, and the untouched model in float32."""
MULTIKEY, SINGLE, NO_CONTEXT = "multikey-branch", "single-key", "no-context"
"""Retrieval protocols."""
DISJOINT, SLIDING, TRUNCATE = "disjoint", "sliding-press", "yarn-truncate"
"""Likelihood protocols beside `prefix`, which is always there."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that shapes a comparison beside the plans and the texts. Lengths are tokens."""

    length: int
    crop_windows: int = 8
    targets: int = TARGETS
    control_tokens: int = 4096
    """Tokens of the bf16-against-float32 control; 0 leaves it out."""
    num_bins: int = 16
    num_points: int = 64
    """Points of the perplexity curve."""
    retrieval_methods: tuple[str, ...] = ()
    retrieval_lengths: tuple[int, ...] = ()
    retrieval_protocols: tuple[str, ...] = (MULTIKEY,)
    num_depths: int = 5
    num_haystacks: int = 1
    protocols: tuple[str, ...] = ()
    """Likelihood protocols beside `prefix`."""
    protocol_window: int | None = None
    """Window of `disjoint` and `sliding-press`; the old window where nothing is said."""
    protocol_stride: int = 256
    """Stride of `sliding-press`: the papers' S."""
    seed: int = 0

    @property
    def depths(self) -> tuple[float, ...]:
        """Middles of equal parts of the text."""
        return tuple((index + 0.5) / self.num_depths for index in range(self.num_depths))
