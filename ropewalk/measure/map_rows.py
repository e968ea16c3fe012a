"""Rows of a retrieval map, made from its samples: shares, graded scores, paired differences, effective lengths.

A share's interval knows that a haystack's answers are not independent (`shares.py`); both numbers, of answers and of
what they are worth, are in its note. Differences between methods are taken question by question on identical prompts.

s0, what an effective length is held against, is the untouched model's score at the shortest length that it was asked, which
must be at most half its window: near the window's end a model may have begun to fail. What is answered without any text
counts as a guess. Tasks of a family share documents, so their answers are one cluster where the haystack's number is one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from ropewalk.core.errors import InputError
from ropewalk.core.record import Measurement
from ropewalk.data.tasks.task import find_task
from ropewalk.measure import statistics
from ropewalk.measure.effective import THRESHOLD, EffectiveLength, effective_length
from ropewalk.measure.rows import Rows
from ropewalk.measure.settings import CROP, GROW, MULTIKEY, NO_CONTEXT, NONE, SINGLE, STAND_ALONE, MapSettings
from ropewalk.measure.shares import POCOCK, Share, Z, correlation, difference, share

Sample = dict[str, Any]
CONTROLS = (NO_CONTEXT, STAND_ALONE)


@dataclass(frozen=True, kw_only=True)
class Base:
    """Where s0 comes from, if not from the untouched model in the same run."""

    samples: tuple[Sample, ...] = ()
    """Of an earlier run of the untouched model, under the label `MapSettings.base`."""
    note: str = ""
    """What the row of an effective length says of s0."""
    refused: str = ""
    """Why there is no s0, and so no effective length."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One cell of the map, over all its haystacks."""

    task: str
    protocol: str
    method: str
    length: int


class MapRows:
    """The rows of one map."""

    def __init__(self, rows: Rows, settings: MapSettings, samples: Iterable[Sample], base: Base | None = None) -> None:
        self.rows, self.settings, self.base = rows, settings, base or Base()
        self.given_base = base is not None
        self.places = places(samples)
        self.base_places = places(self.base.samples) or self.places
        self.z = POCOCK if settings.stop_early else Z
        self._correlations: dict[tuple[str, str, str, str], float] = {}
        self._differences: dict[tuple[str, str, str, str], float] = {}

    def all(self) -> list[Measurement]:
        """Every row."""
        found: list[Measurement] = []
        for place, samples in self.places.items():
            if place.protocol == STAND_ALONE:
                continue
            found += self.scores(place, None, samples)
            if place.protocol != NO_CONTEXT:
                by_depth = sorted((s for s in samples if s["asked_depth"] is not None), key=lambda s: s["asked_depth"])
                for depth, group in groupby(by_depth, key=lambda s: s["asked_depth"]):
                    found += self.scores(place, depth, list(group))
                found += self.gains(place, samples)
        return [*found, *self.flips(), *self.single_against_multikey(), *self.effective()]

    # --- one cell -----------------------------------------------------------------------------------------------------

    def correlation(self, place: Place, score: str) -> float:
        """Intra-cluster correlation of a task and a method, pooled over lengths."""
        key = (place.task, place.protocol, place.method, score)
        if key not in self._correlations:
            alike = [
                haystacks(samples, score)
                for other, samples in self.places.items()
                if (other.task, other.protocol, other.method) == key[:3]
            ]
            self._correlations[key] = correlation(alike)
        return self._correlations[key]

    def share(self, place: Place, samples: Sequence[Sample], score: str) -> Share:
        """A score's share with its interval."""
        return share(haystacks(samples, score), rho=self.correlation(place, score), z=self.z)

    def scores(self, place: Place, depth: float | None, samples: Sequence[Sample]) -> list[Measurement]:
        """Exact match, references found, choice among candidates, log-probability, rank."""
        where = self.where(place, depth, samples)
        forced = samples[0]["scoring"] == "forced"
        rows = [self.share_row("retrieval_exact", place, samples, "exact", where)]
        if not forced or any(float(s["found"]) != float(s["exact"]) for s in samples):
            rows.append(self.share_row("retrieval_found", place, samples, "found", where))
        ranked = [s for s in samples if s["rank"] is not None]
        if ranked:
            rows.append(self.share_row("retrieval_choice", place, ranked, "choice", where, chance(ranked)))
        for metric, unit in (("logprob", "nats"), ("rank", "rank")):
            graded = [s for s in samples if s[metric] is not None]
            if graded:
                rows.append(self.graded_row(metric, unit, place, graded, where))
        return rows

    def where(self, place: Place, depth: float | None, samples: Sequence[Sample]) -> dict[str, Any]:
        """The columns that say what the number is of."""
        copied = any(s["seconds"] is None for s in samples)
        return {
            "task": place.task, "template": str(samples[0]["template"]), "engine": str(samples[0]["engine"]),
            # Without its text a prompt is as long as its question.
            "length": max(int(s["length"]) for s in samples) if place.protocol == NO_CONTEXT else place.length,
            "depth": depth,
            "seconds": None if copied else sum(float(s["seconds"]) for s in samples),
        }  # fmt: skip

    def said(self, samples: Sequence[Sample]) -> str:
        """What was asked, in words."""
        lengths = sorted({int(s["length"]) for s in samples})
        stacks = len({s["haystack"] for s in samples})
        said = f"{len(samples)} answers from {stacks} haystacks; true length {lengths[0]} to {lengths[-1]} tokens"
        needles = sorted({int(s["num_needles"]) for s in samples if s.get("num_needles")})
        if needles:
            said += f"; {needles[0]} needles" if len(needles) == 1 else f"; {needles[0]} to {needles[-1]} needles"
        if len(samples) and samples[0]["scoring"] == "generate":
            said += "; generated"
        asked = self.settings.num_haystacks
        if self.settings.stop_early:
            said += f"; sequential test, {stacks} of {asked} haystacks, Pocock's intervals"
        notes = sorted({str(s["note"]) for s in samples if s["note"]})
        return "; ".join([said, *notes])

    def share_row(
        self, metric: str, place: Place, samples: Sequence[Sample], score: str, where: dict[str, Any], said: str = ""
    ) -> Measurement:
        """A row of a share."""
        found = self.share(place, samples, score)
        note = (
            f"{self.said(samples)}; n {found.n}, effective n {found.effective_n:.1f} (correlation {found.correlation:.2f})"
            f"{said}"
        )
        return self.rows.row(metric, place.protocol, "share", place.method, estimate(found, samples, note), **where)

    def graded_row(
        self, metric: str, unit: str, place: Place, samples: Sequence[Sample], where: dict[str, Any]
    ) -> Measurement:
        """A row of a mean over haystacks, t over haystacks."""
        groups = [np.asarray(group, dtype=np.float64) for group in haystacks(samples, metric)]
        found = statistics.clusters_mean(groups, note=self.said(samples))
        return self.rows.row(f"retrieval_{metric}", place.protocol, unit, place.method, found, **where)

    # --- differences --------------------------------------------------------------------------------------------------

    def gains(self, place: Place, samples: Sequence[Sample]) -> list[Measurement]:
        """References found, minus those of the baselines, on identical prompts."""
        rows = []
        for reference in (NONE, CROP):
            twin = Place(task=place.task, protocol=place.protocol, method=reference, length=place.length)
            if place.method in (NONE, CROP) or twin not in self.places:
                continue
            pairs = matched(samples, self.places[twin])
            if pairs:
                where = self.where(place, None, samples) | {"reference": reference, "seconds": None}
                rho = self.difference_correlation(place, reference)
                rows.append(self.difference("retrieval_gain", place, pairs, where, rho))
        return rows

    def difference_correlation(self, place: Place, reference: str) -> float:
        """Intra-cluster correlation of a task's paired differences, pooled over lengths."""
        key = (place.task, place.protocol, place.method, reference)
        if key not in self._differences:
            alike = [
                paired_haystacks(matched(samples, self.places[twin]))
                for other, samples in self.places.items()
                if (other.task, other.protocol, other.method) == key[:3]
                and (twin := replace(other, method=reference)) in self.places
            ]
            self._differences[key] = correlation(
                [[[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(*both, strict=True)] for both in alike]
            )
        return self._differences[key]

    def difference(
        self, metric: str, place: Place, pairs: Sequence[tuple[Sample, Sample]], where: dict[str, Any], rho: float
    ) -> Measurement:
        """A row of a paired difference; `rho` is the correlation of the differences."""
        first, second = paired_haystacks(pairs)
        found = difference(first, second, rho=rho, z=self.z)
        note = f"paired on {len(pairs)} identical prompts of {len(first)} haystacks"
        if found.low is None:
            note += ", too few for an interval"
        else:
            note += f"; Agresti and Min's interval, effective n {found.effective_n:.1f}"
        made = statistics.Estimate(
            value=found.value, n=len(pairs), num_clusters=len(first), num_tokens=0, stderr=found.stderr, note=note,
            ci_low=found.low, ci_high=found.high,
        )  # fmt: skip
        return self.rows.row(metric, place.protocol, "share", place.method, made, **where)

    def flips(self) -> list[Measurement]:
        """How often a branch and its stand-alone prompt disagree: rounding, in half precision."""
        rows = []
        for place, samples in self.places.items():
            if place.protocol != STAND_ALONE:
                continue
            twins = [
                s
                for other, them in self.places.items()
                if (other.task, other.method, other.length) == (place.task, place.method, place.length)
                and other.protocol not in CONTROLS
                for s in them
            ]
            pairs = matched(samples, twins)
            if pairs:
                flipped = [{**a, "found": float(a["exact"] != b["exact"])} for a, b in pairs]
                where = self.where(place, None, samples)
                rows.append(self.share_row("retrieval_flips", place, flipped, "found", where))
        return rows

    def single_against_multikey(self) -> list[Measurement]:
        """What distractors cost: a needle alone, minus the same needle among others, in each way of asking among others."""
        rows = []
        for place, samples in self.places.items():
            for protocol in (MULTIKEY, GROW):
                twin = replace(place, protocol=protocol)
                if place.protocol != SINGLE or twin not in self.places:
                    continue
                # The needles differ, the depths and haystack numbers are the same: paired by place.
                others = {(s["haystack"], s["asked_depth"]): s for s in self.places[twin]}
                pairs = [(s, others[k]) for s in samples if (k := (s["haystack"], s["asked_depth"])) in others]
                if pairs:
                    where = self.where(place, None, samples) | {"reference": protocol, "seconds": None}
                    both = zip(*paired_haystacks(pairs), strict=True)
                    rho = correlation([[[a - b for a, b in zip(x, y, strict=True)] for x, y in both]])
                    rows.append(self.difference("retrieval_single_minus_multikey", place, pairs, where, rho))
        return rows

    # --- effective length ---------------------------------------------------------------------------------------------

    def effective(self) -> Iterator[Measurement]:
        """One row per method and task, and per family where it has several tasks."""
        kinds = {(p.protocol, p.method) for p in self.places if p.protocol not in CONTROLS}
        for protocol, method in sorted(kinds):
            names = sorted({p.task for p in self.places if (p.protocol, p.method) == (protocol, method)})
            families: dict[str, list[str]] = {}
            for name in names:
                families.setdefault(find_task(name).family, []).append(name)
                yield self.effective_row(protocol, method, name, [name])
            for family, members in families.items():
                if len(members) > 1 and self.asked(protocol, method, members):
                    # A task may be called as its family is.
                    yield self.effective_row(protocol, method, f"family:{family}", members)

    def effective_row(self, protocol: str, method: str, title: str, members: Sequence[str]) -> Measurement:
        """The effective length of some tasks together."""
        cells = self.asked(protocol, method, members)
        bases = self.pooled(protocol, self.settings.base, members, self.base_places)
        short, reason = self.short(bases)
        engine = str(next(iter(cells.values()))[0]["engine"])
        where: dict[str, Any] = {
            "task": title, "template": self.settings.template, "length": max(cells), "engine": engine
        }  # fmt: skip
        # Last in the note: whoever reads rows alone must know what the number is of.
        family = f"family {find_task(members[0]).family}: {', '.join(members)}"
        if self.base.note:
            family = f"{self.base.note}; {family}"
        if short is None:
            return self.refused(protocol, method, where, f"{reason}; {family}")
        shares = self.shares(cells)
        guess = max(float(s["guess"]) for s in bases[short])
        try:
            found = effective_length(shares, self.shares(bases)[short], guess=guess, control=self.control(members))
        except InputError as error:
            return self.refused(protocol, method, where, f"{error}; {family}")
        if found.refused is not None:
            return self.refused(protocol, method, where, f"{found.refused}; {family}")
        n = sum(len(samples) for samples in cells.values())
        stacks = len({s["haystack"] for samples in cells.values() for s in samples})
        note = f"{words(found, short, shares, cells)}; {family}"
        result = statistics.Estimate(
            value=float(found.value or 0), n=n, num_clusters=stacks, num_tokens=0, stderr=None,
            ci_low=float(found.low or 0), ci_high=float(found.high or 0), note=note,
        )  # fmt: skip
        return self.rows.row("effective_length", protocol, "tokens", method, result, **where)

    def short(self, bases: Mapping[int, list[Sample]]) -> tuple[int | None, str]:
        """The length that s0 is taken at, or why there is none."""
        if self.base.refused or not bases:
            return None, self.base.refused or "the untouched model was not measured at the shortest length"
        shortest = min(bases)
        # Who hands an s0 in answers for it.
        if self.given_base or 2 * shortest <= self.rows.window:
            return shortest, ""
        return None, (
            f"the shortest length at which the untouched model was asked is {shortest}, above half of its window of "
            f"{self.rows.window} tokens, so its short score is not known"
        )

    def shares(self, cells: Mapping[int, Sequence[Sample]]) -> dict[int, Share]:
        """Shares found by length, perhaps of several tasks, with one correlation for all lengths."""
        rho = correlation([levelled(samples, "found") for samples in cells.values()])
        return {n: share(haystacks(samples, "found"), rho=rho, z=self.z) for n, samples in cells.items()}

    def control(self, members: Sequence[str]) -> Share | None:
        """What the untouched model finds without any text; None where it was not asked."""
        alone = [s for p, found in self.places.items() if p.protocol == NO_CONTEXT and p.task in members for s in found]
        return self.shares({0: alone})[0] if alone else None

    def refused(self, protocol: str, method: str, where: dict[str, Any], reason: str) -> Measurement:
        """A row without a number."""
        nothing = statistics.Estimate(
            value=math.nan, n=0, num_clusters=0, num_tokens=0, stderr=None, ci_low=None, ci_high=None, note=reason
        )
        return self.rows.row("effective_length", protocol, "tokens", method, nothing, **where)

    def asked(self, protocol: str, method: str, members: Sequence[str]) -> dict[int, list[Sample]]:
        """Samples by length at the lengths that were named; those added inside the window are no part of a grid."""
        found = self.pooled(protocol, method, members)
        return {n: samples for n, samples in found.items() if n not in self.settings.inside}

    def pooled(
        self, protocol: str, method: str, members: Sequence[str], among: Mapping[Place, list[Sample]] | None = None
    ) -> dict[int, list[Sample]]:
        """Samples by length over some tasks; only lengths at which every one of them was asked."""
        found: dict[int, dict[str, list[Sample]]] = {}
        for place, samples in (among or self.places).items():
            if (place.protocol, place.method) == (protocol, method) and place.task in members:
                found.setdefault(place.length, {})[place.task] = samples
        return {n: [s for part in by.values() for s in part] for n, by in sorted(found.items()) if len(by) == len(members)}


def places(samples: Iterable[Sample]) -> dict[Place, list[Sample]]:
    """Samples by cell of the map."""
    found: dict[Place, list[Sample]] = {}
    for s in samples:
        place = Place(task=s["task"], protocol=s["protocol"], method=s["method"], length=s["asked_length"])
        found.setdefault(place, []).append({**s, "choice": s["rank"] == 1})
    return found


def words(found: EffectiveLength, short: int, shares: dict[int, Share], cells: dict[int, list[Sample]]) -> str:
    """What stands beside an effective length."""
    base, last = found.base, max(shares)
    said = ["at least: the longest tested length is certified" if found.censored else f"tested to {last}"]
    if not found.value:
        said = [f"not certified at the shortest tested length, {min(shares)}"]
    said.append(f"score at least {THRESHOLD:.0%} of the untouched model's short score at every length up to it")
    said.append(f"s0 {base.value:.2f} [{base.low:.2f}, {base.high:.2f}] at {short}")
    said.append(f"effective n per length {min(s.effective_n for s in shares.values()):.0f} or more")
    said.append(f"point estimates alone: {found.point}")
    said.append(f"RULER's rule (85.6% absolute): {found.ruler}")
    depths: dict[float, list[float]] = {}
    for s in cells[last]:
        if s["asked_depth"] is not None:
            depths.setdefault(s["asked_depth"], []).append(float(s["found"]))
    if depths:
        worst = min(depths, key=lambda d: float(np.mean(depths[d])))
        said.append(f"worst depth at {last}: {worst:.2f} ({float(np.mean(depths[worst])):.2f})")
    return "; ".join(said)


def estimate(found: Share, samples: Sequence[Sample], note: str) -> statistics.Estimate:
    """A share as an estimate."""
    return statistics.Estimate(
        value=found.value, n=found.n, num_clusters=found.num_clusters, stderr=None, ci_low=found.low, ci_high=found.high,
        num_tokens=sum(int(s["length"]) for s in samples), note=note,
    )  # fmt: skip


def haystacks(samples: Sequence[Sample], score: str) -> list[list[float]]:
    """Scores by the haystack's number. Tasks of one number share a document, so their answers are one cluster."""
    found: dict[int, list[float]] = {}
    for s in samples:
        found.setdefault(s["haystack"], []).append(float(s[score]))
    return list(found.values())


def levelled(samples: Sequence[Sample], score: str) -> list[list[float]]:
    """Scores by haystack with each task's mean taken off, for correlations: a hard and an easy task are no clusters."""
    tasks = {str(s["task"]) for s in samples}
    if len(tasks) == 1:
        return haystacks(samples, score)
    means = {task: float(np.mean([float(s[score]) for s in samples if s["task"] == task])) for task in tasks}
    # Rounded, since what does not vary must not seem to.
    return haystacks([{**s, score: round(float(s[score]) - means[s["task"]], 12)} for s in samples], score)


def paired_haystacks(pairs: Sequence[tuple[Sample, Sample]]) -> tuple[list[list[float]], list[list[float]]]:
    """References found by both sides of pairs, by haystack."""
    return haystacks([a for a, _ in pairs], "found"), haystacks([b for _, b in pairs], "found")


def chance(ranked: Sequence[Sample]) -> str:
    """How often a guess among the candidates is right, as a part of a note; empty where their number is not known."""
    numbers = [int(s["num_candidates"]) for s in ranked if s.get("num_candidates")]
    return f"; a guess is right in {np.mean([1 / n for n in numbers]):.2f} of them" if numbers else ""


def matched(samples: Sequence[Sample], others: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Pairs of answers to the same prompt."""

    def prompt(s: Sample) -> tuple[Any, ...]:
        return (s["haystack"], s["asked_length"], s["asked_depth"], s["key"], s["position"])

    known = {prompt(s): s for s in others}
    return [(s, known[prompt(s)]) for s in samples if prompt(s) in known]
