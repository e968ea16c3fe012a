"""Rows that hold prompts alone are left out of a stream, counted and said; a stream of nothing else is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat import CHATML, MARKED, chat_tokenizer

from ropewalk.api import data_words
from ropewalk.core.errors import InputError, TextError
from ropewalk.data.assembly import Settings
from ropewalk.data.packing import pack
from ropewalk.data.preparation import prepare
from ropewalk.data.reading.files import open_files
from ropewalk.data.shards import Documents, read_shards
from ropewalk.data.stream import Stream, have_labels
from ropewalk.data.tokens import Encoder
from ropewalk.tune.batches import Before, RunRows, opened
from ropewalk.tune.settings import Settings as Tuning
from ropewalk.tune.settings import Stage

ONE_TOKEN = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
"""Of an answer its words are learned and not its end."""


def chats(file: Path, sizes: list[int], answer: str = "yes") -> Path:
    """Conversations of a long question and a short answer."""
    turns = [[{"role": "user", "content": "x" * n}, {"role": "assistant", "content": answer}] for n in sizes]
    file.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    return file


def made(paths: list[Path], out: Path, *, length: int, template: str = CHATML, **options: Any) -> dict[str, Any]:
    chosen = Settings(**{"length": length, "window": 64, "shard_tokens": 5000, "allow_short": True, **options})
    encoder = Encoder(tokenizer=chat_tokenizer(template))
    return prepare([open_files(str(path)) for path in paths], encoder, chosen, out, versions={"tokenizers": "1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty conversations of some 920 tokens whose answers end them."""
    place = tmp_path_factory.mktemp("chats")
    made([chats(place / "long.jsonl", [900 + 7 * n for n in range(20)])], place / "out", length=256)
    return place / "out"


def labelled(stream: Stream, index: int) -> bool:
    return bool((stream.row(index).labels != -100).any())


def test_every_row_of_a_stream_has_something_to_learn(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    stream = Stream.open(folder)
    assert card["packed"]["num_rows"] - card["packed"]["num_rows_without_labels"] == len(stream)
    assert stream.num_rows_without_labels == card["packed"]["num_rows_without_labels"] >= 60
    assert stream.num_rows_left_out == 0
    assert all(labelled(stream, index) for index in range(2 * len(stream)))
    # An epoch learns all that can be learned, and each row comes once.
    learned = sum(int((stream.row(index).labels != -100).sum()) for index in range(len(stream)))
    every = pack(np.load(folder / "kept.npy"), 256)
    assert learned == sum(int(stream.documents.piece(*piece)[1][1:].sum()) for piece in every[:, 1:].tolist()) > 70
    assert len({stream.row(index).ids.tobytes() for index in range(len(stream))}) == len(stream)


def test_the_lines_say_how_many(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    number = card["packed"]["num_rows_without_labels"]
    said = f"{number} rows have no token to learn, and training leaves them out"
    assert any(line.endswith(said) for line in data_words.lines(card, folder))
    settings = Tuning(length=512, stages=(Stage(window=256, steps=5),))
    (line,) = data_words.rows([Stream.open(folder)], settings)
    assert f"({number} others have no token to learn and are left out); 5 steps read 5" in line
    # A folder of before, whose card does not count them.
    del card["packed"]["num_rows_without_labels"]
    assert not any("no token to learn" in line for line in data_words.lines(card, folder))


def test_each_window_has_its_own_and_runs_of_a_chain_go_on(folder: Path) -> None:
    def read(settings: Tuning, before: Before | None = None) -> list[bytes]:
        rows = RunRows(settings, opened(folder, settings, before=before))
        found = [rows[index] for index in range(len(rows))]
        assert all((row.labels != -100).any() for row in found)
        return [row.ids.tobytes() for row in found]

    def asked(*stages: tuple[int, int]) -> Tuning:
        return Tuning(length=512, stages=tuple(Stage(window=window, steps=steps) for window, steps in stages))

    left = [Stream.open(folder, length=length).num_rows_without_labels for length in (256, 512)]
    assert left[0] > left[1] > 0
    whole = read(asked((256, 40)))
    first = asked((256, 14))
    source = opened(folder, first)[0].fingerprint  # type: ignore[attr-defined]
    assert read(first) + read(asked((256, 26)), Before().then(source, first, apart=False)) == whole
    staged = read(asked((256, 30), (512, 5), (256, 10)))
    assert staged[:30] + staged[35:] == whole


def test_a_stream_of_prompts_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    """The answers lie in what is left of each conversation, and PoSE uses the rows that one document fills."""
    words = "no row of 256 tokens with one to learn .*in all 6\\d that pose positions can use.*longer rows.*--prompt-loss"
    with pytest.raises(InputError, match=words):
        Stream.open(folder, positions="pose", target_length=1024)
    # One learned token each, and it is the first of the second row.
    file = chats(tmp_path / "one.jsonl", [100, 100], answer="y")
    made([file], tmp_path / "out", length=96, template=ONE_TOKEN)
    documents = Documents(tmp_path / "out" / "shards", read_shards(tmp_path / "out" / "shards"))
    (place,) = np.flatnonzero(documents.piece(0, 0, int(documents.lengths[0]))[1])
    assert len(Stream.open(tmp_path / "out"))
    with pytest.raises(InputError, match=f"no row of {place} tokens with one to learn"):
        Stream.open(tmp_path / "out", length=int(place))
    with pytest.raises(TextError, match=f"none of the 3 rows of {place} tokens has one to learn.*--prompt-loss"):
        made([file], tmp_path / "refused", length=int(place), template=ONE_TOKEN)


def test_one_token_alone_in_its_row_teaches_nothing(tmp_path: Path) -> None:
    """Texts have no mask; of 33 tokens in rows of 32 the last has nothing before it."""
    (tmp_path / "a.txt").write_text("bcde" * 8)
    card = made([tmp_path / "a.txt"], tmp_path / "out", length=32)
    assert card["all"]["num_tokens"] == 33
    assert card["packed"]["num_rows"] == 2
    assert card["packed"]["num_rows_without_labels"] == 1
    assert len(Stream.open(tmp_path / "out")) == 1


@pytest.mark.parametrize("length", [2, 7, 64, 100, 256, 5000])
@pytest.mark.parametrize("apart", [False, True])
def test_labels_are_found_in_every_shard_as_rows_have_them(length: int, apart: bool, tmp_path: Path) -> None:
    """Masked and unmasked shards side by side, documents of every rest, and a mix that cuts some."""
    rng = np.random.default_rng(length)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, size in enumerate(rng.integers(1, 400, 15)):
        (texts / f"{number:02}.txt").write_text("t" * int(size))
    file = chats(tmp_path / "chats.jsonl", [int(n) for n in rng.integers(1, 900, 25)])
    made([texts, file], tmp_path / "out", length=64, shard_tokens=1500)
    shards = read_shards(tmp_path / "out" / "shards")
    assert {"learned" in shard.sha256 for shard in shards} == {False, True}
    documents = Documents(tmp_path / "out" / "shards", shards)
    kept = np.where(rng.random(len(documents)) < 0.8, documents.lengths, documents.lengths // 3)
    pieces = pack(kept, length, apart=apart)
    wanted = [documents.piece(*piece)[1][1:].any() for piece in pieces[:, 1:].tolist()]
    assert documents.learns(pieces[:, 1:]).tolist() == wanted
    rows = np.zeros(int(pieces[-1, 0]) + 1, dtype=bool)
    np.logical_or.at(rows, pieces[:, 0], wanted)
    assert have_labels(documents, pieces).tolist() == rows.tolist()


def test_no_pieces_have_no_labels(folder: Path) -> None:
    documents = Documents(folder / "shards", read_shards(folder / "shards"))
    assert have_labels(documents, pack(np.zeros(20, dtype=np.int64), 16)).size == 0
