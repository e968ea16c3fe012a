"""The table for the terminal: the numbers of the page, in 120 columns of plain text."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_run import make_card

from ropewalk.core.record import Record
from ropewalk.report import terminal_table
from ropewalk.report.facts import Facts
from ropewalk.report.headline import WIDTH, lines
from ropewalk.report.page import headline

Make = Callable[..., Path]
LONG = ("yarn:ramp=rotations,beta_fast=16,beta_slow=2,truncate=false", "dynamic:ntk", "ntk-by-parts")


@pytest.mark.parametrize("methods", [("none", "crop", "yarn"), ("none", "crop", "pi", "ntk", "yarn", *LONG)])
def test_the_table_fits_and_is_plain(example: Make, methods: tuple[str, ...]) -> None:
    text = terminal_table(Record.read(example(methods=methods)))
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert not re.search(r"[ \t]+$", text, flags=re.MULTILINE)
    for label in methods:
        assert label[:14] in text


def test_the_table_fits_also_where_numbers_are_wide(example: Make) -> None:
    record = Record.read(example(methods=("none", "crop", *LONG)))
    for row in record.measurements:
        if row.metric in ("net_gain", "price_nll") and row.value is not None:
            object.__setattr__(row, "ci_low", -1234.5678)
    text = terminal_table(record)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "[-1234.568, " in text


def test_columns_are_aligned(example: Make) -> None:
    rows = terminal_table(Record.read(example())).splitlines()
    rule = next(i for i, line in enumerate(rows) if set(line) == {"-"})
    starts = [m.start() for m in re.finditer(r"\S+", rows[rule - 1])]
    assert starts[0] == 0
    body = rows[rule + 1 : rule + 6]
    assert {len(line) for line in body} == {len(rows[rule])}
    assert len({line.index(".") for line in body if " - " not in line[:30]}) == 1


def test_terminal_and_page_show_the_same_numbers(example: Make) -> None:
    record = Record.read(example())
    text = terminal_table(record)
    for row in headline(Facts.of(record)).rows:
        gain = row[5].replace("\n", " ").replace("\N{MINUS SIGN}", "-")
        assert gain in next(line for line in text.splitlines() if line.split()[:1] == [row[0]])


def test_beyond_is_over_the_tokens_that_crop_scored(example: Make) -> None:
    record = Record.read(example())
    found = {line.label: line for line in lines(Facts.of(record))}
    crop, yarn = (record.arrays(label)["document 1"].astype(np.float64) for label in ("crop", "yarn"))
    scored = np.isfinite(crop)
    assert found["yarn"].beyond == pytest.approx(yarn[scored].mean(), abs=1e-9)
    assert found["crop"].beyond == pytest.approx(crop[scored].mean(), abs=1e-9)
    assert found["yarn"].inside == pytest.approx(yarn[: 512 - 1].mean(), abs=1e-9)


def test_sums_come_before_means(example: Make) -> None:
    record = Record.read(example(documents=2, parts=[]))
    name = next(n for n, what in record.card.files.items() if what == {"method": "none", "document": "document 2"})
    array = np.load(record.path / name)[:700]
    np.save(record.path / name, array)
    first = record.arrays("none")["document 1"].astype(np.float64)
    want = (first[511:].sum() + array[511:].astype(np.float64).sum()) / (first[511:].size + array[511:].size)
    assert Facts.of(record).beyond_all("none") == pytest.approx(want, abs=1e-9)


def test_bins_put_an_edge_at_the_trained_length(example: Make) -> None:
    found = Facts.of(Record.read(example(parts=[])))
    assert 512 in found.bins
    assert found.bins[0] == 0
    assert found.bins[-1] == 1024
    assert 16 <= len(found.bins) - 1 <= 32


def test_an_unfinished_run_says_so_and_leaves_out_what_was_not_measured(example: Make) -> None:
    text = terminal_table(Record.read(example(until=2, status="interrupted")))
    assert "UNFINISHED: this run is interrupted" in text
    assert "net gain" not in text
    assert "retrieval" not in text


def test_names_in_other_scripts_do_not_break_the_terminal(example: Make) -> None:
    text = terminal_table(Record.read(example(model="模型 \x1b[31mred", parts=[])))
    assert "\x1b" not in text
    assert text.isascii()


def test_a_stretch_without_training_does_not_count_as_trained(example: Make) -> None:
    geometry = make_card(("none",), 512, 1024, ["d"]).geometry
    stretched = geometry | {"trained_length": 1024, "original_length": 512, "lineage": "runtime"}
    assert Facts.of(Record.read(example(geometry=stretched, parts=[]))).trained_length == 512
