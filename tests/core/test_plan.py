"""A plan keeps its numbers exactly, refuses those that mean nothing, and says what holds at each length."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from geometries import SMOLLM2, WINDOWED
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ropewalk.core.errors import LengthError, PlanError
from ropewalk.core.method import find
from ropewalk.core.plan import LONGEST, Frequencies, Plan, Regime, check_length, parse_length


def static(inv_freq: Any = (1.0, 0.1), **fields: Any) -> Plan:
    values: dict[str, Any] = {
        "method": "pi",
        "options": {"factor": None},
        "kind": "static",
        "original_length": 8192,
        "trained_length": 8192,
        "length": 16384,
        "factor": 2.0,
        "groups": {"all": Frequencies(inv_freq=np.asarray(inv_freq))},
    }
    return Plan(**{**values, **fields})


def switched(longest: int | None) -> Plan:
    short, long = ({"all": Frequencies(inv_freq=np.asarray([x]))} for x in (1.0, 0.5))
    regimes = (Regime(longest=8192, groups=short), Regime(longest=longest, groups=long))
    return static(kind="switched", groups=long, regimes=regimes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inv_freq": [[1.0]]}, r"inv_freq must be a vector of rotary_dim/2 numbers, got shape \(1, 1\)"),
        ({"inv_freq": []}, r"inv_freq must be a vector of rotary_dim/2 numbers, got shape \(0,\)"),
        ({"inv_freq": [1.0, math.nan]}, r"inv_freq must be finite and not negative"),
        ({"inv_freq": [1.0, math.inf]}, r"inv_freq must be finite and not negative"),
        ({"inv_freq": [1.0, -0.1]}, r"inv_freq must be finite and not negative"),
        ({"inv_freq": [1.0], "attention_factor": 0.0}, r"attention_factor must be a positive number, got 0\.0"),
        ({"inv_freq": [1.0], "logit_scale": math.nan}, r"logit_scale must be a positive number, got nan"),
    ],
)
def test_refuses_numbers_that_mean_nothing(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Frequencies(**{**fields, "inv_freq": np.asarray(fields["inv_freq"])})


def test_frequencies_are_a_copy_that_nobody_can_change() -> None:
    mine = np.asarray([1.0, 0.1])
    word = Frequencies(inv_freq=mine)
    mine[0] = 7.0
    assert word.inv_freq[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        word.inv_freq[0] = 7.0


def test_frequencies_are_equal_where_every_number_is() -> None:
    word = Frequencies(inv_freq=np.asarray([1.0, 0.1]), attention_factor=1.1)
    assert word == Frequencies(inv_freq=np.asarray([1.0, 0.1]), attention_factor=1.1)
    assert hash(word) == hash(Frequencies(inv_freq=np.asarray([1.0, 0.1]), attention_factor=1.1))
    assert word != Frequencies(inv_freq=np.asarray([1.0, np.nextafter(0.1, 1.0)]), attention_factor=1.1)
    assert word != Frequencies(inv_freq=np.asarray([1.0, 0.1]))
    assert word != Frequencies(inv_freq=np.asarray([1.0, 0.1]), attention_factor=1.1, logit_scale=2.0)
    assert word != "word"


def test_difference_is_the_largest_relative_one() -> None:
    word = Frequencies(inv_freq=np.asarray([1.0, 0.1, 0.0]))
    assert word.difference(word) == 0.0
    assert word.difference(Frequencies(inv_freq=np.asarray([1.0, 0.2, 0.0]))) == pytest.approx(0.5)
    assert word.difference(Frequencies(inv_freq=np.asarray([1.0, 0.1, 0.3]))) == 1.0
    assert word.difference(Frequencies(inv_freq=word.inv_freq, logit_scale=4.0)) == pytest.approx(0.75)
    assert word.difference(Frequencies(inv_freq=np.asarray([1.0]))) == math.inf


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 10.0, allow_subnormal=False)),
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
)
def test_json_keeps_every_bit(inv_freq: Any, attention_factor: float, logit_scale: float) -> None:
    word = Frequencies(inv_freq=inv_freq, attention_factor=attention_factor, logit_scale=logit_scale)
    plan = static(groups={"all": word, "sliding_attention": None})
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False))) == plan


@pytest.mark.parametrize("plan", [static(), switched(None), switched(65536)], ids=["static", "endless", "ending"])
def test_json_keeps_all_kinds(plan: Plan) -> None:
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.regimes == plan.regimes


def test_json_keeps_a_dynamic_plan_alive() -> None:
    plan = find("dynamic:ntk").plan(SMOLLM2, 65536)
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again.at(20000) == find("dynamic:ntk").plan(SMOLLM2, 32768).at(20000)


def test_the_document_has_the_names_that_scripts_read() -> None:
    content = static().to_dict()
    names = {"method", "options", "kind", "original_length", "trained_length", "length", "factor", "groups"}
    assert set(content) == names
    assert content["groups"] == {
        "all": {"frequencies": {"inv_freq": [1.0, 0.1], "attention_factor": 1.0, "logit_scale": 1.0}}
    }


@pytest.mark.parametrize("missing", ["method", "kind", "groups", "factor"])
def test_refuses_a_document_that_is_no_plan(missing: str) -> None:
    content = static().to_dict()
    del content[missing]
    with pytest.raises(PlanError, match=rf"this document is not a plan \(KeyError\('{missing}'\)\)"):
        Plan.from_dict(content)


def test_refuses_a_document_of_another_shape() -> None:
    with pytest.raises(PlanError, match="this document is not a plan"):
        Plan.from_dict({**static().to_dict(), "groups": {"all": 3}})


def test_the_single_word_is_asked_for_by_name_where_there_are_several() -> None:
    word = Frequencies(inv_freq=np.asarray([1.0]))
    assert static(groups={"full": word, "window": None}).frequencies is word
    with pytest.raises(PlanError, match=r"this plan extends 2 groups \(a, b\); ask plan.groups for each"):
        _ = static(groups={"a": word, "b": word}).frequencies
    with pytest.raises(PlanError, match=r"this plan extends 0 groups \(a\)"):
        _ = static(groups={"a": None}).frequencies


def test_a_static_plan_is_its_own_answer_at_every_length() -> None:
    plan = static()
    assert plan.at(1) is plan
    assert plan.at(10**6) is plan


def test_a_switched_plan_changes_after_the_length_of_a_regime() -> None:
    plan = switched(None)
    assert plan.at(8192).frequencies.inv_freq[0] == 1.0
    assert plan.at(8193).frequencies.inv_freq[0] == 0.5
    assert plan.at(10**6).kind == "static"


def test_a_switched_plan_may_end() -> None:
    plan = switched(65536)
    assert plan.at(65536).frequencies.inv_freq[0] == 0.5
    with pytest.raises(LengthError, match="this plan's last regime ends at 65536 tokens, got 65537"):
        plan.at(65537)


@pytest.mark.parametrize("plan", [static(), switched(None), find("dynamic:pi").plan(SMOLLM2, 16384)])
def test_a_plan_is_asked_for_possible_lengths(plan: Plan) -> None:
    for length in (0, -3, LONGEST + 1, 1.5, "5", True):
        with pytest.raises(LengthError, match="a length"):
            plan.at(length)  # type: ignore[arg-type]


def test_equality_is_of_numbers_and_not_of_claims() -> None:
    plan = find("pi").plan(SMOLLM2, 16384)
    assert plan.native is not None
    assert replace(plan, native=None) == plan
    assert replace(plan, length=16385) != plan
    assert find("pi").plan(WINDOWED, 16384) != plan


@pytest.mark.parametrize(
    ("text", "expected"),
    [("65536", 65536), ("64k", 65536), ("64K", 65536), ("1m", 1048576), (" 16_384 ", 16384), (128, 128), ("1", 1)],
)
def test_reads_a_length_as_people_write_it(text: str | int, expected: int) -> None:
    assert parse_length(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a length looks like 65536 or 64k \(k = 1024\), got ''"),
        ("k", r"a length looks like 65536 or 64k"),
        ("64kb", r"a length looks like 65536 or 64k \(k = 1024\), got '64kb'"),
        ("-5", r"a length looks like"),
        ("1.5k", r"a length looks like"),
        ("٣", r"a length looks like"),
        ("0", r"a length lies between 1 and 2147483647 tokens, got 0"),
        ("4096m", r"a length lies between 1 and 2147483647 tokens"),
        ("9" * 5000, r"a length lies between 1 and 2147483647 tokens"),
        (True, r"a length is a whole number of tokens, got True"),
    ],
)
def test_says_what_a_length_looks_like(text: str | int, message: str) -> None:
    with pytest.raises(LengthError, match=message):
        parse_length(text)


def test_a_length_may_be_a_numpy_integer_and_is_then_a_plain_one() -> None:
    assert type(check_length(np.int64(5))) is int  # type: ignore[arg-type]
