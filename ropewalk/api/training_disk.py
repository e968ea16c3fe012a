"""What a tuning run writes, against what is free: a disk that fills up is said before the first hour, not at a save.

A state holds the parameters that train in float32 and AdamW's two moments, 12 bytes each; the next one is whole before the
old one goes. Then the result is written beside the last state: 4 bytes for each parameter of a full checkpoint, or for each
that trained of an adapter. A chain keeps the checkpoints of its earlier runs.

Counted from the headers of the weights: nothing that fits is refused for what is not known (other optimizers' states and
other adapters than LoRA's kin count as nothing). Given up: tokenized data, which are made before, and what others write.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.api.training_data import FOLDER
from ropewalk.core.budget import GIGABYTE
from ropewalk.core.errors import MachineError
from ropewalk.core.plurals import counted

Shapes = Mapping[str, tuple[int, ...]]
LOW_RANK = ("lora", "dora", "rslora", "longlora", "qlora")
WITH_WHOLE = ("longlora", "qlora")


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that one run has on disk."""

    state: int
    result: int
    num_states: int
    """Two where a second one is written while the first is there."""

    @property
    def peak(self) -> int:
        """The most at one time."""
        return max(self.num_states * self.state, self.state + self.result)


def check_disk(out: str | Path, asked: Sequence[Any], *, force: bool = False) -> None:
    """Raises `MachineError` where the runs of `asked` (one, or those of a chain) need more than is free around `out`.

    With `force` what is there makes room.
    """
    from ropewalk.hosts import folder

    shapes = folder.shapes(asked[0].checkpoint)
    needs = [need(shapes, one.settings, merge=one.merge, arguments=one.config.get("arguments", {})) for one in asked]
    before, most = 0, 0
    for one in needs:
        most = max(most, before + one.peak)
        before += one.result
    path = Path(out).absolute()
    parent = next(place for place in (path, *path.parents) if place.exists())
    free = shutil.disk_usage(parent).free + (_held(path) if force else 0)
    if most > free:
        raise MachineError(
            f"the run writes up to {_size(most)} below {out} ({_words(needs)}), and {_size(free)} are free there; "
            "free some space, or give an --out on another disk or a recipe that trains less"
        )


def need(shapes: Shapes, settings: Any, *, merge: bool, arguments: Mapping[str, Any]) -> Need:
    """What a run writes of weights of these shapes."""
    everything = sum(math.prod(shape) for shape in shapes.values())
    full = settings.recipe == "full"
    trained = everything if full else _of_adapters(shapes, settings)
    return Need(
        state=trained * (4 if "optim" in arguments else 12),
        result=4 * (everything if merge or full else trained + _tied(shapes, settings)),
        num_states=2 if settings.steps > settings.save_every else 1,
    )


def _of_adapters(shapes: Shapes, settings: Any) -> int:
    """Trained parameters: two thin matrices at each of attention's layers, and modules that train whole."""
    from ropewalk.tune.recipes import ATTENTION_NAMES, WHOLE

    names = {name for family in ATTENTION_NAMES for name in family}
    found = 0
    for path, shape in shapes.items():
        module = path.removesuffix(".weight").rpartition(".")[2]
        if settings.recipe in LOW_RANK and module in names and len(shape) == 2:
            found += settings.rank * sum(shape)
        elif settings.recipe in WITH_WHOLE and any(word in module.lower() for word in WHOLE):
            found += math.prod(shape)
    return found


def _tied(shapes: Shapes, settings: Any) -> int:
    """Numbers of a tied head, which PEFT writes beside the embedding that it is."""
    if settings.recipe not in WITH_WHOLE or any("lm_head" in path for path in shapes):
        return 0
    return max((math.prod(shape) for path, shape in shapes.items() if "embed_tokens" in path), default=0)


def _held(path: Path) -> int:
    """Bytes of a folder but for its tokenized data; files that lie elsewhere too take no room here."""
    files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    kept = [file.stat() for file in files if file.relative_to(path).parts[0] != FOLDER]
    return sum(stat.st_size for stat in kept if stat.st_nlink == 1)


def _words(needs: Sequence[Need]) -> str:
    largest = max(needs, key=lambda one: one.peak)
    states = "two states while one takes the other's place, each" if largest.num_states > 1 else "a state of"
    links = f", checkpoints of {counted(len(needs) - 1, 'run')} before the last" if len(needs) > 1 else ""
    return f"{states} {_size(largest.state)}, and a result of {_size(largest.result)}{links}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIGABYTE:.1f} GB" if num_bytes >= GIGABYTE / 10 else f"{num_bytes / 10**6:.1f} MB"
