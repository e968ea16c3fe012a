"""One verdict of two: when what was executed takes the place of what was read, and when it must not."""

from dataclasses import replace

import numpy as np
import pytest

from ropewalk.api.executing import combined
from ropewalk.api.verdict_words import table
from ropewalk.core.plan import Frequencies, Plan, Regime
from ropewalk.engines.verdicts import Divergence, Verdict, Verification

LENGTH = 16384
PLAN = Plan(
    method="yarn", options={}, kind="static", original_length=8192, trained_length=8192, length=LENGTH, factor=2.0,
    groups={"all": Frequencies(inv_freq=np.array([1.0, 0.1]))},
)  # fmt: skip
KL = Divergence(checkpoint=1e-3, control=2e-3, swapped=0.4, num_positions=16, num_tokens=9984)


def read(status, **fields):
    said = {"engine": "vllm", "version": ">=0.32,<0.34", "status": status, "max_length": LENGTH, "max_relative_error": 0.0}
    return Verdict(**{**said, **fields})


def ran(status, **fields):
    return Verdict(**{
        "engine": "vllm", "version": "0.32.0, bfloat16", "status": status, "reason": "mean KL", "how": "executed",
        "kl_nats": KL, **fields,
    })  # fmt: skip


STOCK = read("exact", engine="transformers", max_length=None)


@pytest.mark.parametrize("before", ["exact", "differs", "refuses", "unsupported"])
@pytest.mark.parametrize("found", ["exact", "differs", "refuses"])
def test_what_was_executed_wins(before, found):
    one = combined(read(before, reason="its source"), ran(found), STOCK, PLAN)
    assert (one.status, one.how, one.version, one.reason) == (found, "executed", "0.32.0, bfloat16", "mean KL")
    assert (one.max_length, one.max_relative_error) == (LENGTH, 0.0)
    shown = one.to_dict()
    assert shown["kl_nats"] == {
        "checkpoint": 1e-3, "control": 2e-3, "swapped": 0.4, "num_positions": 16, "num_tokens": 9984
    }  # fmt: skip
    assert (shown["read"]["status"], shown["read"]["reason"], shown["read"]["how"]) == (before, "its source", "read")
    assert "read" not in shown["read"]


def test_a_read_verdict_has_no_fields_of_an_execution():
    assert not {"read", "kl_nats"} & set(read("exact").to_dict())


@pytest.mark.parametrize("before", ["exact", "differs"])
def test_what_was_not_run_leaves_the_read_verdict_and_says_why(before):
    one = combined(read(before, reason="a note"), ran("unsupported", reason="not executed: no", kl_nats=None), STOCK, PLAN)
    assert one == read(before, reason="a note; not executed: no")


@pytest.mark.parametrize("off", ["differs", "refuses"])
def test_an_engine_that_agrees_with_transformers_is_as_wrong_as_transformers(off):
    stock = read(off, engine="transformers", reason="a dropped factor")
    one = combined(read("exact"), ran("exact"), stock, PLAN)
    assert (one.status, one.how) == (off, "executed")
    assert one.reason.startswith("it computes what transformers computes")
    assert "a dropped factor" in one.reason


def test_a_length_that_is_too_short_is_not_disproved_by_numbers():
    before = read("differs", max_length=8192, reason="it accepts 8192 tokens of 16384", mend="raise it")
    one = combined(before, ran("exact"), STOCK, PLAN)
    assert (one.status, one.mend) == ("differs", "raise it")
    assert one.reason == "it accepts 8192 tokens of 16384 (its numbers, executed, are exact: mean KL)"


def test_another_regime_is_not_disproved_by_a_run_at_one_length():
    regimes = (Regime(longest=8192, groups=PLAN.groups), Regime(longest=None, groups=PLAN.groups))
    switched = replace(PLAN, kind="switched", regimes=regimes)
    one = combined(read("differs", reason="short texts"), ran("exact"), STOCK, switched)
    assert one.status == "differs"
    assert one.reason == "short texts (executed at one length it is exact: mean KL)"
    assert combined(read("exact"), ran("exact"), STOCK, switched).reason == "mean KL"


def test_the_table_says_how_each_was_judged_and_where_reading_said_otherwise():
    verdicts = (combined(read("differs"), ran("exact"), STOCK, PLAN), read("exact", engine="sglang"))
    text = table(Verification(reference=PLAN, source="a plan", verdicts=verdicts))
    assert "vllm    exact        0           16384     executed 0.32.0, bfloat16" in text
    assert "its source (>=0.32,<0.34) reads: differs" in text
    assert "sglang  exact        0           16384     read >=0.32,<0.34" in text
    assert text.endswith("exact in vllm, sglang")
