"""A probe's process: what it answers, how it fails, and that nothing of it stays behind."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ropewalk.core.errors import HostError, InputError, MachineError
from ropewalk.hosts.executed import child
from ropewalk.hosts.executed.child import Probe, probe
from ropewalk.hosts.executed.environments import OLDEST, missing, python_of


def ends(pid: str) -> bool:
    """Whether a process is dead, or dead and not yet collected by whoever inherited it. A kill takes effect when the process
    is next scheduled, which on a busy machine is not at once; what is waited for here sleeps longer than the wait."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ROPEWALK_ENGINES", str(tmp_path))
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A script in the place of the probe's, in this Python."""

    def put(source: str) -> None:
        script = tmp_path / "stand_in.py"
        script.write_text(source)
        monkeypatch.setattr(child.wire, "__file__", str(script))
        monkeypatch.setattr(child, "python_of", lambda _: Path(sys.executable))

    return put


def test_an_environment_is_found_by_its_stamp_and_an_unfinished_one_is_not(no_engines):
    for name, done in (("vllm-000000000000", True), ("vllm-111111111111", False)):
        (no_engines / name / "bin").mkdir(parents=True)
        if done:
            (no_engines / name / ".installed").touch()
    assert python_of("vllm") == no_engines / "vllm-000000000000" / "bin" / "python"


def test_an_environment_that_a_user_made_needs_no_stamp(no_engines):
    assert python_of("vllm") is None
    python = no_engines / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert python_of("vllm") == python


def test_this_python_comes_before_the_environments(no_engines, monkeypatch):
    python = no_engines / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (no_engines / "site" / "vllm").mkdir(parents=True)
    monkeypatch.syspath_prepend(no_engines / "site")
    # A folder of that name, such as a clone of the engine, is no package that could be imported.
    assert python_of("vllm") == python
    (no_engines / "site" / "vllm" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert python_of("vllm") == Path(sys.executable)


def test_without_the_variable_the_working_directory_is_looked_at(no_engines, monkeypatch):
    monkeypatch.delenv("ROPEWALK_ENGINES")
    monkeypatch.chdir(no_engines)
    python = no_engines / ".engines" / "llamacpp" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert python_of("llama.cpp") == python


def test_what_is_missing_is_said_with_the_commands_that_install_it(no_engines):
    place = no_engines / "llamacpp"
    assert missing("llama.cpp") == (
        f"llama.cpp is not installed here: this Python does not import xllamacpp and there is no environment {place}; "
        f"run python -m venv {place} and {place}/bin/pip install xllamacpp numpy, or make engines in a checkout of ropewalk"
    )


def test_transformers_of_this_python_is_the_newest(no_engines):
    assert python_of("transformers") == Path(sys.executable)
    assert python_of(OLDEST) is None


def test_an_engine_without_a_probe_is_refused(no_engines):
    with pytest.raises(InputError, match=r"'sglang' is no engine that can be executed; expected one of transformers"):
        python_of("sglang")


def test_an_engine_that_is_not_there_is_a_machine_error(no_engines):
    with pytest.raises(MachineError, match=r"transformers-oldest is not installed here: there is no environment"):
        probe(OLDEST, Probe(checkpoint=no_engines))


def test_the_engines_own_last_words_are_passed_on(stand_in):
    stand_in("raise RuntimeError('the head size 16 has no kernel')")
    with pytest.raises(HostError, match=r"vllm cannot run model: RuntimeError: the head size 16 has no kernel"):
        probe("vllm", Probe(checkpoint=Path("model")))


def test_a_child_that_dies_without_a_word_is_named(stand_in):
    stand_in("import os; os._exit(9)")
    with pytest.raises(HostError, match=r"it ended with exit code 9 without a word"):
        probe("vllm", Probe(checkpoint=Path("model")))


def test_a_late_answer_ends_the_child_and_what_it_started(stand_in, tmp_path):
    stand_in(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(MachineError, match=r"vllm did not answer within 3 s; give fewer or shorter probes"):
        probe("vllm", Probe(checkpoint=Path("model")), limit_seconds=3.0)
    pid = (tmp_path / "pid").read_text()
    assert ends(pid)


def test_what_an_engine_prints_does_not_reach_the_answer_and_our_variables_do_not_reach_it(stand_in, monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "1")
    stand_in(
        "import json, os, sys\n"
        "job = json.load(sys.stdin)\n"
        "print(json.dumps({'version': str('SECRET_OF_OURS' in os.environ), 'shape': [0, 0], 'log_probabilities': '',\n"
        "    'generated': [[job['max_length'], job['threads']]], 'seconds': {}, 'cpu_seconds': 0.1}))\n"
    )
    answer = probe("vllm", Probe(checkpoint=Path("model"), token_ids=(1, 2, 3), positions=(2,), threads=1))
    assert answer.version == "False"
    assert answer.generated == ((256, 1),)


def test_an_engine_ends_when_the_command_that_started_it_is_killed(tmp_path):
    """The middle process is killed as `kill -9` does it; the one it started must notice."""
    inner = "import os, threading, time, wire; threading.Thread(target=wire.leave_with, args=(os.getppid(),)).start()"
    outer = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', {inner + '; time.sleep(60)'!r}])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(child.wire.__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True, env=environment) as middle:
        assert middle.stdout is not None
        pid = middle.stdout.readline().strip()
        assert Path(f"/proc/{pid}/stat").exists()
        # Long enough for the inner one to have asked who its parent is.
        time.sleep(3)
        middle.kill()
    assert ends(pid)


@pytest.mark.slow
def test_the_real_probe_says_what_the_model_says(tiny_checkpoint, no_engines):
    import torch
    from transformers import AutoModelForCausalLM

    ids = tuple(int(one) for one in np.random.default_rng(0).integers(2, 250, size=60))
    answer = probe(
        "transformers",
        Probe(checkpoint=tiny_checkpoint, token_ids=ids, positions=(5, 40), prompts=(ids[:8],), num_new=4, threads=1),
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(ids)[None]).logits[0, [5, 40]]
        greedy = model.generate(torch.tensor(ids[:8])[None], do_sample=False, max_new_tokens=4, min_new_tokens=4)
    assert np.allclose(answer.log_probabilities, torch.log_softmax(logits, -1).numpy(), atol=1e-4)
    assert answer.generated == (tuple(greedy[0, 8:].tolist()),)
    with pytest.raises(HostError, match=r"transformers cannot run nothing-here: .*Error"):
        probe("transformers", Probe(checkpoint=tiny_checkpoint.parent / "nothing-here", threads=1))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
