"""What `data` says last is what trains on its rows; so is what its page shows in Python, and every option has its page."""

import json
import re
import shlex
from pathlib import Path

import pytest
from command import Command

from ropewalk.api.training_options import KNOWN

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
TUNE = PAGE.with_name("tune.md")
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three texts of some thousand characters."""
    folder = tmp_path / "my texts"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.txt").write_text(f"The keeper wrote down ship {index}. " * 40)
    return folder


@pytest.mark.parametrize(
    ("length", "options", "words"),
    [
        (256, [], "--length 256 --method yarn --steps "),
        (48, [], "--length 256 --method yarn --positions pose --window 48 --steps "),
        (48, ["LINES"], "--length 48 --steps "),
    ],
    ids=["beyond", "pose", "inside"],
)
def test_the_last_line_is_a_command_that_trains(
    command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path, length: int, options: list[str], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The old window is 64; lines are too short to fill a row."""
    monkeypatch.chdir(tmp_path)
    Path("lines.jsonl").write_text("".join(json.dumps({"text": f"Ship {index}."}) + "\n" for index in range(8)))
    said = command(
        "data", "lines.jsonl" if options else texts, "--tokenizer", tiny_checkpoint, "--length", length, "--out", "my rows"
    )
    assert said.code == 0, said.err
    last = said.err.splitlines()[-1]
    assert last.startswith(f"next, for example: ropewalk tune {tiny_checkpoint} --data 'my rows' {words}"), last
    _, *line = shlex.split(last.partition(": ")[2])
    trained = command(*line, "--device", "cpu", "--dtype", "float32")
    assert trained.code == 0, trained.err
    assert json.loads(Path("tuned/card.json").read_text())["status"] == "done"


def test_no_more_steps_than_rows_and_no_more_than_400() -> None:
    from ropewalk.api.data_words import command as next_command

    card = {"length": 128, "window": 64, "all": {"longest": 500}, "packed": {"num_rows": 9, "num_rows_without_labels": 2}}
    assert next_command(card, "rows").endswith("tune MODEL --data rows --length 128 --method yarn --steps 7 --out tuned")
    card["packed"] = {"num_rows": 9000}
    assert "--steps 400 " in next_command(card, "rows")


def test_the_example_in_python_does_what_it_shows(
    tiny_checkpoint: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts.rename("books")
    Path("MODEL").symlink_to(tiny_checkpoint)
    [block] = [found for found in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if "ropewalk.prepare(" in found]
    small = block.replace('"32k"', "256").replace("steps=100", 'steps=1, device="cpu", dtype="float32"')
    assert small.count("256") == 2
    assert "steps=1," in small
    names: dict[str, object] = {}
    exec(small, names)
    assert names["card"]["status"] == "done"  # type: ignore[index]
    assert json.loads(Path("tuned/card.json").read_text())["status"] == "done"


def test_every_data_option_of_tune_is_on_its_page() -> None:
    [said] = [part for part in TUNE.read_text(encoding="utf-8").split("\n\n") if part.startswith("`data_options`")]
    assert sorted(re.findall(r"`(\w+)`", said.partition(":")[2])) == sorted(KNOWN)
