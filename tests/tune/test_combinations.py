"""The table of refusals, and the presets that come with the package."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from ropewalk.core.errors import InputError
from ropewalk.core.method import find
from ropewalk.core.plan import parse_length
from ropewalk.tune.combinations import OPTIONS, RULES, check, table
from ropewalk.tune.preset_lines import KEYS
from ropewalk.tune.presets import names, over, read, told
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
        for plan, packed, merge, rows in itertools.product(OPTIONS["plan"], (False, True), (False, True), (1, 2)):
            chosen = settings(recipe=recipe, positions=positions, attention=attention, batch_size=rows,
                              checkpoint_every=2 - rows)  # fmt: skip
            switch = 32 if plan == "switched" and rows == 1 else None
            given = {"plan": plan, "packed": packed, "merge": merge, "switch": switch}
            words = {
                ("recipe", recipe), ("positions", positions), ("attention", attention), ("plan", plan),
                ("result", "full checkpoint" if merge or recipe == "full" else "adapter"),
                ("data", "packed" if packed else "apart"), ("batch", "several rows" if rows > 1 else "one row"),
                ("rows", "short" if switch else "long"), ("checkpointing", "on" if rows == 1 else "off"),
            }  # fmt: skip
            expected = [rule for rule in RULES if {rule.one, rule.other} <= words]
            if not expected:
                check(chosen, **given)
                continue
            with pytest.raises(InputError, match="do not go together") as caught:
                check(chosen, **given)
            assert expected[0].reason in str(caught.value)
            broken.update(expected)
    # Without weights of its own to merge, `full` leaves no adapter: that rule is for the reader of the table.
    assert {rule.reason for rule in RULES} - {rule.reason for rule in broken} == {
        "all weights change, so there is no adapter"
    }


def test_rows_are_short_up_to_the_switch() -> None:
    check(settings(), plan="switched", switch=31)
    with pytest.raises(InputError, match="plan switched and rows short do not go together: rows that never pass the old"):
        check(settings(), plan="switched", switch=32)


def test_the_table_has_every_reason() -> None:
    assert all(rule.reason in table() for rule in RULES)


@pytest.mark.parametrize("name", names())
def test_a_preset_is_a_run_or_a_chain_of_them(name: str) -> None:
    preset = read(name)
    assert len(preset.source) > 100
    for run in preset.runs:
        said = {key: value for key, value in run.items() if key not in ("prompt_loss", "allow_short")}
        length, steps = parse_length(said.pop("length")), said.pop("steps")
        if "method" in said:
            find(said.pop("method"))
        window = parse_length(said.pop("window", length))
        made = Settings(length=length, stages=(Stage(window=window, steps=steps),), **said)
        assert made.steps == steps
        check(made)


def test_the_presets_say_where_their_numbers_are_from() -> None:
    assert all("arXiv:" in read(name).source and read(name).source in told() for name in names())


def test_yarn_at_128k_is_the_papers_two_runs() -> None:
    first, second = read("yarn-128k").runs
    alone = read("yarn-64k").runs[0]
    assert (first["length"], first["steps"], second["length"], second["steps"]) == ("64k", 400, "128k", 200)
    assert first == {**alone, "window": "64k"}


def test_tables_stand_over_the_lines_above_them(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(
        'data = "books"\nlength = 64\nrecipe = "full"\n[[runs]]\nsteps = 1\n'
        '[[runs]]\nsteps = 2\nrecipe = "lora"\ndata = ["chat=chats/a.jsonl", "/texts"]\nprompt_loss = true\n'
    )
    first, second = read(str(preset)).runs
    assert first == {"data": [str(tmp_path / "books")], "length": 64, "recipe": "full", "steps": 1}
    assert second["data"] == [f"chat={tmp_path / 'chats/a.jsonl'}", "/texts"]
    assert (second["recipe"], second["steps"], second["prompt_loss"]) == ("lora", 2, True)


def test_a_curriculum_takes_the_place_of_steps_and_window(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('steps = 5\nwindow = 32\n[[runs]]\ncurriculum = "32:1,64:1"\n[[runs]]\n')
    first, second = read(str(preset)).runs
    assert first == {"curriculum": "32:1,64:1"}
    assert over(first, {"steps": 3}) == {"steps": 3}
    assert over(second, {"seed": 1}) == {"steps": 5, "window": 32, "seed": 1}


BROKEN = {
    "an unknown word": ("step = 3", "did you mean steps"),
    "an unknown word in a table": ("[[runs]]\nlenght = 3", "did you mean length"),
    "a table": ("[data]\na = 1", "has a table 'data'"),
    "one table of runs": ("[runs]\nsteps = 1", r"write \[\[runs\]\]"),
    "no run": ("runs = []", r"write \[\[runs\]\]"),
    "no TOML": ("steps: 3", "is not TOML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_preset_is_one_sentence(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(InputError, match=message):
        read(str(tmp_path / "mine.toml"))


def test_every_setting_can_be_said_in_a_preset() -> None:
    assert set(Settings.__dataclass_fields__) - {"stages"} <= set(KEYS)
