"""A finished run that is asked for a held-out score: made of its result, once, and what cannot be made is said."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune

from ropewalk.core.errors import MachineError
from ropewalk.core.progress import Progress


def scorer(model: Any, length: int) -> float:
    """The mean loss of a fixed text."""
    ids = torch.arange(2, 2 + length)[None]
    assert not model.training
    return float(model(input_ids=ids, labels=ids).loss)


def validations(out: Path) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["validation"]) for line in lines if "validation" in line]


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_a_score_asked_for_later_is_the_one_of_the_end(recipe: str, tune: Tune, tmp_path: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    tune(fresh, recipe=recipe, scorer=scorer, validate_lengths=(32, 64))
    tune(out, recipe=recipe)
    weights = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    words = StringIO()
    asked = {"recipe": recipe, "scorer": scorer, "validate_lengths": (32, 64), "resume": True, "progress": Progress(words)}
    assert tune(out, **asked).status == "done"
    ((step, late),), ((end, expected),) = validations(out), validations(fresh)
    assert (step, end) == (5, 5)
    assert late == pytest.approx(expected, abs=1e-5)
    assert "held-out score of the result at 64 tokens" in words.getvalue()
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == weights
    tune(out, **asked)
    tune(fresh, **asked)
    assert (len(validations(out)), len(validations(fresh))) == (1, 1), "what is there is not scored again"


def test_scores_of_steps_that_are_gone_are_said(tune: Tune, tmp_path: Path) -> None:
    words, out = StringIO(), tmp_path / "out"
    tune(out)
    tune(out, scorer=scorer, validate_lengths=(32,), validate_every=2, resume=True, progress=Progress(words))
    assert "held-out scores of earlier steps (2) cannot be made" in words.getvalue()
    assert [step for step, _ in validations(out)] == [5]


def test_a_run_scored_on_its_way_is_resumed_without_a_word_more(tune: Tune, tmp_path: Path) -> None:
    words, out = StringIO(), tmp_path / "out"
    asked = {"scorer": scorer, "validate_lengths": (32,), "validate_every": 2}
    tune(out, **asked)
    log = (out / "log.jsonl").read_bytes()
    tune(out, **asked, resume=True, progress=Progress(words))
    assert (out / "log.jsonl").read_bytes() == log
    assert "held-out" not in words.getvalue()


def test_a_score_that_is_not_finite_is_null(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out")
    tune(tmp_path / "out", scorer=lambda model, length: float("inf"), validate_lengths=(32,), resume=True)
    assert validations(tmp_path / "out") == [(5, {"32": None})]


def test_a_score_that_has_no_memory_leaves_the_result_as_it_is(tune: Tune, tmp_path: Path) -> None:
    def large(model: Any, length: int) -> float:
        raise MemoryError

    out = tmp_path / "out"
    tune(out)
    with pytest.raises(MachineError, match="out of memory while scoring the result at 32 tokens; the result is whole"):
        tune(out, scorer=large, validate_lengths=(32,), resume=True)
    assert json.loads((out / "card.json").read_text())["status"] == "done"
    assert validations(out) == []
