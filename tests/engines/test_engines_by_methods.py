"""The table of engines by methods: current, complete, and true by arithmetic that is not the judge's."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ropewalk
from benchmarks.engine_cases import CASES
from ropewalk.core.errors import MethodError
from ropewalk.core.plan import Plan

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "tools" / "generate_engines.py"
TOLERANCE = 1e-6


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_engines", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_engines"] = module
    spec.loader.exec_module(module)
    return module


TABLE = load()
ROWS: dict[str, list[Any]] = {model.title: TABLE.rows(model) for model in TABLE.MODELS}
CELLS = [
    pytest.param(model, row, column, row.cells[column], id=f"{model.title}-{row.method}-{column}")
    for model in TABLE.MODELS
    for row in ROWS[model.title]
    for column in TABLE.COLUMNS
    if row.cells[column].numbers is not None
]


def lengths(plan: Plan) -> list[int]:
    """The plan's length, and one in its other regime."""
    return [plan.length] if plan.kind == "static" else [plan.length, plan.original_length]


def largest_error(plan: Plan, cell: Any) -> float:
    """Over every group, every frequency, the factor on cos and sin, and the logit scale, at every length of the plan."""
    worst = 0.0
    for length in lengths(plan):
        used = cell.numbers(length).groups
        for label, word in plan.at(length).groups.items():
            if word is None:
                assert used[label] is None
                continue
            mine, theirs = used[label], word
            both = (mine.inv_freq, mine.attention_factor, mine.logit_scale)
            for one, other in zip(both, (theirs.inv_freq, theirs.attention_factor, theirs.logit_scale), strict=True):
                scale = np.maximum(np.abs(one), np.abs(other))
                worst = max(worst, float(np.max(np.abs(np.asarray(one) - other) / scale)))
    return worst


def accepted(cell: Any, length: int) -> bool:
    longest = cell.numbers(length).max_length
    return longest is None or longest >= length


def test_the_page_is_current() -> None:
    made = TABLE.page()
    assert TABLE.TARGET.read_text(encoding="utf-8") == made, f"run {sys.executable} tools/generate_engines.py"


@pytest.mark.parametrize(("model", "row", "column", "cell"), CELLS)
def test_a_cell_is_exact_where_its_numbers_are_the_plans_and_nowhere_else(
    model: Any, row: Any, column: str, cell: Any
) -> None:
    if cell.status in ("refused", "unsupported"):
        computed = cell.numbers(row.plan.length)
        assert computed.refuses or computed.unsupported
        return
    right = largest_error(row.plan, cell) <= TOLERANCE and accepted(cell, model.length)
    assert cell.status == ("exact" if right else "differs")


def test_the_arithmetic_of_these_tests_sees_a_wrong_number() -> None:
    by_method = {row.method: row for row in ROWS["SmolLM2-135M"]}
    yarn, parts = by_method["yarn"], by_method["ntk-by-parts"]
    assert largest_error(yarn.plan, yarn.cells["gguf"]) <= TOLERANCE
    # The two differ in the factor on cos and sin alone.
    assert largest_error(yarn.plan, parts.cells["gguf"]) == pytest.approx(1 - 1 / 1.138629, rel=1e-5)


@pytest.mark.parametrize("title", ROWS)
def test_every_method_has_a_row_and_every_engine_a_cell_with_a_reason(title: str) -> None:
    shown = {row.method for row in ROWS[title]}
    static = {name for name, method in ropewalk.methods().items() if method.kind == "static"}
    assert static - {"none", "crop"} <= shown
    assert {"longrope, one list", "longrope, two lists", "dynamic:yarn"} <= shown
    for row in ROWS[title]:
        assert set(row.cells) == set(TABLE.COLUMNS)
        assert all(bool(cell.reason) == (cell.status != "exact") for cell in row.cells.values()), row.method
        assert all(cell.says for name, cell in row.cells.items() if name in ("vllm", "gguf") and cell.numbers), row.method


def test_what_the_table_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    statuses = [cell.status for rows in ROWS.values() for row in rows for cell in row.cells.values()]
    with capsys.disabled():
        print(f"\n{len(statuses)} cells, of them exact: {statuses.count('exact')}")
    for rows in ROWS.values():
        for row in rows:
            if row.plan.kind == "static":
                assert row.cells["transformers"].status == "exact", row.method
    plain = {row.method: {cell.status for cell in row.cells.values()} for row in ROWS["SmolLM2-135M"]}
    assert plain["yarn"] == plain["ntk"] == plain["abf"] == {"exact"}
    assert {"refused", "differs"} >= plain["dynamic:yarn"]


def test_what_was_executed_is_what_the_page_says_was() -> None:
    written = {case.name: (case.method, case.length) for case in CASES if case.of == case.name}
    assert written == TABLE.EXECUTED
    ran = TABLE.executed()
    assert {column for column, _ in ran} == {"transformers", "vllm", "gguf"}
    by_method = {row.method: row for row in ROWS["SmolLM2-135M"]}
    for (column, method), found in ran.items():
        assert all(right for _, right in found)
        assert by_method[method].cells[column].status == "exact"


@pytest.mark.parametrize("engine", TABLE.COLUMN_OF)
@pytest.mark.parametrize("name", TABLE.EXECUTED)
def test_a_mark_goes_where_the_plan_was_not_computed(engine: str, name: str) -> None:
    """The divergence of the unextended model in the plan's place: no mark may survive it, the control's own neither."""
    cases = json.loads(TABLE.CASES.read_text(encoding="utf-8"))["rows"]
    [off] = [case for case in cases if case["engine"] == engine and case["case"] == "off"]
    for case in cases:
        if case["engine"] == engine and case["case"] == name:
            case["kl_mean"] = off["kl_mean"]
    key = (TABLE.COLUMN_OF[engine], TABLE.EXECUTED[name][0])
    assert (TABLE.EXECUTED[name][1], False) in TABLE.judged(cases)[key]
    assert all(right for _, right in TABLE.executed()[key])


def test_every_wrong_checkpoint_costs_more_than_the_controls_bound() -> None:
    cases = json.loads(TABLE.CASES.read_text(encoding="utf-8"))["rows"]
    wrong = [case["kl_mean"] for case in cases if case["case"] not in TABLE.EXECUTED]
    assert len(wrong) >= 15
    assert min(wrong) > 10 * TABLE.CONTROL_NATS
    assert f"{min(wrong):.2f}" in TABLE.INTRODUCTION


def test_an_execution_that_went_wrong_is_told() -> None:
    (row,) = [row for row in ROWS["SmolLM2-135M"] if row.method == "yarn"]
    shown = TABLE.table([row], {("vllm", "yarn"): [(16384, False)]})
    assert "exact, and what was run was not as it must be" in shown


@pytest.mark.parametrize("baseline", ["none", "crop"])
def test_a_baseline_is_refused_as_the_page_says(baseline: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert f"`{baseline}`" in TABLE.page().partition("change nothing")[0]
    with pytest.raises(MethodError, match="changes nothing in a checkpoint"):
        ropewalk.extend(tiny_checkpoint, baseline, length=128, out=tmp_path / "out")


def test_a_stale_page_is_found_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "engines" / "methods.md"
    monkeypatch.setattr(TABLE, "TARGET", target)
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        monkeypatch.setattr(sys, "argv", ["generate_engines.py", *arguments])
        assert TABLE.main() == code
    assert target.read_text(encoding="utf-8") == TABLE.page()
