"""Under --force a checkpoint folder goes only as it was written: what somebody made or put there since stays."""

import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from command import Command, snapshot
from gguf_files import tiny, write_gguf

import ropewalk
from ropewalk.core.errors import OutputError
from ropewalk.core.progress import Progress
from ropewalk.hosts import mark
from ropewalk.hosts.staging import staged


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder as one of the verbs leaves it."""
    with staged(tmp_path / "out") as stage:
        (stage / "config.json").write_text("{}")
        (stage / "inner").mkdir()
        (stage / "inner" / "template.jinja").write_text("x")
    return tmp_path / "out"


def again(out: Path) -> str:
    """Writes the folder anew under force; what was said."""
    said = StringIO()
    with staged(out, force=True, progress=Progress(said)) as stage:
        (stage / "config.json").write_text('{"new": 1}')
    return said.getvalue()


def test_a_folder_as_it_was_left_goes_and_is_named_first(written: Path) -> None:
    assert again(written) == f"--force removes {written} with 3 files of 0.0 MB: .ropewalk.json, config.json, inner/\n"
    assert json.loads((written / "config.json").read_text()) == {"new": 1}
    assert "--force removes" in again(written)


def test_nothing_is_said_where_nothing_goes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert again(tmp_path / "empty") == ""
    assert again(tmp_path / "new") == ""


def put(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("hours of work")

    return change


def link(folder: Path) -> None:
    (folder / "notes").symlink_to(folder.parent)


def card(content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "card.json").write_text(content)

    return change


def unmark(folder: Path) -> None:
    (folder / mark.NAME).unlink()


def damage(folder: Path) -> None:
    (folder / mark.NAME).write_text('{"files": ["config.json"]}')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("model-Q4.gguf"), "holds 'model-Q4.gguf', put there since"),
        (put("state/step-400"), "holds 'state/step-400', put there since"),
        (put(".git"), "holds '.git', put there since"),
        (link, "holds 'notes', put there since"),
        (put("config.json"), "'config.json' in .* is not what was written there"),
        (put("inner/template.jinja"), "'inner/template.jinja' in .* is not what was written there"),
        (card('{"verb": "tune"}'), "is the folder of a tune run"),
        (card('{"verb": "make"}'), "is the folder of a data --writer run"),
        (card("not JSON"), "is the folder of something else"),
        (unmark, "holds a model without a mark of ropewalk"),
        (damage, "holds a model without a mark of ropewalk"),
    ],
)
def test_what_was_not_written_here_stays(written: Path, change: Callable[[Path], None], said: str) -> None:
    change(written)
    before = snapshot(written.parent)
    with pytest.raises(OutputError, match=rf"{said}.*; give another --out, or remove it yourself$"):
        again(written)
    assert snapshot(written.parent) == before


def test_a_model_that_was_tuned_elsewhere_and_saved_is_its_owners(written: Path, tmp_path: Path) -> None:
    """Stock transformers carries the config along, and nothing else of the folder."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy2(written / "config.json", theirs)
    with pytest.raises(OutputError, match="without a mark"):
        again(theirs)
    shutil.copytree(written, tmp_path / "copy")
    again(tmp_path / "copy")
    shutil.copytree(written, tmp_path / "touched")
    os.utime(tmp_path / "touched" / "config.json", ns=(1, 1))
    with pytest.raises(OutputError, match="is not what was written there"):
        again(tmp_path / "touched")


def test_a_file_with_another_name_is_not_lost(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"old")
    with staged(tmp_path / "out") as stage:
        os.link(source, stage / "model.safetensors")
    source.write_bytes(b"trained on")
    again(tmp_path / "out")
    assert source.read_bytes() == b"trained on"


def test_what_appears_while_it_is_written_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def overtaken(force: bool) -> None:
        with staged(out, force=force) as stage:
            (stage / "config.json").write_text("{}")
            out.mkdir()
            (out / "thesis.tex").write_text("years of work")

    for force, said in ((False, "exists already"), (True, "without a mark")):
        with pytest.raises(OutputError, match=said):
            overtaken(force)
        assert (out / "thesis.tex").read_text() == "years of work"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        shutil.rmtree(out)


def test_checkpoint_verbs_replace_one_anothers_results(tiny_checkpoint: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    gguf = write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    lines = (
        ("extend", tiny_checkpoint, "--method", "pi", "--length", "256"),
        ("verify", tiny_checkpoint, "--fix"),
        ("convert", gguf),
        ("extend", tiny_checkpoint, "--method", "yarn", "--length", "256", "--copy"),
    )
    for number, line in enumerate(lines):
        said = command(*line, "--out", out, "--force")
        assert said.code in (0, 1), said.err
        assert (f"--force removes {out} with" in said.err) == (number > 0)
        assert "mark" not in said.err
    # Trained in place, with stock tools: somebody's hours.
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    before = snapshot(tmp_path)
    for line in lines:
        assert command(*line, "--out", out, "--force").refused("'model.safetensors'", "is not what was written there")
    assert snapshot(tmp_path) == before


def test_checkpoint_verbs_leave_runs_and_models_alone(
    tiny_checkpoint: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    run, own = tmp_path / "run", tmp_path / "own"
    assert command("measure", tiny_checkpoint, "--text", long_text, "--length", "64", "--out", run).code == 0
    shutil.copytree(tiny_checkpoint, own)
    extend = ("extend", tiny_checkpoint, "--method", "pi", "--length", "256", "--out")
    made = tmp_path / "made"
    assert command(*extend, made).code == 0
    before = snapshot(tmp_path)
    for verb in (extend, ("verify", tiny_checkpoint, "--fix", "--out")):
        assert command(*verb, run, "--force").refused("is the folder of a measure run", "another --out")
        assert command(*verb, own, "--force").refused("holds a model without a mark", "another --out")
    # And the other way round.
    for verb in (("measure",), ("compare", "--methods", "pi")):
        line = (verb[0], tiny_checkpoint, *verb[1:], "--text", long_text, "--length", "256", "--force", "--out")
        assert command(*line, made).refused("is not a run folder", "another --out")
    assert snapshot(tmp_path) == before


def test_the_reference_of_a_fix_is_not_removed_by_it(tiny_checkpoint: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    assert command("extend", tiny_checkpoint, "--method", "pi", "--length", "256", "--out", out).code == 0
    before = snapshot(tmp_path)
    line = ("verify", tiny_checkpoint, "--fix", "--against", out, "--out", out, "--force")
    assert command(*line).refused("which is read", "another --out")
    assert snapshot(tmp_path) == before


def test_a_gguf_file_that_goes_is_named(tmp_path: Path) -> None:
    source, out, said = write_gguf(tiny("llama"), tmp_path / "m.gguf", "llama"), tmp_path / "long.gguf", StringIO()
    for length in ("8k", "16k"):
        ropewalk.extend(source, "yarn", length=length, out=out, force=True, progress=Progress(said))
    assert said.getvalue().startswith(f"--force removes {out} of ")
    assert said.getvalue().count("\n") == 1
