"""Every verb as a shell sees it: what goes to stdout and to stderr, the exit code, and what is on disk afterwards."""

import importlib
import io
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Command, snapshot
from hosts.gguf_files import tiny, write_gguf

import ropewalk
import ropewalk.api
from ropewalk.api.runs import split_methods
from ropewalk.cli import main, make_parser, verbs
from ropewalk.core.errors import MethodError
from ropewalk.core.progress import Progress

COMPARE = ["--methods", "pi;yarn:beta_fast=16,beta_slow=2", "--length", "512", "--dtype", "float32", "--depths", "2"]
COMPARE += ["--lengths", "384,512"]


@pytest.fixture(scope="module")
def run_folder(tiny_checkpoint: Path, long_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison, shared: never written to."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["compare", str(tiny_checkpoint), "--text", str(long_text), "--out", str(out), *COMPARE]) == 0
    return out


def document(text: str) -> Any:
    """The one JSON document that is all of `text`."""
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return json.loads(text)


# --- help and version -------------------------------------------------------------------------------------------------


def test_the_verbs_come_in_the_order_of_the_flow() -> None:
    flow = ["methods", "inspect", "convert", "extend", "verify", "measure", "compare", "data", "tune", "report"]
    assert list(verbs(make_parser())) == flow


def test_without_a_verb_the_help_is_shown(command: Command) -> None:
    result = command()
    assert result.code == 0
    assert result.out.startswith("usage: ropewalk")
    for verb in verbs(make_parser()):
        assert f"    {verb} " in result.out


@pytest.mark.parametrize("verb", list(verbs(make_parser())))
def test_every_verb_has_help_and_json(command: Command, verb: str) -> None:
    result = command(verb, "--help")
    assert result.code == 0
    assert "--json" in result.out
    assert result.err == ""


@pytest.mark.parametrize("verb", ["compare", "measure"])
def test_verbs_with_chance_in_them_take_a_seed(verb: str) -> None:
    assert "--seed" in verbs(make_parser())[verb].options()


@pytest.mark.parametrize(("verb", "resumes"), [("inspect", False), ("extend", False), ("measure", True)])
def test_an_interrupted_verb_promises_no_resume_that_it_has_not(
    verb: str, resumes: bool, command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # A module that is imported meanwhile would keep what is put in here.
    for module in pkgutil.iter_modules(ropewalk.api.__path__):
        importlib.import_module(f"ropewalk.api.{module.name}")
    monkeypatch.setattr("ropewalk.core.plan.parse_length", interrupted)
    monkeypatch.setattr("ropewalk.api.plans.geometry", interrupted)
    monkeypatch.setattr("ropewalk.api.checkpoints.plan_to_write", interrupted)
    line = {
        "inspect": [tiny_checkpoint],
        "extend": [tiny_checkpoint, "--method", "yarn", "--length", "256", "--out", tmp_path / "out"],
        "measure": [tiny_checkpoint, "--text", "t", "--length", "256", "--out", tmp_path / "out"],
    }[verb]
    result = command(verb, *line)
    assert result.code == 130
    assert ("--resume goes on" in result.err) is resumes


def test_version(command: Command) -> None:
    assert command("--version").out == f"ropewalk {ropewalk.__version__}\n"


# --- methods and inspect ----------------------------------------------------------------------------------------------


def test_methods_lists_all_with_paper_and_options(command: Command) -> None:
    listed = command("methods")
    described = document(command("methods", "--json").out)["methods"]
    assert [method["id"] for method in described] == list(ropewalk.methods())
    for method in described:
        assert method["summary"] in listed.out
        assert method["paper"] in listed.out


def test_one_method_explains_its_options(command: Command) -> None:
    result = command("methods", "yarn")
    assert "  beta_fast = 32.0\n      " in result.out
    (described,) = document(command("methods", "yarn", "--json").out)["methods"]
    assert all(option["help"] for option in described["options"])


def test_inspect_says_what_the_contract_lists(command: Command, tiny_checkpoint: Path) -> None:
    found = document(command("inspect", tiny_checkpoint, "--json").out)
    lengths = {found[name] for name in ("original_length", "trained_length", "declared_length")}
    assert lengths == {64}
    assert [found[name] for name in ("model_type", "scheme", "layout", "lineage")] == ["llama", "default", "half", "plain"]
    assert [found[n] for n in ("num_layers", "num_heads", "num_kv_heads", "head_dim")] == [2, 2, 1, 16]
    (group,) = found["groups"]
    expected = {"label": "all", "num_layers": 2, "position": "rope", "rotary_dim": 16, "base": 10000.0, "window": None}
    assert expected.items() <= group.items()
    assert (len(group["inv_freq"]), group["attention_factor"], group["logit_scale"]) == (8, 1.0, 1.0)
    assert isinstance(found["findings"], list)


def test_inspect_for_people(command: Command, tiny_checkpoint: Path) -> None:
    result = command("inspect", tiny_checkpoint)
    assert "trained for 64 tokens, reads 64, declares 64" in result.out
    assert "no scaling, lineage plain: never stretched" in result.out
    assert "all: 2 layers, rope, 16 of 16 dimensions rotated (half), base 10000" in result.out


# --- extend and convert -----------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["extend", tiny_checkpoint, "--method", "yarn:beta_fast=16", "--length", "1k", "--out", "out", "--dry-run"]
    plan = document(command(*line, "--json").out)
    assert plan == ropewalk.plan(tiny_checkpoint, "yarn:beta_fast=16", length=1024).to_dict()
    assert set(plan) >= {"method", "options", "kind", "original_length", "trained_length", "length", "factor", "groups"}
    assert set(plan["groups"]["all"]["frequencies"]) == {"inv_freq", "attention_factor", "logit_scale"}
    words = command(*line).out
    assert "yarn (static): 64 to 1024 tokens, factor 16" in words
    assert snapshot(tmp_path) == {}


def test_extend_writes_a_folder_that_is_inspected_with_its_plan(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "er"
    result = command("extend", tiny_checkpoint, "--method", "yarn", "--length", "256", "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n")
    assert "model_max_length" in result.err
    found = document(command("inspect", out, "--json").out)
    assert (found["scheme"], found["lineage"], found["trained_length"]) == ("yarn", "runtime", 256)
    assert os.listdir(out.parent) == ["er"]
    refused = command("extend", tiny_checkpoint, "--method", "pi", "--length", "256", "--out", out)
    assert refused.refused("exists", "--force")
    card = document(
        command("extend", tiny_checkpoint, "--method", "pi", "--length", "256", "--out", out, "--force", "--json").out
    )
    assert (card["verb"], card["status"], list(card["plans"])) == ("extend", "done", ["pi"])
    assert document(command("inspect", out, "--json").out)["scheme"] == "llama3"


def test_convert_makes_a_folder_that_is_loaded(command: Command, tmp_path: Path) -> None:
    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    out = tmp_path / "folder"
    result = command("convert", tmp_path / "model.gguf", "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n")
    card = document(command("convert", tmp_path / "model.gguf", "--out", out, "--force", "--json").out)
    assert (card["verb"], card["geometry"]["declared_length"]) == ("convert", 4096)
    model, _ = ropewalk.load(out, dtype="float32", device="cpu")
    assert model.config.num_hidden_layers == 2


def test_extend_makes_a_gguf_file_of_a_gguf_file(command: Command, tmp_path: Path) -> None:
    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    out = tmp_path / "deep" / "long.gguf"
    extend = ("extend", tmp_path / "model.gguf", "--method", "yarn", "--length", "16k", "--out", out)
    result = command(*extend)
    assert (result.code, result.out) == (0, f"{out}\n")
    assert "byte for byte" in result.err
    assert "exact in llama.cpp, as their sources were read" in result.err
    found = document(command("inspect", out, "--json").out)
    assert (found["scheme"], found["lineage"], found["trained_length"]) == ("yarn", "runtime", 16384)
    assert command(*extend).refused("exists already", "--force")
    card = document(command(*extend, "--force", "--json").out)
    assert (card["verb"], card["status"], list(card["plans"])) == ("extend", "done", ["yarn"])
    assert os.listdir(out.parent) == ["long.gguf"]


def test_extending_a_gguf_file_shows_how_far_it_is(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    shown, hidden = Terminal(), io.StringIO()
    for number, stream in enumerate((shown, hidden)):
        progress = Progress(stream, patience_seconds=0.0)
        ropewalk.extend(tmp_path / "model.gguf", "yarn", length="16k", out=tmp_path / f"{number}.gguf", progress=progress)
    assert "writing 0.gguf" in shown.getvalue()
    assert hidden.getvalue() == ""


def test_extend_says_which_engines_are_exact(command: Command, tiny_checkpoint: Path, tmp_path: Path) -> None:
    every = command("extend", tiny_checkpoint, "--method", "yarn", "--length", "256", "--out", tmp_path / "yarn")
    assert "exact in transformers, vllm, sglang, llama.cpp, as their sources were read" in every.err
    lists = f"longrope:short_factor={'|'.join('1' * 8)},long_factor={'|'.join('4' * 8)}"
    some = command("extend", tiny_checkpoint, "--method", lists, "--length", "256", "--out", tmp_path / "longrope", "--json")
    problems = [finding["problem"] for finding in document(some.out)["findings"]]
    # vLLM reads short texts with the long list.
    assert any(problem.startswith("vllm differs: ") for problem in problems)
    assert any(problem.startswith("exact in transformers") for problem in problems)


def test_extend_s_help_says_what_becomes_of_a_gguf_file(command: Command) -> None:
    words = " ".join(command("extend", "--help").out.split())
    assert "GGUF file is made: the same tensors byte for byte" in words


# --- compare, measure, report -----------------------------------------------------------------------------------------


def test_compare_leaves_the_run_folder_of_the_contract(run_folder: Path) -> None:
    card = json.loads((run_folder / "card.json").read_text())
    assert (card["status"], list(card["plans"])) == ("done", ["none", "crop", "pi", "yarn:beta_fast=16,beta_slow=2"])
    assert (run_folder / "report.html").stat().st_size > 10_000
    assert list(run_folder.rglob("*.png"))
    assert len(list((run_folder / "nll").glob("*/*.npy"))) == 4
    rows = [json.loads(line) for line in (run_folder / "measurements.jsonl").read_text().splitlines()]
    assert {"nll", "perplexity", "net_gain", "price_nll", "price_kl_mean", "retrieval_exact"} <= {
        row["metric"] for row in rows
    }
    assert {row["card"] for row in rows} == {card["hash"]}
    assert not list(run_folder.rglob(".*"))


def test_compare_says_the_table_on_stdout_and_words_on_stderr(
    command: Command, tiny_checkpoint: Path, long_text: Path, run_folder: Path
) -> None:
    line = ["compare", tiny_checkpoint, "--text", long_text, "--out", run_folder, *COMPARE, "--resume"]
    result = command(*line)
    assert result.code == 0
    for word in ("none", "crop", "pi", "yarn:beta_fast=16,beta_slow=2", f"report: {run_folder / 'report.html'}"):
        assert word in result.out
    assert "device cpu, float32, as asked" in result.err
    assert "Loading weights" not in result.err
    assert "\r" not in result.err
    rows = document(command(*line, "--json").out)["rows"]
    on_disk = [json.loads(text) for text in (run_folder / "measurements.jsonl").read_text().splitlines()]
    assert rows == on_disk


def test_measure_with_every_protocol(command: Command, tiny_checkpoint: Path, long_text: Path, tmp_path: Path) -> None:
    line = [
        "measure",
        tiny_checkpoint,
        "--text",
        long_text,
        "--length",
        "256",
        "--out",
        tmp_path / "run",
        "--dtype",
        "float32",
    ]
    line += ["--method", "ntk", "--protocol", "prefix", "--protocol", "disjoint", "--protocol", "sliding-press"]
    rows = document(command(*line, "--protocol", "yarn-truncate", "--stride", "32", "--json").out)["rows"]
    scored = {row["protocol"] for row in rows if row["value"] is not None}
    assert scored == {"prefix", "disjoint", "sliding-press", "yarn-truncate"}
    assert {row["method"] for row in rows} == {"none", "ntk"}


def test_report_draws_the_page_again(command: Command, run_folder: Path) -> None:
    page = run_folder / "report.html"
    before = page.read_text()
    page.unlink()
    assert command("report", run_folder).out == f"{page}\n"
    assert page.read_text() == before
    assert document(command("report", run_folder, "--json").out) == {"report": str(page)}


def test_a_finished_run_answers_no_other_question(
    command: Command, tiny_checkpoint: Path, long_text: Path, run_folder: Path
) -> None:
    before = snapshot(run_folder)
    line = ["compare", tiny_checkpoint, "--text", long_text, "--out", run_folder, *COMPARE, "--resume"]
    result = command(*line, "--seed", "5")
    assert result.refused("answers another question (it differs in seed)", "another --out")
    result = command(*line, "--crop-windows", "3", "--methods", "abf")
    assert result.refused("it differs in crop_windows, map, methods, plans")
    assert snapshot(run_folder) == before


def test_an_output_that_nobody_reads_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ropewalk.cli", "methods"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_exit_code_3() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ropewalk.cli", "methods"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 3
    assert done.stderr.startswith("ropewalk: No space left on device")
    assert "Traceback" not in done.stderr


# --- lists of methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("pi", ["pi"]),
        ("pi,ntk,yarn", ["pi", "ntk", "yarn"]),
        (" pi , ntk ,", ["pi", "ntk"]),
        ("pi,pi", ["pi"]),
        (["pi", "ntk,yarn"], ["pi", "ntk", "yarn"]),
        ("yarn:beta_fast=16,beta_slow=2", ["yarn:beta_fast=16,beta_slow=2"]),
        ("pi;yarn:beta_fast=16,beta_slow=2", ["pi", "yarn:beta_fast=16,beta_slow=2"]),
        ("yarn:beta_fast=16,beta_slow=2;", ["yarn:beta_fast=16,beta_slow=2"]),
        ("pi,yarn:ramp=rotations,abf", ["pi", "yarn:ramp=rotations", "abf"]),
        (["yarn:beta_fast=16,beta_slow=2", "pi"], ["yarn:beta_fast=16,beta_slow=2", "pi"]),
        ("dynamic:yarn:beta_slow=2,pi", ["dynamic:yarn:beta_slow=2", "pi"]),
        ("", []),
        ([], []),
    ],
)
def test_a_list_of_methods(given: str | list[str], expected: list[str]) -> None:
    assert split_methods(given) == expected


def test_a_list_that_cannot_be_told_from_options_is_refused() -> None:
    with pytest.raises(MethodError, match="'pi,yarn:a=1,b=2' is ambiguous; separate methods by ';'"):
        split_methods("pi,yarn:a=1,b=2")
