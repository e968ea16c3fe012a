"""What `verify --execute` makes of an engine's answers, without an engine."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import snapshot
from hosts.gguf_files import tiny, write_gguf

import ropewalk
from ropewalk.core.errors import HostError, InputError, MachineError, UnsupportedError
from ropewalk.core.progress import Progress
from ropewalk.hosts.executed import bench, execution, python_of
from ropewalk.hosts.executed.bench import control_of, drawn_ids, positions_of
from ropewalk.hosts.executed.child import Answer, Probe
from ropewalk.hosts.executed.execution import execute, judge

LENGTH = 256
LATE = 2.0
"""A chance that means: no answer within the limit."""


@pytest.fixture
def stretched(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    ropewalk.extend(tiny_checkpoint, "yarn", length=LENGTH, out=tmp_path / "yarn")
    return tmp_path / "yarn"


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch):
    """Engines that answer what a table says: (engine, whether it is the control) to a log-probability of token 0."""

    def put(table: dict[tuple[str, bool], float]) -> None:
        def answer(engine: str, asked: Probe, **_: object) -> Answer:
            chance = table[(engine, asked.checkpoint.stem == "control")]
            if np.isnan(chance):
                raise HostError(f"{engine} cannot run {asked.checkpoint.name}: no kernel")
            if chance == LATE:
                raise MachineError(f"{engine} did not answer within 1 s")
            rows = np.log(np.array([[chance, 1 - chance]] * len(asked.positions), dtype=np.float32))
            return Answer(engine=engine, version="1.0", log_probabilities=rows, generated=(), seconds={})

        here = {engine for engine, _ in table}
        monkeypatch.setattr(bench, "probe", answer)
        monkeypatch.setattr(execution, "python_of", lambda engine: Path("python") if engine in here else None)

    return put


REFERENCE = {("transformers", False): 0.5, ("transformers", True): 0.9}


def test_an_engine_as_near_as_its_control_is_exact(stretched, engines):
    engines({**REFERENCE, ("vllm", False): 0.501, ("vllm", True): 0.901})
    (found,) = execute(stretched, ["vllm"])
    assert (found.engine, found.status, found.how, found.mend) == ("vllm", "exact", "executed", "")
    assert found.version == "1.0, bfloat16, against transformers 1.0"
    assert "mean KL to transformers 2.0e-06 nats" in found.reason
    assert "16 positions of 256 tokens" in found.reason
    assert found.kl_nats.checkpoint == pytest.approx(0.5 * np.log(0.5 / 0.501) + 0.5 * np.log(0.5 / 0.499), rel=1e-3)
    assert found.kl_nats.swapped > 0.5
    assert (found.kl_nats.num_positions, found.kl_nats.num_tokens) == (16, LENGTH)
    assert list(stretched.parent.iterdir()) == [stretched]


def test_what_a_killed_run_left_is_swept_and_a_living_one_is_not(stretched, engines):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = (stretched.parent / f".ropewalk-executed-{pid}-abc" for pid in (ended.pid, os.getppid()))
    for place in (dead, living):
        (place / "control").mkdir(parents=True)
    engines({**REFERENCE, ("vllm", False): 0.501, ("vllm", True): 0.901})
    execute(stretched, ["vllm"])
    assert sorted(stretched.parent.iterdir()) == sorted([living, stretched])


def test_an_engine_further_off_than_twice_its_control_differs(stretched, engines):
    engines({**REFERENCE, ("vllm", False): 0.6, ("vllm", True): 0.901})
    (found,) = execute(stretched, ["vllm"])
    assert found.status == "differs"
    assert "more than 2 times the control" in found.reason


def test_an_engine_that_refuses_is_told_in_its_own_words(stretched, engines):
    engines({**REFERENCE, ("vllm", False): float("nan"), ("vllm", True): 0.9})
    (found,) = execute(stretched, ["vllm"])
    assert (found.status, found.reason) == ("refuses", "vllm cannot run yarn: no kernel")


@pytest.mark.parametrize("checkpoint", [0.5, float("nan")])
def test_an_engine_that_cannot_run_the_control_either_says_nothing_of_the_checkpoint(stretched, engines, checkpoint):
    engines({**REFERENCE, ("vllm", False): checkpoint, ("vllm", True): float("nan")})
    (found,) = execute(stretched, ["vllm"])
    assert found.status == "unsupported"
    assert found.reason.startswith("executed without a verdict: it runs")


def test_probes_that_cannot_tell_prove_nothing(stretched, engines):
    engines({("transformers", False): 0.5, ("transformers", True): 0.5, ("vllm", False): 0.501, ("vllm", True): 0.501})
    (found,) = execute(stretched, ["vllm"])
    assert found.status == "unsupported"
    assert "the probes cannot tell the checkpoint from its control" in found.reason


def test_what_is_not_here_is_said_for_each_engine(stretched, engines):
    engines({**REFERENCE, ("transformers-oldest", False): 0.5, ("transformers-oldest", True): 0.9})
    found = {one.engine: one for one in execute(stretched)}
    assert {name: one.status for name, one in found.items()} == {
        "transformers": "exact", "vllm": "unsupported", "sglang": "unsupported", "llama.cpp": "unsupported"
    }  # fmt: skip
    assert found["vllm"].reason.startswith("not executed: vllm is not installed here: this Python does not import vllm")
    assert found["sglang"].reason == "not executed: ropewalk has no probe for it"
    assert found["llama.cpp"].reason == "not executed: it reads GGUF files, and this is a folder"


def test_a_named_engine_that_is_not_here_is_the_machine_s_fault(stretched, engines):
    engines(REFERENCE)
    with pytest.raises(MachineError, match=r"vllm is not installed here: .*pip install vllm"):
        execute(stretched, ["vllm"])
    with pytest.raises(MachineError, match=r"vllm is not installed here"):
        execute(stretched)
    with pytest.raises(MachineError, match=r"transformers-oldest is not installed here"):
        execute(stretched, ["transformers"])
    engines({("vllm", False): 0.5})
    with pytest.raises(MachineError, match=r"^transformers is not installed here"):
        execute(stretched, ["vllm"])


@pytest.mark.parametrize(
    ("engine", "why"),
    [("sglang", "ropewalk has no probe for it"), ("llama.cpp", "it reads GGUF files, and this is a folder")],
)
def test_a_named_engine_that_cannot_be_executed_is_the_users_mistake(stretched, engines, engine, why):
    engines(REFERENCE)
    with pytest.raises(InputError, match=f"{engine} cannot be executed on this source: {why}; leave it out"):
        execute(stretched, [engine])


def test_the_time_limit_costs_one_engine_and_not_what_the_others_said(stretched, engines):
    oldest = {("transformers-oldest", False): 0.5, ("transformers-oldest", True): 0.9}
    engines({**REFERENCE, **oldest, ("vllm", False): LATE})
    found = {one.engine: one for one in execute(stretched)}
    assert found["transformers"].status == "exact"
    assert found["vllm"].reason == "not executed: vllm did not answer within 1 s"
    with pytest.raises(MachineError, match=r"vllm did not answer"):
        execute(stretched, ["transformers", "vllm"])
    engines({**REFERENCE, ("vllm", False): LATE})
    with pytest.raises(MachineError, match=r"vllm did not answer"):
        execute(stretched)


def test_the_limit_reaches_every_run_and_progress_names_it(stretched, engines, monkeypatch):
    engines({**REFERENCE, ("vllm", False): 0.501, ("vllm", True): 0.901})
    inner, limits, labels = bench.probe, [], []

    def watched(engine: str, asked: Probe, *, limit_seconds: float) -> Answer:
        limits.append(limit_seconds)
        labels.append(shown._label)
        return inner(engine, asked)

    monkeypatch.setattr(bench, "probe", watched)
    shown = Progress(io.StringIO())
    execute(stretched, ["vllm"], limit_seconds=7.0, progress=shown)
    assert limits == [7.0] * 4
    assert labels == [
        "vllm reads the checkpoint", "vllm reads the control",
        "transformers reads the checkpoint", "transformers reads the control",
    ]  # fmt: skip


def test_a_gguf_file_is_held_against_the_folder_that_convert_makes(engines, tmp_path, monkeypatch):
    write_gguf(tiny("llama"), tmp_path / "plain.gguf", "llama", tokenizer=True)
    ropewalk.extend(tmp_path / "plain.gguf", "yarn", length=8192, out=tmp_path / "long.gguf")
    before = snapshot(tmp_path)
    asked: dict[bool, list[tuple[object, ...]]] = {}
    engines({**REFERENCE, ("llama.cpp", False): 0.501, ("llama.cpp", True): 0.901})
    inner = bench.probe

    def watched(engine: str, probe: Probe, **limit: float) -> Answer:
        found = ropewalk.geometry(probe.checkpoint)
        asked.setdefault(probe.checkpoint.stem == "control", []).append(
            (probe.checkpoint.suffix, found.declared_length, tuple(found.groups[0].inv_freq.round(7)))
        )
        return inner(engine, probe, **limit)

    monkeypatch.setattr(bench, "probe", watched)
    (found,) = execute(tmp_path / "long.gguf", ["llama.cpp"], most_tokens=300)
    assert (found.engine, found.status, found.how) == ("llama.cpp", "exact", "executed")
    assert found.version == "1.0, weights as in the file, cache float32, against transformers 1.0"
    assert snapshot(tmp_path) == before
    for pair in asked.values():
        # The engine reads a file and transformers a folder, and both say the same positions.
        (suffix, *engine), (folder, *reference) = pair
        assert (suffix, folder) == (".gguf", "")
        assert engine == reference
    with pytest.raises(InputError, match=r"vllm cannot be executed on this source: it does not read GGUF files"):
        execute(tmp_path / "long.gguf", ["vllm"])


def test_a_config_without_weights_is_refused(stretched, tmp_path):
    (tmp_path / "config-only").mkdir()
    (tmp_path / "config-only" / "config.json").write_text((stretched / "config.json").read_text())
    with pytest.raises(ropewalk.RopewalkError, match=r"weights"):
        execute(tmp_path / "config-only", ["vllm"])


def test_an_adapter_is_refused(stretched, engines, monkeypatch):
    class Made:
        path, kind = Path("lora"), "adapter"

    engines({**REFERENCE, ("vllm", False): 0.5, ("vllm", True): 0.9})
    monkeypatch.setattr(execution.folder, "open_checkpoint", lambda *_, **__: Made())
    with pytest.raises(
        UnsupportedError,
        match=r"lora is no folder and no GGUF file \(adapter\), and engines are executed on checkpoints with weights",
    ):
        execute("lora", ["vllm"])


def test_the_control_has_another_base_and_nothing_else(stretched):
    geometry = ropewalk.geometry(stretched)
    word = control_of(geometry).frequencies
    assert word.attention_factor == word.logit_scale == 1.0
    assert word.inv_freq[0] == 1.0
    # NTK-aware: the slowest dimension is stretched by exactly the factor.
    plain = 10000.0 ** (-14 / 16)
    assert plain / word.inv_freq[-1] == pytest.approx(LENGTH / 64)


def test_positions_lie_on_both_sides_of_the_window():
    found = positions_of(64, 256)
    assert len(found) == 16
    assert sum(one < 64 for one in found) == sum(one > 64 for one in found) == 8
    assert found[-1] == 255
    assert positions_of(512, 256)[-1] == 255


def test_ids_are_drawn_once_repeated_and_the_same_every_time():
    ids = drawn_ids(1000, 3000)
    assert ids == drawn_ids(1000, 3000)
    assert ids[:1009] == ids[1009:2018]
    assert 0 <= min(ids) < max(ids) < 1000


@pytest.mark.parametrize(
    ("own", "control", "apart", "status"),
    [
        (1e-3, 1e-3, 1.0, "exact"),
        (1.9e-3, 1e-3, 1.0, "exact"),
        (2.1e-3, 1e-3, 1.0, "differs"),
        (0.0, 0.0, 1.0, "exact"),
        (1e-6, 0.0, 1.0, "exact"),
        (1e-4, 0.0, 1.0, "differs"),
        (1e-3, 1e-3, 4e-3, "unsupported"),
    ],
)
def test_the_rule(own, control, apart, status):
    assert judge(own, control, apart)[0] == status


@pytest.mark.engine
@pytest.mark.slow
def test_the_real_llama_cpp_on_a_real_gguf_file(tmp_path):
    if python_of("llama.cpp") is None:
        pytest.skip("llama.cpp is not set up here; make engines does it")
    # Weights large enough that what comes next hangs on positions, as it does in a trained model.
    write_gguf(tiny("llama", initializer_range=0.3), tmp_path / "plain.gguf", "llama", tokenizer=True)
    ropewalk.extend(tmp_path / "plain.gguf", "yarn", length=8192, out=tmp_path / "long.gguf")
    (found,) = execute(tmp_path / "long.gguf", ["llama.cpp"], most_tokens=4300)
    print(f"checkpoint {found.kl_nats.checkpoint:.1e}, control {found.kl_nats.control:.1e} nats")
    assert (found.status, found.how) == ("exact", "executed"), found.reason
    assert found.kl_nats.swapped > 100 * found.kl_nats.checkpoint
