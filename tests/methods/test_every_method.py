"""What every method promises, checked on all that are registered: a method joins by existing."""

import ast
import dataclasses
import inspect
import json
import textwrap

import numpy as np
import pytest
from geometries import PLAIN, WINDOWED, stretched
from tolerances import RELATIVE

from ropewalk.core.errors import LengthError, UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.method import Method, find, identity, methods
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.methods.identity import as_trained

IDS = sorted(methods())
UNTOUCHED = ("none", "crop")


def minimal(method: str, geometry: Geometry) -> Method:
    """The method with the fewest options it can be used with."""
    if method == "longrope":
        num = geometry.extended_groups[0].rotary_dim // 2
        short, long = np.linspace(1.0, 1.5, num), np.linspace(1.0, 40.0, num)
        return find(method, {"short_factor": list(short), "long_factor": list(long)})
    return find("dynamic:yarn" if method == "dynamic" else method)


def words(plan: Plan) -> dict[str, Frequencies]:
    return {label: word for label, word in plan.groups.items() if word is not None}


def json_round_trip(plan: Plan) -> Plan:
    return Plan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False)))


@pytest.fixture(params=IDS)
def method_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(PLAIN))
def plain(request: pytest.FixtureRequest) -> Geometry:
    return PLAIN[request.param]


def test_every_id_of_the_contract_is_there() -> None:
    contract = "none crop pi ntk ntk-fixed ntk-mixed ntk-by-parts yarn abf llama3 longrope dynamic"
    assert set(contract.split()) <= set(IDS)


def test_says_what_it_is_and_where_it_comes_from(method_id: str) -> None:
    cls = methods()[method_id]
    assert cls.id == method_id
    assert cls.__doc__
    assert len(cls.__doc__) > 20
    assert not cls.__doc__.startswith(f"{cls.__name__}(")
    assert 10 < len(cls.summary) < 100
    assert "=" in cls.paper
    assert any(source in cls.paper for source in ("arXiv:", "kexue.fm"))


def test_every_option_has_a_docstring(method_id: str) -> None:
    cls = methods()[method_id]
    documented = set()
    for part in cls.__mro__:
        if not dataclasses.is_dataclass(part):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(body, ast.ClassDef)
        for line, following in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and is_text:
                documented.add(line.target.id)
    assert {field.name for field in dataclasses.fields(cls)} <= documented


def test_numbers_are_finite_positive_float64_of_the_right_shape(method_id: str, plain: Geometry) -> None:
    for length in (plain.trained_length + 1, plain.trained_length * 2, plain.trained_length * 37 // 10):
        plan = minimal(method_id, plain).plan(plain, length)
        assert set(plan.groups) == {group.label for group in plain.groups}
        for group in plain.extended_groups:
            word = plan.groups[group.label]
            assert word is not None
            assert word.inv_freq.dtype == np.float64
            assert word.inv_freq.shape == (group.rotary_dim // 2,)
            assert np.all(np.isfinite(word.inv_freq))
            assert np.all(word.inv_freq > 0.0)
            assert word.attention_factor > 0.0
            assert word.logit_scale > 0.0


def test_is_the_identity_at_and_below_the_trained_length(method_id: str, plain: Geometry) -> None:
    for length in (1, plain.trained_length // 2, plain.trained_length):
        plan = minimal(method_id, plain).plan(plain, length)
        assert plan.groups == identity(plain)
        assert plan.factor == 1.0
        assert plan.at(length).groups == identity(plain)


def test_leaves_the_vector_at_a_factor_of_one(method_id: str, plain: Geometry) -> None:
    method = minimal(method_id, plain)
    for group in plain.extended_groups:
        if method_id == "longrope":
            ones = (1.0,) * (group.rotary_dim // 2)
            method = find(method_id, {"short_factor": ones, "long_factor": ones})
        start = plain.start(group)
        word = method.frequencies(start, 1.0)
        np.testing.assert_allclose(word.inv_freq, start.inv_freq, rtol=RELATIVE["float64"], atol=0.0)
        assert (word.attention_factor, word.logit_scale) == (1.0, 1.0)


def test_slows_down_and_never_speeds_up(method_id: str, plain: Geometry) -> None:
    plan = minimal(method_id, plain).plan(plain, plain.trained_length * 4)
    for group in plain.extended_groups:
        word = plan.groups[group.label]
        assert word is not None
        ratio = word.inv_freq / group.inv_freq
        assert np.all(ratio <= 1.0 + RELATIVE["float64"])
        if method_id in UNTOUCHED:
            np.testing.assert_array_equal(ratio, 1.0)
        else:
            assert ratio[-1] < 0.9


def test_does_the_same_for_the_same_input(method_id: str, plain: Geometry) -> None:
    length = plain.trained_length * 3
    assert minimal(method_id, plain).plan(plain, length) == minimal(method_id, plain).plan(plain, length)


def test_survives_json(method_id: str, plain: Geometry) -> None:
    for length in (plain.trained_length // 2, plain.trained_length * 3):
        plan = minimal(method_id, plain).plan(plain, length)
        again = json_round_trip(plan)
        assert again == plan
        assert again.native == plan.native
        assert again.at(plain.trained_length * 2) == plan.at(plain.trained_length * 2)


def test_is_found_again_from_what_its_plan_records(method_id: str, plain: Geometry) -> None:
    plan = minimal(method_id, plain).plan(plain, plain.trained_length * 3)
    recorded = json.loads(json.dumps(plan.options))
    again = find(plan.method, recorded)
    assert again.plan(plain, plan.length) == plan
    assert set(again.options()) == set(plan.options)


def test_a_plan_at_a_length_is_static(method_id: str, plain: Geometry) -> None:
    length = plain.trained_length * 4
    plan = minimal(method_id, plain).plan(plain, length)
    assert plan.kind == methods()[method_id].kind
    for n in (1, plain.trained_length, plain.trained_length + 1, length, length * 2):
        static = plan.at(n)
        assert static.kind == "static"
        assert static.regimes == ()
        assert static.at(n * 2) == static
    assert plan.at(length).groups == plan.groups
    if plan.kind == "static":
        assert plan.at(plain.trained_length) == plan


def test_plans_a_runtime_stretch_again_from_its_origin(method_id: str, plain: Geometry) -> None:
    once = stretched(plain, "runtime")
    length = once.trained_length * 2
    plan = minimal(method_id, plain).plan(once, length)
    if method_id in UNTOUCHED:
        assert plan.groups == (as_trained(once) if method_id == "crop" else identity(once))
        return
    fresh = minimal(method_id, plain).plan(plain, length)
    assert plan.groups == fresh.groups
    assert plan.factor == length / plain.original_length
    assert (plan.original_length, plan.trained_length) == (plain.original_length, once.trained_length)


def test_extends_a_trained_stretch_from_where_it_stands(method_id: str, plain: Geometry) -> None:
    trained = stretched(plain, "trained")
    length = trained.trained_length * 2
    plan = minimal(method_id, plain).plan(trained, length)
    if method_id in UNTOUCHED:
        assert plan.groups == identity(trained)
        return
    assert plan.factor == 2.0
    assert plan.native is None
    method = minimal(method_id, plain)
    for group in trained.extended_groups:
        word, start = plan.groups[group.label], trained.start(group)
        assert word is not None
        np.testing.assert_array_equal(start.inv_freq, group.inv_freq)
        assert word == method.frequencies(start, 2.0)
        # What was trained stays on: the vector is slowed from there, the temperature is multiplied onto it.
        assert np.all(word.inv_freq <= group.inv_freq * (1.0 + RELATIVE["float64"]))
        assert word.attention_factor >= 1.1 * (1.0 - RELATIVE["float64"])
        assert word.logit_scale >= 1.2 * (1.0 - RELATIVE["float64"])


def test_is_the_identity_inside_a_stretch_that_is_on(method_id: str, plain: Geometry) -> None:
    for lineage in ("runtime", "trained", "unknown"):
        once = stretched(plain, lineage)
        # `crop` is the model as its weights were trained, so it takes an untrained stretch off.
        expected = as_trained(once) if (method_id, lineage) == ("crop", "runtime") else identity(once)
        lengths = (plain.original_length,) if lineage == "runtime" else (plain.original_length, once.trained_length)
        for length in lengths:
            assert minimal(method_id, plain).plan(once, length).groups == expected


def test_plans_a_smaller_stretch_than_the_untrained_one_that_is_on(method_id: str, plain: Geometry) -> None:
    once = stretched(plain, "runtime")
    length = (plain.original_length + once.trained_length) // 2
    assert plain.original_length < length < once.trained_length
    plan = minimal(method_id, plain).plan(once, length)
    if method_id in UNTOUCHED:
        assert plan.groups == (as_trained(once) if method_id == "crop" else identity(once))
    elif method_id.startswith("dynamic"):
        # Inside the present reach a dynamic plan leaves the model as it is.
        assert plan.groups == identity(once)
    else:
        assert plan.factor == length / plain.original_length
        assert plan.groups == minimal(method_id, plain).plan(plain, length).groups


def test_crop_under_an_untrained_stretch_keeps_the_original_length(plain: Geometry) -> None:
    once = stretched(plain, "runtime")
    plan = minimal("crop", plain).plan(once, once.trained_length * 2)
    assert plan.options["keep_last"] == plain.original_length
    assert plan.groups == identity(plain)


def test_refuses_an_unknown_lineage_unless_it_changes_nothing(method_id: str, plain: Geometry) -> None:
    unknown = stretched(plain, "unknown")
    length = unknown.trained_length * 2
    if method_id in UNTOUCHED:
        assert minimal(method_id, plain).plan(unknown, length).groups == identity(unknown)
        return
    with pytest.raises(UnsupportedError, match="say --lineage trained"):
        minimal(method_id, plain).plan(unknown, length)


def test_leaves_windows_and_position_free_layers_alone(method_id: str) -> None:
    plan = minimal(method_id, WINDOWED).plan(WINDOWED, 32768)
    assert plan.groups["sliding_attention"] is None
    assert plan.groups["none"] is None
    assert list(words(plan)) == ["full_attention"]


def test_refuses_a_length_that_is_none(method_id: str, plain: Geometry) -> None:
    for length in (0, -1, True, 2**31, 4096.0):
        with pytest.raises(LengthError, match="a length"):
            minimal(method_id, plain).plan(plain, length)


def test_claims_a_native_name_only_for_a_plain_start(method_id: str, plain: Geometry) -> None:
    plan = minimal(method_id, plain).plan(plain, plain.trained_length * 2)
    if plan.native is not None:
        assert plan.native.name in ("default", "linear", "yarn", "llama3", "longrope")
        json.dumps(plan.native.options, allow_nan=False)
    assert minimal(method_id, plain).plan(plain, plain.trained_length).native is None


def test_claims_the_native_names_there_are() -> None:
    geometry = PLAIN["smollm2"]
    names = {}
    for method_id in IDS:
        native = minimal(method_id, geometry).plan(geometry, 16384).native
        names[method_id] = None if native is None else native.name
    assert names == {
        "none": None,
        "crop": None,
        "pi": "linear",
        "ntk": "default",
        "ntk-fixed": "linear",
        "ntk-mixed": None,
        "ntk-by-parts": "yarn",
        "yarn": "yarn",
        "abf": "default",
        "llama3": "llama3",
        "longrope": "longrope",
        "dynamic": None,
    }
