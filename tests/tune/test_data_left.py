"""What was tokenized before a run's folder is there: nothing is left of what is refused, and a killed command goes on."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from command import Command, snapshot
from small import Tune, tuning
from test_resume import dying, killed, weights

from ropewalk.api.training_left import settle_left
from ropewalk.core.errors import InputError, OutputError, SourceError
from ropewalk.core.progress import Progress
from ropewalk.data import preparation, shards

RUNS: dict[str, Any] = {"one": {}, "a chain": {"runs": [{"length": 128}, {"length": 256}]}}
"""Options of one run, and of two on the same files."""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Documents that fill no row of 64."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"Short {number} words are here and few.")
    return folder


@pytest.fixture
def several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 2,000 tokens, so that a folder of three books has more than one."""
    inner = preparation.write_shards

    def small(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **{**kwargs, "shard_tokens": 2000})

    monkeypatch.setattr(preparation, "write_shards", small)


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("resume", [False, True])
def test_nothing_is_left_of_data_that_are_refused(
    runs: dict[str, Any], resume: bool, texts: Path, tune: Tune, tmp_path: Path
) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="that one document fills, which pose positions need") as raised:
        tune(tmp_path / "out", data=texts, positions="pose", window=64, steps=1, resume=resume, **runs)
    assert snapshot(tmp_path) == before
    # Data are called as the user called them.
    assert f"{texts} has no row of 64 tokens" in str(raised.value)
    assert ".out.data" not in str(raised.value)


def killed_while_tokenizing(tied: Path, books: Path, out: Path, **asked: Any) -> None:
    """Dies when the second shard is to be written."""

    def run() -> None:
        dying(shards, "Shard", 2)
        tuning(tied)(out, data=books, **asked)

    assert killed(run)
    assert not out.exists()


def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the shards that are written from now on."""
    written: list[int] = []
    inner = preparation.write_shards

    def noted(*args: Any, **kwargs: Any) -> Any:
        for shard in inner(*args, **kwargs):
            written.append(shard.number)
            yield shard

    monkeypatch.setattr(preparation, "write_shards", noted)
    return written


@pytest.mark.usefixtures("several_shards")
@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_the_same_command_goes_on_with_what_was_tokenized(
    runs: dict[str, Any], tied: Path, books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = {"steps": 1, "window": 128, **runs}
    tune(tmp_path / "whole", data=books, **asked)
    killed_while_tokenizing(tied, books, tmp_path / "out", **asked)
    assert (tmp_path / ".out.data").is_dir()
    written = tokenized(monkeypatch)
    tune(tmp_path / "out", data=books, **asked)
    assert written
    assert 0 not in written
    assert f"{tmp_path / '.out.data'} has what an earlier command tokenized" in capsys.readouterr().err
    assert not (tmp_path / ".out.data").exists()
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@pytest.mark.usefixtures("several_shards")
def test_tokens_of_another_question_are_made_anew_and_said(
    tied: Path, books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    killed_while_tokenizing(tied, books, tmp_path / "out", steps=1)
    (books / "0.txt").write_text("Another book. " * 200)
    written = tokenized(monkeypatch)
    tune(tmp_path / "out", data=books, steps=1)
    assert written[0] == 0
    said = capsys.readouterr().err
    assert "tokenizing anew: books is not what" in said
    assert "0.txt is changed" in said


@pytest.mark.usefixtures("several_shards")
def test_tokens_that_were_damaged_are_made_anew(tied: Path, books: Path, tune: Tune, tmp_path: Path) -> None:
    killed_while_tokenizing(tied, books, tmp_path / "out", steps=1)
    path = tmp_path / ".out.data" / "shards" / "00000.tokens.npy"
    content = path.read_bytes()
    path.write_bytes(content[:400] + bytes(400) + content[800:])
    tune(tmp_path / "out", data=books, steps=1)
    assert (tmp_path / "out" / "data" / "shards" / "00000.tokens.npy").read_bytes() == content


@pytest.mark.usefixtures("several_shards")
def test_an_error_about_something_else_takes_no_tokens_away(
    tied: Path, books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_while_tokenizing(tied, books, tmp_path / "out", steps=1)
    before = snapshot(tmp_path / ".out.data")
    assert before

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise SourceError("the tokenizer is gone")

    monkeypatch.setattr(preparation, "_look_through", missing)
    with pytest.raises(SourceError, match="tokenizer is gone"):
        tune(tmp_path / "out", data=books, steps=1)
    assert snapshot(tmp_path / ".out.data") == before


@pytest.mark.usefixtures("several_shards")
def test_a_chain_takes_nothing_over_from_one_run(
    tied: Path, books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    killed_while_tokenizing(tied, books, tmp_path / "out", steps=1)
    tune(tmp_path / "out", data=books, steps=1, **RUNS["a chain"])
    assert "was of other runs and is removed" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == ["1", "2"]


@pytest.mark.usefixtures("several_shards")
@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_what_took_long_to_tokenize_stays_where_its_rows_are_refused(
    runs: dict[str, Any], books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = {"data": books, "positions": "pose", "steps": 1, "length": 2**16, "method": "yarn", **runs}
    asked["runs"] = [{}, {}] if runs else None
    with pytest.raises(InputError, match="that one document fills"):
        tune(tmp_path / "out", window=2**12, **asked)
    assert f"{tmp_path / '.out.data'} keeps what was tokenized" in capsys.readouterr().err
    written = tokenized(monkeypatch)
    tune(tmp_path / "out", window=64, **asked)
    assert written == []


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_a_folder_of_somebody_elses_is_not_removed(runs: dict[str, Any], books: Path, tune: Tune, tmp_path: Path) -> None:
    (tmp_path / ".out.data").mkdir()
    (tmp_path / ".out.data" / "mine.txt").write_text("kept")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="holds something else; move it away, or give another --out"):
        tune(tmp_path / "out", data=books, steps=1, **runs)
    assert snapshot(tmp_path) == before


def test_runs_of_a_chain_that_begins_with_prepared_rows_are_ours_and_what_lies_beside_is_not(tmp_path: Path) -> None:
    place = tmp_path / ".out.data"
    (place / "2").mkdir(parents=True)
    (place / "2" / "card.json").write_text('{"verb": "data"}')
    (place / "mine.txt").write_text("kept")
    settle_left(place, Progress(), num_runs=2)
    assert (place / "2").is_dir()
    settle_left(place, Progress(), num_runs=1)
    assert [one.name for one in place.iterdir()] == ["mine.txt"]
    (place / "mine.txt").unlink()
    (place / "1").mkdir()
    settle_left(place, Progress())
    assert not place.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "card.json").write_text('{"verb": "data"}')
    (tmp_path / ".out.data").symlink_to(tmp_path / "target")
    with pytest.raises(OutputError, match="holds something else"):
        settle_left(tmp_path / ".out.data", Progress())
    assert (tmp_path / "target" / "card.json").is_file()


@pytest.mark.usefixtures("several_shards")
@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_an_interruption_keeps_what_was_tokenized(
    runs: dict[str, Any], books: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(preparation, "assembled", interrupt)
        tune(tmp_path / "out", data=books, steps=1, **runs)
    written = tokenized(monkeypatch)
    tune(tmp_path / "out", data=books, steps=1, **runs)
    assert written == []


def test_a_refused_command_leaves_nothing_beside_its_output(
    tied: Path, texts: Path, tmp_path: Path, command: Command
) -> None:
    before = snapshot(tmp_path)
    line = ("tune", tied, "--data", texts, "--length", "256", "--window", "64", "--positions", "pose", "--method", "yarn",
            "--steps", "1", "--device", "cpu", "--dtype", "float32", "--out", tmp_path / "pose")  # fmt: skip
    assert command(*line).refused(f"{texts} has no row of 64 tokens")
    assert snapshot(tmp_path) == before
