"""What a user asks of lm-eval's short tasks, checked and put into settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.api.checkpoints import need
from ropewalk.core.errors import InputError

if TYPE_CHECKING:
    from ropewalk.measure.settings import ShortSettings

MOST = {"limit": 10_000_000, "fewshot": 1000, "batch": 4096}
"""Of each count; beyond it a number is taken for a slip of the finger."""


@dataclass(frozen=True, kw_only=True)
class ShortTasks:
    """Tasks of lm-eval as the user asked for them."""

    names: str | Iterable[str]
    """Tasks, tags and groups by lm-eval's names, separated by commas or one by one."""
    path: str | Path | None = None
    """A folder of task files beside lm-eval's own."""
    fewshot: int | None = None
    """Examples before each question; None is what each task says of itself."""
    limit: int | None = None
    """Documents of each task, the first ones; None is all."""
    batch: int = 1
    """Prompts in one forward."""

    def split(self) -> tuple[str, ...]:
        """The names, each once."""
        items = [self.names] if isinstance(self.names, str) else self.names
        return tuple(dict.fromkeys(name.strip() for item in items for name in item.split(",") if name.strip()))

    def settings(self) -> "ShortSettings | None":
        """The settings, None where no task is named. Raises `InputError` before anything is loaded or made."""
        names = self.split()
        for count, low in (("fewshot", 0), ("limit", 1), ("batch", 1)):
            value = getattr(self, count)
            if value is not None and not low <= value <= MOST[count]:
                raise InputError(f"--short-tasks-{count} lies between {low} and {MOST[count]}, got {value}")
        if not names:
            if (self.path, self.fewshot, self.limit, self.batch) != (None, None, None, 1):
                raise InputError("the options --short-tasks-... are of --short-tasks; name the tasks, or leave them out")
            return None
        need("short-tasks", "lm_eval", "datasets", "accelerate")
        from ropewalk.measure.settings import ShortSettings
        from ropewalk.measure.task_folders import read_folder

        return ShortSettings(
            names=names, path=None if self.path is None else str(self.path),
            sha256=None if self.path is None else read_folder(self.path),
            num_fewshot=self.fewshot, limit=self.limit, batch_size=self.batch,
        )  # fmt: skip

    @classmethod
    def of(cls, given: "str | Iterable[str] | ShortTasks") -> "ShortTasks":
        """What was given, or its names with the defaults."""
        return given if isinstance(given, ShortTasks) else cls(names=given)
