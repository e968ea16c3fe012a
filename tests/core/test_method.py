"""How a method is found, how its options are read, and how a plan is made around its one formula."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from geometries import SMOLLM2, WINDOWED, geometry, group

from ropewalk.core import method as core
from ropewalk.core.errors import LengthError, MethodError, UnsupportedError
from ropewalk.core.geometry import Start
from ropewalk.core.method import Method, build, check_stretch, find, methods, require
from ropewalk.core.plan import Frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """A method with an option of every kind."""

    id: ClassVar[str] = "toy"
    summary: ClassVar[str] = "halves everything"
    paper: ClassVar[str] = "none"

    needed: float
    """A number."""
    count: int = 3
    """A whole number."""
    maybe: int | None = None
    """A whole number or none."""
    on: bool = True
    """A truth."""
    side: Literal["left", "right"] = "left"
    """One of two."""
    numbers: tuple[float, ...] = ()
    """A list."""
    word: str = "a"
    """A word."""

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        return Frequencies(inv_freq=start.inv_freq * self.needed)


def toy(**given: Any) -> Toy:
    made = build(Toy, {"needed": 1, **given})
    assert isinstance(made, Toy)
    return made


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"needed": "2.5"}, "needed", 2.5),
        ({"needed": "1e-3"}, "needed", 0.001),
        ({"count": "7"}, "count", 7),
        ({"count": "7.0"}, "count", 7),
        ({"count": 7}, "count", 7),
        ({"maybe": None}, "maybe", None),
        ({"maybe": "4"}, "maybe", 4),
        ({"on": "false"}, "on", False),
        ({"on": "YES"}, "on", True),
        ({"on": "0"}, "on", False),
        ({"on": False}, "on", False),
        ({"side": "right"}, "side", "right"),
        ({"numbers": "1|2.5"}, "numbers", (1.0, 2.5)),
        ({"numbers": [1, 2.5]}, "numbers", (1.0, 2.5)),
        ({"word": "b"}, "word", "b"),
    ],
)
def test_reads_an_option(given: dict[str, Any], field: str, expected: object) -> None:
    value = getattr(toy(**given), field)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"needed": "x"}, r"toy:needed is a number, got 'x'"),
        ({"needed": "inf"}, r"toy:needed is a number, got 'inf'"),
        ({"needed": "nan"}, r"toy:needed is a number, got 'nan'"),
        ({"needed": True}, r"toy:needed is a number, got True"),
        ({"needed": None}, r"toy:needed is a number, got None"),
        ({"count": "2.5"}, r"toy:count is a whole number, got '2\.5'"),
        ({"count": ""}, r"toy:count is a number, got ''"),
        ({"on": "perhaps"}, r"toy:on is true or false, got 'perhaps'"),
        ({"side": "up"}, r"toy:side is one of left, right, got 'up'"),
        ({"numbers": "1;2"}, r"toy:numbers is a list of numbers joined by '\|', got '1;2'"),
        ({"cuont": 1}, r"toy does not take the option 'cuont'; did you mean count"),
    ],
)
def test_says_what_an_option_should_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        toy(**given)


def test_asks_for_what_is_missing() -> None:
    with pytest.raises(MethodError, match=r"toy needs the option needed; say toy:needed=\.\.\."):
        build(Toy, {})


def test_records_options_in_json_types() -> None:
    assert toy(numbers="1|2").options() == {
        "needed": 1.0,
        "count": 3,
        "maybe": None,
        "on": True,
        "side": "left",
        "numbers": [1.0, 2.0],
        "word": "a",
    }


def test_finds_a_method_with_options_from_text_and_from_values() -> None:
    from_text = find(" yarn:ramp=rotations, beta_fast=16 ")
    assert from_text == find("yarn", {"ramp": "rotations", "beta_fast": 16})
    assert from_text == find("yarn:ramp=rotations", {"beta_fast": 16.0})
    assert from_text.options()["beta_fast"] == 16.0
    assert find("dynamic:yarn:beta_slow=2") == find("dynamic:yarn", {"beta_slow": 2})
    assert find("dynamic:yarn:beta_slow=2").name == "dynamic:yarn"


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("yran", {}, r"unknown method 'yran'; did you mean yarn"),
        ("zzz", {}, r"unknown method 'zzz'; known are abf, crop, dynamic, .* yarn"),
        ("", {}, r"unknown method ''; known are"),
        ("yarn:ramp", {}, r"an option of yarn looks like key=value, got 'ramp'"),
        ("yarn:ramp=index,ramp=rotations", {}, r"option 'ramp' of yarn is given twice in 'yarn:ramp=index,ramp=rotations'"),
        ("yarn:ramp=index", {"ramp": "rotations"}, r"option 'ramp' of yarn is given twice, as 'index' and as 'rotations'"),
        ("yarn:beta_fsat=3", {}, r"yarn does not take the option 'beta_fsat'; did you mean beta_fast"),
    ],
)
def test_says_why_a_method_is_not_found(spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        find(spec, options)


class Entry:
    """An entry point that loads what it was given, or fails as an import does."""

    def __init__(self, name: str, loads: object) -> None:
        self.name, self.value, self._loads = name, "toys:Toy", loads

    def load(self) -> object:
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Replaces the installed methods by the given entry points, and puts ours back afterwards."""
    caches = (core.methods, core._entries, core._load)

    def install(*entries: Entry) -> None:
        for cached in caches:
            cached.cache_clear()
        monkeypatch.setattr(core, "entry_points", lambda group: entries)

    yield install
    for cached in caches:
        cached.cache_clear()


def test_a_strangers_method_comes_in_by_the_same_door(installed: Callable[..., None]) -> None:
    installed(Entry("toy", Toy))
    assert methods() == {"toy": Toy}
    plan = find("toy:needed=0.5").plan(SMOLLM2, 16384)
    np.testing.assert_array_equal(plan.frequencies.inv_freq, SMOLLM2.groups[0].inv_freq / 2.0)
    assert (plan.method, plan.kind, plan.factor, plan.native) == ("toy", "static", 2.0, None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("toi", Toy), r"the entry point 'toi' \(toys:Toy\) is not a Method whose id is 'toi'"),
        (Entry("toy", int), r"the entry point 'toy' \(toys:Toy\) is not a Method whose id is 'toy'"),
        (Entry("toy", 3), r"the entry point 'toy' \(toys:Toy\) is not a Method whose id is 'toy'"),
        (Entry("toy", ImportError("no toys")), r"the method 'toy' \(toys:Toy\) cannot be loaded: no toys; reinstall"),
    ],
)
def test_an_entry_point_must_load_the_method_it_names(installed: Callable[..., None], entry: Entry, message: str) -> None:
    installed(entry)
    with pytest.raises(MethodError, match=message):
        find(entry.name)
    with pytest.raises(MethodError, match=message):
        methods()


def test_ours_come_first_in_the_order_of_the_contract() -> None:
    ours = [name for name in methods() if name in core.ORDER]
    assert ours == list(core.ORDER)
    assert list(methods())[: len(ours)] == ours


def test_the_base_has_no_formula() -> None:
    with pytest.raises(NotImplementedError):
        Method().frequencies(SMOLLM2.start(SMOLLM2.groups[0]), 2.0)


def test_refuses_a_model_that_only_sees_a_window() -> None:
    model = geometry(group(base=1e4, rotary_dim=64, window=512), length=8192)
    with pytest.raises(UnsupportedError, match=r"looks back at most 512 tokens \(sliding window\), so no frequency sees"):
        toy().plan(model, 16384)


def test_refuses_a_model_that_rotates_nothing() -> None:
    model = geometry(group(base=1e4, rotary_dim=64, position="none", inv_freq=None), length=8192)
    with pytest.raises(UnsupportedError, match="this llama rotates nothing; there are no frequencies to plan"):
        toy().plan(model, 16384)


def test_plans_only_the_groups_that_see_the_whole_text() -> None:
    plan = toy(needed=0.5).plan(WINDOWED, 16384)
    assert [label for label, word in plan.groups.items() if word is not None] == ["full_attention"]


@pytest.mark.parametrize("length", [1, 8191, 8192])
def test_a_stretch_goes_beyond_the_trained_length(length: int) -> None:
    with pytest.raises(LengthError, match=rf"length {length} is not above the trained length 8192 .* longer --length"):
        check_stretch(SMOLLM2, length)


RUNTIME = replace(SMOLLM2, lineage="runtime", original_length=2048)


def test_a_stretch_without_training_is_planned_anew_from_the_length_before_it() -> None:
    check_stretch(RUNTIME, 2049)
    with pytest.raises(LengthError, match="length 2048 is not above the original length 2048 of this model, from which"):
        check_stretch(RUNTIME, 2048)


def test_an_unknown_lineage_is_asked_for_where_it_decides() -> None:
    with pytest.raises(LengthError, match=r"not above the trained length 8192 .*--lineage runtime to plan anew .* 2048"):
        check_stretch(replace(RUNTIME, lineage="unknown"), 4096)


def test_no_one_is_told_to_remove_the_window_of_a_model_whose_global_layers_have_no_positions() -> None:
    free = group(base=1e4, rotary_dim=64, label="none", position="none", inv_freq=None, origin_inv_freq=None, layers=(3, 7))
    groups = (group(base=1e4, rotary_dim=64, window=512), free)
    with pytest.raises(UnsupportedError, match="2 layers that see the whole text have no positions: no plan") as caught:
        toy().plan(geometry(*groups, length=8192), 16384)
    assert "null" not in str(caught.value)


def test_a_stretch_begins_one_token_beyond_the_trained_length() -> None:
    with pytest.raises(LengthError, match="not above the trained length 8192"):
        check_stretch(SMOLLM2, 8192)
    check_stretch(SMOLLM2, 8193)


def test_require_says_the_bound() -> None:
    require("toy", "needed", 1.0, above=1.0, inclusive=True)
    require("toy", "needed", 1.1, above=1.0)
    with pytest.raises(MethodError, match="toy:needed must be above 1, got 1"):
        require("toy", "needed", 1.0, above=1.0)
    with pytest.raises(MethodError, match=r"toy:needed must be at least 1, got 0\.5"):
        require("toy", "needed", 0.5, above=1.0, inclusive=True)
