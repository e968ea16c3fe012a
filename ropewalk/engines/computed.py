"""What one engine would do with one config: the only thing an engine's file makes.

A `Computed` says what the engine's own code would compute at one request length, not what the config's author meant. It is
read in the engine's source for a stated range of versions; `hosts/executed` holds it against the engine itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ropewalk.core.plan import Frequencies

Depends = Literal["nothing", "request", "deployment", "batch"]
"""What an engine lets its frequencies depend on: nothing, the request's length, the deployment's longest length, or the
longest request in a batch."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """One engine's numbers for one config, at one request length."""

    engine: str
    """`transformers`, `vllm`, `sglang` or `llama.cpp`."""
    versions: str
    """The range of versions whose source says so."""
    groups: Mapping[str, Frequencies | None]
    """Per group of layers, as in the model's geometry: the words it uses; None for a group without positions."""
    max_length: int | None
    """Longest request it accepts when it is started without flags, prompt and answer together, tokens; None: it sets no end.

    transformers: always None, since a model runs on whatever it is given. vLLM: the longest `--max-model-len` that it takes
    without an override switch, which is also its default. SGLang: the same for `--context-length`. llama.cpp: the file's
    `context_length`, which the server takes for `--ctx-size 0` and caps a longer one to (`simple` programs only warn); a
    shorter `--ctx-size`, the default of other programs, lies under it. A YaRN scale from the command line moves it, see
    `llamacpp.flags`. It never says that a model reads so far well.
    """
    depends_on: Depends = "nothing"
    """What the numbers would change with."""
    short_request: str = "the same numbers at every length"
    """How a request inside the original length is treated, in words."""
    refuses: str | None = None
    """Why the engine would crash or refuse to load; None where it loads."""
    unsupported: str | None = None
    """Why nothing can be said: the engine has no such family, or its code for it was not read."""
    ignored: tuple[str, ...] = ()
    """Fields of the config that this engine does not read although they carry meaning."""
    notes: tuple[str, ...] = ()
    """Rounding and other things that are the engine's, not the plan's."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "engine": self.engine,
            "versions": self.versions,
            "groups": {label: None if word is None else word.to_dict() for label, word in self.groups.items()},
            "max_length": self.max_length,
            "depends_on": self.depends_on,
            "short_request": self.short_request,
            "refuses": self.refuses,
            "unsupported": self.unsupported,
            "ignored": list(self.ignored),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What makes a running engine compute a plan from an unchanged checkpoint."""

    engine: str
    arguments: tuple[str, ...]
    """Command-line arguments, in order; empty where there is no way."""
    says: tuple[str, ...] = field(default=())
    """What the user must know: what is replaced and what is merged, what cannot be said."""
