"""The verdict in words: plain sentences made from the rows, never kinder than the numbers.

A net gain is called above or below zero only where its whole interval is; otherwise it is undecided. Retrieval is called
better or worse than cropping's by the paired difference on identical prompts; where that has no interval, only if the
intervals of the two shares do not overlap.
"""

from dataclasses import dataclass

from ropewalk.core.record import Measurement
from ropewalk.report.facts import BASELINES, Facts
from ropewalk.report.inside import difference
from ropewalk.report.plots.price import control_name
from ropewalk.report.reading_verdict import gains, reading_line, reads, unsaid
from ropewalk.report.short_tasks import short_sentences
from ropewalk.report.words import basis, interval, judged, listed, number, percent, small, tokens, with_interval

LOST = 0.1
"""Nats per token by which the untouched model must fall behind cropping to be called lost."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """Something the rows say, and of whom."""

    subject: str
    """A method's label, or empty for the run as a whole."""
    parts: tuple[str, ...]
    """Sentences, one for each thing that is judged."""

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.parts)


def verdict(facts: Facts) -> list[Sentence]:
    """The bottom line, how far the untouched model reads, then each method: reach, gain, price; then what is not said."""
    reach = reading_line(facts)
    found = [bottom_line(facts) if facts.tokens or not facts.asked else "", untouched(facts)]
    # A certified length is what is asked for first; why there is none comes after what there is.
    found = [reach, *found] if reach.startswith("Certified") else [*found, reach]
    sentences = [Sentence(subject="", parts=(text,)) for text in found if text]
    for label in facts.labels:
        texts = [*reads(facts, label), gain(facts, label), price(facts, label), *found_keys(facts, label)]
        texts += short_sentences(facts, label)
        if label in BASELINES:
            texts = reads(facts, label)
        said = tuple(text for text in texts if text)
        if label not in BASELINES or said:
            sentences.append(Sentence(subject=label, parts=said or (_nothing(facts),)))
    last = tuple(unsaid(facts))
    return [*sentences, *([Sentence(subject="What this run does not say", parts=last)] if last else [])]


def found_keys(facts: Facts, label: str) -> list[str]:
    """Retrieval beyond the trained length against cropping: paired where there is an interval, side by side where not."""
    pair = paired_with_crop(facts, label)
    alone = retrieval(facts, label)
    return [alone] if alone and (pair is None or pair.ci_low is None) else gains(facts, label)


def paired_with_crop(facts: Facts, label: str) -> Measurement | None:
    """The paired difference of the headline's task at the headline's length."""
    length, protocol = facts.retrieval_length, facts.retrieval_protocol
    asked = next((one for one in facts.asked if one.protocol == protocol), None)
    return None if asked is None or length is None else difference(facts, asked, length, label, "crop")


def _nothing(facts: Facts) -> str:
    if facts.record.card.status == "done":
        return "Nothing that can be judged was measured."
    return "Not judged yet: its net gain and its price are written when the run ends."


def bottom_line(facts: Facts) -> str:
    """Whether any method is worth more than cropping, in one or two sentences."""
    verdicts = {label: judged(facts.net_gain(label)) for label in facts.extensions}
    measured = [label for label, word in verdicts.items() if word != "unknown"]
    crop = f"simply cropping to the last {tokens(facts.trained_length)} tokens"
    if not measured:
        first = (
            "Net gain over cropping has not been measured, so this run does not say whether any method is worth its price."
        )
        return first if facts.extensions else ""
    better = [label for label in measured if verdicts[label] == "above"]
    open_ = [label for label in measured if verdicts[label] == "undecided"]
    if better:
        first = f"Beyond the trained length, {listed(better)} {_reads(better)} better than {crop}."
    elif open_:
        first = f"No method is shown to read better than {crop}: {listed(open_)} {_is(open_)} undecided."
    else:
        first = f"No method reads better than {crop}: in likelihood, cropping wins against {_each(measured)}."
    return f"{first} {_retrieval_line(facts)}".strip()


def _retrieval_line(facts: Facts) -> str:
    crop, length = facts.retrieval("crop"), facts.retrieval_length
    asked = [label for label in facts.extensions if facts.retrieval(label) is not None]
    if crop is None or length is None or not asked:
        return ""
    compared = {label: against_crop(facts, label, crop) for label in asked}
    found = [label for label in asked if compared[label] == "more"]
    where = f"in texts of {tokens(length)} tokens"
    if found:
        return f"In retrieval, {listed(found)} {_finds(found)} more keys than cropping {where}."
    if all(word == "fewer" for word in compared.values()):
        return f"In retrieval, cropping finds more keys {where} than {_each(asked)}."
    return f"In retrieval {where}, no method is shown to find more keys than cropping."


def untouched(facts: Facts) -> str:
    """How far the model reads as it is."""
    inside, curve = facts.inside("none"), facts.curve("none") if "none" in facts.tokens else []
    if inside is None or not curve:
        return ""
    text = f"The untouched model reads its {tokens(facts.trained_length)} trained tokens at {number(inside)} nats per token"
    if facts.length <= facts.trained_length:
        return f"{text}; nothing beyond them was read."
    last = curve[-1]
    text += f" and the tokens {tokens(last.low)} to {tokens(last.high)} at {number(last.value)}."
    windows = facts.gain_windows("none")
    if not windows:
        return text
    bad = next((point for point in windows if point.value < -LOST), None)
    if bad is None:
        return (
            f"{text} It stays within {LOST:g} nats of cropping all the way: this text does not show that it needs a method."
        )
    start = f"From position {tokens(bad.low)} on" if bad is not windows[0] else "From the first targets beyond that length"
    there = f"net gain {number(bad.value, sign=True)} there"
    return f"{text} {start} it is more than {LOST:g} nats per token worse than cropping ({there})."


def gain(facts: Facts, label: str) -> str:
    """Net gain over cropping, with its interval and what that rests on."""
    row = facts.net_gain(label)
    if row is None:
        return ""
    if row.value is None:
        return f"Net gain over cropping could not be measured: {row.note}."
    said = f"net gain {number(row.value, sign=True)} nats per token"
    word = judged(row)
    if row.ci_low is None or row.ci_high is None:
        return f"Undecided against cropping: {said}, without an interval ({row.note or 'no reason given'})."
    said += f", 95% interval {interval(row, sign=True)} ({basis(row)})"
    if word == "undecided":
        return f"Undecided against cropping: {said}, which includes zero."
    who = "It reads better than cropping" if word == "above" else "Cropping reads better"
    return f"{who}: {said}."


def price(facts: Facts, label: str) -> str:
    """What it costs inside the old window, beside the control."""
    row = facts.row("price_nll", label)
    if row is None or row.value is None:
        return ""
    value = f"{with_interval(row, 4, sign=True)} nats per token"
    word = judged(row)
    said = {
        "above": f"Inside the trained length it costs {value}",
        "below": f"Inside the trained length it reads better than the untouched model, {value}",
        "undecided": f"Its price inside the trained length cannot be told from zero: {value}",
    }[word]
    return f"{said}{_against_control(facts, row)}.{_changed(facts, label)}"


def _against_control(facts: Facts, row: Measurement) -> str:
    control = facts.control("price_nll")
    if control is None or control.value is None or row.value is None:
        return " (no control was run)"
    ends = [abs(end) for end in (control.value, control.ci_low, control.ci_high) if end is not None]
    if abs(row.value) <= max(ends):
        return f", no more than what means nothing ({control_name(facts)}: {number(control.value, 4, sign=True)})"
    return f" (control, which means nothing: {number(control.value, 4, sign=True)})"


def _changed(facts: Facts, label: str) -> str:
    """How far its predictions moved: KL and the first choice."""
    parts = []
    for metric, name, write in (
        ("price_kl_mean", "mean KL to the untouched model", lambda value: f"{small(value)} nats"),
        ("price_top1", "first choice agrees at", percent),
    ):
        row, control = facts.row(metric, label), facts.control(metric)
        if row is None or row.value is None:
            continue
        beside = f" (control {write(control.value)})" if control is not None and control.value is not None else ""
        parts.append(f"{name} {write(row.value)}{beside}")
    return f" {'; '.join(parts).capitalize().replace('kl to', 'KL to')}." if parts else ""


def retrieval(facts: Facts, label: str) -> str:
    """Keys found in texts longer than the trained length, against cropping's."""
    row, crop, length = facts.retrieval(label), facts.retrieval("crop"), facts.retrieval_length
    if row is None or row.value is None or length is None:
        return ""
    said = f"In texts of {tokens(length)} tokens it finds {with_interval(row, 2)} of the keys (n = {row.n})"
    if crop is None or crop.value is None:
        return f"{said}; crop was not asked."
    tail = {"more": "more than crop", "fewer": "fewer than crop", "undecided": "not told apart from crop"}
    return f"{said}, {tail[compare(row, crop)]} with {with_interval(crop, 2)}."


def against_crop(facts: Facts, label: str, crop: Measurement) -> str:
    """`more`, `fewer` or `undecided`: by the paired difference where it has an interval, else by the two shares."""
    pair = paired_with_crop(facts, label)
    if pair is None or pair.ci_low is None:
        return compare(facts.retrieval(label), crop)
    return {"above": "more", "below": "fewer"}.get(judged(pair), "undecided")


def compare(row: Measurement | None, other: Measurement) -> str:
    """`more`, `fewer` or `undecided`: decided only where the intervals do not overlap."""
    ends = (row.ci_low if row else None, row.ci_high if row else None, other.ci_low, other.ci_high)
    low, high, other_low, other_high = ends
    if low is None or high is None or other_low is None or other_high is None:
        return "undecided"
    return "more" if low > other_high else "fewer" if high < other_low else "undecided"


def _reads(labels: list[str]) -> str:
    return "reads" if len(labels) == 1 else "read"


def _finds(labels: list[str]) -> str:
    return "finds" if len(labels) == 1 else "find"


def _is(labels: list[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _each(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"each of {listed(labels)}"
