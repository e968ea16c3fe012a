"""Maps of tasks: what is asked, in which order, what a resume finds, when a cell stops."""

import io
import json

import pytest

import ropewalk
from ropewalk.core.errors import InputError, LengthError, MethodError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.maps import cells
from ropewalk.measure.sequential import Stop
from ropewalk.measure.settings import MapSettings

LENGTHS = [768, 1024]


def measure(source, out, **changes):
    asked = {
        "tasks": "needle", "lengths": LENGTHS, "depths": 2, "samples": 2, "dtype": "float32",
        "progress": Progress(stream=io.StringIO()), **changes,
    }  # fmt: skip
    return ropewalk.measure(source, out=out, **asked)


def without_costs(record):
    return [{k: v for k, v in row.to_dict().items() if k not in ("seconds", "peak_bytes")} for row in record.measurements]


@pytest.fixture(scope="module")
def run(tiny_checkpoint, long_text, tmp_path_factory):
    out = tmp_path_factory.mktemp("maps") / "run"
    measure(tiny_checkpoint, out, text=[long_text], method="yarn", modes=["fixed", "grow", "single"])
    return Record.read(out)


def test_every_cell_is_there_once(run):
    counts = {}
    for s in run.samples:
        counts.setdefault((s["protocol"], s["method"]), []).append(s["asked_length"])
    assert {protocol for protocol, _ in counts} == {"multikey-branch", "multikey-grow", "single-key", "no-context"}
    for protocol in ("multikey-branch", "multikey-grow", "single-key"):
        for method in ("none", "crop", "yarn"):
            assert sorted(counts[protocol, method]) == [768] * 4 + [1024] * 4


def test_methods_answer_identical_prompts(run):
    def prompts(method):
        return [
            (s["protocol"], s["asked_length"], s["haystack"], s["key"], s["position"])
            for s in run.samples
            if s["method"] == method and s["protocol"] != "no-context"
        ]

    assert prompts("none") == prompts("crop") == prompts("yarn")


def test_growing_haystacks_say_how_many_needles_they_hold(run):
    grown = {s["asked_length"]: s["num_needles"] for s in run.samples if s["protocol"] == "multikey-grow"}
    assert grown[768] < grown[1024]
    (row,) = run.rows("retrieval_exact", protocol="multikey-grow", method="yarn", length=1024, depth=None)
    assert f"{grown[1024]} needles" in row.note
    assert "effective n" in row.note


def test_rows_of_a_map(run):
    for metric in ("retrieval_exact", "retrieval_choice", "retrieval_logprob", "retrieval_rank"):
        (row,) = run.rows(metric, protocol="multikey-branch", method="yarn", length=1024, depth=None)
        assert (row.task, row.template, row.n, row.num_clusters) == ("needle", "raw", 4, 2)
    assert {r.reference for r in run.rows("retrieval_gain", method="yarn", protocol="single-key")} == {"none", "crop"}
    (row,) = run.rows("retrieval_single_minus_multikey", method="none", length=768)
    assert row.reference == "multikey-branch"
    (row,) = run.rows("effective_length", protocol="multikey-branch", method="yarn")
    assert row.value is None
    assert "not above a guess" in row.note


@pytest.mark.parametrize("kept", [0, 3, 17, 30])
def test_a_run_killed_inside_a_cell_ends_with_the_same_rows(kept, run, tiny_checkpoint, long_text, tmp_path):
    """Whole lines of a half-written cell and a half-written line are both asked again, none twice."""
    import shutil

    out = tmp_path / "run"
    shutil.copytree(run.path, out)
    lines = (run.path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (out / "samples.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
    (out / "measurements.jsonl").unlink()
    measure(
        tiny_checkpoint, out, text=[long_text], method="yarn", modes=["fixed", "grow", "single"], resume=True,
    )  # fmt: skip
    again = Record.read(out)
    assert without_costs(again) == without_costs(run)
    assert len(again.samples) == len(lines)


def test_a_map_without_texts(tiny_checkpoint, tmp_path):
    rows = measure(tiny_checkpoint, tmp_path / "run", tasks="passkey", method="yarn", depths=1, samples=1)
    assert {row.task for row in rows} == {"passkey"}
    assert not Record.read(tmp_path / "run").rows("nll")


def test_what_is_refused(tiny_checkpoint, long_text, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="unknown task 'neddle'; did you mean needle"):
        measure(tiny_checkpoint, out, tasks="neddle")
    with pytest.raises(InputError, match="--lengths are those of --tasks"):
        measure(tiny_checkpoint, out, tasks="", length=200, text=[long_text])
    with pytest.raises(LengthError, match="beyond the 800 that the plan is for"):
        measure(tiny_checkpoint, out, text=[long_text], length=800)
    with pytest.raises(InputError, match="unknown mode 'shared'"):
        measure(tiny_checkpoint, out, text=[long_text], modes=["shared"])
    with pytest.raises(MethodError, match="use --mode fixed"):
        measure(tiny_checkpoint, out, text=[long_text], modes=["grow"], method="dynamic:yarn")
    with pytest.raises(InputError, match="hides its needles in a text"):
        measure(tiny_checkpoint, out)
    assert not out.exists()


def sample(method, length, index, found, protocol="multikey-branch"):
    return {
        "task": "needle", "protocol": protocol, "method": method, "asked_length": length, "haystack": index,
        "found": found,
    }  # fmt: skip


def test_a_cell_stops_when_its_interval_is_clear():
    settings = MapSettings(methods=("none", "yarn"), lengths=(1024, 2048), num_depths=11, num_haystacks=24, stop_early=True)
    base = [sample("none", 1024, i, 1.0) for i in range(24) for _ in range(11)]
    lost = [sample("yarn", 2048, i, 0.0) for i in range(6) for _ in range(11)]
    asked = [cell for cell in cells(settings) if (cell.label, cell.length) == ("yarn", 2048)]
    stop = Stop(settings, base + lost)
    assert [stop.decided(cell) for cell in asked] == [False] * 6 + [True] * 18
    unclear = [sample("yarn", 2048, i, float(i % 6 > 0)) for i in range(24) for _ in range(11)]
    assert not any(Stop(settings, base + unclear).decided(cell) for cell in asked[:6])
    first = [cell for cell in cells(settings) if (cell.label, cell.length) == ("none", 1024)]
    assert not any(Stop(settings, base).decided(cell) for cell in first)


def test_samples_name_their_cell(run):
    for s in run.samples:
        label, task, protocol, *_ = json.loads(s["cell"])
        assert (label, task, protocol) == (s["method"], s["task"], s["protocol"])
