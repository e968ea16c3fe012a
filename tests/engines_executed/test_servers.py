"""The map of a real model asked of real servers: the answers of transformers on the same prompts, word for word.

One task, decoded up to its budget, at two lengths and three depths, with the control. All in float32; greedy decoding could
still part at a tie, which no prompt here has.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from engine_servers import llamacpp_server, vllm_server

from benchmarks.engine_cases import inputs, rewritten
from examples.demo import packaged_weights
from ropewalk.api import runs
from ropewalk.hosts.executed import python_of

LENGTH = 1024
WHAT = ("task", "protocol", "asked_length", "length", "haystack", "depth", "key", "references")
SAID = ("exact", "found", "text", "num_prompt_tokens")
Serving = Callable[[Path], AbstractContextManager[str]]

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder() -> Path:
    """SmolLM2-135M-Instruct as a transformers folder."""
    return inputs()[0]


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    def run(**where: Any) -> list[dict[str, Any]]:
        out = tmp_path_factory.mktemp("run") / "out"
        asked: dict[str, Any] = {
            "tasks": "passkey",
            "lengths": [512, LENGTH],
            "depths": 3,
            "samples": 1,
            "scoring": "generate",
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "find_spec", lambda name: None)
            runs.measure(folder, out=out, **asked, **where)
        lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        return [s for s in lines if s["method"] in ("none", "served") and s["protocol"] != "stand-alone"]

    return run


@pytest.fixture(scope="module")
def local(measured: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return measured(dtype="float32")


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_a_server_answers_as_transformers_does(engine, folder, measured, local, tmp_path):
    if python_of(engine) is None:
        pytest.skip(f"{engine} is not set up here; make engines does it")
    if engine == "vllm":
        serving = vllm_server(folder, LENGTH, tmp_path / "log")
    else:
        weights = Path("runs/engines/source.gguf")
        weights.parent.mkdir(parents=True, exist_ok=True)
        # Quantised weights would be multiplied with quantised activations, which is another model.
        weights = rewritten(packaged_weights(), weights, {"general.file_type": 0})
        serving = llamacpp_server(weights, LENGTH, tmp_path / "log")
    with serving as url:
        found = measured(server=url, concurrency=2 if engine == "vllm" else 1)
    assert {s["engine"] for s in found} == {engine}
    assert [[s[key] for key in WHAT + SAID] for s in found] == [[s[key] for key in WHAT + SAID] for s in local]
    assert any(s["exact"] for s in local)
    assert any(s["protocol"] == "no-context" and not s["exact"] for s in local)
