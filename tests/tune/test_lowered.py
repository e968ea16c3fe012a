"""The card of a run that was stopped by a fault takes a lower rate, for that run and for nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.core.record import Card
from ropewalk.tune.faults import note
from ropewalk.tune.lowered import settle


def card(rate: float, *, runs: tuple[float, ...] = (), **config: Any) -> Card:
    chain = {"runs": [{"learning_rate": one, "steps": 4} for one in runs]} if runs else {}
    return Card(
        verb="tune", model="tiny", source={}, config={"learning_rate": rate, "steps": 4, **chain, **config}, geometry={},
        plans={}, documents=[], seed=0, dtype="float32", device="cpu", quantisation=None, versions={}, hardware={},
    )  # fmt: skip


def begun(out: Path, was: Card, stopped: Path | None) -> None:
    out.mkdir()
    (out / "card.json").write_text(json.dumps(was.to_dict()))
    if stopped is not None:
        note(stopped / "state", 3, "the loss is nan", 1e-2)


def on_disk(out: Path) -> Card:
    return Card.from_dict(json.loads((out / "card.json").read_text()))


def test_a_lower_rate_is_taken_and_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun(out, card(1e-2), out)
    settled = settle(out, card(1e-3))
    told = {"step": 0, "from": 1e-2, "to": 1e-3, "fault": "the loss is nan", "stopped_after": 3}
    assert settled.config["lowered"] == [told]
    assert on_disk(out).question == settled.question
    # The same command again, after another kill: the question is known, and nothing more is told.
    assert settle(out, card(1e-3)).question == settled.question
    assert settle(out, card(1e-4)).config["lowered"][-1]["to"] == 1e-4


@pytest.mark.parametrize(
    ("now", "fault"),
    [(card(2e-2), True), (card(1e-3), False), (card(1e-3, accumulate=3), True)],
    ids=["a higher rate", "no fault", "more than the rate"],
)
def test_anything_else_is_left_to_be_refused(now: Card, fault: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun(out, card(1e-2), out if fault else None)
    before = (out / "card.json").read_bytes()
    assert settle(out, now).question != on_disk(out).question
    assert (out / "card.json").read_bytes() == before


def test_in_a_chain_only_the_run_that_was_stopped_is_lowered(tmp_path: Path) -> None:
    out = tmp_path / "out"
    links = [out / "chain" / "1", out / "chain" / "2", out]
    begun(out, card(1e-2, runs=(1e-2, 1e-2, 1e-2)), links[1])
    settled = settle(out, card(1e-2, runs=(1e-2, 1e-3, 1e-2)), links)
    assert on_disk(out).question == settled.question
    assert [one["run"] for one in settled.config["lowered"]] == [2]
    other = settle(out, card(1e-2, runs=(1e-3, 1e-3, 1e-2)), links)
    assert other.question != on_disk(out).question


def test_the_last_run_of_a_chain_is_the_card_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    links = [out / "chain" / "1", out]
    begun(out, card(1e-2, runs=(1e-2, 1e-2)), out)
    settled = settle(out, card(1e-3, runs=(1e-2, 1e-3)), links)
    assert on_disk(out).question == settled.question
    assert [one["run"] for one in settled.config["lowered"]] == [2]
