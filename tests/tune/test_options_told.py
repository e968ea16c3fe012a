"""Options that cannot be meant are refused before a folder is made; those that do nothing are said."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command import Command
from small import Tune

from ropewalk.api.training_request import request
from ropewalk.cli import make_parser, verbs
from ropewalk.cli.longest import needs
from ropewalk.core.errors import InputError
from ropewalk.hosts.watched import Watched
from ropewalk.tune import preset_lines, presets
from ropewalk.tune.longest import Search
from ropewalk.tune.settings import Settings, Stage


@pytest.mark.parametrize(
    ("line", "form", "got", "meant"),
    [
        ('learning_rate = "2e-5"', "a number", "text ('2e-5')", "learning_rate = 2e-5"),
        ('weight_decay = "little"', "a number", "text ('little')", "weight_decay = 0.1"),
        ('steps = "3"', "a whole number", "text ('3')", "steps = 3"),
        ("steps = 400.0", "a whole number", "a number (400.0)", "steps = 400"),
        ("steps = 4.5", "a whole number", "a number (4.5)", "steps = 8"),
        ("steps = true", "a whole number", "true or false (True)", "steps = 8"),
        ("steps = 2026-01-01", "a whole number", "a date or a time", "steps = 8"),
        ("curriculum = 5", "a text in quotes", "a whole number (5)", 'curriculum = "5"'),
        ("method = true", "a text in quotes", "true or false (True)", 'method = "..."'),
        ("data = 5", "a path in quotes, or a list of them", "a whole number (5)", 'data = "books"'),
        ("data = [5]", "a path in quotes, or a list of them", "a list ([5])", 'data = "books"'),
        ('merge = "no"', "true or false", "text ('no')", "merge = true"),
        ('allow_short = "false"', "true or false", "text ('false')", "allow_short = false"),
        ("length = 1.5", 'a number of tokens or a text such as "16k"', "a number (1.5)", 'length = "16k"'),
    ],
)
def test_a_value_of_another_type_is_told_with_what_to_write(
    line: str, form: str, got: str, meant: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        presets.read(str(path))
    key = line.split()[0]
    assert f"mine.toml is wrong: {key} is {form}, got {got}" in str(caught.value)
    assert str(caught.value).endswith(f"; write {meant}")
    # What is proposed is taken, but for the place of a text.
    path.write_text(meant + "\n")
    assert presets.read(str(path)).runs[0].keys() == {key}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('validate = "held-out.txt"', "says 'validate', which no file says; say it on the command line, --validate FILE"),
        ('out = "tuned"', "say it on the command line, --out DIR"),
        ("validate_every = 5", "say it on the command line, --validate-every N"),
        ("resume = true", "say it on the command line, --resume"),
        ("lr = 1e-5", "says 'lr', which tune does not take; lr is learning_rate here"),
        ('output_dir = "tuned"', "output_dir is out here"),
        ("bf16 = true", "bf16 is dtype bfloat16 here"),
    ],
)
def test_a_preset_s_unknown_word_is_answered_with_its_place(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        presets.read(str(path))
    assert str(caught.value).endswith(words)


def test_what_a_command_says_is_an_option_of_it_and_no_key_of_a_file() -> None:
    options = {name.removeprefix("--").replace("-", "_") for name in verbs(make_parser())["tune"].options()}
    assert options == {*preset_lines.KEYS, *preset_lines.OF_A_COMMAND, "help"}
    assert not set(preset_lines.KEYS) & set(preset_lines.OF_A_COMMAND)


def test_every_key_of_a_preset_has_a_form() -> None:
    assert set(preset_lines.KEYS) <= set(preset_lines.FORMS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2**32}, "seed 4294967296 is not below"),
        ({"learning_rate": "2e-5"}, "learning rate is a number, got '2e-5'"),
        ({"max_grad_norm": True}, "max grad norm is a number"),
        ({"warmup_steps": 6}, "a warm-up of 6 steps is longer than the run of 5"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(length=64, stages=(Stage(window=64, steps=5),), **changes)
    Settings(length=64, stages=(Stage(window=64, steps=5),), seed=2**32 - 1, warmup_steps=5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arguments": {"report_to": ["foo"]}}, "knows no tracker 'foo'"),
        ({"arguments": {"report_to": "tensorbord"}}, "did you mean tensorboard"),
        ({"arguments": {"report_to": ["wandb", "comet_ml"]}}, "tracker (wandb|comet_ml) is not installed"),
        ({"scorer": len, "validate_lengths": (64, 1)}, "at least 2"),
        ({"scorer": len, "validate_every": -1}, "got -1"),
        ({"validate_every": 5}, "validate_every are of a scorer, and there is none"),
        ({"validate_lengths": (64,)}, "validate_every are of a scorer, and there is none"),
    ],
)
def test_what_would_end_a_run_after_the_model_was_loaded(
    changes: dict[str, Any], words: str, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "comet"):
        monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{name}_available", lambda: False)
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("recipe", "idle"), [("full", True), ("lora", False)])
def test_whole_weights_of_what_leaves_no_adapter_are_said_to_be_nothing_new(recipe: str, idle: bool, tied: Path) -> None:
    made = request(
        tied, length=256, method="yarn", steps=1, recipe=recipe, merge=True, device="cpu", dtype="float32"
    )  # fmt: skip
    assert any(note.startswith("merge does nothing without a recipe that leaves an adapter") for note in made.notes) is idle


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_held_out_score_that_is_not_finite_is_null_and_the_run_goes_on(
    score: float, tune: Tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    card = tune(out, steps=2, save_every=1, scorer=lambda model, length: score, validate_lengths=(64,), validate_every=1)
    assert card.status == "done"
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["validation"] for line in lines if "validation" in line] == [{"64": None}, {"64": None}]
    assert f"held-out score at 64 tokens is {score} after step 2" in capsys.readouterr().err


# --- warm-up ---------------------------------------------------------------------------------------------------------------


def test_a_preset_with_other_steps_keeps_the_share_of_its_warm_up() -> None:
    (run,) = presets.read("abf-32k").runs
    assert presets.warmed(run, {"steps": 200})[0]["warmup_steps"] == 4
    assert "warms up for 2000 of 100000 steps" in str(presets.warmed(run, {"steps": 200})[1])
    assert presets.warmed(run, {"curriculum": "4k:1000,32k:1000"})[0]["warmup_steps"] == 40
    assert presets.warmed(run, {"steps": 200, "warmup_steps": 50}) == ({**run, "steps": 200, "warmup_steps": 50}, None)
    assert presets.warmed(run, {"seed": 1}) == ({**run, "seed": 1}, None)


def test_the_command_says_that_it_did(tied: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.toml").write_text('method = "pi"\nlength = 256\nsteps = 40\nwarmup_steps = 20\n')
    (tmp_path / "text.txt").write_text("A line that is read again and again.\n" * 60)
    said = command(
        "tune", tied, "--preset", tmp_path / "mine.toml", "--data", tmp_path / "text.txt", "--steps", "2", "--device", "cpu",
        "--freeze", "--lineage", "trained", "--out", tmp_path / "out",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "this run of 2 does for 1; --warmup-steps" in said.err
    assert json.loads((tmp_path / "out" / "card.json").read_text())["config"]["warmup_steps"] == 1


# --- options that do nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": None, "length": 48, "freeze": True, "lineage": "runtime"}, ("lineage does", "freeze does")),
        ({"recipe": "ia3", "rank": 4, "alpha": 3, "dropout": 0.1}, ("rank does", "alpha does", "dropout does")),
        ({"recipe": "vera", "rank": 4, "alpha": 3}, ("alpha does",)),
        ({"recipe": "oft", "rank": 4, "alpha": 3}, ("alpha does",)),
        ({"recipe": "lora", "rank": 4, "alpha": 3}, ()),
    ],
)
def test_options_that_do_nothing_are_said(changes: dict[str, Any], told: tuple[str, ...], tied: Path) -> None:
    from ropewalk.api.training_request import request

    asked = {"length": 256, "window": 48, "method": "yarn", "steps": 1, "device": "cpu", "dtype": "float32", **changes}
    notes = [note for note in request(tied, **asked).notes if "does nothing" in note]
    assert len(notes) == len(told)
    assert all(note.startswith(words) for note, words in zip(notes, told, strict=True))


# --- the longest row of a preset -------------------------------------------------------------------------------------------


def test_every_run_of_a_preset_is_asked_for_with_its_rows() -> None:
    runs = [
        {"recipe": "full", "length": "64k", "window": "32k"},
        {"recipe": "lora", "curriculum": "4k:10,16k:5", "length": 65536},
        {"recipe": "full", "length": "48k"},
    ]
    assert needs(runs) == [([1, 3], 48 * 1024, {"recipe": "full"}), ([2], 16 * 1024, {"recipe": "lora"})]
    assert needs([{"rank": 8}]) == [([1], None, {"rank": 8})]


@pytest.fixture
def counted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of a few layers are really taken and counted, once for each training: in this process, and on short rows.
    `test_longest` has the process of its own that this is otherwise done in."""
    from ropewalk.tune import measured

    known: dict[str, Watched] = {}

    def child(search: Search, kind: str, **job: Any) -> Watched:
        assert kind == "count"
        what = json.dumps(job, sort_keys=True)
        if what not in known:
            job |= {"source": str(search.source), "device": "cpu", "bfloat16": False, "longest_row": 2048, "window": 64}
            counted = measured.counts({**job, "limit_bytes": search.limit_bytes})
            # This process holds what other tests left in it.
            found = [{**one, "runtime_bytes": 2**28} for one in counted]
            known[what] = Watched(ended="done", answer={"measured": found}, peak_bytes=0, seconds=0.0, words="")
        return known[what]

    monkeypatch.setattr(Search, "_child", child)


def needed(runs: list[dict[str, Any]]) -> int:
    """KB between what the two runs take."""
    return sum(int(one["extrapolated_bytes"]) for one in runs) // 2 // 1024


def test_runs_that_differ_in_nothing_that_costs_memory_are_asked_for_once() -> None:
    runs = [dict(run) for run in presets.read("prolong-512k").runs]
    known = {field.name for field in fields(Settings)} | {"window"}
    runs = [{key: value for key, value in run.items() if key in known} for run in runs]
    # Learning rates, warm-ups, and 64 passes or 16, are one kind; two passes too, and one pass is another.
    assert [(numbers, rows) for numbers, rows, _ in needs(runs)] == [([1, 2, 3], 512 * 1024)]
    assert [numbers for numbers, _, _ in needs([{**run, "accumulate": 2} for run in runs])] == [[1, 2, 3]]
    assert [numbers for numbers, _, _ in needs([{**runs[0], "accumulate": 1}, *runs[1:]])] == [[1], [2, 3]]
    # What is said and what is meant by default are the same.
    assert [numbers for numbers, _, _ in needs([{**runs[0], "rank": 8}, runs[1]])] == [[1, 2]]
    assert [numbers for numbers, _, _ in needs([{**runs[0], "rank": 16}, runs[1]])] == [[1], [2]]
    assert [numbers for numbers, _, _ in needs([{**runs[0], "device": "cpu"}, runs[1]])] == [[1], [2]]


@pytest.mark.usefixtures("counted_here")
def test_longest_answers_for_every_run(tied: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.toml").write_text(
        'length = 4096\nmethod = "yarn"\nsteps = 9\nwarmup_steps = 5\n\n'
        '[[runs]]\nrecipe = "full"\n\n[[runs]]\nrecipe = "lora"\nwindow = 512\n'
    )
    asked = ("tune", tied, "--longest", "estimate", "--memory", "8G", "--device", "cpu", "--preset", tmp_path / "mine.toml")
    found = json.loads(command(*asked, "--json").out)
    assert not found["missed"]
    assert [(one["numbers"], one["length"]) for one in found["runs"]] == [([1], 4096), ([2], 512)]
    # The first run trains all weights on the longer rows: the last one alone would have fitted.
    few = command(*asked[:5], f"{needed(found['runs'])}K", *asked[6:])
    assert few.code == 1, few.err
    assert "run 1: does not fit" in few.out
    assert "run 2\n" in few.out
