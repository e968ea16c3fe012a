"""Every causal language model of the installed transformers is extended exactly, or named with the reason why not.

For each family of the table a tiny random model is built from its config class. What the model does is watched from
outside (which layers rotate, in which layout, by what q.k is multiplied, how far a query sees) and held against what was
read from its config. Then a plan is put on the live model, spelled into the config, and a stock model of that config with
the same weights must give the same logits.
"""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_families as tiny
import torch
from family_probe import LENGTH, Seen, watch
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.errors import HostError, LengthError, PlanError, UnsupportedError
from ropewalk.core.geometry import Geometry, Group
from ropewalk.core.method import find
from ropewalk.engines.transformers import read, spell
from ropewalk.engines.transformers.families import COMPOSITE, FAMILIES, NOT_YET, REFUSED
from ropewalk.hosts.live import apply, read_back

TOLERANCE = 1e-4
"""Of float32 logits of order one, after four layers."""
NOTHING = {"afmoe", "cohere2", "exaone4", "exaone_moe", "flint", "kolibri1"}
"""Families that rotate only where they look through a window, so that there is nothing to extend."""
WITHOUT_WINDOW = {"exaone4"}
"""Those of them that rotate every layer where no window is set."""
WITH_ZEROS = {"gemma4_text", "gemma4_unified_text", "lfm3"}
"""Families with a vector that ends in zeros, for which only one type has a word."""
FACTORS = {"yarn": 4, "pi": 7.3}
"""The methods that are walked through, and how far each stretches."""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens() -> torch.Tensor:
    return torch.randint(3, 60, (1, LENGTH), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """What the model ends in: logits, or the hidden states of a text part whose output layer is outside it."""
    out = model(input_ids=tokens(), use_cache=False)
    found: torch.Tensor = (out.logits if "logits" in out else out.last_hidden_state)[0]
    assert torch.isfinite(found).all()
    return found


def check_seen(geometry: Geometry, seen: Seen) -> None:
    """What was read from the config against what the model did."""
    for group in geometry.groups:
        check_group(group, seen)
        called = [layer for layer in group.layers if layer in seen.calls]
        if group.rotated and called:
            assert seen.pairs(called[0], group.rotary_dim) in (group.layout, "either")


def check_group(group: Group, seen: Seen) -> None:
    attending = [layer for layer in group.layers if layer in seen.scalings]
    if group.rotated and seen.scalings and len(seen.scalings) >= len(group.layers):
        assert set(attending) == set(group.layers)
    for layer in attending:
        assert (layer in seen.rotated) == group.rotated, f"layer {layer} of {group.label}"
        for scaling in seen.scalings[layer]:
            assert math.isclose(scaling, group.softmax_scale * group.logit_scale, rel_tol=1e-6), f"layer {layer}"
    spans = {seen.visible[layer] for layer in attending if layer in seen.visible}
    if spans and group.shared_with_window:
        assert len(spans) == 2
        assert max(spans) == LENGTH
    elif spans:
        assert spans == {min(group.window or LENGTH, LENGTH)}


def check(name: str, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    config = tiny.fields(name)
    if name in WITHOUT_WINDOW:
        check_seen(read(config), watch(tiny.stock(config), monkeypatch, tokens()))
        config = {**config, "sliding_window": None, "layer_types": ["full_attention"] * tiny.LAYERS}
    geometry, model = read(config), tiny.stock(config)
    check_seen(geometry, watch(model, monkeypatch, tokens()))
    if name in NOTHING - WITHOUT_WINDOW:
        with pytest.raises((PlanError, LengthError, UnsupportedError), match="window"):
            find(method).plan(geometry, round(FACTORS[method] * geometry.trained_length))
        return
    plan = find(method).plan(geometry, round(FACTORS[method] * geometry.trained_length))
    before = logits(model)
    with apply(model, plan):
        during = logits(model)
        carried = read_back(model)
    for label, word in plan.groups.items():
        assert word is None or word.difference(carried.groups[label]) <= 1e-6
    if name in WITH_ZEROS and method == "yarn":
        with pytest.raises(HostError, match=r"frequencies of zero .* would be lost"):
            spell(config, plan)
        return
    written = tiny.stock(spell(config, plan))
    written.load_state_dict(model.state_dict())
    assert (logits(written) - during).abs().max() < TOLERANCE
    assert (during - before).abs().max() > 10 * TOLERANCE
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", sorted(FACTORS))
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_computes_what_is_planned_and_what_is_written(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, monkeypatch, method)


def rotary(model_type: str) -> bool:
    """Whether a config class has rope parameters."""
    return "rope_parameters" in {f.name for f in dataclasses.fields(CONFIG_MAPPING[model_type])}


def test_every_rotary_model_of_transformers_is_supported_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    known = set(FAMILIES) | set(COMPOSITE) | set(NOT_YET) | set(REFUSED)
    unknown = [name for name in tiny.causal() if rotary(name) and name not in known]
    assert unknown == []
    with capsys.disabled():
        print(f"\n{len(FAMILIES)} rotary families supported, {len(NOT_YET)} named as not")


def test_no_family_is_in_two_tables() -> None:
    tables = [set(FAMILIES), set(COMPOSITE), set(NOT_YET), set(REFUSED)]
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_a_family_that_is_not_read_is_named_with_its_reason(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{name} has .*, which ropewalk does not read yet$"):
        read({"model_type": name})


def test_the_page_of_families_is_current() -> None:
    tool = Path(__file__).parents[2] / "tools" / "generate_families.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
