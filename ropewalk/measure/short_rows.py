"""Rows of the short tasks, made from what their cells left on disk: scores as lm-eval makes them, and paired differences.

A score is lm-eval's mean and standard error. The interval is ours, with the task's documents as the unit: it says how far
the score of other documents of this kind may lie, and nothing of other wordings, other seeds or other sets.

- Answers that are right or wrong: Wilson (1927), which has a width at 0 and 1.
- Other means: Student's t over documents. Perplexities: e to the interval of the mean NLL.
- A number that lm-eval makes of all documents at once (F1, BLEU): its bootstrap's standard error, as a normal interval.

A gain is the method minus the untouched model on the same documents, above zero where the method is better. For scores
between 0 and 1 the interval is Agresti and Min's (2005): two documents are added, one that only the method gets right and
one that only the untouched model does, so that a method that changes none of a hundred answers is not said to cost nothing.

Sources: Agresti and Min, Statistics in Medicine 24 (2005) 729, the "Wald+2" interval with N = 2. A group of tasks (`mmlu`)
has one more row, over all its documents alike; lm-eval's own group score weighs tasks as the group says.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.record import Measurement
from ropewalk.measure import statistics
from ropewalk.measure.rows import Rows, exponential
from ropewalk.measure.settings import NONE, SHORT
from ropewalk.measure.shares import Z, agresti_min, wilson
from ropewalk.measure.short_tasks import read_cell
from ropewalk.measure.statistics import Estimate

Key = tuple[Any, ...]
"""What makes two samples the same question: its task, its document and its prompt."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One metric of one task (or group) under one method, by document."""

    metric: str
    kind: str
    """`mean`, `perplexity` (e to minus a mean), `bits`, or `whole`: made of all documents at once."""
    rising: bool | None
    """Whether more is better."""
    value: float
    stderr: float | None
    by_document: dict[Key, tuple[float, float]]
    """Sum and count: of a score 1 document, of a log-likelihood its words or bytes. Empty where `kind` is `whole`."""
    num: int
    said: str
    seconds: float | None = None
    peak_bytes: int | None = None


def short_rows(rows: Rows, members: dict[str, tuple[str, ...]], names: Sequence[str]) -> list[Measurement]:
    """Every row of the tasks `names`, and of the groups among `members`."""
    made: list[Measurement] = []
    for title, tasks in [*((name, (name,)) for name in names), *_groups(members)]:
        base: dict[str, Scores] = {}
        for label in [NONE, *(label for label in rows.labels if label != NONE)]:
            found = _pooled([_scores(rows, label, task) for task in tasks])
            for scores in found:
                made.append(_score_row(rows, label, title, scores))
                if label != NONE and scores.metric in base:
                    made += _gain_row(rows, label, title, scores, base[scores.metric])
            if label == NONE:
                base = {scores.metric: scores for scores in found}
    return made


def _groups(members: dict[str, tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"group:{name}", tasks) for name, tasks in members.items() if len(tasks) > 1]


def _scores(rows: Rows, label: str, task: str) -> list[Scores]:
    """Every metric of a finished cell."""
    cell = read_cell(rows.run, label, task)
    if cell is None:
        return []
    result, samples = cell
    of = "" if result["num_documents"] == result["num_available"] else f" of {result['num_available']}"
    said = f"{result['num_fewshot']}-shot, {result['num_documents']}{of} documents, task version {result['task_version']}"
    if result["num_cut"]:
        said += f"; prompts longer than {result['window']} tokens were cut from the left ({result['num_cut']} times)"
    return [
        _one(metric, [s for s in samples if s["filter"] == metric["filter"]], task, said, result)
        for metric in result["metrics"]
    ]


def _one(metric: dict[str, Any], samples: Sequence[dict[str, Any]], task: str, said: str, result: dict[str, Any]) -> Scores:
    name, kind = metric["name"], metric["filter"]
    value = float(metric["value"])
    by_document = {
        (task, s["doc_id"], s["doc_hash"], s["prompt_hash"]): pair
        for s in samples
        if name in s and (pair := _pair(s[name])) is not None
    }
    counted = any(isinstance(s.get(name), list) for s in samples)
    shape = _shape(value, list(by_document.values()), counted=counted)
    return Scores(
        metric=f"short_{name}" + ("" if kind == "none" else f"[{kind}]"), kind=shape, rising=metric["higher_is_better"],
        value=value, stderr=metric["stderr"], by_document={} if shape == "whole" else by_document,
        num=len([s for s in samples if name in s]), said=said, seconds=result["seconds"], peak_bytes=result["peak_bytes"],
    )  # fmt: skip


def _pair(value: Any) -> tuple[float, float] | None:
    """A document's score as (sum, count); None for what is neither a number nor a log-likelihood with its count."""
    if isinstance(value, int | float):
        return float(value), 1.0
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return float(value[0]), float(value[1])
    return None


def _shape(value: float, pairs: Sequence[tuple[float, float]], *, counted: bool) -> str:
    """How lm-eval came from the documents to its number, told by doing it again; `counted` are pairs, which have no mean."""
    total = sum(count for _, count in pairs)
    mean = sum(score for score, _ in pairs) / total if total else math.nan
    ways = {"perplexity": math.exp(min(-mean, 700.0)), "bits": -mean / math.log(2)}
    ways = ways if counted else {"mean": mean, **ways}
    return next((kind for kind, found in ways.items() if math.isclose(found, value, rel_tol=1e-9, abs_tol=1e-12)), "whole")


def _pooled(found: Sequence[Sequence[Scores]]) -> list[Scores]:
    """The metrics of several tasks over all their documents; of one task, its own. Only what all have by document."""
    if len(found) == 1:
        return list(found[0])
    pooled = []
    for first in found[0] if found else []:
        alike = [s for scores in found for s in scores if (s.metric, s.kind) == (first.metric, first.kind)]
        if first.kind == "whole" or len(alike) != len(found):
            continue
        by_document = {key: pair for scores in alike for key, pair in scores.by_document.items()}
        mean = sum(a for a, _ in by_document.values()) / sum(b for _, b in by_document.values())
        value = {"mean": mean, "perplexity": math.exp(-mean), "bits": -mean / math.log(2)}[first.kind]
        pooled.append(
            dataclasses.replace(
                first, value=value, stderr=None, by_document=by_document, num=len(by_document), seconds=None,
                peak_bytes=None, said=f"{len(found)} tasks, all their documents alike",
            )
        )  # fmt: skip
    return pooled


# --- one row ----------------------------------------------------------------------------------------------------------


def _score_row(rows: Rows, label: str, title: str, scores: Scores) -> Measurement:
    """lm-eval's number with an interval over documents."""
    low, high, how = _interval(scores)
    found = _estimate(scores.value, scores.num, scores.stderr, low, high, f"{scores.said}; {how}")
    unit = {"mean": "score", "bits": "bits/byte", "perplexity": "perplexity", "whole": "score"}[scores.kind]
    if scores.kind == "mean" and _is_share(scores):
        unit = "share"
    return rows.row(
        scores.metric, SHORT, unit, label, found, task=title, seconds=scores.seconds, peak_bytes=scores.peak_bytes
    )  # fmt: skip


def _is_share(scores: Scores) -> bool:
    """Whether every document's score lies between 0 and 1."""
    return all(count == 1.0 and 0.0 <= value <= 1.0 for value, count in scores.by_document.values())


def _interval(scores: Scores) -> tuple[float | None, float | None, str]:
    """Low and high end, and what the interval is."""
    if scores.kind == "whole":
        if scores.stderr is None:
            return None, None, "made of all documents at once, and lm-eval has no standard error for it: no interval"
        half = Z * scores.stderr
        return scores.value - half, scores.value + half, "normal interval on lm-eval's bootstrap over documents"
    pairs = list(scores.by_document.values())
    if scores.kind == "mean" and all(count == 1.0 and value in (0.0, 1.0) for value, count in pairs):
        return *wilson(scores.value, scores.num), "Wilson's interval over documents"
    found = _over_documents(pairs)
    if scores.kind == "mean":
        return found.ci_low, found.ci_high, "t over documents"
    nats = dataclasses.replace(found, value=-found.value, ci_low=_minus(found.ci_high), ci_high=_minus(found.ci_low))
    if scores.kind == "perplexity":
        ends = exponential(nats)
        return ends.ci_low, ends.ci_high, "e to the t interval of the mean over documents"
    bits = [None if end is None else end / math.log(2) for end in (nats.ci_low, nats.ci_high)]
    return bits[0], bits[1], "t over documents"


def _over_documents(pairs: Iterable[tuple[float, float]]) -> Estimate:
    """The ratio of sums with t over documents; no interval where documents are few or all alike."""
    sums, counts = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    num, value = sums.size, float(sums.sum() / counts.sum())
    if num < statistics.MIN_CLUSTERS:
        return _estimate(value, num, None, None, None, f"{num} documents are too few for an interval")
    stderr = float(np.sqrt(np.square((sums - value * counts) / counts.mean()).sum() / (num * (num - 1))))
    if stderr == 0.0:
        return _estimate(value, num, 0.0, None, None, "every document is alike, so there is no interval")
    half = statistics.student(num) * stderr
    return _estimate(value, num, stderr, value - half, value + half, "t over documents")


def _gain_row(rows: Rows, label: str, title: str, scores: Scores, base: Scores) -> list[Measurement]:
    """The method minus the untouched model on the same documents; nothing where a number has no documents."""
    shared = [key for key in scores.by_document if key in base.by_document]
    if not shared or scores.rising is None or scores.kind != base.kind:
        return []
    pairs = [(scores.by_document[key][0] - base.by_document[key][0], base.by_document[key][1]) for key in shared]
    # Of a log-likelihood more is better, though of its perplexity less is.
    sign = 1.0 if scores.kind != "mean" or scores.rising else -1.0
    pairs = [(sign * change, count) for change, count in pairs]
    share = scores.kind == "mean" and _is_share(scores) and _is_share(base)
    found = _paired_shares([change for change, _ in pairs]) if share else _over_documents(pairs)
    moved = sum(change != 0.0 for change, _ in pairs)
    note = f"paired on {len(pairs)} documents, {moved} of which score otherwise; {found.note}; above 0 is better"
    unit = "share" if share else "score" if scores.kind == "mean" else "nats"
    estimate = dataclasses.replace(found, note=note)
    return [rows.row(f"{scores.metric}_gain", SHORT, unit, label, estimate, task=title, reference=NONE)]


def _paired_shares(changes: Sequence[float]) -> Estimate:
    """Mean difference of scores between 0 and 1, with Agresti and Min's interval: one +1 and one -1 are added.

    For answers that are right or wrong this is their Wald+2; adding half an answer to each of the four cells of the table
    is the same arithmetic. Differences of other scores vary less than those of 0 and 1, and it holds for them too.
    """
    values = np.asarray(changes, dtype=np.float64)
    num = values.size
    plain = float(values.std(ddof=1)) / math.sqrt(num) if num > 1 else None
    low, high = agresti_min(float(values.mean()), float(np.square(values).mean()), num, Z)
    low, high = max(-1.0, low), min(1.0, high)
    return _estimate(float(values.mean()), num, plain, low, high, "Agresti and Min's interval")


def _estimate(value: float, num: int, stderr: float | None, low: float | None, high: float | None, note: str) -> Estimate:
    return Estimate(value=value, n=num, num_clusters=num, num_tokens=0, stderr=stderr, ci_low=low, ci_high=high, note=note)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
