"""extend, as a shell sees it: what an error in the source refuses, what is told, what is frozen, what is raised."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Command, Result
from engines.configs import LENGTH, YARN, llama, yarn
from hosts.small_folders import make_folder_in

import ropewalk
from ropewalk.core.errors import HostError, SourceError

Make = Callable[..., Path]
ORIGINAL = "original_max_position_embeddings"
NO_ORIGINAL = llama(rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e5})
NO_BASE = llama(rope_parameters={"rope_type": "yarn", "factor": 4.0, ORIGINAL: LENGTH}, max_position_embeddings=4 * LENGTH)
ABOVE = yarn() | {"max_position_embeddings": LENGTH // 2}
CONTRADICTING = llama(rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters=YARN)
TRUNCATE: dict[str, Any] = {
    "model_type": "olmo3",
    "rope_parameters": {
        "full_attention": {**YARN, "truncate": False},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    "max_position_embeddings": 4 * LENGTH,
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a folder with a config and what else is said."""

    def made(config: dict[str, Any], name: str = "model", **files: Any) -> Path:
        return make_folder_in(tmp_path, name, **{"config.json": config, **files})

    return made


def extend(command: Command, folder: Path, method: str = "yarn", *more: object) -> Result:
    out = folder.parent / "out"
    return command("extend", folder, "--method", method, "--length", 8 * LENGTH, "--out", out, *more)


MENDED, LEFT = "--fix --out NEW makes a copy with that done", "its --fix leaves it"


@pytest.mark.parametrize(
    ("config", "lineage", "words"),
    [
        (NO_ORIGINAL, "runtime", [f"without {ORIGINAL}", "add the length", LEFT]),
        (NO_BASE, "runtime", ["the base is written nowhere", LEFT]),
        (NO_BASE, "trained", ["the base is written nowhere", LEFT]),
        (ABOVE, "runtime", ["lies above max_position_embeddings", MENDED]),
        (CONTRADICTING, "runtime", ["config.json contradicts itself", "differ in rope_type", MENDED]),
        (TRUNCATE, "trained", ["truncate is false for one layer type", MENDED]),
    ],
)
@pytest.mark.parametrize("verb", [["--out", "out"], ["--dry-run"], ["--flags", "vllm"]], ids=lambda verb: verb[0])
def test_an_error_that_would_be_carried_on_refuses(
    config: dict[str, Any], lineage: str, words: list[str], verb: list[str], command: Command, make: Make, tmp_path: Path
) -> None:
    folder = make(config)
    said = ("extend", folder, "--method", "yarn", "--length", 8 * LENGTH, "--lineage", lineage)
    assert command(*said, *[tmp_path / "out" if word == "out" else word for word in verb]).refused(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_way_out_that_is_named_is_one(command: Command, make: Make, tmp_path: Path) -> None:
    folder = make(TRUNCATE)
    with pytest.raises(SourceError, match="verify SOURCE --fix"):
        ropewalk.extend(folder, "yarn", length=8 * LENGTH, out=tmp_path / "out")
    assert command("verify", folder, "--engines", "transformers", "--fix", "--out", tmp_path / "mended").code == 0
    assert extend(command, tmp_path / "mended").code == 0


def test_an_error_that_ends_with_the_extension_is_told(command: Command, make: Make) -> None:
    folder = make(llama(rope_scaling={"type": "dynamic", "factor": 2.0}))
    done = extend(command, folder)
    assert done.code == 0, done.err
    assert "error: source: rope_parameters.rope_type: dynamic scaling is another computation" in done.err
    found = json.loads(extend(command, folder, "ntk", "--force", "--json").out)["findings"]
    assert [(f["field"], f["severity"]) for f in found if f["severity"] != "note"] == [
        ("source: rope_parameters.rope_type", "error")
    ]


def test_a_missing_head_dim_is_told_and_written(command: Command, make: Make) -> None:
    folder = make(llama(model_type="mixtral", rope_scaling={"type": "dynamic", "factor": 2.0}, head_dim=None))
    done = extend(command, folder)
    assert done.code == 0, done.err
    assert "error: source: head_dim: transformers cannot build" in done.err
    assert json.loads((folder.parent / "out" / "config.json").read_text())["head_dim"] == 64


@pytest.mark.parametrize("lineage", ["runtime", "trained"])
def test_a_block_that_the_numbers_contradict_refuses(lineage: str, command: Command, make: Make, tmp_path: Path) -> None:
    ropewalk.extend(make(llama()), "yarn", length=2 * LENGTH, out=tmp_path / "long")
    config = json.loads((tmp_path / "long" / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 2
    assert extend(command, make(config, "changed"), "yarn", "--lineage", lineage).refused("restore rope_parameters", LEFT)


def test_truncate_in_the_wrong_place_is_told_where_the_plan_departs_from_the_origin(command: Command, make: Make) -> None:
    done = extend(command, make(TRUNCATE), "yarn", "--lineage", "runtime")
    assert done.code == 0, done.err
    assert "truncate is false for one layer type" in done.err


@pytest.mark.parametrize("verb", [["--dry-run"], ["--flags", "vllm"]], ids=lambda verb: verb[0])
def test_a_warning_is_told_where_nothing_is_written(verb: list[str], command: Command, make: Make) -> None:
    lost = llama(max_position_embeddings=4 * LENGTH)
    del lost["rope_theta"]
    done = command("extend", make(lost), "--method", "yarn", "--length", 8 * LENGTH, *verb)
    assert done.code == 0, done.err
    assert "warning: rope_theta: the base is written nowhere" in done.err


def test_a_clean_source_has_nothing_told(command: Command, make: Make) -> None:
    done = extend(command, make(llama()), "yarn", "--json")
    assert (done.code, done.err) == (0, "")


# --- dynamic plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["--out", "out"], ["--flags", "vllm"]], ids=lambda verb: verb[0])
def test_a_dynamic_plan_is_refused_with_an_option_that_the_user_has(
    verb: list[str], command: Command, make: Make, tmp_path: Path
) -> None:
    said = ("extend", make(llama()), "--method", "dynamic:ntk", "--length", 4 * LENGTH)
    verb = [str(tmp_path / "out") if word == "out" else word for word in verb]
    assert command(*said, *verb).refused("say --freeze", f"{4 * LENGTH} tokens")
    done = command(*said, *verb, "--freeze")
    assert done.code == 0, done.err


def test_a_frozen_plan_is_the_numbers_at_its_length(make: Make, tmp_path: Path) -> None:
    folder = make(llama())
    with pytest.raises(HostError, match="freeze=True"):
        ropewalk.extend(folder, "dynamic:ntk", length=4 * LENGTH, out=tmp_path / "out")
    ropewalk.extend(folder, "dynamic:ntk", length=4 * LENGTH, out=tmp_path / "out", freeze=True)
    plan = ropewalk.plan(folder, "ntk", length=4 * LENGTH)
    written = ropewalk.geometry(tmp_path / "out").groups[0]
    assert written.inv_freq == pytest.approx(plan.frequencies.inv_freq, rel=1e-6)
    assert ropewalk.verify(tmp_path / "out", "transformers").verdicts[0].status == "exact"


# --- beside the config ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(LENGTH, 8 * LENGTH), (20, 20), (16 * LENGTH, 16 * LENGTH), (None, None)])
def test_the_longest_generation(before: int | None, after: int | None, command: Command, make: Make) -> None:
    content = {"do_sample": True} | ({} if before is None else {"max_length": before})
    folder = make(llama(), **{"generation_config.json": content})
    done = extend(command, folder)
    assert done.code == 0
    written = json.loads((folder.parent / "out" / "generation_config.json").read_text())
    assert written == content | ({} if after is None else {"max_length": after})
    assert ("max_length of generation_config.json" in done.err) == (before != after)


# --- launch lines -----------------------------------------------------------------------------------------------------


def test_keywords_are_printed_as_python(command: Command, make: Make) -> None:
    folder = make(llama())
    done = command("extend", folder, "--method", "yarn", "--length", 4 * LENGTH, "--flags", "transformers")
    call = ast.parse(f"f({done.out.strip()})", mode="eval").body
    assert isinstance(call, ast.Call)
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert given["rope_parameters"]["factor"] == 4.0
    assert given["max_position_embeddings"] == 4 * LENGTH
    assert "Python" in done.err


def test_a_plan_that_cannot_be_said_is_refused_alike_as_a_line_and_as_a_file(command: Command, tmp_path: Path) -> None:
    from hosts.gguf_files import tiny, write_gguf

    write_gguf(tiny("qwen2"), tmp_path / "model.gguf", "qwen2", tokenizer=True)
    length = ropewalk.geometry(tmp_path / "model.gguf").trained_length * 4
    said = ("extend", tmp_path / "model.gguf", "--method", "llama3", "--length", length)
    assert command(*said, "--flags", "llama.cpp").refused("llama.cpp")
    assert command(*said, "--out", tmp_path / "out.gguf").refused("llama.cpp")
