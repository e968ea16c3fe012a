"""No config class of transformers that turns by positions is forgotten.

All of `CONFIG_MAPPING` is walked, the parts of composite models with it: each has an entry there. One that rotates is a
family, a whole around one, or named with the reason why it is neither. A release with a new one fails here until somebody
decides where it belongs.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.errors import UnsupportedError
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.families import COMPOSITE, FAMILIES, NOT_YET, REFUSED
from ropewalk.engines.transformers.others import KINDS, OTHERS

FIELD = re.compile(r"rope|rotary")
"""What a config field that bears on a rotation has in its name."""
CODE = re.compile(r"rotary|rotate_half|rotate_every_two|inv_freq", re.IGNORECASE)
"""What code that rotates has in it."""
TABLES = (FAMILIES, COMPOSITE, NOT_YET, REFUSED, KINDS)


@functools.cache
def code_turns(folder: Path) -> bool:
    """Whether the modeling code of a folder rotates anything."""
    return any(CODE.search(path.read_text(encoding="utf-8")) for path in folder.glob("modeling_*.py"))


def parts(model_type: str) -> dict[str, object]:
    """The configs inside a config class, by their fields."""
    return dict(getattr(CONFIG_MAPPING[model_type], "sub_configs_defaults", None) or {})


def turning() -> Iterator[str]:
    """Model types that rotate: by a field of their own, or, where they have no parts, by the code beside them."""
    for model_type in sorted(CONFIG_MAPPING.keys()):
        cls = CONFIG_MAPPING[model_type]
        by_field = any(FIELD.search(field.name) for field in dataclasses.fields(cls))
        if by_field or (not parts(model_type) and code_turns(Path(inspect.getfile(cls)).parent)):
            yield model_type


def test_every_config_that_turns_is_somewhere() -> None:
    assert [name for name in turning() if not any(name in table for table in TABLES)] == []


def test_every_part_of_a_whole_is_walked_too() -> None:
    inside = {getattr(part, "config_class", part) for name in CONFIG_MAPPING for part in parts(name).values()}
    types = {getattr(cls, "model_type", "") for cls in inside} - {""}
    assert {name for name in types if name not in CONFIG_MAPPING} <= {"semantic", "coarse_acoustics", "fine_acoustics"}


def test_most_of_them_rotate_by_a_field() -> None:
    """The walk sees something: were the fields renamed, it would see little and pass."""
    found = list(turning())
    assert len(found) > 250
    assert {"llama", "qwen2_vl_text", "pixtral", "gptj", "esm"} <= set(found)


def test_none_is_in_two_tables() -> None:
    names = [name for table in TABLES for name in table]
    assert len(names) == len(set(names))
    assert len(KINDS) == sum(len(names) for names in OTHERS.values())


def test_what_is_no_text_model_exists() -> None:
    assert [name for name in KINDS if name not in CONFIG_MAPPING] == []


@pytest.mark.parametrize("name", ["modernbert", "pixtral", "mimi", "timesfm2_5"])
def test_what_is_no_text_model_is_refused_as_what_it_is(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{name} is .*; ropewalk reads causal text models$"):
        read({"model_type": name})


def test_a_whole_is_refused_for_its_text_part() -> None:
    config = {"model_type": "mistral_large4", "text_config": {"model_type": "mistral_large4_text"}}
    with pytest.raises(UnsupportedError, match=r"^mistral_large4_text has a learned factor on each frequency .*, which"):
        read(config)


@pytest.mark.parametrize(("outer", "inner"), sorted(COMPOSITE.items()))
def test_a_whole_is_what_transformers_takes_it_for(outer: str, inner: str) -> None:
    part = parts(outer)["text_config"]
    assert getattr(getattr(part, "config_class", part), "model_type", None) == inner
