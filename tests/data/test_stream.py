"""Rows are functions of (seed, index), in value and in what they may hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from letters import corpus, prepared

from ropewalk.core.errors import InputError, SourceError
from ropewalk.data.rows import Row
from ropewalk.data.stream import Stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 29 documents in rows of 32."""
    place = tmp_path_factory.mktemp("stream")
    prepared([corpus(place / "in")], place / "out")
    return place / "out"


def same(one: Row, other: Row) -> bool:
    fields = ("ids", "labels", "position_ids", "document_ids")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


@pytest.mark.parametrize("positions", ["full", "pose", "randomized"])
def test_a_row_is_a_function_of_seed_and_index(folder: Path, positions: str) -> None:
    target = None if positions == "full" else 128
    one = Stream.open(folder, seed=3, positions=positions, target_length=target)
    rows = [one.row(index) for index in range(3 * len(one))]
    other = Stream.open(folder, seed=3, positions=positions, target_length=target)
    for index in reversed(range(len(rows))):
        assert same(other.row(index), rows[index])
    fourth = Stream.open(folder, seed=4, positions=positions, target_length=target)
    assert not all(same(fourth.row(index), rows[index]) for index in range(len(one)))


def test_an_epoch_holds_every_row_once_and_the_next_in_another_order(folder: Path) -> None:
    stream = Stream.open(folder)
    first, second = ([stream.row(e * len(stream) + i).ids.tolist() for i in range(len(stream))] for e in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_every_documents_first_label_is_masked_and_padding_teaches_nothing(folder: Path) -> None:
    stream = Stream.open(folder)
    for index in range(len(stream)):
        row = stream.row(index)
        assert row.ids.size == 32
        firsts = np.flatnonzero(np.diff(row.document_ids, prepend=-1))
        assert (row.labels[firsts] == -100).all()
        assert (row.position_ids[firsts] == 0).all()
        rest = np.setdiff1d(np.arange(32), firsts)
        learned = row.labels[rest] != -100
        assert (row.labels[rest][learned] == row.ids[rest][learned]).all()
        # What is not learned beside a document's first token is padding: the last, of end marks, all at position 0.
        padding = np.arange(32 - row.num_padding, 32)
        assert set(rest[~learned]) <= set(padding)
        assert (row.document_ids[padding] == row.num_documents).all()
        assert (row.ids[padding] == 2).all()
        assert (row.labels[padding] == -100).all()
        assert (row.position_ids[padding] == 0).all()


@pytest.mark.parametrize("positions", ["pose", "randomized"])
def test_jumps_are_inside_one_document_that_fills_its_row(folder: Path, positions: str) -> None:
    stream = Stream.open(folder, positions=positions, target_length=128)
    assert len(stream) + stream.num_rows_left_out == len(Stream.open(folder))
    furthest = 0
    for index in range(10 * len(stream)):
        row = stream.row(index)
        assert row.num_documents == 1
        furthest = max(furthest, int(row.position_ids[-1]))
    assert 100 < furthest < 128


@pytest.mark.parametrize("positions", ["full", "pose", "randomized"])
def test_a_stage_never_replays_another(folder: Path, positions: str) -> None:
    target = None if positions == "full" else 128
    first, second, again = (
        Stream.open(folder, seed=(3, stage), positions=positions, target_length=target) for stage in (0, 1, 1)
    )
    assert [second.row(i).ids.tolist() for i in range(9)] != [first.row(i).ids.tolist() for i in range(9)]
    if positions != "full":
        assert [second.row(i).position_ids.tolist() for i in range(9)] != [
            first.row(i).position_ids.tolist() for i in range(9)
        ]
    assert all(same(second.row(index), again.row(index)) for index in range(3 * len(again)))
    # A number is stage 0 of itself.
    alone = Stream.open(folder, seed=3, positions=positions, target_length=target)
    assert all(same(first.row(index), alone.row(index)) for index in range(len(alone)))


def test_stages_of_a_run_have_orders_of_their_own(folder: Path) -> None:
    from ropewalk.tune.batches import RunRows, opened
    from ropewalk.tune.settings import Settings, Stage

    steps = len(Stream.open(folder))
    settings = Settings(length=32, stages=(Stage(window=32, steps=steps),) * 2)
    rows = RunRows(settings, opened(folder, settings))
    seen = [rows[index].ids.tolist() for index in range(2 * steps)]
    assert sorted(seen[:steps]) == sorted(seen[steps:])
    assert seen[:steps] != seen[steps:]


def test_packed_is_said_of_all_rows(folder: Path) -> None:
    stream = Stream.open(folder)
    counts = [stream.row(index).num_documents for index in range(len(stream))]
    assert min(counts) == 1
    assert max(counts) > 1
    assert stream.packed
    assert not Stream.open(folder, positions="pose", target_length=128).packed
    assert not Stream.open(folder, apart=True).packed


def test_apart_gives_each_document_rows_of_its_own(folder: Path) -> None:
    together, apart = Stream.open(folder), Stream.open(folder, apart=True)
    rows = [apart.row(index) for index in range(len(apart))]
    assert {row.num_documents for row in rows} == {1}
    assert {row.ids.size for row in rows} == {32}
    assert len(apart) > len(together)
    assert sum(row.num_tokens for row in rows) == sum(together.row(index).num_tokens for index in range(len(together)))


def test_another_length_packs_the_same_documents_anew(folder: Path) -> None:
    tokens = []
    for length in (8, 32, 64):
        stream = Stream.open(folder, length=length)
        rows = [stream.row(index) for index in range(len(stream))]
        assert {row.ids.size for row in rows} == {length}
        tokens.append(sum(int((row.ids != 2).sum()) for row in rows))
    assert len(set(tokens)) == 1


def test_the_fingerprint_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert Stream.open(tmp_path / "copy").fingerprint == Stream.open(folder).fingerprint
    other = corpus(tmp_path / "in", num_long=8)
    prepared([other], tmp_path / "other")
    assert Stream.open(tmp_path / "other").fingerprint != Stream.open(folder).fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positions": "posse"}, "unknown positions 'posse'; did you mean pose"),
        ({"positions": "pose"}, "need a target_length of at least the rows' 32, got None"),
        ({"positions": "randomized", "target_length": 31}, "at least the rows' 32, got 31"),
        (
            {"positions": "pose", "length": 400, "target_length": 800},
            "no row of 400 tokens that one document fills.*has 121",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused(folder: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Stream.open(folder, **options)


def test_what_is_no_prepared_data_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no folder of prepared data; make one with ropewalk data"):
        Stream.open(tmp_path)
    (tmp_path / "card.json").write_text('{"verb": "compare", "status": "done"}')
    with pytest.raises(SourceError, match="is the folder of a compare run, expected prepared data"):
        Stream.open(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    np.save(tmp_path / "copy" / "kept.npy", np.ones(29, dtype=np.int64))
    with pytest.raises(SourceError, match=r"kept\.npy is not what the card speaks of; repeat"):
        Stream.open(tmp_path / "copy")


def test_rows_are_counted_from_zero(folder: Path) -> None:
    with pytest.raises(IndexError, match="counted from 0, got -1"):
        Stream.open(folder).row(-1)
