"""What `verify --execute` makes of an engine's answers, without an engine."""

from pathlib import Path

import numpy as np
import pytest

import ropewalk
from ropewalk.core.errors import HostError, UnsupportedError
from ropewalk.hosts.executed import execution
from ropewalk.hosts.executed.child import Answer, Probe
from ropewalk.hosts.executed.execution import control_of, drawn_ids, execute, judge, positions_of

LENGTH = 256


@pytest.fixture
def stretched(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    ropewalk.extend(tiny_checkpoint, "yarn", length=LENGTH, out=tmp_path / "yarn")
    return tmp_path / "yarn"


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch):
    """Engines that answer what a table says: (engine, whether it is the control) to a log-probability of token 0."""

    def put(table: dict[tuple[str, bool], float]) -> None:
        def answer(engine: str, asked: Probe, **_: object) -> Answer:
            chance = table[(engine, asked.checkpoint.name == "control")]
            if np.isnan(chance):
                raise HostError(f"{engine} cannot run {asked.checkpoint.name}: no kernel")
            rows = np.log(np.array([[chance, 1 - chance]] * len(asked.positions), dtype=np.float32))
            return Answer(engine=engine, version="1.0", log_probabilities=rows, generated=(), seconds={})

        monkeypatch.setattr(execution, "probe", answer)
        monkeypatch.setattr(execution, "python_of", lambda _: Path("python"))

    return put


REFERENCE = {("transformers", False): 0.5, ("transformers", True): 0.9}


def test_an_engine_as_near_as_its_control_is_exact(stretched, engines):
    engines({**REFERENCE, ("vllm", False): 0.501, ("vllm", True): 0.901})
    (row,) = execute(stretched, ["vllm"])
    assert (row["engine"], row["status"], row["how"]) == ("vllm", "exact", "executed")
    assert row["version"] == "1.0, bfloat16, against transformers 1.0"
    assert "mean KL to transformers 2.0e-06 nats" in row["reason"]
    assert list(stretched.parent.iterdir()) == [stretched]


def test_an_engine_further_off_than_twice_its_control_differs(stretched, engines):
    engines({**REFERENCE, ("vllm", False): 0.6, ("vllm", True): 0.901})
    (row,) = execute(stretched, ["vllm"])
    assert row["status"] == "differs"
    assert "more than 2 times the control" in row["reason"]


def test_an_engine_that_refuses_is_told_in_its_own_words(stretched, engines):
    engines({**REFERENCE, ("vllm", False): float("nan"), ("vllm", True): 0.9})
    (row,) = execute(stretched, ["vllm"])
    assert (row["status"], row["reason"]) == ("refuses", "vllm cannot run yarn: no kernel")


def test_probes_that_cannot_tell_prove_nothing(stretched, engines):
    engines({("transformers", False): 0.5, ("transformers", True): 0.5, ("vllm", False): 0.501, ("vllm", True): 0.501})
    (row,) = execute(stretched, ["vllm"])
    assert row["status"] == "unsupported"
    assert "the probes cannot tell the checkpoint from its control" in row["reason"]


def test_what_is_not_here_is_said_for_each_engine(stretched, monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "python_of", lambda _: None)
    rows = {row["engine"]: row for row in execute(stretched)}
    assert {row["status"] for row in rows.values()} == {"unsupported"}
    assert rows["vllm"]["reason"] == "not executed: it is not installed here"
    assert rows["sglang"]["reason"] == "not executed: ropewalk has no probe for it"
    assert rows["llama.cpp"]["reason"] == "not executed: it reads GGUF files, not folders"


def test_a_config_without_weights_is_refused(stretched, tmp_path):
    (tmp_path / "config-only").mkdir()
    (tmp_path / "config-only" / "config.json").write_text((stretched / "config.json").read_text())
    with pytest.raises(ropewalk.RopewalkError, match=r"weights"):
        execute(tmp_path / "config-only", ["vllm"])


def test_an_adapter_or_a_gguf_file_is_refused(stretched, monkeypatch):
    class Made:
        path, kind = Path("model.gguf"), "gguf"

    monkeypatch.setattr(execution.folder, "open_checkpoint", lambda *_, **__: Made())
    with pytest.raises(UnsupportedError, match=r"model.gguf is a gguf, and engines are executed on folders with weights"):
        execute("model.gguf", ["vllm"])


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
