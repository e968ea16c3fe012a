"""A tokenizer of single characters that `Encoder` takes, safe to fork; sources made of files; and work that is killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from characters import Characters

from ropewalk.data.assembly import Settings
from ropewalk.data.preparation import prepare
from ropewalk.data.reading.files import open_files
from ropewalk.data.tokens import Encoder


class Letters(Characters):
    """One token a character, an end mark of 2."""

    eos_token_id = 2

    def __len__(self) -> int:
        return 100

    def get_vocab(self) -> dict[str, int]:
        return {chr(31 + i): 3 + i for i in range(97)}


def prepared(paths: list[Path | str], out: Path, *, field: str | None = None, **options: Any) -> dict[str, Any]:
    """The card of a prepared folder; options are those of `Settings`, `force` and `resume`."""
    again = {key: options.pop(key) for key in ("force", "resume") if key in options}
    chosen = Settings(**{"length": 32, "window": 8, "shard_tokens": 200, **options})
    sources = [open_files(str(path), field=field) for path in paths]
    return prepare(sources, Encoder(tokenizer=Letters()), chosen, out, versions={"tokenizers": "1"}, **again)


def corpus(folder: Path, *, num_long: int = 9, num_short: int = 20) -> Path:
    """Long texts of 40 to 120 characters and short ones of 5."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num_long):
        (folder / f"long{index}.txt").write_text(f"{index}" * (40 + 10 * index))
    for index in range(num_short):
        (folder / f"short{index:02}.txt").write_text(f"s{index:04}"[:5])
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Does the work in a child that dies by SIGKILL at its `count`-th rename; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            renames, real = iter(range(1, 10_000)), Path.replace

            def replace(self: Path, target: Path) -> Path:
                if next(renames) == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(self, target)

            Path.replace = replace  # type: ignore[assignment, method-assign]
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
