"""Rows of a map from planted answers: differences, where s0 comes from, what counts as a guess, what is one cluster."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.measure.map_rows import Base, MapRows, haystacks, levelled
from ropewalk.measure.rows import Facts, Rows
from ropewalk.measure.settings import GROW, MULTIKEY, NO_CONTEXT, SINGLE, MapSettings
from ropewalk.measure.settings import Settings as RunSettings
from ropewalk.measure.shares import correlation, share
from ropewalk.report.words import judged

WINDOW = 4096
DEPTHS = tuple((index + 0.5) / 11 for index in range(11))


def sample(method, length, haystack, depth, found, task="needle", protocol=MULTIKEY, **more) -> dict[str, Any]:
    return {
        "task": task, "protocol": protocol, "method": method, "asked_length": length, "length": length, "haystack": haystack,
        "asked_depth": depth, "key": f"{haystack} {depth}", "position": None if depth is None else int(depth * length),
        "found": float(found), "exact": bool(found), "rank": None, "logprob": None, "seconds": 1.0, "template": "raw",
        "engine": "transformers", "num_needles": 11, "scoring": "forced", "note": None, "guess": 0.0, **more,
    }  # fmt: skip


def cell(method, length, found=1.0, num=24, depths=DEPTHS, **more) -> list[dict[str, Any]]:
    """A cell whose haystacks all answer alike; `found` may be a function of (haystack, depth)."""
    return [
        sample(method, length, h, d, found(h, d) if callable(found) else found, **more) for h in range(num) for d in depths
    ]


def made(samples, base=None, **settings):
    facts = Facts(model="m", card="c", seed=0, dtype="float32", device="cpu", versions={}, quantisation=None)
    run: Any = SimpleNamespace(card=SimpleNamespace(plans={}, documents=[]))
    rows = Rows(run, RunSettings(length=16384), WINDOW, facts, ())
    lengths = tuple(sorted({s["asked_length"] for s in samples if s["protocol"] != NO_CONTEXT}))
    asked: dict[str, Any] = {"methods": ("none", "crop", "yarn"), "lengths": lengths, "num_depths": 11, "num_haystacks": 24}
    return MapRows(rows, MapSettings(**(asked | settings)), samples, base).all()


def only(rows, metric, **where):
    (row,) = [r for r in rows if r.metric == metric and all(getattr(r, k) == v for k, v in where.items())]
    return row


# --- differences ------------------------------------------------------------------------------------------------------


def test_a_perfect_method_is_told_apart_from_cropping():
    """Cropping finds the last five of eleven depths in every haystack: every haystack differs alike, and surely."""
    samples = cell("yarn", 16384) + cell("crop", 16384, lambda _, depth: depth > 0.55) + cell("none", 16384, 0.0)
    found = made(samples)
    row = only(found, "retrieval_gain", reference="crop")
    assert row.value == pytest.approx(6 / 11)
    assert 0.4 < row.ci_low < row.value < row.ci_high < 0.7
    assert judged(row) == "above"
    assert only(found, "retrieval_gain", reference="none").ci_low > 0.95


def test_identical_answers_have_an_interval_around_zero():
    row = only(made(cell("yarn", 16384) + cell("crop", 16384)), "retrieval_gain", reference="crop")
    assert row.value == 0.0
    assert row.ci_low == pytest.approx(-row.ci_high)
    assert 0.001 < row.ci_high < 0.05


def test_three_haystacks_have_no_interval():
    row = only(made(cell("yarn", 16384, num=3) + cell("crop", 16384, 0.0, num=3)), "retrieval_gain", reference="crop")
    assert (row.ci_low, row.ci_high) == (None, None)
    assert "too few for an interval" in row.note


def test_what_distractors_cost_is_told_in_every_mode_that_has_them():
    samples = cell("none", 1024, protocol=SINGLE) + cell("none", 1024, 0.0) + cell("none", 1024, protocol=GROW)
    rows = made(samples)
    assert only(rows, "retrieval_single_minus_multikey", reference=MULTIKEY).value == 1.0
    assert only(rows, "retrieval_single_minus_multikey", reference=GROW).value == 0.0


# --- s0 ---------------------------------------------------------------------------------------------------------------


def test_a_short_score_from_above_half_the_window_is_refused():
    samples = [s for n in (3072, 4096) for m in ("none", "yarn") for s in cell(m, n)]
    row = only(made(samples), "effective_length", method="yarn")
    assert row.value is None
    assert "was asked is 3072, above half of its window of 4096 tokens" in row.note


def test_half_the_window_is_short_enough():
    samples = [s for n in (2048, 3072) for m in ("none", "yarn") for s in cell(m, n)]
    assert only(made(samples), "effective_length", method="yarn").value == 3072


def test_the_short_score_may_be_of_a_length_that_nobody_named():
    """It is no part of the grid, so the gap between is none, and the row says where s0 is from."""
    samples = [
        s for n in (1024, 8192, 12288) for m in ("none", "yarn") for s in cell(m, n, 1.0 if m == "yarn" else n < 4096)
    ]
    found = made(samples, inside=(1024,))
    row = only(found, "effective_length", method="yarn")
    assert (row.value, row.ci_high) == (12288, 12288)
    assert "s0 1.00" in row.note
    assert "at 1024;" in row.note
    assert only(found, "effective_length", method="none").value == 0


def test_who_hands_an_s0_in_answers_for_its_length():
    samples = [s for n in (3072, 4096) for s in cell("served", n)]
    base = Base(samples=tuple(cell("none", 3072)), note="s0 from a run")
    row = only(made(samples, base, methods=("served",), untouched="served"), "effective_length")
    assert row.value == 4096


# --- guesses ----------------------------------------------------------------------------------------------------------


def asked_alone(right, num=200):
    """Questions of one a haystack, answered by a model that knows the answers without the text."""
    known = {"task": "qa", "protocol": "one-question", "depths": [None], "num": num}
    cells = [s for n in (1024, 1536) for m in ("none", "yarn") for s in cell(m, n, lambda h, _: h % 10 < 8, **known)]
    return cells + cell("none", 1024, right, **(known | {"protocol": NO_CONTEXT}))


def test_what_is_known_without_the_text_is_not_read():
    row = only(made(asked_alone(lambda h, _: h % 10 < 8)), "effective_length", method="yarn")
    assert row.value is None
    assert "not above what is found without the text (0.80, perhaps 0.8" in row.note
    assert only(made(asked_alone(0.0)), "effective_length", method="yarn").value == 1536


def test_rows_of_choices_say_what_a_guess_is_worth():
    ranked = cell("none", 1024, rank=1, num_candidates=8) + cell("none", 1536, rank=2, num_candidates=4)
    rows = [r for r in made(ranked) if r.metric == "retrieval_choice" and r.depth is None]
    assert [r.note.rpartition("; ")[2] for r in rows] == [
        "a guess is right in 0.12 of them",
        "a guess is right in 0.25 of them",
    ]


def test_a_prompt_without_its_text_is_not_as_long_as_one_with_it():
    alone = [s | {"length": 110} for s in cell("none", 2048, 0.0, protocol=NO_CONTEXT)]
    samples = cell("none", 2048) + alone
    assert {r.length for r in made(samples) if r.protocol == NO_CONTEXT} == {110}


# --- clusters ---------------------------------------------------------------------------------------------------------


def pooled(rng, rho, tasks=5, num=4, depths=5):
    """Tasks that share `num` documents, each of which is as hard for all of them."""
    level = rng.beta(0.9 * (1 / rho - 1), 0.1 * (1 / rho - 1), num)
    return [
        sample("none", 1024, h, d, rng.random() < level[h], task=f"{task}")
        for task in range(tasks) for h in range(num) for d in range(depths)
    ]  # fmt: skip


def test_tasks_that_share_documents_are_one_cluster():
    """Four documents are four, however many tasks ask about them: the pooled interval covers what it says."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        samples = pooled(rng, 0.4)
        found = share(haystacks(samples, "found"), rho=correlation([levelled(samples, "found")]))
        assert found.num_clusters == 4
        held.append(found.low <= 0.9 <= found.high)
    assert np.mean(held) >= 0.93


def test_an_easy_and_a_hard_task_are_no_clusters():
    """Documents of which one has more of the easy task's answers do not look alike inside for that."""
    rng = np.random.default_rng(1)
    samples = [
        sample("none", 1024, h, d, rng.random() < (0.95 if task == "easy" else 0.1), task=task)
        for h in range(200) for task in ("easy", "hard") for d in range(10 if (task == "easy") == (h % 2 == 0) else 2)
    ]  # fmt: skip
    assert correlation([haystacks(samples, "found")]) > 0.2
    assert correlation([levelled(samples, "found")]) < 0.05


def test_a_family_counts_documents_and_not_tasks_times_documents():
    samples = [
        s for task in ("needle", "passkey") for n in (1024, 1536) for m in ("none", "yarn") for s in cell(m, n, task=task)
    ]
    row = only(made(samples), "effective_length", method="yarn", task="family:retrieval")
    assert (row.value, row.num_clusters) == (1536, 24)
