"""From sources to a folder: the same bytes whatever happens, and a sentence for what cannot be."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat import FORGETFUL, THOUGHTFUL, TODAY, chat_tokenizer, on_day
from letters import Letters, content, corpus, killed_at, prepared

from ropewalk.core.errors import InputError, MachineError, OutputError, SourceError, TextError
from ropewalk.data.assembly import Settings
from ropewalk.data.preparation import LOOK, _look_through, prepare
from ropewalk.data.reading.files import open_files
from ropewalk.data.reading.hub import HubSource
from ropewalk.data.shards import Documents, read_shards
from ropewalk.data.stream import Stream
from ropewalk.data.tokens import Encoder


def decoded(stream: Stream) -> list[str]:
    """Every document that the rows hold, padding left out."""
    found = []
    for index in range(len(stream)):
        row = stream.row(index)
        for document in range(row.num_documents):
            ids = row.ids[row.document_ids == document]
            if (row.labels[row.document_ids == document] != -100).any() or ids.size == 1:
                found.append(Letters().decode(ids.tolist()))
    return found


def test_the_rows_hold_the_texts_and_the_card_counts_them(tmp_path: Path) -> None:
    card = prepared([corpus(tmp_path / "in")], tmp_path / "out")
    (said,) = card["sources"]
    lengths = [41 + 10 * i for i in range(9)] + [6] * 20
    assert (said["num_documents"], said["num_tokens"], said["longest"]) == (29, sum(lengths), 121)
    assert card["packed"]["num_tokens"] == sum(lengths)
    assert card["packed"]["short_share"] == pytest.approx(120 / sum(lengths))
    stream = Stream.open(tmp_path / "out")
    assert len(stream) == card["packed"]["num_rows"]
    found = decoded(stream)
    for index in range(9):
        assert sum(text.count(str(index)) for text in found if "s" not in text) == 40 + 10 * index
    assert sum("s00" in text for text in found) == 20


def test_by_default_at_most_two_fifths_are_short(tmp_path: Path) -> None:
    card = prepared([corpus(tmp_path / "in", num_long=2, num_short=99)], tmp_path / "out")
    assert card["packed"]["short_share"] == pytest.approx(0.4, abs=0.05)
    assert card["sources"][0]["kept_tokens"] < card["sources"][0]["num_tokens"]


def test_shards_end_with_documents_and_know_their_hashes(tmp_path: Path) -> None:
    prepared([corpus(tmp_path / "in")], tmp_path / "out")
    shards = read_shards(tmp_path / "out" / "shards")
    assert len(shards) > 3
    assert all(200 <= shard.num_tokens < 330 for shard in shards[:-1])
    documents = Documents(tmp_path / "out" / "shards", shards)
    documents.check()
    ids, learned = documents.piece(0, 38, 41)
    assert ids.tolist() == [*Letters()("00")["input_ids"], 2]
    assert learned.all()
    path = tmp_path / "out" / "shards" / "00001.tokens.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"\x05\x00")
    with pytest.raises(SourceError, match=r"00001\.tokens\.npy is not what was written"):
        documents.check()
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SourceError, match=r"missing or broken|cut short"):
        Stream.open(tmp_path / "out")


def test_a_run_that_is_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    lines = tmp_path / "more.jsonl"
    lines.write_text("".join(json.dumps({"text": "x" * (20 + i)}) + "\n" + "{\n" * (i % 4 == 0) for i in range(20)))
    paths = [folder, lines]
    prepared(paths, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    count = 0
    while True:
        count += 1
        out = tmp_path / f"killed{count}"
        if not killed_at(count, lambda out=out: prepared(paths, out)):  # type: ignore[misc]
            break
        # A second kill, one rename after the first; then to the end.
        killed_at(2, lambda out=out: prepared(paths, out, resume=True))  # type: ignore[misc]
        prepared(paths, out, resume=True)
        assert content(out) == whole, count
    assert count > 20


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = corpus(tmp_path / "in")
    prepared([folder], tmp_path / "whole")
    real, calls = os.fsync, iter(range(100))

    def full(file: int) -> None:
        if next(calls) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MachineError, match="the disk is full while writing"):
            prepared([folder], tmp_path / "out")
    with pytest.raises(SourceError, match="not finished; repeat their ropewalk data command with --resume"):
        Stream.open(tmp_path / "out")
    prepared([folder], tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "long3.txt").write_text("other"), r"long3\.txt is changed"),
        (lambda folder: (folder / "long3.txt").unlink(), r"long3\.txt is gone"),
        (lambda folder: (folder / "new.txt").write_text("other"), r"new\.txt is new"),
    ],
)
def test_a_source_that_changes_before_the_run_goes_on_is_a_sentence(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    folder = corpus(tmp_path / "in")
    assert killed_at(5, lambda: prepared([folder], tmp_path / "out"))
    change(folder)
    with pytest.raises(OutputError, match=rf"in is not what .*out was begun with \({words}\); start anew with --force"):
        prepared([folder], tmp_path / "out", resume=True)


def test_another_mix_or_length_tokenizes_nothing_again(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    prepared([folder], tmp_path / "out")
    shards = {name: data for name, data in content(tmp_path / "out").items() if name.startswith("shards")}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    card = prepared([folder], tmp_path / "out", resume=True, length=64)
    assert card["length"] == 64
    assert Stream.open(tmp_path / "out").row(0).ids.size == 64
    assert {name: data for name, data in content(tmp_path / "out").items() if name.startswith("shards")} == shards
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_another_mix_that_is_refused_leaves_the_finished_one(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    prepared([folder], tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(TextError):
        prepared([folder], tmp_path / "out", resume=True, length=5000)
    assert content(tmp_path / "out") == before


def test_other_sources_or_another_tokenizer_are_another_question(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    (tmp_path / "b.txt").write_text("b" * 99)
    prepared([folder], tmp_path / "out")
    with pytest.raises(OutputError, match="begun with other sources"):
        prepared([folder, tmp_path / "b.txt"], tmp_path / "out", resume=True)
    with pytest.raises(OutputError, match="begun with other shard_tokens"):
        prepared([folder], tmp_path / "out", resume=True, shard_tokens=300)


def test_another_end_of_documents_is_another_question_where_the_card_says_it(tmp_path: Path) -> None:
    """A tokenizer's config names its special tokens, and tokenizer.json is the same without it."""
    folder, card = corpus(tmp_path / "in"), tmp_path / "out" / "card.json"
    prepared([folder], tmp_path / "out")
    said = json.loads(card.read_text())
    assert set(said["asked"]["special_ids"]) == {"bos", "eos", "pad"}
    said["asked"]["special_ids"]["eos"] = 17
    card.write_text(json.dumps(said))
    with pytest.raises(OutputError, match="begun with other special_ids"):
        prepared([folder], tmp_path / "out", resume=True)
    # A folder from before this was kept goes on.
    del said["asked"]["special_ids"]
    card.write_text(json.dumps(said))
    prepared([folder], tmp_path / "out", resume=True)


def test_a_folder_that_read_prompts_alone_is_another_question(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"Question {number} of many words", "completion": "An answer"}) for number in range(40)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    source, card = open_files(str(tmp_path / "in.jsonl"), field="prompt"), tmp_path / "out" / "card.json"
    chats_of = {"encoder": Encoder(tokenizer=chat_tokenizer()), "settings": Settings(length=32, window=32), "versions": {}}
    prepare([source], out=tmp_path / "out", **chats_of)
    said = json.loads(card.read_text())
    assert said["asked"].pop("pairs") == "read"
    card.write_text(json.dumps(said))
    with pytest.raises(OutputError, match="begun with other pairs"):
        prepare([source], out=tmp_path / "out", resume=True, **chats_of)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"length": 5000},
            r"the data have 849 tokens, less than one row of 5000; hand in more, or ask for rows of at most 849 ",
        ),
        (
            {"window": 100, "length": 128},
            r"^\d\.\d% of the tokens lie beyond the old window of 100 \(the longest document has 121",
        ),
    ],
)
def test_data_that_cannot_teach_are_refused_and_little_is_left_of_them(tmp_path: Path, options: dict, words: str) -> None:
    folder = corpus(tmp_path / "in")
    with pytest.raises(TextError, match=words):
        prepared([folder], tmp_path / "a" / "out", shard_tokens=10_000, **options)
    assert not (tmp_path / "a").exists()
    with pytest.raises(TextError, match=words):
        prepared([folder], tmp_path / "out", **options)
    # Here there was more than a shard to lose, and another length goes on with it.
    prepared([folder], tmp_path / "out", resume=True)


def test_short_data_are_taken_where_the_user_says_so(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    card = prepared([folder], tmp_path / "out", window=100, length=128, allow_short=True)
    assert card["packed"]["beyond_window"] < 0.1


def test_a_refused_folder_gives_back_what_force_put_aside(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    prepared([folder], tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(TextError):
        prepared([folder], tmp_path / "out", force=True, length=5000, shard_tokens=10_000)
    assert content(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    prepared([folder], tmp_path / "out", force=True, length=16)
    assert Stream.open(tmp_path / "out").length == 16


def test_too_many_broken_records_stop_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' + "{\n" * 4)
    with pytest.raises(
        InputError, match=r"3 broken records, more than --max-broken 2; the first is .*a\.jsonl line 2: broken"
    ):
        prepared([path], tmp_path / "out", max_broken=2)
    assert not (tmp_path / "out").exists()


def test_a_missing_field_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "good"}\n' * 20)
    with pytest.raises(InputError, match=r"line 1: no field 'text' \(it has body\)"):
        prepared([path], tmp_path / "out", field="text")


def test_everything_left_out_is_named_and_counted(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    (folder / "empty.txt").write_text(" \n")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / ".hidden").write_text("no")
    card = prepared([folder], tmp_path / "out")
    assert card["sources"][0]["left_out"] == {"empty": 1, "hidden": 1, "not UTF-8": 1}
    rows = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert {(Path(row["file"]).name, row["reason"]) for row in rows} == {
        ("empty.txt", "empty"),
        (".hidden", "hidden"),
        ("latin.txt", "not UTF-8"),
    }


def test_nothing_but_empty_texts_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(TextError, match=r"no document in a\.txt; the first that is left out is .*a\.txt: empty"):
        prepared([tmp_path / "a.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def turns(*messages: tuple[str, str]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in messages]}) + "\n"


def chats(tokenizer: Any, paths: list[Path], out: Path, *, prompt_loss: bool = False, **options: Any) -> dict[str, Any]:
    """Prepared with a tokenizer that has, or lacks, a chat template."""
    again = {key: options.pop(key) for key in ("resume",) if key in options}
    sources = [open_files(str(path)) for path in paths]
    chosen = Settings(**{"length": 16, "window": 8, **options})
    return prepare(sources, Encoder(tokenizer=tokenizer, prompt_loss=prompt_loss), chosen, out, versions={}, **again)


def test_what_the_tokenizing_leaves_out_is_named_by_its_path(tmp_path: Path) -> None:
    """As what the reading leaves out, so that two files of one name are two."""
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        path = tmp_path / "in" / name / "chat.jsonl"
        path.write_text(turns(("user", "q"), ("assistant", "answers " * 4)) + turns(("user", "only a question")) + turns())
    chats(chat_tokenizer(), [tmp_path / "in"], tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"], row["reason"]) for row in rows] == [
        (str(tmp_path / "in" / name / "chat.jsonl"), line, reason)
        for name in ("a", "b")
        for line, reason in ((2, "no answer to learn from"), (3, "empty"))
    ]


@pytest.mark.parametrize("prompt_loss", [False, True])
@pytest.mark.parametrize("first", ["a.txt", "a.jsonl"])
def test_a_missing_chat_template_is_found_before_anything_is_made(tmp_path: Path, first: str, prompt_loss: bool) -> None:
    """Also where a conversation is not the first record."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / first).write_text("long text " * 99 if first == "a.txt" else json.dumps({"text": "long text " * 99}))
    (tmp_path / "in" / "z.jsonl").write_text("{}\n" + turns(("user", "q"), ("assistant", "a")))
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        _look_through(
            [open_files(str(tmp_path / "in"))], Encoder(tokenizer=chat_tokenizer(None), prompt_loss=prompt_loss), 10
        )
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        chats(chat_tokenizer(None), [tmp_path / "in"], tmp_path / "out", prompt_loss=prompt_loss)
    assert not (tmp_path / "out").exists()


def test_a_missing_chat_template_is_found_also_where_texts_come_first_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "long text " * 99}) + "\n" + turns(("user", "q"), ("assistant", "a")))
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        _look_through([open_files(str(path))], Encoder(tokenizer=chat_tokenizer(None)), 10)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows(HubSource):
    """A data set whose rows are made here, and counted."""

    make: Callable[[int], dict[str, Any]]
    read: list[int] = field(default_factory=lambda: [0])

    def _rows(self, number: int) -> Iterator[Any]:
        for index in range(number, 50_000):
            self.read[0] += 1
            yield self.make(index)


def rows(make: Callable[[int], dict[str, Any]]) -> Rows:
    return Rows(name="o/n", config=None, split="train", revision="r", documents=None, make=make)


@pytest.mark.parametrize(("num_good", "prompt_loss"), [(0, False), (0, True), (1, False)])
def test_broken_records_stop_a_data_set_as_they_are_met(tmp_path: Path, num_good: int, prompt_loss: bool) -> None:
    source = rows(lambda index: {"text": "good one"} if index < num_good else {"prompt": "x"})
    encoder = Encoder(tokenizer=Letters(), prompt_loss=prompt_loss)
    with pytest.raises(
        InputError, match=rf"11 broken records, more than --max-broken 10; the first is o/n line {num_good + 1}"
    ):
        prepare([source], encoder, Settings(length=8, window=4), tmp_path / "out", versions={})
    assert source.read[0] < 40
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_a_first_document_is_looked_into_but_not_through() -> None:
    source = rows(lambda index: {"messages": [{"role": "narrator", "content": "a"}]})
    _look_through([source], Encoder(tokenizer=Letters(), prompt_loss=True), 10)
    assert source.read[0] <= 2 * LOOK + 1


def test_a_template_that_refuses_every_conversation_stops_at_the_first_few(tmp_path: Path) -> None:
    pair = (("user", "q"), ("assistant", "a"))
    (tmp_path / "a.jsonl").write_text(turns(*pair, *pair) * 200)
    words = (
        r"4 broken records, .* the chat template does not show where answers begin and end \(.*\); give one with "
        r"{% generation %} marks around the answers by --chat-template FILE, mend the records, or give a higher --max-broken"
    )
    with pytest.raises(InputError, match=words):
        chats(chat_tokenizer(FORGETFUL), [tmp_path / "a.jsonl"], tmp_path / "out", max_broken=3)


def test_a_template_that_the_conversation_refuses_is_named_as_the_mend(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(turns(("user", "q"), ("assistant", "a")) * 3)
    with pytest.raises(InputError, match=r"\(never\); give one that writes such conversations by --chat-template FILE"):
        chats(chat_tokenizer("{{ raise_exception('never') }}"), [tmp_path / "a.jsonl"], tmp_path / "out", max_broken=1)


def test_a_few_broken_records_that_are_all_keep_their_line_and_cause(tmp_path: Path) -> None:
    """Fewer than --max-broken stop nothing, and then there is nothing to learn from."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": " "}\n{"ask": "q", "say": "a"}\n')
    words = (
        r"no document in a\.jsonl; the first that is left out is .*a\.jsonl line 2: no field .* \(it has ask, say; name .*"
    )
    with pytest.raises(TextError, match=words + r"as instruction and output\); mend it, or hand in others"):
        prepared([file], tmp_path / "out")
    file.write_text(turns(("user", "q"), ("assistant", "a")) * 3)
    with pytest.raises(TextError, match=r"line 1: refused by the chat template \(never\); give one that writes such conv"):
        chats(chat_tokenizer("{{ raise_exception('never') }}"), [file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before", ["", "{{ strftime_now('%Y') }}\n"])
def test_a_template_that_is_no_jinja_is_no_fault_of_the_records(tmp_path: Path, before: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(turns(("user", "q"), ("assistant", "a")))
    words = r"the chat template is no Jinja \(.*'endfo'.* In: {% endfo %}a\); mend it, or give another with --chat-template"
    with pytest.raises(InputError, match=words):
        chats(chat_tokenizer(before + "{% for m in messages %}\n{% endfo %}a"), [file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_conversations_of_many_turns_are_taken_though_only_the_last_answer_is_written_with_thoughts(tmp_path: Path) -> None:
    pair = (("user", "why?"), ("assistant", "so."))
    (tmp_path / "a.jsonl").write_text(turns(*pair, *pair, *pair) * 20)
    card = chats(chat_tokenizer(THOUGHTFUL), [tmp_path / "a.jsonl"], tmp_path / "out", max_broken=0)
    assert (card["all"]["num_documents"], card["sources"][0]["left_out"]) == (20, {})


@pytest.mark.parametrize("prompt_loss", [False, True])
def test_a_run_that_goes_on_tomorrow_writes_the_day_on_which_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt_loss: bool
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(turns(("user", f"q{i}"), ("assistant", f"a{i}")) for i in range(40)))
    how = {"prompt_loss": prompt_loss, "shard_tokens": 300}
    with on_day(monkeypatch, "2026-01-31"):
        whole = chats(chat_tokenizer(TODAY), [path], tmp_path / "whole", **how)
        assert killed_at(12, lambda: chats(chat_tokenizer(TODAY), [path], tmp_path / "out", **how))
    assert 0 < len(read_shards(tmp_path / "out" / "shards")) < len(read_shards(tmp_path / "whole" / "shards"))
    with on_day(monkeypatch, "2026-02-01"):
        chats(chat_tokenizer(TODAY), [path], tmp_path / "out", resume=True, **how)
        other = chats(chat_tokenizer(TODAY), [path], tmp_path / "other", **how)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert (whole["date"], other["date"]) == ("2026-01-31", "2026-02-01")
    assert content(tmp_path / "other") != content(tmp_path / "whole")
    # The day is no part of what a tokenizer is, and where none is written none is said.
    assert other["asked"]["tokenizer"] == whole["asked"]["tokenizer"]
    assert "date" not in chats(chat_tokenizer(), [path], tmp_path / "plain", **how)


def test_conversations_of_a_kind_that_is_not_read_stop_nothing(tmp_path: Path) -> None:
    good = turns(("user", "q"), ("assistant", "answers " * 9))
    (tmp_path / "a.jsonl").write_text(turns(("developer", "be brief"), ("user", "q"), ("assistant", "a")) * 11 + good)
    card = chats(chat_tokenizer(), [tmp_path / "a.jsonl"], tmp_path / "out")
    assert card["sources"][0]["left_out"] == {"a turn of unknown role": 11}


def test_going_on_with_another_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    path.write_text((json.dumps({"text": "t" * 40, "a": "a" * 40, "b": "b" * 40}) + "\n") * 20)
    prepared([path], tmp_path / "out", field="a")
    for other, words in (("b", "field 'b'"), (None, "the known field")):
        with pytest.raises(OutputError, match=rf"of two\.jsonl field 'a' was read, and now {words} is asked for"):
            prepared([path], tmp_path / "out", field=other, resume=True)
    prepared([path], tmp_path / "out", field="a", resume=True)
    # Where no field is named, and of texts, the fingerprint is as it ever was.
    assert "field" not in open_files(str(path)).fingerprint()[0]
    assert "field" not in open_files(str(corpus(tmp_path / "in")), field="a").fingerprint()[0]
    made = HubSource(name="o/n", config=None, split="train", revision="r", documents=None, field="a").fingerprint()
    assert made[0]["field"] == "a"
    assert "field" not in rows(lambda index: {}).fingerprint()[0]


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("x", "y"):
        corpus(tmp_path / name / "in")
    with pytest.raises(InputError, match="two sources are called in; name them, as in first=in"):
        prepared([tmp_path / "x" / "in", tmp_path / "y" / "in"], tmp_path / "out")
    card = prepared([f"x={tmp_path / 'x' / 'in'}", f"y={tmp_path / 'y' / 'in'}"], tmp_path / "out")
    assert [said["name"] for said in card["sources"]] == ["x", "y"]


def test_tokens_that_need_more_room_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Letters, "__len__", lambda self: 70_000)
    folder = corpus(tmp_path / "in")
    prepared([folder], tmp_path / "out")
    array = np.load(tmp_path / "out" / "shards" / "00000.tokens.npy")
    assert array.dtype == np.uint32
