"""Progress of a whole run: what is planned is what is spent, so that nothing comes after "all 100%"."""

from contextlib import contextmanager

import pytest

import ropewalk
from ropewalk.core.progress import Progress
from ropewalk.measure.settings import DISJOINT, SLIDING, TRUNCATE

PROTOCOLS = [
    DISJOINT, SLIDING, TRUNCATE, "longppl:shared=24", "repeated-text", "byod-sensitivity:examples=6",
    "sensitivity-by-distance",
]  # fmt: skip


class Counted(Progress):
    """Keeps what was planned and what each task cost."""

    def __init__(self) -> None:
        super().__init__()
        self.planned, self.spent = 0.0, {}

    def say(self, line: str) -> None:
        pass

    def plan(self, total: float) -> None:
        super().plan(total)
        self.planned = total

    @contextmanager
    def task(self, label: str, cost: float = 0.0):
        with super().task(label, cost):
            yield self
        self.spent[label] = cost


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """Two texts of passages."""
    folder = tmp_path_factory.mktemp("prose")
    for name in "ab":
        said = (" ".join(f"Light {n} of port {name}{p} burns bright." for n in range(20)) for p in range(4))
        (folder / f"{name}.txt").write_text("\n\n".join(said))
    return sorted(folder.iterdir())


@pytest.fixture
def question(tiny_checkpoint, prose, tmp_path):
    return {
        "source": tiny_checkpoint, "text": prose, "out": tmp_path / "run", "length": 256, "dtype": "float32",
        "method": "dynamic:ntk", "protocols": PROTOCOLS, "stride": 32, "tasks": ["needle"], "lengths": [256], "depths": 1,
        "samples": 1,
    }  # fmt: skip


def test_what_is_planned_is_what_is_spent(question):
    progress = Counted()
    ropewalk.measure(**question, progress=progress)
    assert sum(progress.spent.values()) == pytest.approx(progress.planned)
    free = [label for label, cost in progress.spent.items() if not cost and ".txt" in label]
    assert not free, "every cell counts"


def test_a_resumed_run_plans_what_is_missing(question):
    ropewalk.measure(**question, progress=Counted())
    gone = [path for path in (question["out"] / "nll").parent.rglob("*.npy") if path.parts[-3] in ("longppl-keys", DISJOINT)]
    for path in gone:
        path.unlink()
    progress = Counted()
    ropewalk.measure(**question, progress=progress, resume=True)
    done = [label for label, cost in progress.spent.items() if cost]
    assert len(done) == len(gone) >= 4
    assert sum(progress.spent.values()) == pytest.approx(progress.planned)
