"""Thresholds: what is met, and the sentence for what is not."""

import pytest

from ropewalk.api.thresholds import Threshold, missed
from ropewalk.core.errors import InputError
from ropewalk.core.record import Measurement


def row(metric, value, low=None, high=None, method="yarn", **where):
    return Measurement(
        metric=metric, protocol=where.pop("protocol", "p"), unit="u", value=value, n=1, num_clusters=9, num_tokens=1,
        model="m", method=method, card="c", ci_low=low, ci_high=high, note=where.pop("note", "why"), **where,
    )  # fmt: skip


def reasons(text, *rows):
    return missed([Threshold.parse(text)], rows)


def test_the_worse_end_of_the_interval_decides():
    assert reasons("short_nll<=+0.01", row("price_nll", 0.002, -0.002, 0.009)) == []
    (why,) = reasons("short_nll<=+0.01", row("price_nll", 0.002, -0.02, 0.02))
    assert why == "short_nll<=+0.01: 0.002 [-0.02, 0.02] for yarn, p"
    assert reasons("gain>=0", row("net_gain", 0.2, 0.1, 0.3)) == []
    assert reasons("gain>=0", row("net_gain", 0.2, -0.1, 0.5))


def test_a_certified_length_counts_as_it_is():
    assert reasons("ecl>=16k", row("effective_length", 16384.0, 16384.0, 16384.0, task="needle")) == []
    (why,) = reasons("ecl>=16k", row("effective_length", 12288.0, 12288.0, 16384.0, task="needle"))
    assert "12288" in why or "1.229e+04" in why
    assert reasons("ecl[lines]>=16k", row("effective_length", 16384.0, task="needle")) == [
        "ecl[lines]>=16k: the run has no effective_length of lines"
    ]


def test_a_number_that_is_not_there_fails_with_its_reason():
    assert reasons("ecl>=8k", row("effective_length", None, note="not above a guess", task="needle")) == [
        "ecl>=8k: no number for yarn, needle, p: not above a guess"
    ]
    (why,) = reasons("short_nll<=1", row("price_nll", 0.1, note="too few"))
    assert why == "short_nll<=1: 0.1 for yarn, p has no interval: too few"


def test_baselines_are_not_judged_beside_a_method_but_alone():
    none = row("effective_length", 0.0, method="none")
    assert reasons("ecl>=1k", none, row("effective_length", 2048.0)) == []
    assert reasons("ecl>=1k", none)


@pytest.mark.parametrize("label", ["none", "served"])
@pytest.mark.parametrize("control", ["no-context", "stand-alone"])
def test_controls_are_not_judged(label, control):
    """A model without a method answers its own controls, which nobody answers without the context."""
    read = row("retrieval_exact", 1.0, 0.9, 1.0, method=label)
    assert reasons("exact>=0.8", read, row("retrieval_exact", 0.0, 0.0, 0.1, method=label, protocol=control)) == []
    assert reasons("exact>=0.8", row("retrieval_exact", 1.0, 0.9, 1.0, method=label, protocol=control)) == [
        "exact>=0.8: the run has no retrieval_exact"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ecl=16k", "a threshold looks like 'ecl>=16k'"),
        ("ecl>=long", "a threshold looks like"),
        ("reach>=16k", "unknown name 'reach' in the threshold"),
        ("ecl>=1.2.3", "has no number that can be read: '1.2.3'"),
    ],
)
def test_what_cannot_be_read(text, words):
    with pytest.raises(InputError, match=words):
        Threshold.parse(text)
