"""What --force may cost who measures: a folder of the same verb, named before it goes, and nothing that is read."""

import json
import shutil
from pathlib import Path

import pytest
from command import Command, snapshot

from ropewalk.core.errors import OutputError
from ropewalk.core.output import check_apart, check_kept, check_out

SMALL = ("--length", "64", "--device", "cpu", "--dtype", "float32")


@pytest.fixture
def measured(tiny_checkpoint: Path, long_text: Path, tmp_path: Path, command: Command) -> Path:
    out = tmp_path / "run"
    assert command("measure", tiny_checkpoint, "--text", long_text, *SMALL, "--out", out).code == 0
    return out


def test_what_is_read_is_never_removed(
    tiny_checkpoint: Path, long_text: Path, measured: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(tiny_checkpoint, measured / "model")
    shutil.copy(long_text, measured / "book.txt")
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "card.json").write_text('{"verb": "compare"}')
    shutil.copy(long_text, tmp_path / "compared" / "book.txt")
    (tmp_path / "link.txt").symlink_to(measured / "book.txt")
    questions = [{"question": f"What {n}?", "answer": f"lamp {n}", "context": f"It has lamp {n}."} for n in range(9)]
    (measured / "set.json").write_text(json.dumps(questions))
    before = snapshot(tmp_path)
    line = ("measure", tiny_checkpoint, *SMALL, "--force", "--out", measured)
    asked = ("--tasks", "qa", "--lengths", "64", "--questions", measured / "set.json")
    assert command(*line, *asked).refused("set.json", "which is read", "another --out")
    for inside in (measured / "book.txt", tmp_path / "link.txt", tmp_path / "run" / ".." / "run" / "book.txt"):
        assert command(*line, "--text", long_text, inside).refused(str(inside), "which is read", "another --out")
    assert command("measure", measured / "model", *line[2:], "--text", long_text).refused("model", "which is read")
    assert command(
        "compare", tiny_checkpoint, "--methods", "pi", "--length", "256", "--out", tmp_path / "compared", "--force",
        "--text", tmp_path / "compared" / "book.txt",
    ).refused("which is read")  # fmt: skip
    assert snapshot(tmp_path) == before


def test_a_base_run_is_never_removed(tiny_checkpoint: Path, measured: Path, command: Command) -> None:
    before = snapshot(measured)
    line = ("measure", tiny_checkpoint, "--tasks", "needle", "--lengths", "64", "--server", "http://127.0.0.1:9")
    assert command(*line, "--base-run", measured, "--force", "--out", measured).refused("which is read", "another --out")
    assert snapshot(measured) == before


def test_what_goes_is_named(tiny_checkpoint: Path, long_text: Path, measured: Path, command: Command) -> None:
    (measured / "notes.txt").write_text("mine")
    line = ("measure", tiny_checkpoint, "--text", long_text, *SMALL, "--out", measured)
    said = command(*line, "--force")
    assert said.code == 0, said.err
    assert f"--force removes {measured} with" in said.err
    assert "notes.txt" in said.err
    assert not (measured / "notes.txt").exists()
    # Nothing goes, nothing is said.
    said = command(*line[:-1], measured.with_name("new"), "--force")
    assert (said.code, "--force" in said.err) == (0, False)
    assert "--force" not in command(*line, "--resume").err


@pytest.mark.parametrize("verb", ["tune", "data", "compare"])
def test_runs_of_other_verbs_stay(
    tiny_checkpoint: Path, long_text: Path, measured: Path, tmp_path: Path, command: Command, verb: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "card.json").write_text(json.dumps({"verb": verb}))
    before = snapshot(tmp_path)
    line = ("measure", tiny_checkpoint, "--text", long_text, *SMALL, "--force", "--out", other)
    assert command(*line).refused(f"the folder of a {verb} run", "only that of a measure run", "another --out")
    assert snapshot(tmp_path) == before


def test_a_link_to_a_run_is_not_forced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "card.json").write_text('{"verb": "measure"}')
    (tmp_path / "name").symlink_to("run")
    with pytest.raises(OutputError, match="is a link, and --force removes no folder through one; give the folder itself"):
        check_out(tmp_path / "name", force=True, verb="measure")
    assert check_out(tmp_path / "name", resume=True, verb="measure") == tmp_path / "name"


def test_inside_and_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "book.txt").write_text("x")
    (tmp_path / "outside.txt").write_text("x")
    check_kept(tmp_path / "out", [tmp_path / "outside.txt"])
    check_apart(tmp_path / "out", [tmp_path / "outside.txt"])
    monkeypatch.chdir(tmp_path / "out")
    # A hub id is no path, wherever one stands.
    check_kept(".", ["org/name"])
    for read in ("book.txt", "."):
        with pytest.raises(OutputError, match="which is read"):
            check_kept(".", [read])
    for source in (".", "..", "book.txt"):
        with pytest.raises(OutputError, match="lie inside one another"):
            check_apart(tmp_path / "out", [source])
