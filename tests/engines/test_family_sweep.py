"""Every family, every static method, factors from 1.5 to 64: what is said to be exact is what transformers computes.

Each plan is spelled into a config as `extend` does, judged by `verify`, and read back from the stock rotary module of that
config (and, under latent attention, from the stock attention). What is refused is counted apart, with its reason. Whole
models with their logits are in test_all_families, for two plans of each family.
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families as tiny
import torch
import transformers
from rotary_probe import configure, scaling, turned
from test_all_families import NOTHING, WITH_ZEROS, WITHOUT_WINDOW
from tolerances import RELATIVE

from ropewalk.core.errors import HostError, PlanError, UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.method import find
from ropewalk.core.plan import Plan
from ropewalk.engines.coverage import widest
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.families import FAMILIES
from ropewalk.engines.verdicts import verify

METHODS = (
    "pi",
    "ntk",
    "ntk-fixed",
    "ntk-mixed",
    "ntk-by-parts",
    "ntk-by-parts:ramp=rotations",
    "yarn",
    "yarn:truncate=false",
    "yarn:attention_factor=1.2",
    "abf",
    "llama3",
)
FACTORS = (1.5, 2, 3, 4, 7.3, 16, 64)
KEEPS_ZEROS = ("pi", "ntk", "ntk-fixed", "abf")
"""Methods whose vector stays geometric, so that a vector that ends in zeros can still be said."""
SWITCHED = (2, 7.3)
"""Factors of LongRoPE's two lists."""
REASONS = {"window": "windows only", "frequencies of zero": "a vector with zeros"}
"""What a refusal says, and the word it is counted under."""
PAGE = Path(__file__).parents[2] / "docs" / "families.md"


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before, threads = transformers.logging.get_verbosity(), torch.get_num_threads()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    yield
    transformers.logging.set_verbosity(before)
    torch.set_num_threads(threads)


def config_of(name: str) -> dict[str, Any]:
    """A tiny config in which the family has something to extend, if it ever has."""
    config = tiny.fields(name)
    if name in WITHOUT_WINDOW:
        config |= {"sliding_window": None, "layer_types": ["full_attention"] * tiny.LAYERS}
    return config


def refusal(config: dict[str, Any], geometry: Geometry, method: str, factor: float) -> str | None:
    """Why a plan is refused, in a word; None where it is written, and then it is what transformers computes."""
    try:
        plan = find(method).plan(geometry, round(factor * geometry.start_length))
        spelled = widest(config, plan, geometry=geometry)
    except (PlanError, UnsupportedError, HostError) as error:
        return next((word for said, word in REASONS.items() if said in str(error)), str(error))
    for length in {plan.length} if plan.kind == "static" else {plan.regimes[0].longest, plan.length}:
        check(spelled, plan, geometry, length or plan.length)
    [verdict] = verify(spelled, reference=plan, engines=["transformers"]).verdicts
    assert verdict.status == "exact", f"{verdict}"
    return None


def check(spelled: dict[str, Any], plan: Plan, geometry: Geometry, length: int) -> None:
    """Asserts that stock modules of the spelled config compute the plan's words, and leave the other groups alone."""
    config = configure(spelled)
    for group in geometry.groups:
        if group.inv_freq is None:
            continue
        word = plan.at(length).groups[group.label]
        expected = group if word is None else word
        assert expected.inv_freq is not None
        got = turned(config, group.label, expected.inv_freq.size, length)
        np.testing.assert_allclose(got.inv_freq, expected.inv_freq, rtol=RELATIVE["float32"], atol=0.0)
        assert math.isclose(got.attention_factor, expected.attention_factor, rel_tol=RELATIVE["float32"])
        multiplied = scaling(config)
        if multiplied is not None:
            assert math.isclose(multiplied, group.softmax_scale * expected.logit_scale, rel_tol=RELATIVE["float32"])


def lists(geometry: Geometry) -> str:
    """LongRoPE with two lists that differ, of the length that the family needs."""
    [count] = {group.rotary_dim // 2 for group in geometry.extended_groups} or {1}
    short = "|".join(str(1.0 + 0.01 * i) for i in range(count))
    long = "|".join(str(1.0 + 0.7 * i) for i in range(count))
    return f"longrope:short_factor={short},long_factor={long}"


@pytest.fixture(scope="module")
def counted() -> Counter[str]:
    """How many plans held, and how many were refused, by reason; over the families that ran."""
    return Counter()


def expected_refusal(name: str, method: str) -> str | None:
    if name in NOTHING - WITHOUT_WINDOW:
        return "windows only"
    return "a vector with zeros" if name in WITH_ZEROS and method not in KEEPS_ZEROS else None


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_exact_claim_of_a_family_holds(name: str, counted: Counter[str]) -> None:
    config = config_of(name)
    geometry = read(config)
    cases = [(method, factor) for method in METHODS for factor in FACTORS]
    cases += [(lists(geometry), factor) for factor in SWITCHED]
    for method, factor in cases:
        why = refusal(config, geometry, method, factor)
        assert why == expected_refusal(name, method), f"{method} x{factor}"
        counted[why or "held"] += 1


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
def test_blends_hold_at_the_shapes_of_real_models(head_dim: int) -> None:
    """Far stretches of a blend lose digits in float32: where too many, another spelling is written."""
    plain = tiny.fields("llama") | {"head_dim": head_dim}
    for base in (1e4, 5e5, 1e7):
        for length in (2048, 8192, 131072):
            config = plain | {"max_position_embeddings": length, "rope_theta": base}
            geometry = read(config)
            for method in ("yarn", "yarn:truncate=false", "llama3", "ntk-by-parts:ramp=rotations"):
                for factor in (7.3, 16, 64):
                    assert refusal(config, geometry, method, factor) is None


def test_the_count_is_printed_and_on_the_page(counted: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    held, total = counted["held"], counted.total()
    refused = ", ".join(f"{count} for {why}" for why, count in sorted(counted.items()) if why != "held")
    sentence = f"{held} of {total} plans are exact and hold, {total - held} are refused"
    with capsys.disabled():
        print(f"\n{sentence} ({refused})")
    if total == len(FAMILIES) * (len(METHODS) * len(FACTORS) + len(SWITCHED)):
        assert sentence in PAGE.read_text(encoding="utf-8").replace("\n", " ")
