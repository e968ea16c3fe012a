"""What a tuned folder says it was trained for, and what the next plan departs from."""

from pathlib import Path

import numpy as np
import pytest
from small import Tune
from streams import Counting

import ropewalk
from ropewalk.core.errors import InputError, LengthError, PlanError
from ropewalk.core.record import Card


def notes(card: Card) -> str:
    return " ".join(finding["problem"] for finding in card.findings)


def vector(folder: Path) -> np.ndarray:
    found = ropewalk.geometry(folder).groups[0].inv_freq
    assert found is not None
    return found


@pytest.fixture(scope="module")
def stretched(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stretched to 256 tokens, and not trained there."""
    out = tmp_path_factory.mktemp("stretched") / "yarn"
    ropewalk.extend(tied, "yarn", length=256, out=out)
    return out


def test_training_below_an_untrained_stretch_is_not_recorded_as_training_at_it(
    tune: Tune, stretched: Path, tmp_path: Path
) -> None:
    with pytest.raises(LengthError, match=r"untrained plan for 256 tokens.*--length 256, with --window 128"):
        tune(tmp_path / "run", start=stretched, method=None, length=128)
    assert not (tmp_path / "run").exists()


def test_short_rows_under_a_long_plan_are_said_to_be_short(tune: Tune, stretched: Path, tmp_path: Path) -> None:
    card = tune(tmp_path / "run", start=stretched, method=None, length=256, steps=1)
    assert ropewalk.geometry(tmp_path / "run").lineage == "trained"
    assert "rows hold at most 48 tokens, so no position beyond that" in notes(card)
    card = tune(tmp_path / "planned", length=256, steps=1)
    assert "rows hold at most 48 tokens, so no position beyond that is trained under the plan for 256" in notes(card)
    card = tune(tmp_path / "pose", length=256, steps=1, positions="pose")
    assert "no position beyond that" not in notes(card)


def test_the_plan_that_a_source_was_tuned_by_is_kept(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "first", steps=1, length=128)
    card = tune(tmp_path / "second", start=tmp_path / "first", steps=1, length=128)
    assert "tuned by yarn for 128 tokens, and that plan is kept" in notes(card)
    np.testing.assert_array_equal(vector(tmp_path / "second"), vector(tmp_path / "first"))
    # With another option it is another plan, and no longer one.
    with pytest.raises(InputError, match=r"beta_fast=16\.0 is asked for; give --lineage runtime"):
        tune(tmp_path / "third", start=tmp_path / "first", steps=1, length=128, method="yarn:beta_fast=16")


def test_from_s_to_2s_is_planned_from_the_origin_unless_the_user_says_otherwise(
    tied: Path, tune: Tune, tmp_path: Path
) -> None:
    tune(tmp_path / "first", steps=1, length=128)
    card = tune(tmp_path / "second", start=tmp_path / "first", steps=1, length=256)
    assert "the plan for 256 is made from its origin, which read 64" in notes(card)
    origin = ropewalk.plan(tied, "yarn", length=256).frequencies
    assert card.plans["yarn"]["factor"] == 4.0
    np.testing.assert_allclose(vector(tmp_path / "second"), origin.inv_freq, rtol=1e-6)
    assert ropewalk.geometry(tmp_path / "second").groups[0].attention_factor == pytest.approx(origin.attention_factor)
    # Two methods have no common s, and the user's word wins.
    other = tune(tmp_path / "other", start=tmp_path / "first", steps=1, length=256, method="ntk")
    assert other.plans["ntk"]["factor"] == 2.0
    assert "origin" not in notes(other)
    plan = ropewalk.plan(tmp_path / "first", "yarn", length=256, lineage="trained")
    assert not np.allclose(plan.frequencies.inv_freq, origin.inv_freq, rtol=1e-3)
    with pytest.raises(PlanError, match="neither trained nor runtime"):
        tune(tmp_path / "wrong", start=tmp_path / "first", length=256, lineage="tuned")


def test_lora_alone_is_said_to_learn_little_of_a_longer_context(tune: Tune, tmp_path: Path) -> None:
    assert "perplexity 11.44" in notes(tune(tmp_path / "lora", steps=1, recipe="lora"))
    assert "perplexity" not in notes(tune(tmp_path / "longlora", steps=1, recipe="longlora"))
    # Without a stretch there is no longer context to learn.
    assert "perplexity" not in notes(tune(tmp_path / "short", steps=1, recipe="lora", method=None, length=64))


def test_an_adapter_is_no_source_of_a_training(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "adapter", steps=1, recipe="lora")
    with pytest.raises(InputError, match=r"is an adapter folder.*ropewalk tune .*adapter --merge --out NEW"):
        tune(tmp_path / "second", start=tmp_path / "adapter", length=512)
    assert not (tmp_path / "second").exists()


def test_a_callable_is_asked_for_rows_of_each_stage(tune: Tune, tmp_path: Path) -> None:
    asked: list[int] = []

    def rows(window: int) -> Counting:
        asked.append(window)
        return Counting(window)

    tune(tmp_path / "run", data=rows, window=None, steps=None, stages="32:1,64:1")
    assert sorted(set(asked)) == [32, 64]
