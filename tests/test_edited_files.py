"""A block, a plan file or a rope field that somebody edited: a sentence, or a finding with full JSON; never a traceback."""

import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.core.method import find
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.spelling import spell

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 128, "max_position_embeddings": 2048, "rope_theta": 1e4,
}  # fmt: skip
LISTS = "|".join(["1"] * 8), "|".join(["2"] * 8)
METHODS = ("yarn", "ntk", "abf", f"longrope:short_factor={LISTS[0]},long_factor={LISTS[1]}")
PLANS = [find(method).plan(read(LLAMA), 8192) for method in METHODS]
CONFIGS = [spell(LLAMA, plan) for plan in PLANS]
DOCUMENTS = [plan.to_dict() for plan in (*PLANS, find("dynamic:yarn").plan(read(LLAMA), 8192))]
WRONG: list[Any] = [
    None, True, 0, -1, 2, 3.5, 1e30, float("nan"), float("inf"), 10**25, 10**400, "", "x", "8.0", [], [None], [[1], [2, 3]],
    ["a"], {}, "dynamic", 1e-320, 2**31, {"all": None}, {"all": {"frequencies": 5}}, [1.0] * 8, ["1.0"] * 8, [10**400] * 8,
]  # fmt: skip


def folder(path: Path, config: Any) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def change(content: Any, keys: str, value: Any) -> Any:
    """A copy with another value at the end of a path such as `origin.length`."""
    new = copy.deepcopy(content)
    place = new
    *before, last = keys.split(".")
    for key in before:
        place = place[key]
    place[last] = value
    return new


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("groups.all.frequencies.logit_scale", "dynamic"),
        ("groups.all.frequencies.inv_freq", "word"),
        ("groups.all.frequencies.inv_freq", ["a"] * 8),
        ("origin.length", -1),
        ("origin.groups.all.base", 0),
        ("length", 1e30),
        ("factor", 10**400),
        ("steps", "word"),
        ("options", [1]),
    ],
)
def test_an_edited_block_is_named(command: Command, tmp_path: Path, keys: str, value: Any) -> None:
    path = str(folder(tmp_path / "edited", change(CONFIGS[0], f"ropewalk.{keys}", value)))
    assert command("inspect", path).refused("'ropewalk' block of config.json is damaged", "remove it or write")
    assert command("extend", path, "--method", "yarn", "--length", "64k", "--dry-run").refused("is damaged")
    said = command("verify", path, "--json")
    assert said.code == 1
    (error,) = [finding for finding in json.loads(said.out)["findings"] if finding["severity"] == "error"]
    assert "is damaged" in error["problem"]


def test_a_plan_with_a_word_among_its_numbers_is_no_plan(command: Command, tmp_path: Path) -> None:
    path = folder(tmp_path / "plain", LLAMA)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(change(DOCUMENTS[0], "groups.all.frequencies.inv_freq", [1.0] * 7 + ["a"])))
    assert command("verify", str(path), "--against", str(plan)).refused("plan.json is no plan", "inv_freq must be a vector")


def test_a_factor_that_nothing_can_be_divided_by(command: Command, tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 1e-320, "original_max_position_embeddings": 512}
    path = str(folder(tmp_path / "tiny", LLAMA | {"rope_parameters": yarn}))
    assert command("inspect", path, "--json").refused("rope_parameters has factor = 1e-320")
    yarn["factor"] = 1e-9
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(LLAMA | {"rope_parameters": yarn}))
    assert command("inspect", path).refused("yarn with factor = 1e-09 would read 0 tokens")


def test_a_text_part_that_is_no_object(command: Command, tmp_path: Path) -> None:
    gemma = {"model_type": "gemma3", "text_config": "text"}
    path = str(folder(tmp_path / "gemma", gemma))
    assert command("extend", path, "--method", "yarn", "--length", "1m", "--dry-run").refused("text_config = 'text'")
    assert command("verify", path).code == 1
    (tmp_path / "gemma" / "config.json").write_text(json.dumps(gemma | {"text_config": None}))
    assert command("extend", path, "--method", "yarn", "--length", "1m", "--out", str(tmp_path / "out")).code == 0


def _paths(content: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path for key, value in items for path in [(*before, key), *_paths(value, (*before, key))]]


@st.composite
def edited(draw: st.DrawFn, contents: list[Any], inside: str = "") -> Any:
    """One of `contents` with one to three values replaced or taken out."""
    new = copy.deepcopy(draw(st.sampled_from(contents)))
    part = new[inside] if inside else new
    for _ in range(draw(st.integers(1, 3))):
        paths = _paths(part)
        if not paths:
            break
        *before, last = draw(st.sampled_from(paths))
        place = part
        for key in before:
            place = place[key]
        if draw(st.integers(0, 6)) == 0:
            del place[last]
        else:
            place[last] = copy.deepcopy(draw(st.sampled_from(WRONG)))
    return new


def _says_something(command: Callable[..., Any], *typed: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        said = command(*typed)
    assert said.code in ((0, 1, 2) if typed[0] == "verify" else (0, 2))
    if said.code == 2:
        assert said.refused()
    else:
        json.loads(said.out, parse_constant=pytest.fail)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=edited(CONFIGS, "ropewalk"), plan=edited(DOCUMENTS))
def test_whatever_is_edited_something_is_said(command: Command, config: Any, plan: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        path, plain = str(folder(here / "edited", config)), str(folder(here / "plain", LLAMA))
        (here / "plan.json").write_text(json.dumps(plan))
        _says_something(command, "inspect", path, "--json")
        _says_something(command, "verify", path, "--json")
        _says_something(command, "extend", path, "--method", "pi", "--length", "64k", "--dry-run", "--json")
        _says_something(
            command, "verify", plain, "--against", str(here / "plan.json"), "--json", "--engines", "transformers"
        )
