"""What one command line said, and what it left on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What one command said."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> bool:
        """Whether it was refused in one sentence on stderr that has all of `words`, with nothing on stdout."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == ""
        *before, sentence = self.err.strip().splitlines()
        assert sentence.startswith("ropewalk: "), self.err
        assert not [line for line in before if not line.startswith("device ")], self.err
        missing = [word for word in words if word not in sentence]
        assert not missing, f"{missing} not in {sentence!r}"
        return True


Command = Callable[..., Result]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and time of change: what "nothing is left behind" is compared with."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_size, state.st_mtime_ns)
    return found
