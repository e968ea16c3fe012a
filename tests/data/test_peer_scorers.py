"""Our rules on generated text against what the originals' own code gave for the same answers; where from is in the JSON."""

import json
from pathlib import Path

import pytest

from ropewalk.data.tasks.scoring import score

FILES = sorted((Path(__file__).parent.parent / "golden" / "tasks").glob("*.json"))
TOLD = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
MINE = [name for name in ("lines", "key-value", "association", "conversation") if name in TOLD]
CASES = [
    pytest.param(TOLD[name]["rule"], case, id=f"{name}: {case['answer'][:30]!r}")
    for name in MINE
    for case in TOLD[name]["cases"]
]
OURS_IS_MILDER = {("Teszeb", "TesZeb")}
"""NoLiMa minds letter case, the rule `all` does not (RULER's)."""


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_scores_equal_the_originals(rule, case):
    ours = score(rule, case["answer"], case["references"])
    if (case["references"][0], case["answer"]) in OURS_IS_MILDER:
        assert (ours, case["score"]) == (1.0, 0.0)
    else:
        assert ours == pytest.approx(case["score"], abs=1e-12)


@pytest.mark.parametrize("name", ["lines", "key-value", "association", "conversation"])
def test_every_golden_file_says_where_it_is_from_and_tells_right_from_wrong(name):
    told = TOLD[name]
    assert len(told["source"].split()[1]) == 40
    assert told["function"]
    assert {0.0, 1.0} <= {case["score"] for case in told["cases"]}


def test_a_label_must_be_named_alone():
    labels = ("old trains", "old trains at night", "bread", "the moon")
    said = {" bread.": 1, "The first topic was Bread. Then the moon.": 1, "bread and the moon": 0, "the moon": 0, "": 0}
    for answer, right in said.items():
        assert score("label", answer, ("bread",), labels) == right
    assert score("label", "Old trains at night", ("old trains at night",), labels) == 1
    assert score("label", "old trains at night", ("old trains",), labels) == 0
