"""A run folder while it is written: what may be written into, atomic files, resume."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import make_card, make_row

from ropewalk.core.errors import MachineError, OutputError, SourceError
from ropewalk.core.run import Run, check_out, write_atomic

# --- what may be written into -----------------------------------------------------------------------------------------


def test_a_new_folder_is_checked_without_being_made(tmp_path: Path) -> None:
    assert check_out(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_written_into(tmp_path: Path) -> None:
    assert check_out(tmp_path) == tmp_path


def test_a_folder_that_was_killed_before_its_card_may_be_written_into(tmp_path: Path) -> None:
    (tmp_path / ".card.json.part").write_text("{")
    assert check_out(tmp_path) == tmp_path
    Run.open(tmp_path, make_card())
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_folders_that_must_not_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    refused: list[tuple[Any, dict[str, bool], str]] = [
        ("file", {}, "is a file, expected a folder to write into; give another --out"),
        ("file/below", {}, "cannot be made: .*file is not a folder that can be written to"),
        ("full", {}, "exists and is not empty; say --resume to go on, --force to start anew"),
        ("full", {"force": True}, "is not a run folder"),
        ("full", {"resume": True}, "is not a run folder"),
        ("new", {"force": True, "resume": True}, "--force and --resume contradict each other; say one of them"),
    ]
    for name, words, message in refused:
        with pytest.raises(OutputError, match=message):
            check_out(tmp_path / name, **words)
    for nameless in ("", "  "):
        with pytest.raises(OutputError, match="the output folder has no name; give --out DIR"):
            check_out(nameless)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "x"


def test_a_folder_that_cannot_be_made_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot be made \(Permission denied\); give another --out"):
        Run.open(tmp_path / "new", make_card())


# --- atomic files -----------------------------------------------------------------------------------------------------


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"first")

    def break_off(self: Path, target: Path) -> Path:
        assert self.read_bytes() == b"second"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"second")
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("file", b"first")]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full while writing card.json; free some space and run again with --resume"),
        (errno.EDQUOT, "the disk is full while writing card.json"),
        (errno.EIO, "the disk failed while writing card.json; mend it and run again with --resume"),
    ],
)
def test_a_disk_that_fails_is_a_machine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fail(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match=message):
        Run.open(tmp_path / "run", make_card())
    assert list((tmp_path / "run").iterdir()) == []


def test_other_errors_keep_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EBADF, "bad")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="bad"):
        write_atomic(tmp_path / "file", b"x")


# --- cells and rows ---------------------------------------------------------------------------------------------------


def test_a_cell_is_there_once_it_is_saved(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    array = np.array([1.5, np.nan, 2.5], dtype=np.float32)
    assert not run.has("nll", "pi", "a.txt")
    run.save("nll", "pi", "a.txt", array)
    assert run.has("nll", "pi", "a.txt")
    np.testing.assert_array_equal(run.load("nll", "pi", "a.txt"), array)
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    ((name, what),) = card["files"].items()
    assert (tmp_path / "run" / name).is_file()
    assert what == {"method": "pi", "document": "a.txt"}


def test_names_that_reduce_to_the_same_keep_files_of_their_own(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    names = ["a/b", "a b", "a-b", "../a", "ä", "a" * 300, "", "\udcff"]
    for index, name in enumerate(names):
        run.save("nll", name, name, np.array([index], dtype=np.float32))
    for index, name in enumerate(names):
        assert run.load("nll", name, name)[0] == index
    files = list((tmp_path / "run").rglob("*.npy"))
    assert len(files) == len(names)
    assert all(len(file.name) < 100 for file in files)


def test_a_damaged_array_is_told(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    run.save("nll", "pi", "a.txt", np.zeros(3, dtype=np.float32))
    path = tmp_path / "run" / run.array_file("nll", "pi", "a.txt")
    for content in (b"", path.read_bytes()[:-2], b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"is not an array .*; remove it and run again with --resume"):
            run.load("nll", "pi", "a.txt")
    path.write_bytes(b"")
    assert not run.has("nll", "pi", "a.txt")


def test_costs_of_cells_and_samples_are_read_back(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    run.note_cell("pi", "a.txt", 1.5, None)
    run.append("samples.jsonl", [{"x": 1}, {"x": 2}])
    assert run.cells() == [{"method": "pi", "document": "a.txt", "seconds": 1.5, "peak_bytes": None}]
    assert run.samples() == [{"x": 1}, {"x": 2}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append("samples.jsonl", [{"x": float("nan")}])
    assert len(run.samples()) == 2


def test_rows_are_written_once_for_each_key(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    run.write_measurements([make_row(value=1.0), make_row(method="ntk"), make_row(value=2.0)])
    assert [(row.method, row.value) for row in run.measurements()] == [("pi", 2.0), ("ntk", 3.5)]


# --- resume -----------------------------------------------------------------------------------------------------------


def test_status_and_times(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card())
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert (card["status"], card["finished"]) == ("running", None)
    assert card["started"]
    run.save_card("done")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["status"] == "done"
    assert card["finished"] >= card["started"]


def test_resume_keeps_cells_and_cuts_what_was_half_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = Run.open(out, make_card(started="2020-01-01T00:00:00+00:00"))
    run.save("nll", "pi", "a.txt", np.ones(3, dtype=np.float32))
    run.append("samples.jsonl", [{"x": 1}])
    with (out / "samples.jsonl").open("a") as file:
        file.write('{"x": 2')
    (out / "measurements.jsonl").write_text('{"half')
    (out / "nll" / ".left.npy.part").write_bytes(b"x")
    again = Run.open(out, make_card(config={**make_card().config, "out": "elsewhere"}), resume=True)
    assert again.has("nll", "pi", "a.txt")
    assert again.card.started == "2020-01-01T00:00:00+00:00"
    assert (out / "samples.jsonl").read_text() == '{"x": 1}\n'
    assert (out / "measurements.jsonl").read_text() == ""
    assert not list(out.rglob("*.part"))


def test_resume_where_nothing_is_yet_begins(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", make_card(), resume=True)
    assert run.card.status == "running"


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"seed": 1}, "seed"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"plans": {"pi": {"factor": 4.0}}}, "plans"),
        ({"documents": []}, "documents"),
        ({"source": {"name": "tiny", "kind": "folder", "sha256": "01"}}, "source"),
        ({"config": {**make_card().config, "length": 1024}}, "length"),
        ({"config": {**make_card().config, "more": 1}, "device": "cuda"}, "device, more"),
    ],
)
def test_resume_refuses_another_question_and_says_in_what(tmp_path: Path, changes: dict[str, Any], differs: str) -> None:
    Run.open(tmp_path / "run", make_card())
    before = (tmp_path / "run" / "card.json").read_bytes()
    message = rf"answers another question \(it differs in {differs}\); repeat the first command with --resume"
    with pytest.raises(OutputError, match=message):
        Run.open(tmp_path / "run", make_card(**changes), resume=True)
    assert (tmp_path / "run" / "card.json").read_bytes() == before


def test_a_question_may_grow_by_methods_and_haystacks_and_by_nothing_else() -> None:
    def asked(methods: list[str], haystacks: int = 2, depths: int = 3, **more: Any) -> dict[str, Any]:
        asked = {"methods": methods, "num_haystacks": haystacks, "num_depths": depths, **more}
        config = {"length": 512, "methods": methods, "map": asked}
        return {"config": config, "plans": {name: {"method": name} for name in methods}}

    small = make_card(**asked(["none", "pi"]))
    assert make_card(**asked(["none", "ntk", "pi"])).grows_from(small)
    assert make_card(**asked(["none", "pi"], 5)).grows_from(small)
    for other in (
        asked(["none", "ntk"]),
        asked(["none", "pi"], 1),
        asked(["none", "ntk", "pi"], depths=4),
        {**asked(["none", "pi"]), "plans": {"none": {"method": "none"}, "pi": {"method": "pi", "factor": 2.0}}},
        {**asked(["none", "pi", "ntk"]), "documents": [{"name": "a.txt"}, {"name": "b.txt"}]},
        {**asked(["none", "pi", "ntk"]), "seed": 1},
    ):
        assert not make_card(**other).grows_from(small)
    # A sequential stop spends its error over the haystacks it was told of.
    stopping = make_card(**asked(["none", "pi"], stop_early=True))
    assert not make_card(**asked(["none", "pi"], 5, stop_early=True)).grows_from(stopping)


def test_what_is_no_part_of_the_question_does_not_stop_a_resume(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", make_card())
    changes: dict[str, Any] = {"hardware": {"cores": 1}, "findings": [{"field": "x"}]}
    source = {**make_card().source, "path": "/elsewhere"}
    resumed = Run.open(tmp_path / "run", make_card(**changes, source=source), resume=True)
    assert resumed.card.hash == make_card().hash
    assert resumed.card.source["path"] == "/elsewhere"


def test_one_run_is_not_mixed_from_two_versions(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", make_card(versions={"torch": "2"}))
    with pytest.raises(OutputError, match=r"was begun with other versions \(torch 2 -> 9\)"):
        Run.open(tmp_path / "run", make_card(versions={"torch": "9"}), resume=True)


@pytest.mark.parametrize("content", ["{", "[]", "null", "{}", '"text"', '{"verb": 1}'])
def test_a_card_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(OutputError, match=r"card.json cannot be read .*; give another --out"):
        Run.open(tmp_path, make_card(), resume=True)


def test_a_card_with_fields_of_the_wrong_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(dataclasses.asdict(make_card()) | {"config": None}))
    with pytest.raises(OutputError, match=r"card.json cannot be read .*; give another --out"):
        Run.open(tmp_path, make_card(), resume=True)


def test_force_starts_from_nothing(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", make_card()).save("nll", "pi", "a.txt", np.ones(3, dtype=np.float32))
    run = Run.open(tmp_path / "run", make_card(), force=True)
    assert not run.has("nll", "pi", "a.txt")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["card.json"]
