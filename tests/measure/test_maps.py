"""Maps of tasks: what is asked, in which order, what a resume finds, when a cell stops."""

import io
import json

import pytest
from characters import Characters
from tiny import write_tiny_checkpoint

import ropewalk
from ropewalk.api.maps import lengths_inside
from ropewalk.core.errors import InputError, LengthError, MethodError, OutputError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.maps import Prompts, cells, rehearsed
from ropewalk.measure.sequential import Stop
from ropewalk.measure.settings import GROW, STAND_ALONE, MapSettings

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
    rows = run.rows("retrieval_single_minus_multikey", method="none", length=768)
    assert [row.reference for row in rows] == ["multikey-branch", "multikey-grow"]
    (row,) = run.rows("effective_length", protocol="multikey-branch", method="yarn")
    assert row.value is None
    assert "was asked is 768, above half of its window of 64 tokens" in row.note


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


# --- a quarter and a half of the window -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint whose window has room for haystacks in its half, and for none in its quarter."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("wide") / "tiny", max_position_embeddings=2048)


def test_a_quarter_and_a_half_are_asked_whatever_lengths_are(wide, long_text, tmp_path):
    """The method and the untouched model stand beside one another inside the window, and s0 comes from there."""
    out = tmp_path / "run"
    measure(
        wide, out, text=[long_text], method="yarn", lengths=[2560], depths=1, samples=1, length=4096,
        modes=["fixed", "grow"],
    )  # fmt: skip
    record = Record.read(out)
    for protocol in ("multikey-branch", "multikey-grow"):
        for method in ("none", "yarn"):
            asked = {s["asked_length"] for s in record.samples if (s["protocol"], s["method"]) == (protocol, method)}
            assert asked == {512, 1024, 2560}
    for length in (512, 1024):
        assert record.rows("retrieval_gain", method="yarn", reference="none", length=length, protocol="multikey-branch")
        (twin,) = [
            s for s in record.samples
            if (s["protocol"], s["method"], s["asked_length"]) == ("multikey-branch", "crop", length)
        ]  # fmt: skip
        assert "identical to none" in twin["note"]
    assert record.card.config["map"]["inside"] == [512, 1024]


def test_a_length_that_nobody_named_and_that_has_no_room_is_left_out_and_said(wide, long_text, tmp_path):
    out = tmp_path / "run"
    measure(wide, out, text=[long_text], tasks=["needle", "passkey"], method="yarn", lengths=[2560], depths=6, samples=1)
    record = Record.read(out)
    asked = {(s["task"], s["asked_length"]) for s in record.samples if s["protocol"] == "multikey-branch"}
    assert {length for task, length in asked if task == "needle"} == {1024, 2560}
    assert {length for task, length in asked if task == "passkey"} >= {1024, 2560}
    assert any("needle has no room in 512 tokens" in finding["problem"] for finding in record.card.findings)
    with pytest.raises(InputError, match="leave no room"):
        measure(wide, tmp_path / "named", text=[long_text], method="yarn", lengths=[512, 2560], depths=6, samples=1)


def test_parts_of_a_window():
    assert lengths_inside(8192, 16384) == (2048, 4096)
    assert lengths_inside(8192, 2048) == (2048,)
    assert lengths_inside(64, 16384) == ()


# --- how tasks are asked ----------------------------------------------------------------------------------------------


def asked(**changes):
    return MapSettings(**{"methods": ("none",), "lengths": (1024, 2048, 4096), "num_depths": 3, **changes})


def test_a_task_with_one_question_grows_where_it_can():
    settings = asked(tasks=("first-sentence", "qa"), modes=("grow",))
    found = {cell.task: (cell.protocol, cell.lengths) for cell in cells(settings) if cell.protocol != "no-context"}
    assert found["first-sentence"] == (GROW, (1024, 2048, 4096))
    assert found["qa"][0] == "one-question"
    both = [cell for cell in cells(asked(tasks=("topics",), modes=("fixed", "grow"))) if cell.protocol != "no-context"]
    assert [cell.protocol for cell in both] == ["one-question"] * 3 + [GROW]


def test_a_growing_first_sentence_is_measured(tiny_checkpoint, long_text, tmp_path):
    out = tmp_path / "run"
    measure(tiny_checkpoint, out, text=[long_text], tasks="first-sentence", method="yarn", samples=1, modes=["grow"])
    found = {(s["protocol"], s["asked_length"]) for s in Record.read(out).samples if s["method"] == "yarn"}
    assert found == {(GROW, 768), (GROW, 1024)}


@pytest.mark.parametrize("mode", ["fixed", "grow"])
def test_flips_are_counted_at_both_ends_of_the_window(tiny_checkpoint, long_text, tmp_path, mode):
    """In half precision, in every mode that branches."""
    source = write_tiny_checkpoint(tmp_path / "tiny", max_position_embeddings=1200)
    out = tmp_path / "run"
    measure(
        source, out, text=[long_text], method="yarn", lengths=[768, 1024, 1500], dtype="bfloat16", samples=1, modes=[mode]
    )
    record = Record.read(out)
    checked = [s for s in record.samples if s["protocol"] == STAND_ALONE]
    assert {s["asked_length"] for s in checked} == {600, 1024}
    assert len(checked) == 4
    assert {row.length for row in record.rows("retrieval_flips", depth=None)} == {600, 1024}
    assert {row.n for row in record.rows("retrieval_flips", depth=None)} == {2}


# --- what is handed in ------------------------------------------------------------------------------------------------


def write_questions(path, word):
    records = [
        {"question": f"What has {n}?", "answer": f"{word} {n}", "context": f"Warden {n} has {word} {n}. " * 3}
        for n in range(40)
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_a_run_is_not_mixed_from_two_question_sets(tiny_checkpoint, tmp_path):
    path, out = write_questions(tmp_path / "set.json", "lamp"), tmp_path / "run"
    said = {"tasks": "qa", "lengths": [768], "scoring": "forced"}
    rows = measure(tiny_checkpoint, out, handed_in={"questions": path}, samples=1, **said)
    assert Record.read(out).card.config["handed_in"]["questions"]["name"] == "set.json"
    assert measure(tiny_checkpoint, out, handed_in={"questions": path}, samples=1, resume=True, **said) == rows
    write_questions(path, "rope")
    with pytest.raises(OutputError, match=r"answers another question \(it differs in handed_in"):
        measure(tiny_checkpoint, out, handed_in={"questions": path}, samples=2, resume=True, **said)


def test_haystacks_ask_different_questions_until_the_set_is_empty(tiny_checkpoint, tmp_path):
    path = write_questions(tmp_path / "set.json", "lamp")
    said = {"tasks": "qa", "lengths": [768], "scoring": "forced", "handed_in": {"questions": path}}
    out = tmp_path / "run"
    measure(tiny_checkpoint, out, samples=24, **said)
    keys = [s["key"] for s in Record.read(out).samples if s["method"] == "none" and s["protocol"] == "one-question"]
    assert len(set(keys)) == len(keys) == 24
    with pytest.raises(InputError, match="haystack 31 has no question left of the 30 for the split measure"):
        measure(tiny_checkpoint, tmp_path / "more", samples=31, **said)
    assert not (tmp_path / "more").exists()


# --- work that is not done twice --------------------------------------------------------------------------------------


def test_methods_are_given_the_same_haystack_and_not_an_equal_one():
    settings = asked(methods=("none", "yarn"), tasks=("passkey",), lengths=(1024,), num_haystacks=3)
    prompts = Prompts(tokenizer=Characters(), documents=(), settings=settings, sources={}, seed=0)
    built = {}
    for cell in cells(settings):
        built.setdefault((cell.protocol, cell.index), []).append(prompts.build(cell))
    for (protocol, _), found in built.items():
        assert len(found) == (1 if protocol == "no-context" else 2)
        assert all(one is found[0] for one in found)


def test_the_last_haystack_is_rehearsed():
    settings = asked(tasks=("passkey",), lengths=(1024,), num_haystacks=7)
    assert [c.index for c in rehearsed(settings, 2) if c.protocol == "multikey-branch"] == [0, 1, 6]
