"""From s to 2s: where a longer plan of a method departs from, on a model that was tuned by that method before.

YaRN's s = 32 is from Llama 2 and not from its s = 16 (arXiv:2309.00071, section 4.1), and a plan from the tuned vector is
YaRN on YaRN, with other numbers. `tune` makes the paper's plan. The verbs that plan without training keep the one rule of
all trained models, from where the model stands, since untrained weights know that vector and no other. So the two make
different plans under one name, and each says so, in the words that are here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.core.geometry import Finding

LINEAGE, PLAN = "lineage", "plan"
"""Fields of the findings: of a source, and of what is planned for it."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A model that was tuned at a stretch whose origin is known."""

    method: str
    options: Mapping[str, Any]
    length: int
    """What it was tuned for."""
    origin: int
    """What the origin read."""

    def by_tune(self, length: int, options: Mapping[str, Any]) -> str:
        """What `tune` says of a longer plan of the same method."""
        other = {key: value for key, value in options.items() if self.options.get(key) != value}
        words = f", with {', '.join(f'{key}={value}' for key, value in other.items())} as asked now" if other else ""
        return (
            f"the source was tuned by {self.method} for {self.length} tokens; the plan for {length} is made from its "
            f"origin, which read {self.origin}{words} (--lineage trained stretches the stretched one instead)"
        )

    def by_others(self, length: int) -> Finding:
        """What the verbs that do not train say of a longer plan of the same method."""
        return Finding(
            field=PLAN,
            severity="note",
            problem=f"the source was tuned by {self.method} for {self.length} tokens, and the plan for {length} stretches "
            f"that by {length / self.length:g}",
            mend=f"tune plans from the origin, by {length / self.origin:g}, as does --lineage runtime",
        )

    def finding(self) -> Finding:
        """What `inspect` says of the source, whatever is planned."""
        return Finding(
            field=LINEAGE,
            severity="note",
            problem=f"tuned by {self.method} for {self.length} tokens, from an origin that read {self.origin}",
            mend=f"tune makes a longer {self.method} from the origin; elsewhere say --lineage runtime for the same plan",
        )


def of_block(block: Mapping[str, Any]) -> Transfer | None:
    """What a block says of it, None where its last step was not tuned or stretched nothing."""
    length, origin = int(block["length"]), int(block["origin"]["length"])
    if not block["steps"][-1].get("tuned", False) or length <= origin:
        return None
    return Transfer(method=block["method"], options=block["options"], length=length, origin=origin)
