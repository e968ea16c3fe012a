"""The limit on short documents is for learning to read further: where short ones are meant there is none, and it is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from letters import corpus, prepared

from ropewalk.api import data_words
from ropewalk.data.mixing import Mix, choose

FEW_LONG = {"num_long": 1, "num_short": 99}


def taken(card: dict) -> tuple[int, int]:
    return card["packed"]["num_tokens"], card["all"]["num_tokens"]


def test_one_long_document_takes_no_short_one_away_where_short_ones_are_meant(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "in", **FEW_LONG)
    kept, there = taken(prepared([texts], tmp_path / "limited", min_beyond=0.0))
    # The long one has 41 tokens, so that 27 short ones are two fifths.
    assert (kept, there) == (41 + 4 * 6, 41 + 99 * 6)
    assert len(set(taken(prepared([texts], tmp_path / "allowed", allow_short=True)))) == 1
    # Rows of the old window and less teach nothing beyond it, whatever the documents are.
    assert len(set(taken(prepared([texts], tmp_path / "inside", length=8)))) == 1


def test_a_stated_share_is_kept_where_short_ones_are_meant(tmp_path: Path) -> None:
    card = prepared([corpus(tmp_path / "in", **FEW_LONG)], tmp_path / "out", allow_short=True, mix=Mix(short_share=0.2))
    assert card["packed"]["short_share"] == pytest.approx(6 / 47)
    assert card["packed"]["short_limit"] == 0.2


def test_shares_of_sources_are_met_without_a_limit() -> None:
    lengths, sources = np.array([100] + [5] * 60), np.repeat([0, 0, 1], [1, 30, 30])
    kept = choose(lengths, sources, ["a", "b"], short=10, mix=Mix(shares={"a": 1, "b": 1}), seed=0, limit=1.0)
    # Half of all is short in b, which the default limit would hold against a's short ones.
    assert kept[sources == 0].sum() == kept[sources == 1].sum() == 150
    # Of the 250 tokens of a 100 are long.
    assert kept[0] == 60
    assert kept[1:31].sum() == 90


def test_the_limit_is_told_where_it_leaves_out_more_than_half(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "in", **FEW_LONG)
    words = "warning: 570 of 635 tokens are left out, because at most 40% may be in short documents"
    card = prepared([texts], tmp_path / "out", min_beyond=0.0)
    for said in (data_words.taken(card, "out"), data_words.lines(card, "out")):
        assert [line for line in said if line.startswith(words) and line.endswith("--short-share 1 takes them all")]
    for name, options in {
        "few": {"mix": Mix(short_share=1.0), "min_beyond": 0.0},
        "asked": {"mix": Mix(keep_short=0.1), "min_beyond": 0.0},
        "allowed": {"allow_short": True},
    }.items():
        card = prepared([texts], tmp_path / name, **options)
        assert "warning" not in " ".join(data_words.taken(card, "out"))
    # A folder of before, whose card does not say it.
    old = json.loads((tmp_path / "out" / "card.json").read_text())
    del old["packed"]["over_short_limit"]
    assert "warning" not in " ".join(data_words.taken(old, "out"))
