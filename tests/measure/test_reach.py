"""SAFE and USE rows: from the paired windows against cropping, or null with the reason."""

import pytest
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.effective import SAFE_MARGIN
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
    use = max((end for end, low in bounds.items() if low > 0), default=None)
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


def test_every_prefix_method_has_a_law_or_a_reason(run):
    for name in ("alpha", "beta", "gamma"):
        rows = run.rows(f"power_law_{name}")
        assert {row.method for row in rows} == {"none", "yarn", "pi"}
        assert all(row.value is not None or row.note for row in rows)
        assert all((row.ci_low is None) == (row.value is None) for row in rows)
