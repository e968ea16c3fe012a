"""Every option of every method that can be wrong, and the sentence that says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from geometries import LLAMA2, SMOLLM2, geometry, group

from ropewalk.core.errors import MethodError
from ropewalk.core.method import find


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pi:factor=0.5", r"pi:factor must be at least 1, got 0\.5"),
        ("ntk:factor=0", r"ntk:factor must be at least 1, got 0"),
        ("ntk-fixed:factor=-2", r"ntk-fixed:factor must be at least 1, got -2"),
        ("ntk-mixed:factor=0.1", r"ntk-mixed:factor must be at least 1, got 0\.1"),
        ("llama3:factor=0.9", r"llama3:factor must be at least 1, got 0\.9"),
        ("yarn:factor=x", r"yarn:factor is a number, got 'x'"),
        ("ntk-mixed:exponent=-1", r"ntk-mixed:exponent must be at least 0, got -1"),
        ("yarn:ramp=paper", r"yarn:ramp is one of index, rotations, got 'paper'"),
        ("yarn:truncate=maybe", r"yarn:truncate is true or false, got 'maybe'"),
        ("yarn:beta_slow=0", r"yarn:beta_slow must be above 0, got 0"),
        ("yarn:beta_fast=1", r"yarn:beta_fast must be above 1, got 1"),
        ("ntk-by-parts:beta_slow=40", r"ntk-by-parts:beta_fast must be above 40, got 32"),
        ("yarn:temperature=-0.1", r"yarn:temperature must be at least 0, got -0\.1"),
        ("yarn:attention_factor=0", r"yarn:attention_factor must be above 0, got 0"),
        (
            "yarn:attention_factor=1.2,temperature=0.05",
            r"yarn:attention_factor=1\.2 leaves temperature=0\.05 unused; give one of the two",
        ),
        ("yarn:temperature_on=cos", r"yarn:temperature_on is one of auto, rotated, logits, got 'cos'"),
        ("ntk-by-parts:temperature=0.1", r"ntk-by-parts does not take the option 'temperature'; did you mean truncate"),
        ("llama3:low_freq_factor=0", r"llama3:low_freq_factor must be above 0, got 0"),
        ("llama3:high_freq_factor=1", r"llama3:high_freq_factor must be above 1, got 1"),
        ("abf:base=1", r"abf:base must be above 1, got 1"),
        ("abf:factor=2", r"abf does not take the option 'factor'"),
        ("none:factor=2", r"none does not take the option 'factor'; none takes none"),
        ("crop:keep_last=0", r"crop:keep_last must be at least 1, got 0"),
        ("crop:keep_last=1.5", r"crop:keep_last is a whole number, got '1\.5'"),
        ("longrope", r"longrope needs the lists short_factor and long_factor, which are found by search"),
        ("longrope:short_factor=1|2", r"longrope needs the lists short_factor and long_factor"),
        (
            "longrope:short_factor=1|x,long_factor=1",
            r"longrope:short_factor is a list of numbers joined by '\|', got '1\|x'",
        ),
        ("longrope:short_factor=1|0,long_factor=1|1", r"longrope:short_factor holds positive numbers, got \[1\.0, 0\.0\]"),
        ("longrope:short_factor=1|1,long_factor=1|nan", r"longrope:long_factor holds positive numbers, got \[1\.0, nan\]"),
        (
            "longrope:short_factor=1,long_factor=1,attention_factor=-1",
            r"longrope:attention_factor must be above 0, got -1",
        ),
        ("dynamic", r"dynamic needs a method to plan anew at each length; say dynamic:yarn"),
        ("dynamic:dynamic", r"dynamic cannot wrap itself; say dynamic:yarn"),
        ("dynamic:yarm", r"unknown method 'yarm'; did you mean yarn"),
        ("dynamic:pi:beta_fast=2", r"pi does not take the option 'beta_fast'"),
        ("dynamic:yarn:beta_slow=0", r"yarn:beta_slow must be above 0, got 0"),
    ],
)
def test_says_what_is_wrong_with_an_option(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        find(spec)


def test_longrope_refuses_lists_of_another_model() -> None:
    method = find("longrope:short_factor=1|1,long_factor=2|3")
    with pytest.raises(
        MethodError, match=r"long_factor has 2 numbers and this model needs 32 \(half of its rotary_dim 64\)"
    ):
        method.plan(SMOLLM2, 16384)
    lists: dict[str, Any] = {"short_factor": [1.0] * 31, "long_factor": [2.0] * 32}
    with pytest.raises(MethodError, match="short_factor has 31 numbers and this model needs 32"):
        find("longrope", lists).plan(SMOLLM2, 16384)


def test_crop_refuses_more_than_the_model_was_trained_to_read() -> None:
    with pytest.raises(MethodError, match=r"crop:keep_last=5000 is more than the trained length 4096"):
        find("crop:keep_last=5000").plan(LLAMA2, 8192)


def test_ntk_refuses_a_single_pair() -> None:
    model = geometry(group(base=1e4, rotary_dim=2), length=1024)
    with pytest.raises(MethodError, match=r"ntk needs a rotary_dim of at least 4, .* got 2; use pi"):
        find("ntk").plan(model, 2048)


def test_the_index_ramp_refuses_a_base_without_a_spectrum() -> None:
    model = geometry(group(base=1.0, rotary_dim=8), length=1024)
    with pytest.raises(MethodError, match=r"ramp=index needs a base above 1, got 1; use ramp=rotations"):
        find("yarn").plan(model, 2048)
    assert find("yarn:ramp=rotations").plan(model, 2048).factor == 2.0


def test_abf_refuses_to_compute_a_base_from_less_than_a_turn() -> None:
    model = geometry(group(base=1e4, rotary_dim=8), length=6)
    with pytest.raises(MethodError, match=r"trained on at least 7 tokens, got 6; say abf:base=\.\.\."):
        find("abf").plan(model, 12)
    assert find("abf:base=20000").plan(model, 12).frequencies.inv_freq[0] == 1.0


def test_longrope_reads_its_lists_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    short, long = [1.0] * 32, [1 + i for i in range(32)]
    path.write_text(json.dumps({"short_factor": short, "long_factor": long, "note": "kept by nobody"}))
    method = find(f"longrope:file={path}")
    assert method == find("longrope", {"short_factor": short, "long_factor": long})
    plan = method.plan(SMOLLM2, 16384)
    assert plan.options["file"] is None
    assert plan.options["long_factor"] == [float(x) for x in long]
    path.unlink()
    assert find(plan.method, plan.options).plan(SMOLLM2, 16384) == plan


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read as JSON \(.*No such file.*\); give a file with both lists"),
        ("{", r"cannot be read as JSON"),
        (b"\xff\xfe", r"cannot be read as JSON"),
        ("[1, 2]", r'has no list of numbers "short_factor"; expected short_factor and long_factor'),
        ('{"short_factor": [1.0]}', r'has no list of numbers "long_factor"'),
        ('{"short_factor": [true], "long_factor": [1]}', r'has no list of numbers "short_factor"'),
        ('{"short_factor": [1], "long_factor": "2"}', r'has no list of numbers "long_factor"'),
        ('{"short_factor": [1], "long_factor": [NaN]}', r"longrope:long_factor holds positive numbers"),
    ],
)
def test_says_what_is_wrong_with_a_file_of_lists(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    path = tmp_path / "lists.json"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(MethodError, match=message):
        find(f"longrope:file={path}")


def test_longrope_takes_the_lists_or_a_file_but_not_both(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"longrope got the lists and the file .*; give one of the two"):
        find(f"longrope:short_factor=1,long_factor=1,file={tmp_path / 'lists.json'}")
