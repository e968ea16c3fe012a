"""The names that other people's scripts may rely on."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

import ropewalk

CONTRACT = (
    "methods", "geometry", "plan", "convert", "extend", "load", "apply", "read_back", "measure", "compare", "report", "tune",
    "verify",
)  # fmt: skip
"""The functions of the contract that exist by now; `budget` comes with its issue."""
VERBS = ("prepare",)
"""What is there beside the contract: the verb `data`."""
CLASSES = ("Frequencies", "Geometry", "Plan", "RopewalkError")


def test_the_public_names_are_those_of_the_contract() -> None:
    assert sorted(ropewalk.__all__) == sorted([*CONTRACT, *VERBS, *CLASSES])


@pytest.mark.parametrize("name", [*CONTRACT, *VERBS])
def test_a_public_function_is_callable_and_says_what_it_does(name: str) -> None:
    function = getattr(ropewalk, name)
    assert callable(function)
    assert function.__doc__
    assert not isinstance(function, type)


def modules() -> list[str]:
    """Every module of the package but the probes, which are programs for an engine's own environment."""
    return [m.name for m in pkgutil.walk_packages(ropewalk.__path__, "ropewalk.") if not m.name.endswith("_probe")]


def test_verbs_win_over_rooms_of_the_same_name() -> None:
    for name in modules():
        importlib.import_module(name)
    for name in ("methods", "measure", "report"):
        assert callable(getattr(ropewalk, name)), name
        assert f"ropewalk.{name}" in sys.modules
    assert (
        importlib.import_module("ropewalk.data.rows").make_row is ropewalk.data.rows.make_row
    )  # users reach into this room
    from ropewalk.methods.yarn import Yarn

    assert ropewalk.methods()["yarn"] is Yarn


def test_every_module_says_what_it_is_for() -> None:
    for name in modules():
        assert importlib.import_module(name).__doc__, name


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert ropewalk.__version__ == version("ropewalk")


def test_the_package_is_typed() -> None:
    assert (Path(ropewalk.__file__).parent / "py.typed").is_file()


def test_the_examples_of_the_contract(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plan = ropewalk.plan(tiny_checkpoint, "yarn", length=256)
    assert plan == ropewalk.plan(ropewalk.geometry(tiny_checkpoint), "yarn:ramp=index", length="256")
    assert plan.frequencies.inv_freq.shape == (8,)
    assert plan.frequencies.attention_factor > 1.0
    assert (plan.kind, list(plan.groups), plan.factor) == ("static", ["all"], 4.0)
    assert ropewalk.Plan.from_dict(plan.to_dict()) == plan
    ropewalk.extend(tiny_checkpoint, "yarn", length=256, out=tmp_path / "out")
    model, tokenizer = ropewalk.load(tmp_path / "out", dtype="float32", device="cpu")
    assert ropewalk.read_back(model).difference(plan) < 1e-6
    stock, _ = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    with ropewalk.apply(stock, plan):
        assert ropewalk.read_back(stock).difference(plan) < 1e-6
    assert ropewalk.read_back(stock).frequencies.attention_factor == 1.0
    assert tokenizer("a")["input_ids"]


def test_a_plan_of_a_config_in_memory_is_that_of_its_folder(tiny_checkpoint: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny_checkpoint)
    planned = ropewalk.plan(tiny_checkpoint, "pi", length=128)
    assert ropewalk.plan(config, "pi", length=128) == planned
    assert ropewalk.plan(config.to_dict(), "pi", length=128) == planned


def test_a_hub_id_is_fetched_with_weights_only_where_weights_are_needed(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.hosts.folder import hub

    asked = []

    def fetch(name: str, *, weights: bool, revision: str | None) -> Path:
        asked.append((name, weights))
        return tiny_checkpoint

    monkeypatch.setattr(hub, "fetch", fetch)
    ropewalk.geometry("someone/tiny")
    assert asked == [("someone/tiny", False)]
    ropewalk.extend("someone/tiny", "yarn", length=256, out=tmp_path / "out")
    assert asked[-1] == ("someone/tiny", True)
    ropewalk.load("someone/tiny", device="cpu")
    assert asked[-1] == ("someone/tiny", True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
