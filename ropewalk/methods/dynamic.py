"""dynamic: any method, planned anew for the length of each text.

Why: a fixed stretch makes short texts pay for long ones; s = max(1, l'/L) for the current length l' leaves a text inside
the trained length untouched and stretches a longer one no more than it needs.

What is given up: keys that were rotated for one length are wrong for another, so a cache must hold them unrotated, or the
text be read again; a host only ever takes `plan.at(n)`, the static plan for n tokens. Engines' own `dynamic` types compute
four different things from one config, so no native name is claimed.

Paper: "Dynamic Scaling", in YaRN, arXiv:2309.00071v2, section 3.3: s = max(1, l'/L).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import Method, find, identity
from ropewalk.core.plan import Frequencies, Kind, Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamic(Method):
    """A method whose strength follows the length of the text."""

    id: ClassVar[str] = "dynamic"
    summary: ClassVar[str] = "any method, planned anew for the length of each text: dynamic:ntk, dynamic:yarn, ..."
    paper: ClassVar[str] = "Dynamic Scaling, in YaRN, arXiv:2309.00071v2, section 3.3: s = max(1, l'/L)"
    kind: ClassVar[Kind] = "dynamic"
    wraps: ClassVar[str] = "method"
    """What the id behind the colon is called among the options that `build` is given."""

    inner: Method
    """The method that is planned anew, with its own options."""

    @classmethod
    def build(cls, given: Mapping[str, Any]) -> "Dynamic":
        """From `{"method": id, **options of that method}`. Raises `MethodError`."""
        name = str(given.get(cls.wraps, ""))
        if not name:
            raise MethodError("dynamic needs a method to plan anew at each length; say dynamic:yarn")
        if name == cls.id:
            raise MethodError("dynamic cannot wrap itself; say dynamic:yarn")
        if name in ("none", "crop"):
            raise MethodError(f"dynamic:{name} would change nothing at any length; say {name}, or dynamic:yarn")
        return cls(inner=find(name, {key: value for key, value in given.items() if key != cls.wraps}))

    @property
    def name(self) -> str:
        """`dynamic:` and the id of what is wrapped."""
        return f"{self.id}:{self.inner.name}"

    @property
    def fixes_strength(self) -> bool:
        """Never: inside the trained length a dynamic plan is the identity, also where the inner strength is fixed."""
        return False

    def options(self) -> dict[str, Any]:
        """Those of the inner method."""
        return self.inner.options()

    def strength(self, geometry: Geometry, length: int) -> float:
        """The inner method's."""
        return self.inner.strength(geometry, length)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The inner method's word, float64 [rotary_dim/2]."""
        return self.inner.frequencies(start, factor)

    def plan(self, geometry: Geometry, length: int) -> Plan:
        """The inner plan's words at `length`, and the geometry to plan from again at other lengths.

        Raises what the inner method raises.
        """
        planned = self.inner.plan(geometry, length).at(length)
        if length <= geometry.trained_length:
            planned = dataclasses.replace(planned, factor=1.0, groups=identity(geometry))
        return dataclasses.replace(planned, method=self.name, kind="dynamic", geometry=geometry, native=None, regimes=())
