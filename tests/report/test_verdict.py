"""The sentences say what the numbers say, and no more."""

from pathlib import Path
from typing import Any

import pytest
from example_run import make_card

from ropewalk.core.record import Measurement, Record
from ropewalk.report.facts import Facts
from ropewalk.report.verdict import bottom_line, compare, gain, judged, price, retrieval, untouched, verdict


def row(metric: str, method: str, value: float | None, ends: tuple[float, float] | None = None, **more: Any) -> Measurement:
    content: dict[str, Any] = {
        "metric": metric,
        "protocol": "prefix",
        "unit": "nats/token",
        "n": 6,
        "num_clusters": 6,
        "num_tokens": 4096,
        "model": "m",
        "card": "c",
        "position_low": 512 if metric == "net_gain" else 1,
        "position_high": 1024 if metric == "net_gain" else 512,
    }
    around = {} if ends is None else {"ci_low": ends[0], "ci_high": ends[1]}
    return Measurement(method=method, value=value, **(content | around | more))


def answers(method: str, value: float, ends: tuple[float, float], length: int = 1024) -> Measurement:
    where = {"protocol": "multikey-branch", "length": length, "unit": "share", "position_low": None, "position_high": None}
    return row("retrieval_exact", method, value, ends, n=80, **where)


def facts(*rows: Measurement, methods: tuple[str, ...] = ("none", "crop", "yarn", "pi")) -> Facts:
    card = make_card(methods, 512, 1024, ["d"])
    return Facts.of(Record(path=Path("nowhere"), card=card, measurements=list(rows), samples=[]))


@pytest.mark.parametrize(
    ("value", "ends", "word", "sentence"),
    [
        (0.03, (0.01, 0.05), "above", "It reads better than cropping: net gain +0.030"),
        (-0.04, (-0.06, -0.02), "below", "Cropping reads better: net gain −0.040"),
        (0.03, (-0.01, 0.07), "undecided", "Undecided against cropping: net gain +0.030"),
        (-0.01, (-0.05, 0.03), "undecided", "Undecided against cropping: net gain −0.010"),
        (0.02, (0.0, 0.04), "undecided", "which includes zero"),
        (0.5, None, "undecided", "without an interval"),
    ],
)
def test_a_gain_is_judged_by_its_whole_interval(
    value: float, ends: tuple[float, float] | None, word: str, sentence: str
) -> None:
    measured = row("net_gain", "yarn", value, ends)
    assert judged(measured) == word
    assert sentence in gain(facts(measured), "yarn")


def test_a_gain_says_its_interval_and_what_it_rests_on() -> None:
    over = gain(facts(row("net_gain", "yarn", 0.03, (0.01, 0.05))), "yarn")
    assert "95% interval [+0.010, +0.050] (6 documents)" in over
    note = "within-document: t over 8 windows of 512 tokens"
    within = gain(facts(row("net_gain", "yarn", 0.03, (0.01, 0.05), num_clusters=8, note=note)), "yarn")
    assert "(within-document, 8 blocks)" in within


def test_a_window_is_not_taken_for_the_whole() -> None:
    window = row("net_gain", "yarn", 0.9, (0.8, 1.0), position_low=992, position_high=1024)
    whole = row("net_gain", "yarn", -0.2, (-0.3, -0.1))
    assert "Cropping reads better: net gain −0.200" in gain(facts(window, whole), "yarn")


@pytest.mark.parametrize(
    ("yarn", "pi", "sentence"),
    [
        ((0.03, 0.01, 0.05), (0.04, 0.02, 0.06), "yarn and pi read better than simply cropping to the last 512 tokens"),
        ((0.03, 0.01, 0.05), (-0.9, -1.0, -0.8), "Beyond the trained length, yarn reads better than simply cropping"),
        ((0.03, -0.01, 0.05), (-0.9, -1.0, -0.8), "No method is shown to read better"),
        ((0.03, -0.01, 0.05), (-0.9, -1.0, -0.8), "yarn is undecided"),
        ((-0.1, -0.2, -0.05), (-0.9, -1.0, -0.8), "cropping wins against each of yarn and pi"),
    ],
)
def test_the_bottom_line(yarn: tuple[float, ...], pi: tuple[float, ...], sentence: str) -> None:
    rows = [row("net_gain", label, v, (low, high)) for label, (v, low, high) in (("yarn", yarn), ("pi", pi))]
    assert sentence in bottom_line(facts(*rows))


def test_a_run_without_net_gain_says_that_it_does_not_say() -> None:
    assert "has not been measured" in bottom_line(facts())
    assert bottom_line(facts(methods=("none",))) == ""


@pytest.mark.parametrize(
    ("value", "ends", "sentence"),
    [
        (0.026, (0.020, 0.032), "Inside the trained length it costs +0.0260 [+0.0200, +0.0320] nats per token"),
        (-0.010, (-0.015, -0.005), "it reads better than the untouched model, −0.0100"),
        (0.001, (-0.002, 0.004), "Its price inside the trained length cannot be told from zero: +0.0010"),
    ],
)
def test_the_price_is_judged_by_its_interval(value: float, ends: tuple[float, float], sentence: str) -> None:
    assert sentence in price(facts(row("price_nll", "yarn", value, ends)), "yarn")


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        (row("control_nll", "none", 0.001), "(control, which means nothing: +0.0010)"),
        (row("control_nll", "none", -0.03), "no more than what means nothing"),
        (None, "(no control was run)"),
    ],
)
def test_the_price_stands_beside_the_control(control: Measurement | None, sentence: str) -> None:
    rows = [row("price_nll", "yarn", 0.026, (0.02, 0.032)), *([control] if control else [])]
    assert sentence in price(facts(*rows), "yarn")


def test_the_price_says_how_far_the_predictions_moved() -> None:
    rows = [
        row("price_nll", "yarn", 0.026, (0.02, 0.032)),
        row("price_kl_mean", "yarn", 0.024),
        row("price_top1", "yarn", 0.952),
        row("control_kl_mean", "none", 0.0007),
        row("control_top1", "none", 0.988),
    ]
    said = "Mean KL to the untouched model 0.024 nats (control 0.0007 nats); first choice agrees at 95.2 % (control 98.8 %)."
    assert said in price(facts(*rows), "yarn")


@pytest.mark.parametrize(
    ("ends", "word", "sentence"),
    [
        ((0.49, 0.67), "more", "more than crop with 0.37 [0.28, 0.46]"),
        ((0.05, 0.20), "fewer", "fewer than crop with 0.37"),
        ((0.40, 0.60), "undecided", "not told apart from crop with 0.37"),
    ],
)
def test_retrieval_is_compared_only_where_intervals_part(ends: tuple[float, float], word: str, sentence: str) -> None:
    crop, yarn = answers("crop", 0.37, (0.28, 0.46)), answers("yarn", sum(ends) / 2, ends)
    assert compare(yarn, crop) == word
    assert sentence in retrieval(facts(crop, yarn), "yarn")


def test_retrieval_inside_the_trained_length_is_not_retrieval_beyond() -> None:
    crop, yarn = answers("crop", 0.9, (0.8, 1.0), length=256), answers("yarn", 0.1, (0.0, 0.2), length=256)
    assert retrieval(facts(crop, yarn), "yarn") == ""


def test_the_bottom_line_does_not_hide_what_retrieval_gained() -> None:
    rows = [
        row("net_gain", "yarn", -0.05, (-0.06, -0.04)),
        answers("crop", 0.37, (0.28, 0.46)),
        answers("yarn", 0.58, (0.49, 0.67)),
    ]
    said = bottom_line(facts(*rows))
    assert "No method reads better" in said
    assert "In retrieval, yarn finds more keys than cropping in texts of 1,024 tokens." in said


def test_how_far_the_untouched_model_reads(example: Any) -> None:
    record = Record.read(example(trained=512, length=1024))
    said = untouched(Facts.of(record))
    assert said.startswith("The untouched model reads its 512 trained tokens at 3.792 nats per token")
    assert "From the first targets beyond that length it is more than 0.1 nats per token worse than cropping" in said


def test_an_untouched_model_that_never_falls_behind_is_called_so(example: Any) -> None:
    record = Record.read(example(parts=["likelihood"]))
    kept = [row("net_gain", "none", 0.01, (0.0, 0.02), position_low=low, position_high=low + 32) for low in (600, 900)]
    record.measurements.extend(kept)
    assert "this text does not show that it needs a method" in untouched(Facts.of(record))
    record.measurements.append(row("net_gain", "none", -0.4, (-0.5, -0.3), position_low=960, position_high=992))
    assert "From position 960 on it is more than 0.1 nats" in untouched(Facts.of(record))


def test_every_method_has_its_sentences(example: Any) -> None:
    sentences = verdict(Facts.of(Record.read(example())))
    assert [s.subject for s in sentences] == ["", "", "pi", "ntk", "yarn", "What this run does not say"]
    assert all(s.text for s in sentences)
    empty = facts()
    empty.record.card.status = "running"
    assert verdict(empty)[-1].text == "Not judged yet: its net gain and its price are written when the run ends."
    empty.record.card.status = "done"
    assert verdict(empty)[-1].text == "Nothing that can be judged was measured."
