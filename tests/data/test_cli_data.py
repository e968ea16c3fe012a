"""`ropewalk data` as a user types it: what it prints, what it writes, and one sentence for what is wrong."""

import json
import os
from pathlib import Path

import pytest
from chat import chat_tokenizer
from command import Command, snapshot

from ropewalk.data.reading.files import open_files
from ropewalk.data.stream import Stream


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve texts of 300 characters, thirty of 20, and conversations beside them."""
    folder = tmp_path_factory.mktemp("texts")
    for index in range(12):
        (folder / f"long{index}.txt").write_text(f"The keeper wrote {index}. " * 15)
    for index in range(30):
        (folder / f"short{index}.txt").write_text(f"A short one, {index}.")
    return folder


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer that has a chat template, and no config."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    chat_tokenizer().save_pretrained(folder)
    return folder


def test_it_prints_how_long_the_documents_are(command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = command("data", texts, "--tokenizer", tiny_checkpoint, "--length", 128, "--out", out)
    assert (said.code, said.out) == (0, f"{out}\n"), said.err
    for words in (
        "source", "pos>32k", "beyond 4k: 0.0% of the tokens are in longer documents", "beyond the old window of 64",
        "in short documents (up to 64 tokens)", "rows of 128 tokens",
    ):  # fmt: skip
        assert words in said.err
    stream = Stream.open(out, positions="randomized", target_length=256)
    assert stream.row(0).ids.size == 128


def test_its_json_is_the_card(command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ("--tokenizer", tiny_checkpoint, "--length", 128, "--json", "--mix", "a=3", "b=1")
    said = command("data", f"a={texts}", f"b={texts}", *options, "--out", tmp_path / "out")
    card = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert [source["share"] for source in card["sources"]] == pytest.approx([0.75, 0.25], abs=0.02)
    assert card["settings"]["mix"]["shares"] == {"a": 3.0, "b": 1.0}
    written = json.loads((tmp_path / "out" / "card.json").read_text())
    assert {key: value for key, value in card.items() if key != "out"} == written


def test_conversations_are_learned_by_their_answers(command: Command, chat_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    turns = [{"from": "human", "value": "why?" * 9}, {"from": "gpt", "value": "so."}]
    path.write_text(f"{json.dumps({'conversations': turns})}\n" * 8)
    for prompt_loss, expected in ((False, len("so.") + 1), (True, 60 - 1)):
        out = tmp_path / f"out{prompt_loss}"
        flags = ["--prompt-loss"] if prompt_loss else []
        said = command("data", path, "--tokenizer", chat_model, "--window", 32, "--length", 128, "--out", out, *flags)
        assert said.code == 0, said.err
        stream = Stream.open(out)
        rows = [stream.row(index) for index in range(len(stream))]
        assert json.loads((out / "card.json").read_text())["packed"]["num_tokens"] == 8 * 60
        assert sum(int((row.labels != -100).sum()) for row in rows) == 8 * expected


@pytest.mark.parametrize("field", [[], ["--field", "prompt"]], ids=str)
def test_of_prompts_and_completions_the_completions_are_learned(
    command: Command, chat_model: Path, tmp_path: Path, field: list[str]
) -> None:
    path = tmp_path / "pc.jsonl"
    path.write_text(f"{json.dumps({'prompt': 'why?' * 9, 'completion': 'so.'})}\n" * 8)
    said = command(
        "data", path, "--tokenizer", chat_model, "--window", 32, "--length", 128, "--out", tmp_path / "out", *field
    )
    assert said.code == 0, said.err
    stream = Stream.open(tmp_path / "out")
    rows = [stream.row(index) for index in range(len(stream))]
    assert sum(int((row.labels != -100).sum()) for row in rows) == 8 * (len("so.") + 1)


def test_the_same_command_writes_the_same_bytes(
    command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        command("data", texts, "--tokenizer", tiny_checkpoint, "--length", 128, "--out", tmp_path / name, "--seed", 3)
    one, two = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no.txt"], ["no.txt does not exist", "expected a file or folder"]),
        ([], ["there is nothing to read", "--dataset"]),
        (["TEXTS", "--length", "1"], ["at least 2"]),
        (["TEXTS", "--length", "many"], ["a length looks like 65536 or 64k"]),
        (["TEXTS", "--length", "9999"], ["less than one row of 9999", "rows of at most", "--length of ropewalk data"]),
        (["TEXTS", "--window", "4k", "--length", "5k"], ["rows of at most"]),
        (["TEXTS", "--window", "290"], ["beyond the old window of 290", "--allow-short"]),
        (["TEXTS", "--mix", "half"], ["--mix takes NAME=SHARE", "'half'"]),
        (["TEXTS", "--mix", "book=1"], ["--mix names 'book', which is no source"]),
        (["TEXTS", "--short-share", "2"], ["--short-share lies between 0 and 1"]),
        (["TEXTS", "--short-share", "0.1", "--keep-short", "0.1"], ["contradict each other"]),
        (["TEXTS", "--min-beyond", "7"], ["--min-beyond lies between 0 and 1"]),
        (["TEXTS", "--max-broken", "-1"], ["at least 0"]),
        (["TEXTS", "--include", "*.rs"], ["no file to read that fits --include *.rs"]),
        (["TEXTS", "--chat-template", "no.jinja"], ["no.jinja", "cannot be read"]),
        (["TEXTS", "--tokenizer", "TEXTS"], ["has no config.json", "--window"]),
        (["TEXTS", "--tokenizer", "TEXTS", "--window", "64"], ["has no tokenizer that can be loaded"]),
        (["TEXTS", "--tokenizer", "nowhere"], ["nowhere does not exist"]),
        (["TEXTS", "--field", "body"], ["--field body names a field of records, and there are only texts"]),
        (["TEXTS", "--prompt-loss"], ["there are only texts", "leave it out"]),
        (["lines.jsonl", "--prompt-loss"], ["there are only texts", "leave it out"]),
        (["chat.jsonl", "--include", "*.py"], ["--include chooses files of folders"]),
        (["pipe"], ["neither a file nor a folder"]),
        (["TEXTS", "--force", "--resume"], ["contradict each other"]),
        (["BROKEN"], ["11 broken records", "line 1: broken JSON", "--max-broken"]),
        (["CHAT"], ["no chat template", "--chat-template FILE"]),
        (["rows.csv"], ["rows.csv is a table", "JSON lines or Parquet"]),
        (["https://host/a.txt"], ["https://host/a.txt is an address", "download it and give the file"]),
        (["few.jsonl"], ["few.jsonl line 1: no field that is known (it has ask, say; name", "as instruction and output"]),
        (["pairs.jsonl"], ["pairs.jsonl line 1: a translation that nothing asks for", "'Translate from German to English"]),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path, options: list[str], words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text("{\n" * 20)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "chat.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "rows.csv").write_text("text,n\nhello,1\n")
    (tmp_path / "few.jsonl").write_text('{"ask": "a", "say": "b"}\n')
    (tmp_path / "pairs.jsonl").write_text('{"translation": {"de": "warum?", "en": "why?"}}\n')
    (tmp_path / "lines.jsonl").write_text('{"text": "a line of text"}\n' * 3)
    places = {"TEXTS": str(texts), "BROKEN": "broken.jsonl", "CHAT": "chat.jsonl"}
    given = [places.get(option, option) for option in options]
    given += ["--tokenizer", str(tiny_checkpoint)] if "--tokenizer" not in options else []
    given += ["--length", "300"] if "--length" not in options else []
    said = command("data", *given, "--out", "out")
    assert said.refused(*words)
    assert not (tmp_path / "out").exists()


def test_prompts_are_found_behind_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "b.jsonl").write_text('{"text": "a line"}\n{"instruction": "a", "output": "b"}\n')
    assert open_files(str(tmp_path)).has_prompts()
    assert not open_files(str(tmp_path), include=["*.txt"]).has_prompts()


def test_the_output_may_not_hold_what_is_read(command: Command, texts: Path, tiny_checkpoint: Path) -> None:
    said = command("data", texts, "--tokenizer", tiny_checkpoint, "--length", 128, "--out", texts)
    assert said.refused("is read", "another --out")


@pytest.mark.parametrize(
    "more", [[], ["--writer", "http://127.0.0.1:9", "--spans", "3"], ["--dataset"], ["--resume"]], ids=str
)
def test_the_output_may_not_lie_inside_what_is_read(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, more: list[str]
) -> None:
    """A run that was killed there would read its own rows, and could not go on."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("A text of some length. " * 40)
    before = snapshot(tmp_path)
    given = ["--dataset", f"mine={corpus}:split=train"] if more == ["--dataset"] else [corpus, *more]
    line = ("data", *given, "--tokenizer", tiny_checkpoint, "--length", 600)
    assert command(*line, "--out", corpus / "prepared").refused("lies inside", "corpus, which is read", "another --out")
    assert snapshot(tmp_path) == before
    # Nor around it, which --force would remove.
    (tmp_path / "card.json").write_text(json.dumps({"verb": "make" if "--writer" in line else "data"}))
    assert command(*line, "--out", tmp_path, *([] if "--resume" in line else ["--force"])).refused("holds", "which is read")
    # Beside a file that is read there is no harm.
    said = command("data", corpus / "a.txt", *line[line.index("--tokenizer") :], "--out", corpus / "prepared")
    assert said.code == 0, said.err


def test_a_finished_folder_is_refused_without_a_word(
    command: Command, texts: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    line = ("data", texts, "--tokenizer", tiny_checkpoint, "--length", 128, "--out", tmp_path / "out")
    assert command(*line).code == 0
    assert command(*line).refused("exists and is not empty", "--resume", "--force")
    assert command(*line, "--resume").code == 0
    assert command(*line, "--force").code == 0
    again = ("--tokenizer", tiny_checkpoint, "--length", 128, "--out", tmp_path / "again")
    assert command("data", tmp_path / "out", *again).refused("is prepared already; give it to ropewalk tune")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    (tmp_path / "out" / "card.json").write_text(json.dumps({**card, "status": "running"}))
    assert command("data", tmp_path / "out", *again).refused("are not finished", "--resume")
