"""What a run makes of the files, folders and functions it is given: the old window, the mix, and options of the data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Command, snapshot
from small import Tune
from streams import Counting

from ropewalk.api.data import data
from ropewalk.core.errors import InputError

SMALL = ("--length", "256", "--method", "yarn", "--device", "cpu", "--dtype", "float32", "--steps", "1")


@pytest.fixture
def between(tmp_path: Path) -> Path:
    """Documents of 80 to 120 tokens, longer than the tiny model reads (64) and shorter than a row of 128; and a long one."""
    folder = tmp_path / "between"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"{number:02} " * (27 + number // 4))
    (folder / "long.txt").write_text("All of it. " * 40)
    return folder


def test_every_run_of_a_chain_has_the_old_window_of_the_first(
    between: Path, tune: Tune, tmp_path: Path, rows_read: list[bytes]
) -> None:
    # Read by what the first run leaves, which reads 128 tokens, nearly every document would be short.
    card = tune(tmp_path / "out", data=between, window=128, steps=3, runs=[{"length": 128}, {"length": 256}])
    first, second = card.documents
    assert first["sha256"] == second["sha256"]
    made = [json.loads((tmp_path / "out" / "data" / name / "card.json").read_text()) for name in ("1", "2")]
    assert [one["window"] for one in made] == [64, 64]
    assert [one["packed"]["num_tokens"] for one in made] == [made[0]["all"]["num_tokens"]] * 2
    # Six rows in each run, and none of them twice.
    assert len(rows_read) == len(set(rows_read)) == 12


def test_a_prepared_folder_is_held_to_the_old_window_of_the_chain(
    tied: Path, between: Path, tune: Tune, tmp_path: Path
) -> None:
    data([between], tokenizer=tied, length=128, out=tmp_path / "made")
    runs = [{"length": 128, "window": 128}, {"length": 256, "window": 160}]
    # Of these documents a tenth at most lies beyond 128, and a third beyond 64.
    tune(tmp_path / "out", data=tmp_path / "made", steps=1, runs=runs)
    assert json.loads((tmp_path / "out" / "card.json").read_text())["status"] == "done"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Many short conversations and one that is longer than the model reads."""
    path = tmp_path / "chats.jsonl"
    turns = [{"instruction": f"How many in {i}?", "output": f"{i * 31 % 97} ships."} for i in range(30)]
    turns.append({"instruction": "How many in all?", "output": "Some ships. " * 30})
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    return path


@pytest.fixture
def chatty(tied: Path, tmp_path: Path) -> Path:
    """The tiny model with a chat template."""
    folder = tmp_path / "tiny-chat"
    shutil.copytree(tied, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    return folder


def test_one_long_conversation_takes_no_short_one_away(chatty: Path, chats: Path, tmp_path: Path, command: Command) -> None:
    line = ("tune", chatty, "--data", chats, *SMALL, "--out")
    said = command(*line, tmp_path / "limited")
    assert said.code == 0, said.err
    assert "warning: " in said.err
    assert "tokens are left out, because at most 40% may be in short documents" in said.err
    said = command(*line, tmp_path / "allowed", "--allow-short")
    assert said.code == 0, said.err
    assert "warning: " not in said.err
    taken = {}
    for name in ("limited", "allowed"):
        card = json.loads((tmp_path / name / "data" / "card.json").read_text())
        taken[name] = card["packed"]["num_tokens"] / card["all"]["num_tokens"]
    assert taken["limited"] < 0.5
    assert taken["allowed"] == 1


def test_the_short_share_is_said_to_tune_and_in_a_file(chatty: Path, chats: Path, tmp_path: Path, command: Command) -> None:
    said = command("tune", chatty, "--data", chats, *SMALL, "--short-share", "0.1", "--out", tmp_path / "share")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "share" / "data" / "card.json").read_text())["settings"]["mix"]["short_share"] == 0.1
    (tmp_path / "mine.toml").write_text("keep_short = 0.2\nspecial_tokens = true\n")
    said = command("tune", chatty, "--data", chats, *SMALL, "--preset", tmp_path / "mine.toml", "--out", tmp_path / "keep")
    assert said.code == 0, said.err
    card = json.loads((tmp_path / "keep" / "data" / "card.json").read_text())
    assert (card["settings"]["mix"]["keep_short"], card["special_tokens"]) == (0.2, True)
    # A folder has an answer of its own: 0 is an answer, too.
    again = ("tune", chatty, "--data", tmp_path / "keep" / "data", *SMALL, "--out", tmp_path / "again")
    assert command(*again, "--keep-short", "0").refused("prepared already, and not with keep_short 0.0")
    assert command(*again, "--short-share", "0.4", "--keep-short", "0.2").refused("prepared already", "short_share 0.4")


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (
            Counting,
            {"prompt_loss": True, "field": "x", "nonsense": 1},
            "given as a function .* field, nonsense, prompt_loss",
        ),
        (Counting, {"short_share": 0.0}, "given as a function .* short_share"),
        ("files", {"promt_loss": True}, "there is no data option 'promt_loss'; did you mean prompt_loss"),
        ("files", {"length": 64}, "there is no data option 'length'"),
    ],
)
@pytest.mark.parametrize("chain", [False, True])
def test_options_that_the_data_do_not_take_are_refused(
    rows: Any, options: dict[str, Any], words: str, chain: bool, books: Path, tune: Tune, tmp_path: Path
) -> None:
    before = snapshot(tmp_path)
    given = books if rows == "files" else rows
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", data=given, data_options=options, **({"runs": [{}, {}]} if chain else {}))
    assert snapshot(tmp_path) == before


def test_options_that_ask_for_nothing_go_with_a_function(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out", steps=1, data_options={"prompt_loss": False, "field": None})


def test_prompts_of_a_prepared_folder(
    tied: Path, chatty: Path, books: Path, chats: Path, tune: Tune, tmp_path: Path
) -> None:
    data([books], tokenizer=tied, length=256, out=tmp_path / "texts")
    data([chats], tokenizer=chatty, length=256, out=tmp_path / "answers", allow_short=True)
    asked = {"data_options": {"prompt_loss": True, "allow_short": True}, "steps": 1}
    with pytest.raises(
        InputError, match=r"texts holds only texts, of which every token is learned.*; leave it out, or take the line"
    ):
        tune(tmp_path / "out", data=tmp_path / "texts", **asked)
    with pytest.raises(InputError, match=r"answers is prepared already, and without prompt_loss; .* conversations anew"):
        tune(tmp_path / "out", data=tmp_path / "answers", **asked)
    assert not (tmp_path / "out").exists()


def test_prompts_said_for_a_chain_do_nothing_to_a_folder_of_texts(
    tied: Path, books: Path, tune: Tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data([books], tokenizer=tied, length=256, out=tmp_path / "texts")
    tune(tmp_path / "out", data=tmp_path / "texts", steps=1, runs=[{}, {}], data_options={"prompt_loss": True})
    assert "prompt_loss does nothing to" in capsys.readouterr().err
