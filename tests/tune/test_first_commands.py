"""What a new user gets wrong first: each is answered in one sentence about what was typed, or done with a word."""

import json
from pathlib import Path

import pytest
from command import Command, snapshot

from ropewalk.api import data_words
from ropewalk.cli import tuning
from ropewalk.core.errors import InputError, LengthError
from ropewalk.tune.recipe_words import RECIPES_TOLD
from ropewalk.tune.settings import RECIPES, Settings, Stage

SMALL = ("--steps", "1", "--device", "cpu", "--dtype", "float32")


@pytest.mark.parametrize("name", ["val.jsonl", "val.json", "val.parquet", "VAL.CSV"])
def test_records_are_not_scored_as_one_text(name: str, tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / name).write_text('{"text": "A held-out text of some words."}\n' * 100)
    before = snapshot(tmp_path)
    said = command(
        "tune", tied, "--data", books, "--length", "64", "--validate", tmp_path / name, "--out", tmp_path / "o", *SMALL
    )
    assert said.refused(f"{name} holds records, and --validate scores plain texts", ".txt")
    assert snapshot(tmp_path) == before


def test_a_text_too_short_to_validate_on_is_of_its_own_option(
    tied: Path, books: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    said = command(
        "tune", tied, "--data", books, "--length", "64", "--validate", long_text, "--validate-lengths", "64k",
        "--out", tmp_path / "out", *SMALL,
    )  # fmt: skip
    assert said.refused("expected at least 65536; give a longer text or a smaller --validate-lengths")


def test_a_new_name_beside_resume_is_said(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    line = ("tune", tied, "--data", books, "--length", "64", *SMALL, "--resume", "--out")
    first = command(*line, tmp_path / "o2x")
    assert (first.code, first.err.count(f"nothing to resume in {tmp_path / 'o2x'}; beginning")) == (0, 1), first.err
    again = command(*line, tmp_path / "o2x")
    assert (again.code, "nothing to resume" in again.err) == (0, False), again.err


def test_a_new_name_beside_resume_is_said_once_for_a_chain(
    tied: Path, books: Path, tmp_path: Path, command: Command
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("length = 64\nsteps = 1\n[[runs]]\n[[runs]]\n")
    said = command("tune", tied, "--data", books, "--preset", preset, "--resume", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert [line for line in said.err.splitlines() if "nothing to resume" in line] == [
        f"nothing to resume in {tmp_path / 'out'}; beginning"
    ]


def test_a_new_name_beside_resume_is_said_of_data(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    line = ("data", books, "--tokenizer", tied, "--length", "256", "--resume", "--out", tmp_path / "rows")
    assert f"nothing to resume in {tmp_path / 'rows'}; beginning" in command(*line).err
    assert "nothing to resume" not in command(*line).err


def test_a_new_name_beside_resume_is_said_of_measure(
    tiny_checkpoint: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    line = ("measure", tiny_checkpoint, "--text", long_text, "--length", "64", "--resume", "--out", tmp_path / "run")
    assert f"nothing to resume in {tmp_path / 'run'}; beginning" in command(*line).err
    assert "nothing to resume" not in command(*line).err


class Rows:
    """A stream of so many rows."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number


@pytest.mark.parametrize(
    ("rows", "steps", "words", "warned"),
    [
        (2, 1000, "2; 1,000 steps read 64,000 rows, 32,000 epochs", "each row is read 32,000 times"),
        (64, 21, "64; 21 steps read 1,344 rows, 21 epochs", "each row is read 21 times"),
        (64, 20, "64; 20 steps read 1,280 rows, 20 epochs", None),
        (64, 1, "64; 1 step read 64 rows, 1 epoch", None),
    ],
)
def test_epochs_are_read_as_numbers_and_many_are_warned_of(rows: int, steps: int, words: str, warned: str | None) -> None:
    settings = Settings(length=64, stages=(Stage(window=64, steps=steps),), batch_size=64)
    line, *more = data_words.rows([Rows(rows)], settings)
    assert line == f"rows of 64 tokens: {words}"
    assert [one for one in more if one.startswith("warning: ")] == more
    assert (warned is None) == (not more)
    assert warned is None or warned in more[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--group", "25%"), "--group is tokens such as 2048, or a share such as 0.25; got '25%'"),
        (("--group", "a.b"), "--group is tokens such as 2048, or a share such as 0.25; got 'a.b'"),
        (("--steps", "3.5"), "--steps is a whole number, got '3.5'"),
        (("--learning-rate", "small"), "--learning-rate is a number, got 'small'"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(given: tuple[str, str], words: str, command: Command) -> None:
    said = command("tune", "x", *given)
    assert said.refused(words)
    assert "invalid" not in said.err


def test_a_group_is_said_as_lengths_are() -> None:
    assert [tuning._group(text) for text in ("2048", "2k", "0.25", "-5", "1.0")] == [2048, 2048, 0.25, -5, 1.0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--data", "TEXTS", "--steps", "1"), "tune needs --length such as 16k"),
        (("--length", "64", "--steps", "1"), "tune needs --data with texts"),
        (("--data", "TEXTS", "--length", "64"), "tune needs --steps such as 400"),
        (("--data", "TEXTS"), "tune needs --length such as 16k and --steps such as 400"),
        (
            ("--seed", "1"),
            "tune needs --data with texts and --length such as 16k and --steps such as 400; or --merge and an adapter "
            "folder",
        ),
    ],
)
def test_what_is_missing_is_named_alone(
    given: tuple[str, ...], sentence: str, tied: Path, books: Path, tmp_path: Path, command: Command
) -> None:
    said = command("tune", tied, *[str(books) if word == "TEXTS" else word for word in given], "--out", tmp_path / "out")
    assert said.refused(sentence)
    assert said.err.strip() == f"ropewalk: {sentence}"


def test_a_length_below_a_preset_s_rows_is_told_of_the_preset(
    tied: Path, books: Path, tmp_path: Path, command: Command
) -> None:
    line = ("tune", tied, "--data", books, "--out", tmp_path / "out", "--length", "4k", "--preset")
    said = command(*line, "yarn-128k")
    assert said.refused(
        "the preset's rows have 65536 tokens, more than the --length of 4096", "--window, such as --window 4k"
    )
    mine = tmp_path / "mine.toml"
    mine.write_text('length = "16k"\ncurriculum = "4k:1,16k:1"\n')
    assert command(*line, mine).refused("the preset's rows have 16384 tokens", "give --curriculum, such as 4k:100")
    # Rows of the user's own take their place.
    assert command(*line, mine, "--curriculum", "8k:1").refused("a stage trains on rows of 8192 tokens")


def test_freezing_a_plan_that_is_static_is_said(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    line = ("tune", tied, "--data", books, "--length", "256", "--window", "64", *SMALL, "--freeze", "--method")
    said = command(*line, "yarn", "--out", tmp_path / "static")
    assert (said.code, "freeze does nothing to yarn, whose numbers are the same for every text" in said.err) == (0, True), (
        said.err
    )
    said = command(*line, "dynamic:ntk", "--out", tmp_path / "frozen")
    assert (said.code, "freeze does nothing" in said.err) == (0, False), said.err


def test_a_chat_template_for_texts_alone_is_said(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    template, chats = tmp_path / "chat.jinja", tmp_path / "chats.jsonl"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    turns = [{"role": "user", "content": "How many ships?"}, {"role": "assistant", "content": "Seventeen ships. " * 30}]
    chats.write_text(f"{json.dumps({'messages': turns})}\n")
    line = ("--tokenizer", tied, "--length", "64", "--allow-short", "--chat-template", template, "--out")
    said = command("data", books, *line, tmp_path / "texts")
    assert (said.code, "a chat template does nothing to texts" in said.err) == (0, True), said.err
    said = command("data", books, chats, *line, tmp_path / "both")
    assert (said.code, "a chat template does nothing" in said.err) == (0, False), said.err


def test_one_run_is_one(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    said = command("tune", tied, "--data", books, "--data", books, "--length", "64", *SMALL, "--out", tmp_path / "out")
    assert said.refused("--data is given 2 times for 1 run; give it once for all")
    assert "or once for each" not in said.err


def test_whole_weights_are_not_merged(tied: Path, tmp_path: Path, command: Command) -> None:
    assert command("tune", tied, "--merge", "--out", tmp_path / "out").refused("its weights are whole already")


def test_a_tuned_folder_has_no_report(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    assert command("tune", tied, "--data", books, "--length", "64", *SMALL, "--out", out).code == 0
    rows = tmp_path / "rows"
    assert command("data", books, "--tokenizer", tied, "--length", "256", "--out", rows).code == 0
    before = snapshot(tmp_path)
    assert command("report", out).refused("is the folder of a tune run", f"ropewalk measure {out} --text FILE")
    assert command("report", rows).refused("is the folder of a data run", "a compare or measure run; give its folder")
    assert snapshot(tmp_path) == before


def test_recipes_are_explained_and_all_are_in_the_help(command: Command) -> None:
    assert set(RECIPES_TOLD) == set(RECIPES) == set(tuning.RECIPES)
    lines = command("tune", "--recipe", "help").out.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES_TOLD)
    told = json.loads(command("tune", "--recipe", "help", "--json").out)["recipes"]
    assert [recipe["name"] for recipe in told] == list(RECIPES_TOLD)
    help_text = " ".join(command("tune", "--help").out.split())
    assert ", ".join(tuning.RECIPES) in help_text
    assert "whole (the default), or selective" in help_text


@pytest.mark.parametrize("line", [("tune",), ("measure",), ("extend", "x", "--length", "4k", "--out", "y")])
def test_methods_are_listed_where_they_are_given(line: tuple[str, ...], command: Command) -> None:
    assert command(*line, "--method", "help").out == command("methods").out


def test_a_batch_that_never_fits_is_told_with_a_verb(monkeypatch: pytest.MonkeyPatch, tied: Path) -> None:
    from ropewalk.api import training_memory

    monkeypatch.setattr(training_memory, "free_on", lambda device: 10**8)
    config = json.loads((tied / "config.json").read_text())
    many = Settings(length=4096, stages=(Stage(window=4096, steps=1),), batch_size=10_000)
    with pytest.raises(LengthError) as caught:
        training_memory.check_fits(config, many, "cpu", bfloat16=False)
    assert "even rows of 1024 tokens would not fit; give a smaller --batch-size or a recipe that trains less" in str(
        caught.value
    )


def test_without_a_cuda_device_qlora_s_own_kin_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ropewalk.tune import recipes

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="say --recipe longlora, which trains the same"):
        recipes.refuse("qlora")
