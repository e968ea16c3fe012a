"""The record: rows, cards and their files, read back as they were written."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import make_card, make_row

from ropewalk.core.errors import SourceError
from ropewalk.core.record import Card, Measurement, Record, read_lines, safe_name
from ropewalk.core.run import Run

CONTRACT = (
    "schema_version", "metric", "protocol", "unit", "value", "n", "num_clusters", "num_tokens", "stderr", "ci_low",
    "ci_high", "model", "reference", "card", "method", "engine", "template", "length",
    "depth", "position_low", "position_high", "task",
    "seed", "dtype", "device", "seconds", "peak_bytes", "versions", "note",
)  # fmt: skip


def test_a_row_has_the_columns_of_the_contract() -> None:
    assert sorted(make_row().to_dict()) == sorted(CONTRACT)


def test_a_row_survives_json() -> None:
    row = make_row(value=0.1 + 0.2, ci_low=-1e-300, length=512, depth=0.5, versions={"torch": "2"}, note="why")
    assert Measurement.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_columns_of_a_later_version_are_dropped() -> None:
    assert Measurement.from_dict(make_row().to_dict() | {"later": 1}) == make_row()
    assert Card.from_dict(make_card().to_dict() | {"later": 1}) == make_card()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_cannot_be_had_is_null_with_a_reason(value: float | None) -> None:
    row = make_row(value=value, stderr=value)
    assert (row.value, row.stderr, row.note) == (None, None, "not a finite number")
    assert make_row(value=value, note="too short").note == "too short"
    assert make_row().note is None


def test_numpy_numbers_become_plain_ones() -> None:
    row = make_row(value=np.float64(0.5), ci_high=np.float32(0.25))
    assert (type(row.value), type(row.ci_high)) == (float, float)
    json.dumps(row.to_dict())


def test_the_key_of_a_row_leaves_out_what_was_measured() -> None:
    assert make_row().key == make_row(value=1.0, stderr=2.0, seconds=3.0, peak_bytes=4, versions={"a": "b"}, n=9).key
    for change in ({"metric": "x"}, {"method": "x"}, {"length": 1}, {"depth": 0.1}, {"position_low": 3}, {"seed": 1}):
        changed: dict[str, Any] = change
        assert make_row(**changed).key != make_row().key


def test_the_hash_of_a_card_is_that_of_its_question() -> None:
    card = make_card()
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))).hash == card.hash
    assert card.to_dict()["hash"] == card.hash
    same: list[dict[str, Any]] = [
        {"versions": {"a": "b"}},
        {"hardware": {"cores": 2}},
        {"status": "done"},
        {"config": {**card.config, "out": "there", "resume": True, "force": True}},
        {"source": {**card.source, "path": "/x"}},
    ]
    for changes in same:
        assert make_card(**changes).hash == card.hash, changes
    for changes in ({"seed": 1}, {"dtype": "x"}, {"device": "x"}, {"plans": {}}, {"documents": []}):
        assert make_card(**changes).hash != card.hash, changes


@pytest.mark.parametrize("name", ["a/b", "../up", "a b", "ä", "", ".", "..", "x" * 500, "con:\0", "\udcff", "a\nb"])
def test_a_safe_name_is_a_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert 0 < len(safe) < 80
    assert not safe.startswith((".", "-"))


def test_safe_names_tell_names_apart() -> None:
    names = ["yarn:a=1", "yarn:a-1", "yarn a=1", "yarn", "Yarn", "x" * 100, "x" * 101]
    assert len({safe_name(name) for name in names}) == len(names)


def test_a_run_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run.open(tmp_path, make_card())
    run.save("nll", "pi", "a.txt", np.arange(3, dtype=np.float32))
    run.save("nll", "pi", "b.txt", np.arange(4, dtype=np.float32))
    run.save("price", "pi", "a.txt", np.zeros((2, 5), dtype=np.float32))
    run.array_file("nll", "ntk", "a.txt")
    run.save_card("done")
    run.append("samples.jsonl", [{"x": 1}])
    run.write_measurements([make_row(), make_row(method="ntk", length=4)])
    record = Record.read(tmp_path)
    assert record.card.to_dict() == json.loads(json.dumps(run.card.to_dict()))
    assert record.samples == [{"x": 1}]
    assert {name: array.tolist() for name, array in record.arrays("pi").items()} == {
        "a.txt": [0, 1, 2],
        "b.txt": [0, 1, 2, 3],
    }
    assert record.arrays("pi", "price")["a.txt"].shape == (2, 5)
    assert record.arrays("ntk") == {}
    assert record.rows("nll") == [make_row(), make_row(method="ntk", length=4)]
    assert record.rows("nll", length=4) == [make_row(method="ntk", length=4)]
    assert record.rows("perplexity") == []


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", "null", '{"verb": "compare"}', "\xff"])
def test_what_is_no_run_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "card.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SourceError, match=r"is not a run folder: .*; expected the card.json that compare and measure write"):
        Record.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"metric": "nll"}', "has a row that is no measurement"),
        ("{", "has a broken line .*; expected one JSON object a line"),
        ("[1]", r"has a line that is no JSON object but \[1\]"),
        ("\xff", "has a broken line"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path: Path, line: str, message: str) -> None:
    Run.open(tmp_path, make_card())
    (tmp_path / "measurements.jsonl").write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(SourceError, match=message):
        Record.read(tmp_path)


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(read_lines(path)) == []
    path.write_text('{"x": 1}\n{"x": "caf')
    assert list(read_lines(path)) == [{"x": 1}]
    path.write_bytes('{"x": 1}\n{"x": "é'.encode()[:-1])
    assert list(read_lines(path)) == [{"x": 1}]
