"""The two methods that change nothing: every other method is judged against them.

`none` is the untouched model reading the whole text, which shows how far it reads as it is. `crop` is the untouched model
reading only the last tokens that fit its trained window: the null hypothesis, since a stretch that loses to throwing text
away has not earned its name.

Where a checkpoint carries a stretch that was put on without training, the untouched model of `none` is the checkpoint as it
ships, and `crop` is the model as its weights were trained: the origin's frequencies and length. Otherwise an untrained
stretch would be its own baseline.

Given up: cropping is a matter of which tokens are read, and a plan only speaks of frequencies, so `crop` plans the identity
and says how many tokens to keep in its options; whoever measures obeys that.
"""

import dataclasses
from typing import Any, ClassVar

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import Method, identity, require
from ropewalk.core.plan import Frequencies, Plan, check_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Untouched(Method):
    """The model as it stands, at any length: also with a stretch that is already on, and with an unknown lineage."""

    id: ClassVar[str] = "none"
    summary: ClassVar[str] = "the untouched model reads all of the text"
    paper: ClassVar[str] = "RoFormer, arXiv:2104.09864, section 3.2.2: theta_i = b^(-2i/d)"

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """What `start` has on already; `factor` means nothing here."""
        return Frequencies(inv_freq=start.inv_freq, attention_factor=start.attention_factor, logit_scale=start.logit_scale)

    def plan(self, geometry: Geometry, length: int) -> Plan:
        """The identity. Raises `LengthError`; never refuses a model, since there is nothing to extend."""
        return self.make_plan(geometry, check_length(length), 1.0, identity(geometry))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(Untouched):
    """The model as it stands, shown only the last `keep_last` tokens."""

    id: ClassVar[str] = "crop"
    summary: ClassVar[str] = "the untouched model reads only the last tokens that fit: what every method must beat"
    paper: ClassVar[str] = "the null hypothesis: y = f(x[-L:]), the truncation baseline of LongBench, arXiv:2308.14508"

    keep_last: int | None = None
    """Tokens at the end of the text that the model is shown; the trained length where nothing is said."""

    def __post_init__(self) -> None:
        if self.keep_last is not None:
            require(self.id, "keep_last", self.keep_last, above=1, inclusive=True)

    def plan(self, geometry: Geometry, length: int) -> Plan:
        """The identity (of the origin, under an untrained stretch), with `keep_last` in its options.

        Raises `LengthError`, and `MethodError` where `keep_last` is more than the model was trained to read.
        """
        longest = geometry.window_length
        keep_last = longest if self.keep_last is None else self.keep_last
        if keep_last > longest:
            raise MethodError(
                f"crop:keep_last={keep_last} is more than the trained length {longest} of this model; "
                "give fewer tokens, or leave it out"
            )
        options: dict[str, Any] = {**self.options(), "keep_last": keep_last}
        words = as_trained(geometry) if geometry.from_origin else identity(geometry)
        return dataclasses.replace(self.make_plan(geometry, check_length(length), 1.0, words), options=options)


def as_trained(geometry: Geometry) -> dict[str, Frequencies | None]:
    """The words of the last state the weights were trained in."""
    words: dict[str, Frequencies | None] = {group.label: None for group in geometry.groups}
    for group in geometry.extended_groups:
        start = geometry.start(group)
        words[group.label] = Frequencies(
            inv_freq=start.inv_freq, attention_factor=start.attention_factor, logit_scale=start.logit_scale
        )
    return words
