"""How large everything is: one record for the experiment, one for its test, which takes seconds.

The budget behind the figures is in docs/design/0006-tune-whole.md, *The paper in miniature*.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Every number that the cells depend on."""

    name: str = "full"
    """Of the folder below the run's, so that sizes never mix."""
    vocabulary: int = 2048
    hidden: int = 192
    intermediate: int = 512
    layers: int = 4
    heads: int = 6
    """Heads of 32 dimensions: 16 frequencies, 5 of which turn less than once inside 512 tokens."""
    base: float = 10000.0
    window: int = 512
    """What the models are trained at from scratch."""
    lengths: tuple[int, int] = (2048, 4096)
    base_steps: int = 1200
    base_rows: int = 8
    base_rate: float = 2e-3
    base_warmup: int = 60
    step_tokens: int = 8192
    """Tokens of one tuning step, whatever the rows' window."""
    tune_steps: int = 50
    """0.41 M tokens, a twelfth of what a base has seen; the papers' shares are smaller yet."""
    tune_rate: float = 4e-4
    """A fifth of the base's, constant; not searched, and the same for every arm."""
    tune_warmup: int = 5
    validate_every: int = 5
    held_out: int = 12
    """Documents of each kind that are read at the end."""
    validation: int = 4
    """Documents of each kind that curves are made from, apart from both others."""
    crop_stride: int = 64
    """Cropping's windows end this far apart: a target sees at least `window - crop_stride` tokens."""
    least_bytes: int = 20_000
    """Shorter documents are left out of all splits."""
    most_documents: int = 0
    """Documents of each kind; 0 takes all."""
    dtype: str = "bfloat16"
    """What training multiplies in; weights, sums and reading are float32."""

    @property
    def longest(self) -> int:
        """What every held-out document is read to."""
        return max(self.lengths)


FULL = Sizes()
TOY = Sizes(
    name="toy", vocabulary=384, hidden=64, intermediate=96, layers=2, heads=2, window=32, lengths=(128, 256), base_steps=6,
    base_rows=4, base_warmup=2, step_tokens=512, tune_steps=4, tune_warmup=1, validate_every=2, held_out=2, validation=1,
    crop_stride=8, least_bytes=30_000, most_documents=8,
)  # fmt: skip
SIZES = {"full": FULL, "toy": TOY}
