"""`verify --execute` as a shell sees it.

Most tests put made-up answers in the place of an engine's, since what is tested is what the verb makes of them; the last one
runs transformers in processes of its own, as the oldest release would be.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Command, snapshot

import ropewalk
from ropewalk.core.errors import HostError, MachineError
from ropewalk.hosts.executed import bench, execution
from ropewalk.hosts.executed.child import Answer, Probe

LENGTH = 256
EXACT, WRONG = 0.501, 0.6
LATE, REFUSED = 2.0, 3.0
"""Chances that mean: no answer in time, and an engine that does not run the checkpoint."""


@pytest.fixture
def stretched(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    ropewalk.extend(tiny_checkpoint, "yarn", length=LENGTH, out=tmp_path / "yarn")
    return tmp_path / "yarn"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Engines that are there, each with the chance of token 0 that it answers for the checkpoint; the control is 0.901."""

    def put(**chances: float) -> None:
        here = {"transformers": 0.5, **{name.replace("_", "-"): chance for name, chance in chances.items()}}

        def answer(engine: str, asked: Probe, **_: object) -> Answer:
            chance = 0.901 if asked.checkpoint.stem == "control" else here[engine]
            if chance == LATE:
                raise MachineError(f"{engine} did not answer within 1 s; give a longer limit")
            if chance == REFUSED:
                raise HostError(f"{engine} cannot run it: an int")
            rows = np.log(np.array([[chance, 1 - chance]] * len(asked.positions), dtype=np.float32))
            return Answer(engine=engine, version="1.0", log_probabilities=rows, generated=(), seconds={})

        monkeypatch.setattr(bench, "probe", answer)
        monkeypatch.setattr(execution, "python_of", lambda engine: Path("python") if engine in here else None)

    return put


def test_one_verdict_for_each_engine_executed_where_it_could_be(
    command: Command, stretched: Path, installed: Callable[..., None]
) -> None:
    installed(vllm=EXACT)
    done = command("verify", stretched, "--execute", "--json")
    assert (done.code, done.err) == (0, "")
    verdicts = {one["engine"]: one for one in json.loads(done.out)["verdicts"]}
    assert {name: (one["status"], one["how"]) for name, one in verdicts.items()} == {
        "transformers": ("exact", "read"), "vllm": ("exact", "executed"),
        "sglang": ("exact", "read"), "llama.cpp": ("exact", "read"),
    }  # fmt: skip
    vllm = verdicts["vllm"]
    assert (vllm["version"], vllm["max_relative_error"]) == ("1.0, bfloat16, against transformers 1.0", 0.0)
    assert 0 < vllm["kl_nats"]["checkpoint"] < 1e-5 < vllm["kl_nats"]["swapped"]
    assert vllm["read"]["status"] == "exact"
    assert "not executed: ropewalk has no probe for it" in verdicts["sglang"]["reason"]
    assert "transformers-oldest is not installed here" in verdicts["transformers"]["reason"]
    words = command("verify", stretched, "--execute").out
    assert "executed 1.0, bfloat16, against transformers 1.0" in words
    assert words.endswith("exact in transformers, vllm, sglang, llama.cpp\n")


@pytest.mark.parametrize(("chance", "status"), [(WRONG, "differs"), (REFUSED, "refuses")])
def test_an_engine_that_was_caught_is_exit_code_1(
    chance: float, status: str, command: Command, stretched: Path, installed: Callable[..., None]
) -> None:
    installed(vllm=chance)
    assert command("verify", stretched, "--engines", "vllm").code == 0
    done = command("verify", stretched, "--engines", "vllm", "--execute", "--json")
    (verdict,) = json.loads(done.out)["verdicts"]
    assert (done.code, verdict["status"], verdict["how"]) == (1, status, "executed")
    assert verdict["read"]["status"] == "exact"


def test_the_reference_is_the_users_and_not_what_transformers_makes_of_a_broken_checkpoint(
    command: Command, tiny_checkpoint: Path, stretched: Path, installed: Callable[..., None]
) -> None:
    installed(vllm=EXACT)
    done = command("verify", stretched, "--execute", "--engines", "vllm", "--against", tiny_checkpoint, "--json")
    (verdict,) = json.loads(done.out)["verdicts"]
    assert (done.code, verdict["status"], verdict["how"]) == (1, "differs", "executed")
    assert verdict["reason"].startswith("it computes what transformers computes, and that differs from the reference")


def test_what_is_missing_is_exit_code_3_with_the_commands_that_install_it(
    command: Command, stretched: Path, installed: Callable[..., None]
) -> None:
    installed()
    before = snapshot(stretched.parent)
    for line in (["--engines", "vllm"], []):
        done = command("verify", stretched, "--execute", *line)
        assert (done.code, done.out) == (3, "")
        (sentence,) = done.err.splitlines()
        assert sentence.startswith("ropewalk: vllm is not installed here: this Python does not import vllm")
        assert "pip install vllm" in sentence
    installed(vllm=LATE)
    done = command("verify", stretched, "--execute", "--engines", "vllm", "--limit-seconds", "1", "--json")
    assert (done.code, done.out) == (3, "")
    assert "did not answer within 1 s" in done.err
    assert snapshot(stretched.parent) == before


def test_bad_input_is_one_sentence(
    command: Command, stretched: Path, tmp_path: Path, installed: Callable[..., None]
) -> None:
    installed(vllm=EXACT)
    assert command("verify", stretched, "--execute", "--engines", "sglang").refused("ropewalk has no probe for it")
    assert command("verify", stretched, "--limit-seconds", "5").refused("--limit-seconds is for --execute")
    for bad in ("0", "-1", "nan", "inf"):
        assert command("verify", stretched, "--execute", "--limit-seconds", bad).refused("--limit-seconds is", "more than 0")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((stretched / "config.json").read_text())
    assert command("verify", bare, "--execute").refused("weights")


def test_a_mended_copy_is_what_is_executed(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, installed: Callable[..., None]
) -> None:
    installed(vllm=EXACT)
    broken = tmp_path / "pi"
    ropewalk.extend(tiny_checkpoint, "pi", length=LENGTH, out=broken)
    config = json.loads((broken / "config.json").read_text())
    # A number without a point, on which vLLM stops.
    base, factor = config["rope_parameters"]["rope_theta"], int(config["rope_parameters"]["factor"])
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": base, "factor": factor}
    config["max_position_embeddings"] = LENGTH // factor
    (broken / "config.json").write_text(json.dumps(config))
    assert command("verify", broken, "--engines", "vllm").code == 1
    line = ("verify", broken, "--engines", "vllm", "--fix", "--out", tmp_path / "out", "--execute", "--json")
    done = command(*line)
    (verdict,) = json.loads(done.out)["verdicts"]
    assert (done.code, verdict["how"], verdict["status"]) == (0, "executed", "exact")
    assert (tmp_path / "out" / "config.json").is_file()


def test_python_takes_the_same(stretched: Path, installed: Callable[..., None]) -> None:
    installed(vllm=EXACT)
    found = ropewalk.verify(stretched, engines="vllm", execute=True, limit_seconds=60)
    assert found.passed
    assert found.verdicts[0].how == "executed"


@pytest.mark.slow
def test_transformers_in_processes_of_its_own(
    command: Command, stretched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "engines" / "transformers-oldest" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("ROPEWALK_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    done = command("verify", stretched, "--execute", "--engines", "transformers", "--json")
    (verdict,) = json.loads(done.out)["verdicts"]
    assert (done.code, done.err, verdict["how"]) == (0, "", "executed"), done.out
    assert verdict["kl_nats"]["checkpoint"] < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "yarn"]
