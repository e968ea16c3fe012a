"""The table of refusals, and the presets that come with the package."""

import itertools
from typing import Any

import pytest

from ropewalk.core.errors import InputError
from ropewalk.core.method import find
from ropewalk.core.plan import parse_length
from ropewalk.tune.combinations import OPTIONS, RULES, check, table
from ropewalk.tune.presets import KEYS, names, read
from ropewalk.tune.settings import ATTENTIONS, POSITIONS, RECIPES, Settings, Stage


def settings(**changes: Any) -> Settings:
    return Settings(length=64, stages=(Stage(window=32, steps=1),), **changes)


def test_rules_name_choices_that_exist() -> None:
    for rule in RULES:
        for option, value in (rule.one, rule.other):
            assert value in OPTIONS[option]


def test_every_rule_is_obeyed_and_nothing_else_is_refused() -> None:
    broken = set()
    for recipe, positions, attention in itertools.product(RECIPES, POSITIONS, ATTENTIONS):
        for plan, packed, merge in itertools.product(OPTIONS["plan"], (False, True), (False, True)):
            chosen = settings(recipe=recipe, positions=positions, attention=attention)
            words = {
                ("recipe", recipe), ("positions", positions), ("attention", attention), ("plan", plan),
                ("result", "full checkpoint" if merge or recipe == "full" else "adapter"),
                ("data", "packed" if packed else "apart"),
            }  # fmt: skip
            expected = [rule for rule in RULES if {rule.one, rule.other} <= words]
            if not expected:
                check(chosen, plan=plan, packed=packed, merge=merge)
                continue
            with pytest.raises(InputError, match="do not go together") as caught:
                check(chosen, plan=plan, packed=packed, merge=merge)
            assert expected[0].reason in str(caught.value)
            broken.update(expected)
    # Without weights of its own to merge, `full` leaves no adapter: that rule is for the reader of the table.
    assert {rule.reason for rule in RULES} - {rule.reason for rule in broken} == {
        "all weights change, so there is no adapter"
    }


def test_the_table_has_every_reason() -> None:
    assert all(rule.reason in table() for rule in RULES)


@pytest.mark.parametrize("name", names())
def test_a_preset_is_a_run(name: str) -> None:
    said = read(name)
    length, steps = parse_length(said.pop("length")), said.pop("steps")
    find(said.pop("method"))
    window = parse_length(said.pop("window", length))
    said.pop("lineage", None)
    made = Settings(length=length, stages=(Stage(window=window, steps=steps),), **said)
    assert made.steps == steps
    check(made)


def test_every_setting_can_be_said_in_a_preset() -> None:
    assert set(Settings.__dataclass_fields__) - {"stages"} <= set(KEYS)
