"""What the formulas imply, in float64: relations between methods, and values that can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from geometries import CLAMPED, LLAMA2, MLA, ODD, PARTIAL, SHORT, SMOLLM2, geometry, group, stretched
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import RELATIVE

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start, Vector, geometric, rotations
from ropewalk.core.method import find
from ropewalk.core.plan import Frequencies
from ropewalk.methods.ramp import by_index, correction_range

FACTORS = (1.5, 2.0, 3.2958984375, 16.0)
SHAPES = (LLAMA2, SMOLLM2, PARTIAL, ODD, SHORT)


def start_of(model: Geometry) -> Start:
    return model.start(model.extended_groups[0])


def word(spec: str, model: Geometry, factor: float) -> Frequencies:
    return find(spec).frequencies(start_of(model), factor)


def assert_same(mine: Vector, theirs: Vector) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=RELATIVE["float64"], atol=0.0)


def llama3_scaled() -> Geometry:
    """A model whose vector is not geometric."""
    plain = geometry(group(base=5e5, rotary_dim=128), length=8192)
    scaled = word("llama3:factor=8", plain, 8.0).inv_freq
    return replace(
        plain, groups=(replace(plain.groups[0], inv_freq=scaled),), trained_length=65536, lineage="trained", scheme="llama3"
    )


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_interpolation_divides(model: Geometry, factor: float) -> None:
    assert_same(word("pi", model, factor).inv_freq * factor, start_of(model).inv_freq)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_ntk_is_a_larger_base_on_a_geometric_vector(model: Geometry, factor: float) -> None:
    start = start_of(model)
    changed = word("ntk", model, factor).inv_freq
    base = start.nominal_base * factor ** (start.rotary_dim / (start.rotary_dim - 2))
    assert_same(changed, geometric(base, start.rotary_dim))
    assert changed[0] == start.inv_freq[0]
    assert changed[-1] == pytest.approx(start.inv_freq[-1] / factor, rel=RELATIVE["float64"])
    native = find("ntk").native(model, factor)
    assert native is not None
    assert native.options["base"] == pytest.approx(base, rel=RELATIVE["float64"])


def test_ntk_keeps_what_else_was_done_to_a_vector() -> None:
    scaled = llama3_scaled()
    ratio = word("ntk", scaled, 2.0).inv_freq / start_of(scaled).inv_freq
    plain = geometry(group(base=5e5, rotary_dim=128), length=8192)
    assert_same(ratio, word("ntk", plain, 2.0).inv_freq / start_of(plain).inv_freq)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_fixed_grows_every_digit_alike(model: Geometry, factor: float) -> None:
    start = start_of(model)
    divisors = start.inv_freq / word("ntk-fixed", model, factor).inv_freq
    growth = factor ** (2.0 / start.rotary_dim)
    assert_same(divisors[1:] / divisors[:-1], np.full(divisors.size - 1, growth))
    assert divisors[0] == pytest.approx(growth, rel=RELATIVE["float64"])
    assert divisors[-1] == pytest.approx(factor, rel=RELATIVE["float64"])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_fixed_is_what_its_native_claim_says(model: Geometry, factor: float) -> None:
    native = find("ntk-fixed").native(model, factor)
    assert native is not None
    spelled = geometric(native.options["base"], start_of(model).rotary_dim) / native.options["factor"]
    assert_same(word("ntk-fixed", model, factor).inv_freq, spelled)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_mixed_lies_between_interpolation_and_fixed(model: Geometry, factor: float) -> None:
    assert_same(word("ntk-mixed:exponent=0", model, factor).inv_freq, word("pi", model, factor).inv_freq)
    assert_same(word("ntk-mixed:exponent=1", model, factor).inv_freq, word("ntk-fixed", model, factor).inv_freq)
    mixed = word("ntk-mixed", model, factor).inv_freq
    assert np.all(mixed[:-1] > word("pi", model, factor).inv_freq[:-1])
    assert np.all(mixed[:-1] < word("ntk-fixed", model, factor).inv_freq[:-1])


def test_the_ramp_of_llama_2_runs_from_20_to_46() -> None:
    start = start_of(LLAMA2)
    assert correction_range(start, slow=1.0, fast=32.0, truncate=True) == (20.0, 46.0)
    low, high = correction_range(start, slow=1.0, fast=32.0, truncate=False)
    assert (round(low, 2), round(high, 2)) == (20.94, 45.03)
    kept = by_index(start, slow=1.0, fast=32.0, truncate=True)
    assert kept[20] == 1.0
    assert kept[33] == 0.5
    assert kept[46] == 0.0
    assert np.all(kept[:20] == 1.0)
    assert np.all(kept[46:] == 0.0)


def test_the_clamp_lets_the_slowest_dimension_keep_a_share() -> None:
    # One turn in 65536 tokens falls on index 64.3, beyond the last, 63; the range is rounded to (40, 65).
    start = start_of(CLAMPED)
    assert correction_range(start, slow=1.0, fast=32.0, truncate=True) == (40.0, 65.0)
    kept = by_index(start, slow=1.0, fast=32.0, truncate=True)
    assert kept[-1] == pytest.approx(2.0 / 25.0, rel=RELATIVE["float64"])
    last = word("ntk-by-parts", CLAMPED, 2.0).inv_freq[-1]
    assert last == pytest.approx(start.inv_freq[-1] * (0.5 + 0.5 * 2.0 / 25.0), rel=RELATIVE["float64"])


def test_below_202_tokens_the_ramp_starts_at_the_fastest_dimension() -> None:
    for length, low in ((128, 0.0), (201, 0.0), (202, 0.0), (1000, 5.0)):
        model = geometry(group(base=1e4, rotary_dim=64), length=length)
        assert correction_range(start_of(model), slow=1.0, fast=32.0, truncate=True)[0] == low
    untruncated = geometry(group(base=1e4, rotary_dim=64), length=202)
    assert 0.0 < correction_range(start_of(untruncated), slow=1.0, fast=32.0, truncate=False)[0] < 0.1


def test_the_upper_end_is_clamped_at_rotary_dim_minus_one() -> None:
    model = geometry(group(base=10.0, rotary_dim=8), length=10**6)
    assert correction_range(start_of(model), slow=1.0, fast=32.0, truncate=True)[1] == 7.0


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_llama3_is_by_parts_with_the_ramp_of_the_paper(model: Geometry, factor: float) -> None:
    assert_same(
        word("llama3:low_freq_factor=1,high_freq_factor=4", model, factor).inv_freq,
        word("ntk-by-parts:ramp=rotations,beta_slow=1,beta_fast=4", model, factor).inv_freq,
    )
    native = find("ntk-by-parts:ramp=rotations").native(model, factor)
    assert native is not None
    assert native.name == "llama3"
    spelled = find("llama3", {k: v for k, v in native.options.items() if k != "original_length"})
    assert spelled.frequencies(start_of(model), factor) == word("ntk-by-parts:ramp=rotations", model, factor)


@pytest.mark.parametrize("model", [*SHAPES, llama3_scaled()])
def test_the_paper_ramp_follows_the_turns_of_any_vector(model: Geometry) -> None:
    start = start_of(model)
    turns = rotations(start.inv_freq, start.length)
    divisors = start.inv_freq / word("ntk-by-parts:ramp=rotations", model, 4.0).inv_freq
    assert_same(divisors[turns >= 32.0], np.ones(np.count_nonzero(turns >= 32.0)))
    assert_same(divisors[turns <= 1.0], np.full(np.count_nonzero(turns <= 1.0), 4.0))
    for r, divisor in zip(turns, divisors, strict=True):
        if 1.0 < r < 32.0:
            share = (r - 1.0) / 31.0
            assert 1.0 / divisor == pytest.approx((1.0 - share) / 4.0 + share, rel=RELATIVE["float64"])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("ramp", ["index", "rotations"])
@pytest.mark.parametrize("model", SHAPES)
def test_yarn_is_by_parts_and_a_temperature(model: Geometry, ramp: str, factor: float) -> None:
    yarn = word(f"yarn:ramp={ramp}", model, factor)
    np.testing.assert_array_equal(yarn.inv_freq, word(f"ntk-by-parts:ramp={ramp}", model, factor).inv_freq)
    assert yarn.attention_factor == pytest.approx(0.1 * math.log(factor) + 1.0, rel=RELATIVE["float64"])
    assert yarn.logit_scale == 1.0
    assert word(f"yarn:ramp={ramp},temperature=0", model, factor) == word(f"ntk-by-parts:ramp={ramp}", model, factor)


def test_the_temperature_goes_where_the_family_expects_it() -> None:
    m = 0.1 * math.log(40.0) + 1.0
    for spec, model, expected in (
        ("yarn", LLAMA2, (m, 1.0)),
        ("yarn", MLA, (1.0, m * m)),
        ("yarn:temperature_on=rotated", MLA, (m, 1.0)),
        ("yarn:temperature_on=logits", LLAMA2, (1.0, m * m)),
        ("yarn:attention_factor=1.3", LLAMA2, (1.3, 1.0)),
        ("yarn:attention_factor=1.3", MLA, (1.0, 1.3 * 1.3)),
    ):
        mine = word(spec, model, 40.0)
        assert (mine.attention_factor, mine.logit_scale) == pytest.approx(expected, rel=RELATIVE["float64"])
        native = find(spec).native(model, 40.0)
        assert native is not None
        assert (native.options["attention_factor"], native.options["logit_scale"]) == (
            mine.attention_factor,
            mine.logit_scale,
        )


def test_yarn_with_the_ramp_of_the_paper_has_a_native_name_only_without_a_temperature() -> None:
    assert find("yarn:ramp=rotations").native(LLAMA2, 4.0) is None
    native = find("yarn:ramp=rotations,temperature=0").native(LLAMA2, 4.0)
    assert native is not None
    assert native.name == "llama3"


def test_temperatures_are_multiplied_onto_what_is_on() -> None:
    trained = stretched(LLAMA2, "trained", attention_factor=1.1)
    m = 0.1 * math.log(2.0) + 1.0
    mine = find("yarn").plan(trained, 32768).frequencies
    assert mine.attention_factor == pytest.approx(1.1 * m, rel=RELATIVE["float64"])
    assert mine.logit_scale == pytest.approx(1.2, rel=RELATIVE["float64"])
    logits = find("yarn:temperature_on=logits").plan(trained, 32768).frequencies
    assert logits.attention_factor == pytest.approx(1.1, rel=RELATIVE["float64"])
    assert logits.logit_scale == pytest.approx(1.2 * m * m, rel=RELATIVE["float64"])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", SHAPES)
def test_abf_keeps_the_dimension_of_one_turn(model: Geometry, factor: float) -> None:
    start = start_of(model)
    native = find("abf").native(model, factor)
    assert native is not None
    base = native.options["base"]
    assert base > start.nominal_base
    # The (fractional) pair that turns once in L tokens turns once in L' tokens after the change.
    critical = start.rotary_dim * math.log(start.length / (2.0 * math.pi)) / (2.0 * math.log(start.nominal_base))
    turns = start.length * factor * base ** (-2.0 * critical / start.rotary_dim) / (2.0 * math.pi)
    assert turns == pytest.approx(1.0, rel=1e-11)
    assert_same(word("abf", model, factor).inv_freq, geometric(base, start.rotary_dim))


def test_abf_gives_llama_2_what_its_docstring_says() -> None:
    native = find("abf").native(LLAMA2, 8.0)
    assert native is not None
    assert round(native.options["base"], -3) == 192_000


def test_abf_takes_a_base_at_any_length_and_keeps_what_else_was_done() -> None:
    for length in (100, 4096, 32768):
        plan = find("abf:base=500000").plan(LLAMA2, length)
        assert_same(plan.frequencies.inv_freq, geometric(5e5, 128))
        assert plan.factor == max(1.0, length / 4096)
    scaled = llama3_scaled()
    ratio = word("abf:base=2000000", scaled, 2.0).inv_freq / start_of(scaled).inv_freq
    assert_same(ratio, geometric(4.0, 128))


def test_a_fixed_factor_holds_at_every_length() -> None:
    for spec in ("pi", "ntk", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "yarn", "llama3"):
        free = find(spec).plan(SMOLLM2, 32768)
        for length in (1, 8192, 10000, 32768, 10**6):
            fixed = find(f"{spec}:factor=4").plan(SMOLLM2, length)
            assert fixed.groups == free.groups
            assert fixed.factor == 4.0


def test_longrope_divides_by_the_list_of_its_regime() -> None:
    short, long = np.linspace(1.0, 2.0, 32), np.linspace(1.0, 64.0, 32)
    method = find("longrope", {"short_factor": list(short), "long_factor": list(long)})
    plan = method.plan(SMOLLM2, 65536)
    m = math.sqrt(1.0 + math.log(8.0) / math.log(8192.0))
    for length, divisors in ((1, short), (8192, short), (8193, long), (65536, long), (10**6, long)):
        mine = plan.at(length).frequencies
        assert_same(mine.inv_freq * divisors, start_of(SMOLLM2).inv_freq)
        assert mine.attention_factor == pytest.approx(m, rel=RELATIVE["float64"])
    assert [regime.longest for regime in plan.regimes] == [8192, None]
    assert plan.groups == plan.at(65536).groups
    assert plan.native is not None
    assert plan.native.options["attention_factor"] == plan.frequencies.attention_factor


def test_longrope_takes_an_attention_factor() -> None:
    ones = [1.0] * 32
    method = find("longrope", {"short_factor": ones, "long_factor": ones, "attention_factor": 1.25})
    assert method.plan(SMOLLM2, 65536).at(5).frequencies.attention_factor == 1.25


@pytest.mark.parametrize("inner", ["pi", "ntk", "ntk-mixed:exponent=0.75", "yarn:ramp=rotations", "abf"])
def test_dynamic_is_the_inner_plan_at_each_length(inner: str) -> None:
    plan = find(f"dynamic:{inner}").plan(SMOLLM2, 32768)
    assert plan.method == f"dynamic:{inner.partition(':')[0]}"
    assert plan.native is None
    for length in (1, 8192, 8193, 12345, 32768, 65536):
        mine, theirs = plan.at(length), find(inner).plan(SMOLLM2, length)
        assert mine.groups == theirs.groups
        assert (mine.factor, mine.length) == (theirs.factor, length)


def test_dynamic_with_a_fixed_factor_switches_on_beyond_the_trained_length() -> None:
    plan = find("dynamic:pi:factor=4").plan(SMOLLM2, 32768)
    assert_same(plan.at(8192).frequencies.inv_freq, start_of(SMOLLM2).inv_freq)
    assert_same(plan.at(8193).frequencies.inv_freq * 4.0, start_of(SMOLLM2).inv_freq)
    assert plan.at(8192).factor == 1.0


def test_crop_says_how_many_tokens_to_keep() -> None:
    assert find("crop").plan(SMOLLM2, 32768).options == {"keep_last": 8192}
    assert find("crop").plan(stretched(SMOLLM2, "runtime"), 65536).options == {"keep_last": 8192}
    assert find("crop").plan(stretched(SMOLLM2, "trained"), 65536).options == {"keep_last": 32768}
    assert find("crop:keep_last=1000").plan(SMOLLM2, 32768).options == {"keep_last": 1000}
    for name in ("none", "crop"):
        with pytest.raises(MethodError, match=f"dynamic:{name} would change nothing at any length"):
            find(f"dynamic:{name}")


METHODS = ["pi", "ntk", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "ntk-by-parts:ramp=rotations", "yarn", "abf", "llama3"]


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from(METHODS),
    base=st.floats(100.0, 1e8),
    num=st.integers(2, 128),
    length=st.integers(16, 10**6),
    stretch=st.floats(1.0001, 64.0),
)
def test_never_faster_than_before_nor_slower_than_its_stretch(
    spec: str, base: float, num: int, length: int, stretch: float
) -> None:
    model = geometry(group(base=base, rotary_dim=2 * num), length=length)
    divisors = start_of(model).inv_freq / word(spec, model, stretch).inv_freq
    assert np.all(divisors >= 1.0 - RELATIVE["float64"])
    if spec != "abf":
        assert np.all(divisors <= stretch * (1.0 + RELATIVE["float64"]))
    assert np.all(np.diff(divisors) >= -RELATIVE["float64"] * divisors[1:])
