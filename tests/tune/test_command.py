"""From a command line to a source: tune, verify, measure on texts that a user brings."""

import json
import shutil
from pathlib import Path

import pytest
from command import Command, snapshot
from test_resume import dying, killed

import ropewalk
from ropewalk.tune import state


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three documents of some thousand tokens of the tiny tokenizer."""
    folder = tmp_path_factory.mktemp("texts") / "texts"
    folder.mkdir()
    for name in range(3):
        lines = [f"Entry {i} of book {name}: {i * 7919 % 1009} ships, {i % 13} gulls.\n" for i in range(80)]
        (folder / f"{name}.txt").write_text("".join(lines), encoding="ascii")
    return folder


SMALL = ("--device", "cpu", "--dtype", "float32", "--learning-rate", "1e-2", "--steps", "3")


def test_tune_verify_measure(tied: Path, texts: Path, long_text: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    said = command(
        "tune", tied, "--data", texts, "--length", "256", "--method", "yarn", "--recipe", "longlora", "--attention", "s2",
        "--out", out, *SMALL, "--validate", long_text, "--validate-lengths", "64,256", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads(said.out)["status"] == "done"
    assert (out / "data" / "card.json").is_file()
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3]
    assert set(steps[-2].get("validation", steps[-1].get("validation"))) == {"64", "256"}
    verdicts = json.loads(command("verify", out, "--json").out)["verdicts"]
    assert {verdict["status"] for verdict in verdicts} == {"exact"}
    measured = command("measure", out, "--text", long_text, "--length", "256", "--out", tmp_path / "measured", "--json")
    assert measured.code == 0, measured.err
    assert "all 256 tokens are inside the 256 this model was trained for; --lineage runtime" in measured.err
    split = command(
        "measure", out, "--lineage", "runtime", "--text", long_text, "--length", "256", "--out", tmp_path / "split", "--json"
    )
    assert "inside the" not in split.err
    assert "nll_beyond" in split.out
    assert "nll_beyond" not in measured.out
    merged = command("tune", out, "--merge", "--out", tmp_path / "merged")
    assert merged.out.strip() == str(tmp_path / "merged"), merged.err
    assert ropewalk.verify(tmp_path / "merged", "transformers").verdicts[0].status == "exact"


def test_the_same_with_prepared_data_and_a_preset(
    tied: Path, texts: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    assert command("data", texts, "--tokenizer", tied, "--length", "256", "--out", tmp_path / "data").code == 0
    preset = tmp_path / "mine.toml"
    preset.write_text('source = "my own"\nmethod = "pi"\nlength = "256"\nsteps = 9\nlearning_rate = 1e-2\nbatch_size = 2\n')
    said = command("tune", tied, "--data", tmp_path / "data", "--preset", preset, "--out", tmp_path / "out", *SMALL)
    assert said.code == 0, said.err
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["config"]["stages"], card["config"]["batch_size"]) == ([{"window": 256, "steps": 3}], 2)
    assert list(card["plans"]) == ["pi"]
    assert card["documents"][0]["sha256"]
    same = ("tune", tied, "--preset", preset, "--out", tmp_path / "out", *SMALL, "--resume", "--data")
    before = snapshot(tmp_path)
    # The same texts are the same question, prepared or not; others are another.
    assert command(*same, texts).code == 0
    assert command(*same, long_text).refused("documents")
    assert snapshot(tmp_path) == before


def test_a_curriculum_trains_short_rows_first(tied: Path, texts: Path, tmp_path: Path, command: Command) -> None:
    said = command(
        "tune", tied, "--data", texts, "--length", "256", "--method", "yarn", "--curriculum", "64:2,256:1",
        "--out", tmp_path / "out", *SMALL[:-2],
    )  # fmt: skip
    assert said.code == 0, said.err
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 3


WRONG = {
    "no data": (("--length", "256", "--steps", "1"), "--data"),
    "no steps": (("--data", "TEXTS", "--length", "256"), "--steps"),
    "unknown recipe": (("--data", "TEXTS", "--length", "256", "--steps", "1", "--recipe", "long-lora"), "longlora"),
    "pose and s2": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--positions", "pose", "--attention", "s2", "--method", "pi"),
        "do not go together",
    ),
    "qlora without a device": (("--data", "TEXTS", "--length", "256", "--steps", "1", "--recipe", "qlora"), "qlora"),
    "longer than it reads": (("--data", "TEXTS", "--length", "256", "--steps", "1"), "--method"),
    "rows above the length": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "yarn", "--window", "512"), "--length",
    ),
    "a length that no text has": (
        ("--data", "TEXTS", "--length", "64k", "--steps", "1", "--method", "yarn", "--positions", "pose", "--window", "32k"),
        "32768",
    ),
    "no such text": (("--data", "GONE", "--length", "256", "--steps", "1", "--method", "yarn"), "GONE"),
    "no such preset": (("--data", "TEXTS", "--preset", "yarn"), "yarn-64k"),
    "a learning rate that is none": (("--data", "TEXTS", "--length", "256", "--steps", "1", "--learning-rate", "20"), "20"),
    "offload from the processor": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "pi", "--offload", "--device", "cpu"), "offload",
    ),
    "no texts to validate on": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "pi", "--validate-every", "1"), "--validate FILE",
    ),
    "texts too short to validate on": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "pi", "--validate", "SHORT"), "256",
    ),
    "lengths that are none": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--validate", "SHORT", "--validate-lengths", "a,b"), "'a'",
    ),
    "a length that is none": (("--data", "TEXTS", "--length", "long", "--steps", "1"), "'long'"),
    "steps and a curriculum": (
        ("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "pi", "--curriculum", "64:1"), "leave --steps",
    ),
    "a curriculum of no steps": (("--data", "TEXTS", "--length", "256", "--method", "pi", "--curriculum", "64:0"), "steps"),
    "data twice for one run": (
        ("--data", "TEXTS", "--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "pi"), "2 times for 1 run;",
    ),
    "data of another encoding": (("--data", "LATIN", "--length", "256", "--steps", "1", "--method", "pi"), "latin.txt"),
    "an unknown method": (("--data", "TEXTS", "--length", "256", "--steps", "1", "--method", "jarn"), "yarn"),
    "a stage without steps": (("--data", "TEXTS", "--length", "256", "--curriculum", "4k"), "4k:100"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_run_is_one_sentence_and_leaves_nothing(
    name: str, tied: Path, texts: Path, tmp_path: Path, command: Command
) -> None:
    arguments, word = WRONG[name]
    (tmp_path / "latin.txt").write_bytes("café ".encode("latin-1") * 400)
    (tmp_path / "short.txt").write_text("A few words.")
    places = {"TEXTS": texts, "LATIN": tmp_path / "latin.txt", "SHORT": tmp_path / "short.txt"}
    given = [str(places.get(word, word)) for word in arguments]
    before = snapshot(tmp_path)
    assert command("tune", tied, *given, "--out", tmp_path / "out").refused(word)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "given", [("--rank", "4"), ("--seed", "0"), ("--resume",), ("--length", "256"), ("--validate-every", "2"), ("--freeze",)]
)
def test_a_merge_alone_takes_no_word_about_training(
    given: tuple[str, ...], tied: Path, tmp_path: Path, command: Command
) -> None:
    said = command("tune", tied, "--merge", *given, "--out", tmp_path / "out")
    assert said.refused("nothing to train", f"got {given[0]};", "leave it out, or train")
    assert not (tmp_path / "out").exists()


def test_settings_that_do_nothing_are_said(tied: Path, texts: Path, tmp_path: Path, command: Command) -> None:
    said = command(
        "tune", tied, "--data", texts, "--length", "256", "--method", "yarn", "--out", tmp_path / "out", *SMALL[:-1], "1",
        "--group", "64", "--rank", "4", "--chunks", "3",
    )  # fmt: skip
    assert said.code == 0, said.err
    for word in ("group does nothing without attention s2", "rank does nothing", "chunks does nothing"):
        assert word in said.err


def test_data_that_changed_are_refused_before_anything_is_made(
    tied: Path, tmp_path: Path, command: Command, texts: Path
) -> None:
    books = tmp_path / "books"
    shutil.copytree(texts, books)
    asked = (
        "tune", tied, "--data", books, "--length", "256", "--method", "yarn", "--out", tmp_path / "out", *SMALL,
        "--save-every", "1", "--resume",
    )  # fmt: skip

    def die_in_the_second_state() -> None:
        dying(state, "_flush", 9)
        command(*asked)

    assert killed(die_in_the_second_state)
    (books / "1.txt").write_text("Another book altogether. " * 200)
    before = snapshot(tmp_path)
    assert command(*asked).refused("books is not what", "1.txt is changed")
    assert snapshot(tmp_path) == before
