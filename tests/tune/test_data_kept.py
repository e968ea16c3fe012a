"""What --force may remove, what is said of data before the first step, and what prepared folders are held to."""

import json
import shutil
from pathlib import Path

import pytest
from command import Command, snapshot

SMALL = ("--length", "256", "--method", "yarn", "--device", "cpu", "--dtype", "float32", "--steps", "1")


TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture
def chatless(tmp_path: Path) -> Path:
    """Four conversations and twelve broken lines, for a model without a chat template."""
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{json.dumps({'instruction': 'why? ' * 200, 'output': 'so. ' * 40})}\n" * 4 + "{\n" * 12)
    return path


@pytest.fixture
def prepared(tied: Path, books: Path, tmp_path: Path, command: Command) -> Path:
    """The same as a folder that `ropewalk data` made."""
    said = command("data", books, "--tokenizer", tied, "--length", "256", "--out", tmp_path / "prepared")
    assert said.code == 0, said.err
    return tmp_path / "prepared"


def test_force_removes_nothing_that_is_read(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "run"
    assert command("tune", tied, "--data", books, *SMALL, "--out", out).code == 0
    shutil.copytree(books, out / "texts")
    (out / "my.toml").write_text('source = "mine"\nweight_decay = 0\n')
    inside, chain = out / "texts", tmp_path / "chain.toml"
    chain.write_text("[[runs]]\n[[runs]]\n")
    before = snapshot(tmp_path)
    line = ("tune", tied, *SMALL, "--out", out, "--force", "--data")
    for more in (
        (inside,), (f"mine={inside}",), (inside / "0.txt",), (books, "--validate", inside / "0.txt"),
        (books, "--preset", out / "my.toml"), (books, "--data", inside, "--preset", chain),
    ):  # fmt: skip
        assert command(*line, *more).refused("which is read", "another --out")
        assert snapshot(tmp_path) == before
    assert command("tune", tied, *SMALL, "--out", books / "run", "--data", books).refused("lies inside")
    assert snapshot(tmp_path) == before
    # What is not read goes, and is named.
    said = command(*line, books)
    assert said.code == 0, said.err
    assert f"--force removes {out} with" in said.err
    assert "my.toml" in said.err
    assert not (out / "my.toml").exists()


def test_force_removes_runs_of_the_same_verb_alone(
    tied: Path, books: Path, prepared: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "run"
    assert command("tune", tied, "--data", books, *SMALL, "--out", out).code == 0
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "card.json").write_text('{"name": "not ours"}')
    before = snapshot(tmp_path)
    rows = ("data", books, "--tokenizer", tied, "--length", "256", "--force", "--out")
    assert command(*rows, out).refused("the folder of a tune run", "another --out")
    assert command(*rows, tmp_path / "foreign").refused("the folder of something else")
    assert command("tune", tied, "--data", prepared, *SMALL, "--force", "--out", prepared).refused("data run")
    assert command("tune", tied, "--data", books, *SMALL, "--force", "--out", prepared).refused("data run")
    assert snapshot(tmp_path) == before
    said = command(*rows, prepared)
    assert said.code == 0, said.err
    assert f"--force removes {prepared} with" in said.err


def test_what_is_left_out_is_said_before_the_first_step(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    for number in range(9):
        (books / f"latin{number}.txt").write_bytes("café über ".encode("latin-1") * 300)
    said = command("tune", tied, "--data", books, *SMALL, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "left out of books: 9 " in said.err
    assert str(tmp_path / "out" / "data" / "left_out.jsonl") in said.err
    assert "the mix takes " in said.err


def test_rows_that_positions_leave_out_and_epochs_are_said(tied: Path, tmp_path: Path, command: Command) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number}.txt").write_text(f"Short {number} words are here and few.")
    (texts / "long.txt").write_text("Keeper one wrote down 17 ships, and then there were 18 of them again.")
    said = command(
        "tune", tied, "--data", texts, *SMALL[:-1], "8", "--positions", "pose", "--window", "64", "--out", tmp_path / "out"
    )
    assert said.code == 0, said.err
    [line] = [line for line in said.err.splitlines() if line.startswith("rows of 64 tokens: 1 (")]
    assert "pose leaves them out" in line
    assert line.endswith("8 steps read 8 rows, 8 epochs")


def test_a_prepared_folder_without_long_documents_is_refused(tied: Path, tmp_path: Path, command: Command) -> None:
    texts, made = tmp_path / "texts", tmp_path / "made"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number}.txt").write_text(f"Short {number} words are here and few.")
    assert command("data", texts, "--tokenizer", tied, "--length", "48", "--out", made).code == 0
    before = snapshot(tmp_path)
    line = ("tune", tied, "--data", made, *SMALL, "--out", tmp_path / "out")
    assert command(*line).refused("0.0% of the tokens", "beyond the old window of", "--allow-short")
    chain = tmp_path / "chain.toml"
    chain.write_text("[[runs]]\n[[runs]]\n")
    assert command(*line, "--preset", chain).refused("run 1 of 2", "beyond the old window of")
    chain.unlink()
    assert snapshot(tmp_path) == before
    # What the user takes all the same is taken.
    said = command("tune", tied, "--data", made, *SMALL, "--out", tmp_path / "taken", "--allow-short")
    assert said.code == 0, said.err


def test_a_preset_goes_with_a_prepared_folder(
    tied: Path, books: Path, prepared: Path, tmp_path: Path, command: Command
) -> None:
    preset = tmp_path / "sft.toml"
    preset.write_text("prompt_loss = false\nallow_short = true\n")
    line = ("tune", tied, *SMALL, "--preset", preset, "--out")
    said = command(*line, tmp_path / "out", "--data", prepared)
    assert said.code == 0, said.err
    with_prompts, template = tmp_path / "prompts", tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}")
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps({'instruction': 'why? ' * 200, 'output': 'so. ' * 40})}\n" * 4)
    said = command(
        "data", tmp_path / "chats.jsonl", "--tokenizer", tied, "--length", "256", "--chat-template", template,
        "--prompt-loss", "--out", with_prompts,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads((with_prompts / "card.json").read_text())["prompt_loss"] is True
    said = command(*line, tmp_path / "out2", "--data", with_prompts)
    assert said.code == 0, said.err
    assert "was prepared with prompt_loss" in said.err
    # The same is no contradiction; other answers than the folder's are one.
    assert command(*line, tmp_path / "out3", "--data", with_prompts, "--prompt-loss").code == 0
    of_texts = command(*line, tmp_path / "out4", "--data", prepared, "--prompt-loss")
    words = ("holds only texts, of which every token is learned", "take the line prompt_loss out of the preset")
    assert of_texts.refused(*words)
    assert command(*line, tmp_path / "out4", "--data", prepared, "--field", "body").refused("prepared already", "field body")


def test_a_folder_that_is_not_finished_and_several_say_what_to_do(
    tied: Path, books: Path, prepared: Path, tmp_path: Path, command: Command
) -> None:
    other = shutil.copytree(prepared, tmp_path / "other")
    before = snapshot(tmp_path)
    line = ("tune", tied, *SMALL, "--out", tmp_path / "out", "--data")
    for more in ((prepared, other), (f"mine={prepared}", other), (books, other)):
        assert command(*line, *more).refused("reads one folder that ropewalk data made", "give one of them")
    assert snapshot(tmp_path) == before
    # Killed before its mix was settled.
    card = json.loads((other / "card.json").read_text())
    (other / "card.json").write_text(json.dumps({**card, "status": "running"}))
    (other / "kept.npy").unlink()
    assert command(*line, other).refused("are not finished", "ropewalk data", "--resume")


def test_the_options_that_messages_advise_are_options_of_tune(
    chatless: Path, tied: Path, tmp_path: Path, command: Command
) -> None:
    line = ("tune", tied, "--data", chatless, *SMALL, "--out", tmp_path / "out")
    assert command(*line).refused("11 broken records", "higher --max-broken")
    assert command(*line, "--max-broken", "12").refused("no chat template", "--chat-template FILE")
    template = tmp_path / "out" / "chat.jinja"
    template.parent.mkdir()
    template.write_text(TEMPLATE)
    (template.parent / "card.json").write_text('{"verb": "tune"}')
    more = ("--max-broken", "12", "--chat-template")
    assert command(*line, *more, template, "--force").refused("chat.jinja, which is read")
    shutil.move(template, tmp_path / "chat.jinja")
    shutil.rmtree(template.parent)
    said = command(*line, *more, tmp_path / "chat.jinja")
    assert said.code == 0, said.err
    card = json.loads((tmp_path / "out" / "data" / "card.json").read_text())
    assert (card["settings"]["max_broken"], card["all"]["num_documents"]) == (12, 4)
    # In a file the template lies beside it.
    (tmp_path / "mine.toml").write_text('max_broken = 12\nchat_template = "chat.jinja"\n')
    said = command(*line[:-1], tmp_path / "again", "--preset", tmp_path / "mine.toml")
    assert said.code == 0, said.err


def test_too_few_tokens_are_told_in_options_of_tune(tied: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "a.txt").write_text("A short text. " * 9)
    said = command("tune", tied, "--data", tmp_path / "a.txt", *SMALL, "--out", tmp_path / "out")
    assert said.refused("less than one row of 256", "--window of tune")


def test_prompts_that_texts_do_not_have_are_not_learned(tied: Path, books: Path, tmp_path: Path, command: Command) -> None:
    before = snapshot(tmp_path)
    line = ("tune", tied, *SMALL, "--data", books, "--prompt-loss", "--out", tmp_path / "out")
    assert command(*line).refused("there are only texts", "take the line prompt_loss out of the preset")
    assert snapshot(tmp_path) == before


def _edit(folder: Path) -> None:
    """Other tokens in a shard, of the same number."""
    path = folder / "shards" / "00000.tokens.npy"
    content = bytearray(path.read_bytes())
    content[400:800] = content[1402:1802]
    path.write_bytes(content)


def test_tokens_that_were_edited_are_noticed(
    tied: Path, books: Path, prepared: Path, tmp_path: Path, command: Command
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(prepared, kept)
    line = ("tune", tied, "--data", prepared, *SMALL, "--out")
    assert command(*line, tmp_path / "out").code == 0
    _edit(prepared)
    before = snapshot(tmp_path)
    assert command(*line, tmp_path / "new").refused("00000.tokens.npy is not what was written")
    assert command(*line, tmp_path / "out", "--resume").refused("00000.tokens.npy is not what was written")
    assert snapshot(tmp_path) == before
    files = ("tune", tied, "--data", books, *SMALL, "--out", tmp_path / "files")
    assert command(*files).code == 0
    _edit(tmp_path / "files" / "data")
    assert command(*files, "--resume").refused("00000.tokens.npy is not what was written")
