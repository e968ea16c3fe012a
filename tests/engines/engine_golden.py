"""Golden values of engines: their own code, run on a config, against our reading of it.

Each file states the version, how the engine's code was run and on what. A case holds a config and either what stops the
engine, or its longest request and the words at one or two lengths.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TOLERANCE = 1e-6
"""float32 rounds a frequency by 6e-8, and the sine and cosine that it is read back from by as much."""


def cases(engine: str) -> list[Any]:
    """The cases of one engine as pytest parameters."""
    path = Path(__file__).parents[1] / "golden" / "engines" / f"{engine}.json"
    content = json.loads(path.read_text())
    assert content["engine"] == engine
    return [pytest.param(case, id=case["name"]) for case in content["cases"]]


def check(engine: ModuleType, case: dict[str, Any]) -> None:
    """Asserts that `engine.compute` says of a case what the engine's code did."""
    if "stops" in case:
        computed = engine.compute(case["config"], length=64)
        assert computed.refuses, f"{case['stops']}; got {computed}"
        assert computed.groups == {}
        return
    for expected in case["at"]:
        computed = engine.compute(case["config"], length=expected["length"])
        assert computed.refuses is None
        assert computed.unsupported is None
        assert computed.max_length == case["max_length"]
        rotated = {label: word for label, word in computed.groups.items() if word is not None}
        assert list(rotated) == list(expected["groups"])
        for label, numbers in expected["groups"].items():
            word = rotated[label]
            np.testing.assert_allclose(word.inv_freq, numbers["inv_freq"], rtol=TOLERANCE, atol=0.0)
            assert word.attention_factor == pytest.approx(numbers["attention_factor"], rel=TOLERANCE)
            assert word.logit_scale == pytest.approx(numbers["logit_scale"], rel=TOLERANCE)
