"""SAFE and USE rows: from the paired windows against cropping, or null with the reason."""

from itertools import takewhile

import numpy as np
import pytest
from scipy.stats import t
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure import statistics
from ropewalk.measure.effective import SAFE_MARGIN, reach
from ropewalk.measure.rows import reach_note

LENGTH = 8 * TRAINED


class Quiet(Progress):
    def say(self, line: str) -> None:
        pass


@pytest.fixture(scope="module")
def run(tiny_checkpoint, long_text, tmp_path_factory) -> Record:
    texts = []
    for index in range(5):
        texts.append(tmp_path_factory.mktemp("texts") / f"{index}.txt")
        texts[-1].write_text(long_text.read_text()[index * 3000 : (index + 1) * 3000], encoding="ascii")
    out = tmp_path_factory.mktemp("reach") / "run"
    ropewalk.compare(
        tiny_checkpoint, methods=["yarn", "pi"], length=LENGTH, text=texts, out=out, dtype="float32", retrieval="",
        progress=Quiet(),
    )  # fmt: skip
    return Record.read(out)


@pytest.mark.parametrize("label", ["none", "yarn", "pi"])
def test_safe_and_use_follow_from_the_windows_gains(run, label):
    gains = [r for r in run.rows("net_gain", method=label) if r.position_low != TRAINED]
    assert len(gains) == 8
    bounds = {r.position_high: r.ci_low for r in gains}
    safe = None
    for end in sorted(bounds):
        if bounds[end] < -SAFE_MARGIN:
            break
        safe = end
    # Holm by t of the windows' own standard errors, by another package.
    chances = sorted((float(t.sf(r.value / r.stderr, r.num_clusters - 1)), r.position_high) for r in gains)
    passed = list(takewhile(lambda item: item[1][0] <= 0.025 / (len(gains) - item[0]), enumerate(chances)))
    use = max((end for _, (_, end) in passed), default=None)
    for name, value in (("safe", safe), ("use", use)):
        (row,) = run.rows(f"{name}_length", method=label)
        assert row.value == value
        assert (row.unit, row.protocol, row.reference, row.n) == ("tokens", "crop-window", "crop", 5)
        assert row.value is None or row.ci_high >= row.value
        assert ("none of 8 lengths is certified" in row.note) == (value is None)


def test_cropping_has_no_reach_of_its_own(run):
    assert not run.rows("safe_length", method="crop")


def test_without_cropping_there_is_a_reason_and_no_number(tiny_checkpoint, long_text, tmp_path):
    ropewalk.measure(
        tiny_checkpoint, text=[long_text], length=LENGTH, out=tmp_path / "run", dtype="float32", method="yarn",
        progress=Quiet(),
    )  # fmt: skip
    record = Record.read(tmp_path / "run")
    for metric in ("safe_length", "use_length"):
        rows = record.rows(metric)
        assert {row.method for row in rows} == {"none", "yarn"}
        assert all(row.value is None and "crop was not measured" in row.note for row in rows)


def test_the_longest_tested_length_is_censored():
    assert "at least this" in reach_note("use", 512, {256: (-1.0, 1.0), 512: (0.1, 1.0)})
    assert "at least this" not in reach_note("use", 256, {256: (0.1, 1.0), 512: (-0.1, 1.0)})
    assert "1 have no interval" in reach_note("safe", None, {256: (None, None), 512: (0.1, 1.0)})


@pytest.mark.parametrize("num_documents", [1, 5, 10])
def test_where_nothing_is_gained_use_is_seldom_certified(num_documents):
    """Eight windows without any gain, each with the interval that a run makes of it: some length in 2.5% of runs."""
    rng, single, together = np.random.default_rng(num_documents), 0, 0
    num_runs = 60 if num_documents == 1 else 500
    for _ in range(num_runs):
        gains, num_clusters = {}, {}
        for end in range(1, 9):
            parts = [rng.normal(size=512) for _ in range(num_documents)]
            found = statistics.mean(parts, seed=0, block=statistics.SHORT_BLOCK)
            gains[end], num_clusters[end] = (found.ci_low, found.ci_high), found.num_clusters
        single += any(low > 0 for low, _ in gains.values())
        together += reach(gains, num_clusters=num_clusters).use is not None
    # The same numbers window by window show that this can fail.
    assert single / num_runs > 0.1
    assert together / num_runs <= 0.025 + 2 * (0.025 * 0.975 / num_runs) ** 0.5


def test_a_gain_at_the_longest_window_is_certified_though_others_have_none():
    gains = dict.fromkeys(range(1, 8), (-0.1, 0.1)) | {8: (0.1, 0.2)}
    assert reach(gains).use == 8
    # With four clusters an interval that clears zero by so little is one of many that may.
    assert reach(gains | {8: (0.01, 0.2)}, num_clusters=dict.fromkeys(range(1, 9), 4)).use is None


def test_every_prefix_method_has_a_law_or_a_reason(run):
    for name in ("alpha", "beta", "gamma"):
        rows = run.rows(f"power_law_{name}")
        assert {row.method for row in rows} == {"none", "yarn", "pi"}
        assert all(row.value is not None or row.note for row in rows)
        assert all((row.ci_low is None) == (row.value is None) for row in rows)
