"""--force beside training: a merge never replaces a run, and what tokenizes the data is never removed with a run."""

import json
import shutil
from pathlib import Path

import pytest
from command import Command, snapshot

import ropewalk
from ropewalk.api.making import make
from ropewalk.core.errors import OutputError

SMALL = ("--length", "256", "--method", "yarn", "--device", "cpu", "--dtype", "float32", "--steps", "1")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"Keeper {i} wrote down {i * 7919 % 1009} ships.\n" for i in range(99)), encoding="ascii")
    return path


def test_a_merge_replaces_merges_alone(tied: Path, book: Path, tmp_path: Path, command: Command) -> None:
    base, run, merged = tmp_path / "base", tmp_path / "run", tmp_path / "merged"
    assert command("extend", tied, "--method", "yarn", "--length", "256", "--out", base).code == 0
    line = ("--data", book, "--length", "256", *SMALL[4:], "--recipe", "lora", "--out", run)
    said = command("tune", base, *line)
    assert said.code == 0, said.err
    merge = ("tune", run, "--merge", "--force", "--out")
    said = command(*merge, merged)
    assert (said.code, "--force" in said.err) == (0, False), said.err
    said = command(*merge, merged)
    assert (said.code, f"--force removes {merged} with" in said.err) == (0, True), said.err
    shutil.copytree(run, tmp_path / "other")
    # As where no hard links can be made: then the adapter would be lost with the folder it came from.
    for path in (run / "base").glob("*.safetensors"):
        path.unlink()
        path.symlink_to((base / path.name).resolve())
    before = snapshot(tmp_path)
    assert command(*merge, tmp_path / "other").refused("is the folder of a tune run", "another --out")
    assert command(*merge, base).refused("lie inside one another", "another --out")
    assert snapshot(tmp_path) == before


def test_a_chat_template_is_not_removed_with_a_run(tied: Path, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "card.json").write_text('{"verb": "tune"}')
    (out / "mine.jinja").write_text("{{ messages }}")
    before = snapshot(tmp_path)
    one = {"data": [book], "length": 256, "method": "yarn", "steps": 1, "device": "cpu", "dtype": "float32"}
    for runs in ({}, {"runs": [{}, {}]}):
        with pytest.raises(OutputError, match=r"mine\.jinja, which is read; give another --out"):
            ropewalk.tune(tied, out=out, force=True, data_options={"chat_template": out / "mine.jinja"}, **one, **runs)
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["chat_template", "wordings", "writer", "tokenizer"])
def test_what_makes_conversations_is_not_removed(tied: Path, book: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "made"
    shutil.copytree(tied, out / "model")
    (out / "card.json").write_text('{"verb": "make"}')
    (out / "mine").write_text(json.dumps({}))
    given = {"chat_template": out / "mine", "wordings": out / "mine", "writer": out / "model", "tokenizer": out / "model"}
    said = {"writer": lambda prompt, seed: "", "tokenizer": tied, kind: given[kind]}
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="which is read; give another --out"):
        make([book], length=256, span_tokens=64, out=out, spans=1, force=True, **said)
    assert snapshot(tmp_path) == before


def test_rows_that_go_are_named_whatever_comes_of_the_new(
    tied: Path, book: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows"
    line = ("data", book, "--tokenizer", tied, "--length", "256", "--out", out, "--force")
    assert "--force" not in command(*line).err
    seen: list[bool] = []

    def full(*_: object) -> None:
        seen.append(True)
        raise OSError(28, "No space left on device")

    # A refused mix gives the old rows back and says nothing of removing them.
    before = snapshot(out)
    assert command(*line, "--mix", "other=1").code == 2
    assert snapshot(out) == before
    monkeypatch.setattr("ropewalk.data.preparation._tokenize", full)
    said = command(*line)
    assert (seen, said.code) == ([True], 3)
    assert f"--force removes {out} with" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.txt", "rows"]
