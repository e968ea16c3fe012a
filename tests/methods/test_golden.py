"""Whole vectors against what other projects compute; where each comes from is in the JSON beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometries import geometry, group
from tolerances import RELATIVE

from ropewalk.core.method import find, methods
from ropewalk.core.plan import Frequencies

FILES = sorted((Path(__file__).parent.parent / "golden").glob("*.json"))
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in FILES
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]


def ours(case: dict[str, Any]) -> Frequencies:
    shape = case["geometry"]
    model = geometry(
        group(
            base=shape["base"],
            rotary_dim=shape["rotary_dim"],
            head_dim=shape["head_dim"],
            temperature_on=shape["temperature_on"],
        ),
        length=shape["length"],
    )
    plan = find(case["spec"]).plan(model, case["length"])
    return plan.at(case.get("at", case["length"])).frequencies


@pytest.mark.parametrize("case", CASES)
def test_equals_other_implementations(case: dict[str, Any]) -> None:
    word = ours(case)
    for reference in case["references"]:
        tolerance = RELATIVE[reference["dtype"]]
        where = f"{reference['source']}, {reference['function']}"
        np.testing.assert_allclose(word.inv_freq, reference["inv_freq"], rtol=tolerance, atol=0.0, err_msg=where)
        for name in ("attention_factor", "logit_scale"):
            if reference[name] is not None:
                assert getattr(word, name) == pytest.approx(reference[name], rel=tolerance, abs=0.0), where


@pytest.mark.parametrize("case", CASES)
def test_rests_on_two_sources(case: dict[str, Any]) -> None:
    sources = {reference["source"].split()[0] for reference in case["references"]}
    assert len(sources) >= 2
    assert all(reference["function"] and reference["parameters"] for reference in case["references"])


def test_every_method_that_changes_a_vector_has_golden_values() -> None:
    assert {path.stem for path in FILES} == set(methods()) - {"none", "crop"}


def test_a_wrong_vector_would_be_noticed() -> None:
    (case,) = (p.values[0] for p in CASES if p.id == "yarn: Llama 2 shape, s = 8")
    assert isinstance(case, dict)
    broken = ours({**case, "spec": "yarn:ramp=rotations"}).inv_freq
    assert not np.allclose(broken, case["references"][0]["inv_freq"], rtol=0.1, atol=0.0)
