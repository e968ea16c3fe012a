"""verify, its mended copies, launch lines and profiles, as a shell sees them."""

import ast
import json
import os
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import Command, snapshot
from engines.configs import LENGTH, llama, yarn
from hosts.gguf_files import tiny, write_gguf
from hosts.small_folders import make_folder_in
from test_cold_start import loaded

import ropewalk
from ropewalk.engines import verdicts
from ropewalk.engines.computed import Computed
from ropewalk.engines.transformers.compute import compute

Make = Callable[..., Path]
TWO = "transformers,llama.cpp"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a folder with a config and what else is said."""

    def made(config: dict[str, Any], name: str = "model", **files: Any) -> Path:
        return make_folder_in(tmp_path, name, **{"config.json": config, **files})

    return made


def stub(name: str, status: str) -> Any:
    """An engine that agrees with transformers, reads half the length, refuses, or is not known."""

    def computing(config: Any, *, length: int, tokenizer_config: Any = None) -> Computed:
        base = compute(config, length=length)
        fields = {
            "exact": {},
            "differs": {"max_length": 64},
            "refuses": {"refuses": "an int"},
            "unsupported": {"unsupported": "?"},
        }
        return Computed(**{"engine": name, "versions": "1", "groups": base.groups, "max_length": None, **fields[status]})

    return SimpleNamespace(NAME=name, VERSIONS="1", compute=computing)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts made-up engines beside transformers."""

    def put(**by_name: str) -> None:
        table = {"transformers": verdicts.ENGINES["transformers"]}
        for name, status in by_name.items():
            table[name] = lambda name=name, status=status: stub(name, status)
        monkeypatch.setattr(verdicts, "ENGINES", table)

    return put


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_a_clean_checkpoint_passes(command: Command, make: Make) -> None:
    done = command("verify", make(yarn()), "--engines", TWO)
    assert (done.code, done.err) == (0, "")
    assert "transformers  exact" in done.out
    assert "llama.cpp     exact" in done.out


@pytest.mark.parametrize(
    ("status", "named", "code"),
    [("exact", False, 0), ("differs", False, 1), ("refuses", False, 1), ("unsupported", False, 0), ("unsupported", True, 1)],
)
def test_the_exit_code_is_the_contract_s(
    status: str, named: bool, code: int, command: Command, make: Make, engines: Callable[..., None]
) -> None:
    engines(vllm=status)
    done = command("verify", make(yarn()), *(["--engines", "transformers,vllm"] if named else []))
    assert done.code == code, done.out
    assert f"vllm          {status}" in done.out


def test_without_names_every_engine_is_judged(command: Command, make: Make, engines: Callable[..., None]) -> None:
    engines(vllm="exact", sglang="exact")
    document = json.loads(command("verify", make(yarn()), "--json").out)
    assert [verdict["engine"] for verdict in document["verdicts"]] == ["transformers", "vllm", "sglang"]


@pytest.mark.parametrize(
    "config",
    [
        llama(rope_parameters={"rope_type": "linear", "factor": -2.0, "rope_theta": 1e5}),
        b'{"model_type": "llama", "rope_parameters": {"rope_type": "yarn", "factor": NaN}}',
        llama(rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters={"rope_type": "linear", "factor": 4.0}),
        llama(rope_parameters={"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "rope_theta": 1e5}),
        llama(model_type="nobody"),
        {},
    ],
    ids=["negative", "nan", "contradicting", "short list", "unknown family", "empty"],
)
def test_a_wrong_config_is_an_error_finding_and_no_crash(config: Any, command: Command, make: Make) -> None:
    done = command("verify", make(config), "--engines", "transformers", "--json")
    assert (done.code, done.err) == (1, "")
    document = json.loads(done.out)
    assert list(document) == ["reference", "verdicts", "findings"]
    assert "error" in [finding["severity"] for finding in document["findings"]]
    assert command("verify", make(config, "again"), "--engines", "transformers").code == 1


def test_bad_paths_and_names_are_one_sentence(command: Command, make: Make, tmp_path: Path) -> None:
    folder = make(yarn())
    assert command("verify", tmp_path / "nowhere").refused("does not exist")
    assert command("verify", make(b"{", "broken")).refused("is not JSON")
    assert command("verify", folder, "--engines", "vlm").refused("unknown engine 'vlm'", "did you mean vllm")
    assert command("verify", folder, "--fix").refused("--out")
    assert command("verify", folder, "--out", tmp_path / "out").refused("--fix")
    (tmp_path / "plan.json").write_text("[]")
    assert command("verify", folder, "--against", tmp_path / "plan.json").refused("holds a JSON list")
    (tmp_path / "plan.json").write_text("{}")
    assert command("verify", folder, "--against", tmp_path / "plan.json").refused("is no plan")
    (tmp_path / "plan.json").write_text("{")
    assert command("verify", folder, "--against", tmp_path / "plan.json").refused("cannot be read as a plan")
    assert command("verify", folder, "--against", tmp_path / "nowhere").refused("does not exist")


def test_the_table_ends_with_the_sum_and_says_nothing_twice(
    command: Command, make: Make, engines: Callable[..., None]
) -> None:
    engines(vllm="differs", sglang="differs", other="unsupported")
    lines = command("verify", make(yarn())).out.splitlines()
    assert lines[1].split() == ["engine", "verdict", "rel.", "error", "tokens", "release"]
    assert lines.count("              it accepts 64 tokens of 32768") == 1
    assert "              as vllm" in lines
    assert lines[-1] == "exact in transformers; differs in vllm, sglang; not judged in other"


# --- references -------------------------------------------------------------------------------------------------------


def test_against_a_plan_file(command: Command, make: Make, tmp_path: Path) -> None:
    plan = command("extend", make(llama()), "--method", "yarn", "--length", 4 * LENGTH, "--dry-run", "--json").out
    (tmp_path / "plan.json").write_text(plan)
    same = command("verify", make(yarn(), "same"), "--engines", TWO, "--against", tmp_path / "plan.json")
    other = command(
        "verify", make(yarn(factor=2.0), "other"), "--engines", TWO, "--against", tmp_path / "plan.json", "--json"
    )
    assert same.code == 0, same.out
    assert other.code == 1
    document = json.loads(other.out)
    assert document["reference"]["source"] == str(tmp_path / "plan.json")
    assert [verdict["status"] for verdict in document["verdicts"]] == ["differs", "differs"]
    assert document["verdicts"][0]["first_dimension"] is not None


def test_against_another_checkpoint(command: Command, make: Make) -> None:
    other, plain = make(yarn(), "other"), make(llama(), "plain")
    assert command("verify", make(yarn()), "--engines", TWO, "--against", other).code == 0
    assert command("verify", other, "--engines", TWO, "--against", plain).code == 1


def test_against_another_model(command: Command, make: Make) -> None:
    gemma = {"model_type": "gemma3_text", "num_hidden_layers": 6, "num_attention_heads": 4, "head_dim": 64}
    assert command("verify", make(llama()), "--against", make(gemma, "gemma")).refused("the reference is for groups")


def test_what_extend_writes_is_exact(command: Command, make: Make, tmp_path: Path) -> None:
    source = make(llama())
    for method in ("pi", "ntk", "yarn", "ntk-by-parts", "abf"):
        out = tmp_path / method
        assert command("extend", source, "--method", method, "--length", 4 * LENGTH, "--out", out).code == 0
        done = command("verify", out, "--engines", "transformers", "--json")
        assert done.code == 0, (method, done.out)
        assert json.loads(done.out)["reference"]["method"] == method


def test_python_says_the_same(make: Make) -> None:
    found = ropewalk.verify(make(yarn()), engines=["transformers"])
    assert found.passed
    assert found.verdicts[0].status == "exact"
    assert found.to_dict()["reference"]["length"] == 4 * LENGTH


# --- what lies beside the config --------------------------------------------------------------------------------------


def test_the_tokenizer_the_buffers_and_the_drafts_are_looked_at(command: Command, make: Make) -> None:
    raw = json.dumps({"m.inv_freq": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}).encode()
    folder = make(
        yarn(),
        **{
            "model.safetensors": struct.pack("<Q", len(raw)) + raw + bytes(16),
            "tokenizer_config.json": {"model_max_length": 512},
            "eagle/config.json": llama(),
            "broken/config.json": b"{",
        },
    )
    document = json.loads(command("verify", folder, "--engines", "transformers", "--json").out)
    assert [f["field"] for f in document["findings"]] == [
        "tokenizer_config.json: model_max_length", "m.inv_freq", "eagle"
    ]  # fmt: skip


def test_pickled_weights_do_not_keep_a_config_from_being_judged(command: Command, make: Make) -> None:
    folder = make(yarn(), **{"model.safetensors": None, "pytorch_model.bin": b"\x80"})
    assert command("verify", folder, "--engines", TWO).code == 0


def test_verifying_imports_nothing_heavy(make: Make) -> None:
    folder = make(yarn())
    out, heavy = loaded("verify", "model", "--json", folder=folder.parent)
    assert len(json.loads(out)["verdicts"]) == 4
    assert heavy == set()
    make(llama(), "plain")
    said = ("extend", "plain", "--method", "yarn", "--length", "64k", "--flags", "vllm")
    assert loaded(*said, folder=folder.parent)[1] == set()


def test_every_real_engine_is_judged(command: Command, make: Make, tmp_path: Path) -> None:
    document = json.loads(command("verify", make(yarn()), "--json").out)
    assert [verdict["engine"] for verdict in document["verdicts"]] == ["transformers", "vllm", "sglang", "llama.cpp"]
    assert {verdict["status"] for verdict in document["verdicts"]} == {"exact"}
    broken = make(llama(rope_parameters={"rope_type": "linear", "factor": 4, "rope_theta": 1e5}), "broken")
    by_engine = {v["engine"]: v for v in json.loads(command("verify", broken, "--json").out)["verdicts"]}
    assert by_engine["vllm"]["status"] == by_engine["sglang"]["status"] == "refuses"
    assert "ropewalk extend MODEL.gguf" in by_engine["llama.cpp"]["mend"]


def test_a_gguf_file(command: Command, tmp_path: Path) -> None:
    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    before = snapshot(tmp_path)
    alone = command("verify", tmp_path / "model.gguf", "--engines", "llama.cpp", "--json")
    document = json.loads(alone.out)
    assert alone.code == 0, document
    assert document["reference"]["source"] == "what the metadata of the file says"
    assert command("verify", tmp_path / "model.gguf", "--engines", "transformers").code == 1
    assert snapshot(tmp_path) == before


# --- mended copies ----------------------------------------------------------------------------------------------------


def test_a_mended_copy_passes_and_shares_the_weights(command: Command, make: Make, tmp_path: Path) -> None:
    scaling = {"type": "yarn", "factor": 4, "original_max_position_embeddings": LENGTH, "attention_factor": 1}
    folder = make(
        llama(rope_scaling=scaling),
        **{"tokenizer_config.json": {"model_max_length": 512}, "README.md": b"of another model", "vocab.json": {}},
    )
    before = snapshot(folder)
    assert command("verify", folder, "--engines", "llama.cpp").code == 1
    done = command("verify", folder, "--engines", "transformers", "--fix", "--out", tmp_path / "out", "--json")
    document = json.loads(done.out)
    assert done.code == 0, document
    assert document["mended"]["left"] == []
    assert any("factor is a float" in change for change in document["mended"]["changes"])
    assert [finding["severity"] for finding in document["findings"]] in ([], ["note"])
    assert os.path.samefile(tmp_path / "out" / "model.safetensors", folder / "model.safetensors")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 4 * LENGTH
    assert (tmp_path / "out" / "vocab.json").is_file()
    assert snapshot(folder) == before
    again = command("verify", folder, "--fix", "--out", tmp_path / "out")
    assert again.refused("exists already")


def test_nothing_is_written_of_a_config_that_cannot_be_read(command: Command, make: Make, tmp_path: Path) -> None:
    folder = make(llama(rope_theta=-1.0))
    done = command("verify", folder, "--engines", "transformers", "--fix", "--out", tmp_path / "out")
    assert done.code == 1
    assert "nothing was written" in done.err
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_is_not_mended(command: Command, tmp_path: Path) -> None:
    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    arguments = ("verify", tmp_path / "model.gguf", "--engines", "llama.cpp", "--fix", "--out", tmp_path / "out")
    assert command(*arguments).refused("--fix mends folders")


# --- launch lines -----------------------------------------------------------------------------------------------------


def flags(command: Command, folder: Path, engine: str, method: str = "yarn", *more: str) -> Any:
    return command("extend", folder, "--method", method, "--length", 4 * LENGTH, "--flags", engine, *more)


def test_the_line_alone_is_on_stdout(command: Command, make: Make) -> None:
    done = flags(command, make(llama()), "llama.cpp")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    assert shlex.split(line)[:4] == ["--rope-scaling", "yarn", "--rope-scale", "4.0"]
    assert "Ollama" in done.err


def test_the_line_survives_a_shell(command: Command, make: Make, engines: Callable[..., None]) -> None:
    engines(vllm="exact")
    done = flags(command, make(llama()), "vllm")
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    shell = subprocess.run(
        f"{sys.executable} -c '{code}' {done.out}", shell=True, capture_output=True, text=True, check=True
    )
    name, overrides, *rest = json.loads(shell.stdout)
    assert (name, rest) == ("--hf-overrides", ["--max-model-len", str(4 * LENGTH)])
    assert json.loads(overrides)["rope_parameters"]["factor"] == 4.0


@pytest.mark.parametrize("status", ["differs", "refuses", "unsupported"])
def test_a_line_that_the_engine_would_not_follow_is_told(
    status: str, command: Command, make: Make, engines: Callable[..., None]
) -> None:
    engines(sglang=status)
    done = flags(command, make(llama()), "sglang")
    assert done.code == 1
    assert f"with this line sglang {status}" in done.err
    # Shown, but not where a shell that is starting a server would take it in.
    assert "--json-model-override-args" in done.err
    assert not done.out


def test_a_plan_without_a_line(command: Command, make: Make) -> None:
    done = flags(command, make(llama()), "llama.cpp", "llama3")
    assert done.refused("has no flags for llama3 scaling")


def test_a_line_as_json(command: Command, make: Make) -> None:
    document = json.loads(flags(command, make(llama()), "llama.cpp", "yarn", "--json").out)
    assert list(document) == ["engine", "arguments", "says", "verdict"]
    assert document["verdict"]["status"] == "exact"


def test_a_line_over_a_gguf_file(command: Command, tmp_path: Path) -> None:
    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    length = ropewalk.geometry(tmp_path / "model.gguf").trained_length * 4
    said = ("extend", tmp_path / "model.gguf", "--method", "yarn", "--length", length, "--flags")
    done = command(*said, "llama.cpp")
    assert done.code == 0, done.err
    assert f"--ctx-size {length}" in done.out
    assert command(*said, "vllm").refused("which vllm does not serve")


@pytest.mark.parametrize("method", ["yarn", "ntk-by-parts", "ntk"])
@pytest.mark.parametrize("stretched", [False, True])
def test_stock_transformers_follows_its_line(
    method: str, stretched: bool, command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source, length = tiny_checkpoint, 256
    if stretched:
        source = tmp_path / "out"
        assert command("extend", tiny_checkpoint, "--method", "yarn", "--length", 128, "--out", source).code == 0
    done = command("extend", source, "--method", method, "--length", length, "--flags", "transformers", "--json")
    assert done.code == 0, done.err
    given = {key: ast.literal_eval(value) for key, _, value in (a.partition("=") for a in json.loads(done.out)["arguments"])}
    model = AutoModelForCausalLM.from_pretrained(source, **given)
    plan = ropewalk.plan(source, method, length=length)
    assert ropewalk.read_back(model).difference(plan) < 1e-6
    assert model.config.max_position_embeddings == length


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_the_smallest_sufficient_factor(command: Command, make: Make) -> None:
    folder = make(llama())
    arguments = ("extend", folder, "--method", "yarn", "--length", 3 * LENGTH)
    rows = json.loads(command(*arguments, "--profiles", "4,1,2,8", "--json").out)["profiles"]
    assert [(row["factor"], row["shortest_request"], row["longest_request"]) for row in rows] == [
        (1.0, 1, LENGTH), (2.0, LENGTH + 1, 2 * LENGTH), (4.0, 2 * LENGTH + 1, 4 * LENGTH),
    ]  # fmt: skip
    text = command(*arguments, "--profiles", "1,2,4").out
    assert f"8193 to {2 * LENGTH}" in text
    assert "give --text" in text


@pytest.mark.parametrize("factors", ["", "0.5", "a,b", "nan", "inf", "1,,2"])
def test_factors_that_cannot_be_meant(factors: str, command: Command, make: Make) -> None:
    done = command("extend", make(llama()), "--method", "yarn", "--length", 4 * LENGTH, f"--profiles={factors}")
    assert done.refused("profiles are")


def test_profiles_that_do_not_reach(command: Command, make: Make) -> None:
    done = command("extend", make(llama()), "--method", "yarn", "--length", 4 * LENGTH, "--profiles", "1,2")
    assert done.refused("the largest profile reads 16384 tokens of 32768", "add a factor of 4")


def test_text_without_profiles(command: Command, make: Make, long_text: Path) -> None:
    done = command("extend", make(llama()), "--method", "yarn", "--length", 4 * LENGTH, "--text", long_text)
    assert done.refused("--profiles")


def test_what_each_profile_costs(command: Command, tiny_checkpoint: Path, long_text: Path, tmp_path: Path) -> None:
    arguments = ("extend", tiny_checkpoint, "--method", "yarn", "--length", 256, "--profiles", "1,2,4", "--text", long_text)
    done = command(*arguments, "--json")
    assert done.code == 0, done.err
    one, two, four = json.loads(done.out)["profiles"]
    assert one["price_nll"] == 0.0
    assert two["price_nll"] != four["price_nll"]
    kept = command(*arguments, "--out", tmp_path / "run")
    assert kept.code == 0, kept.err
    assert f"{four['price_nll']:+.4f}" in kept.out
    assert (tmp_path / "run" / "card.json").is_file()


def test_the_table_stands_under_its_heading_and_says_why_it_fails(make: Make, command: Command) -> None:
    folder = make(llama(max_position_embeddings=float(LENGTH)))
    said = command("verify", str(folder), "--engines", "vllm")
    heading, row = said.out.splitlines()[1:3]
    assert heading.index("verdict") == row.index("exact")
    assert said.code == 1
    assert said.out.splitlines()[-1] == "exact in vllm; fails for 1 finding that is an error"


def test_a_family_that_is_not_known_fails_with_the_reason_in_the_last_line(make: Make, command: Command) -> None:
    said = command("verify", str(make({"model_type": "foonet"})))
    assert said.code == 1
    assert said.out.splitlines()[-1].endswith(
        "not judged in transformers, vllm, sglang, llama.cpp; fails for 1 finding that is an error"
    )


def test_extend_refuses_what_stock_transformers_does_not_load_and_names_the_mend(make: Make, command: Command) -> None:
    folder = make(llama(max_position_embeddings=float(LENGTH)))
    assert command("extend", str(folder), "--method", "yarn", "--length", str(LENGTH * 64), "--dry-run").refused(
        "verify", "--fix"
    )


def test_options_of_the_stretch_that_is_on_are_not_dropped_unsaid(make: Make, command: Command) -> None:
    folder = make(
        llama(
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": LENGTH, "beta_fast": 16.0}
        )
    )
    typed = ("extend", str(folder), "--method", "yarn", "--length", str(LENGTH * 8), "--lineage", "runtime", "--dry-run")
    said = command(*typed)
    assert said.code == 0
    assert "say yarn:beta_fast=16 to keep it" in said.out + said.err
