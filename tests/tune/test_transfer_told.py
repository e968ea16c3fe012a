"""A model that was tuned at s: which plan for 2s `tune` makes, which the other verbs make, and that each says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from small import Tune

import ropewalk
from ropewalk.cli import main
from ropewalk.core.errors import InputError


@pytest.fixture(scope="module")
def tuned(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tuned by yarn for 128 tokens, from 64."""
    from small import tuning

    out = tmp_path_factory.mktemp("tuned") / "first"
    tuning(tied)(out, steps=1, length=128)
    return out


def test_inspect_extend_and_tune_say_where_they_plan_from(
    tuned: Path, tied: Path, tune: Tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tuned)]) == 0
    assert "tuned by yarn for 128 tokens, from an origin that read 64; tune makes a longer yarn" in capsys.readouterr().out
    dry = ["extend", str(tuned), "--method", "yarn", "--length", "256", "--dry-run", "--json"]
    assert main(dry) == 0
    said = capsys.readouterr()
    assert "stretches that by 2; tune plans from the origin, by 4, as does --lineage runtime" in said.err
    assert json.loads(said.out)["factor"] == 2.0
    assert main([*dry, "--lineage", "runtime"]) == 0
    said = capsys.readouterr()
    assert "tune plans" not in said.err
    vector = json.loads(said.out)["groups"]["all"]["frequencies"]["inv_freq"]
    np.testing.assert_allclose(vector, ropewalk.plan(tied, "yarn", length=256).frequencies.inv_freq, rtol=1e-6)
    # Another method has no s in common.
    assert main(["extend", str(tuned), "--method", "ntk", "--length", "256", "--dry-run"]) == 0
    assert "tune plans" not in capsys.readouterr().err
    card = ropewalk.extend(tuned, "yarn", length=256, out=tmp_path / "extended")
    assert [one["field"] for one in card.findings if "tune plans from the origin" in one["mend"]] == ["plan"]
    card = tune(tmp_path / "second", start=tuned, steps=1, length=256, method="yarn:beta_fast=16")
    (line,) = [one["problem"] for one in card.findings if "its origin, which read 64" in one["problem"]]
    assert "with beta_fast=16" in line
    assert card.plans[next(iter(card.plans))]["factor"] == 4.0


def test_the_same_length_with_other_options_is_a_plan_from_the_origin(tuned: Path, tune: Tune, tmp_path: Path) -> None:
    asked = {"start": tuned, "steps": 1, "length": 128, "method": "yarn:beta_fast=16"}
    with pytest.raises(InputError, match=r"with beta_fast=32.0, and beta_fast=16.0 is asked for; give --lineage runtime"):
        tune(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
    card = tune(tmp_path / "out", lineage="runtime", **asked)
    (plan,) = card.plans.values()
    assert (plan["factor"], plan["options"]["beta_fast"]) == (2.0, 16.0)
    assert ropewalk.geometry(tmp_path / "out").trained_length == 128


def test_what_was_never_tuned_says_nothing(tied: Path, tmp_path: Path) -> None:
    ropewalk.extend(tied, "yarn", length=128, out=tmp_path / "stretched")
    assert not [one for one in ropewalk.geometry(tmp_path / "stretched").findings if one.field == "lineage"]
    card = ropewalk.extend(tmp_path / "stretched", "yarn", length=256, out=tmp_path / "twice")
    assert not [one for one in card.findings if one["field"] == "plan"]
