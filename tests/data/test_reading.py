"""Every form of input, and every way in which a record can be of no use."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import InputError, MachineError, TextError
from ropewalk.data.documents import read_text
from ropewalk.data.reading.files import open_files
from ropewalk.data.reading.formats import MEND, recognise
from ropewalk.data.reading.hub import HubSource, open_dataset
from ropewalk.data.reading.records import LeftOut, Message, Record, UnreadableError
from ropewalk.data.sources import read_records

TURNS = (Message(role="user", content="why?"), Message(role="assistant", content="so."))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path | str, **options: object) -> tuple[list[object], list[str]]:
    """Contents, and what is left out in words."""
    found = list(open_files(str(path), **options).records(0, 0))  # type: ignore[arg-type]
    return [f.content for f in found if isinstance(f, Record)], [str(f) for f in found if isinstance(f, LeftOut)]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "why?"}]},
                {"role": "assistant", "content": "so."},
            ]
        },
        {"conversation": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}], "model": "m"},
        {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so."}], "id": 1},
        {"instruction": "why?", "input": "", "output": "so."},
        {"instruction": "why?", "output": "so."},
        {"prompt": "why?", "completion": "so."},
        {"question": "why?", "answer": "so.", "context": ""},
        {"conversations": '[{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so."}]'},
        {"messages": ' [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}]'},
        {
            "messages": [
                {"role": "user", "content": "why?", "weight": None, "tool_calls": None},
                {"role": "assistant", "content": "so.", "weight": 1, "reasoning_content": "", "tool_calls": []},
            ],
            "tools": "[]",
            "system": "",
            "history": [],
        },
    ],
    ids=[
        "openai",
        "openai-parts",
        "lmsys",
        "sharegpt",
        "alpaca",
        "alpaca-no-input",
        "trl",
        "question",
        "sharegpt-json",
        "openai-json",
        "nothing",
    ],
)
def test_a_conversation_is_known_without_being_told(record: dict) -> None:
    assert recognise(record) == TURNS


@pytest.mark.parametrize("empty", ["conversation", "conversations", "instruction"])
def test_a_column_that_is_null_in_a_row_is_not_there(empty: str) -> None:
    """A table of texts and conversations has every column in every row."""
    turns = [{"role": turn.role, "content": turn.content, "from": None, "value": None} for turn in TURNS]
    assert recognise({empty: None, "output": None, "messages": turns}) == TURNS
    assert recognise({"text": None, empty: None, "output": None, "messages": turns}) == TURNS
    assert recognise({"text": "a", empty: None, "output": None}) == "a"
    said = [{"from": turn.role, "value": turn.content, "role": None, "content": None} for turn in TURNS]
    assert recognise({empty: None, "chat": said}, "chat") == TURNS
    with pytest.raises(UnreadableError, match="more than one field to read"):
        recognise({"text": "a", "messages": turns, empty: None})


def test_a_table_of_texts_and_conversations_is_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    said = [{"from": "human", "value": "why?", "role": None}, {"from": "gpt", "value": "so.", "role": None}]
    rows = [{"text": "a", "conversations": None}, {"text": None, "conversations": said}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (["a", TURNS], [])


def test_a_prompt_of_turns_is_asked_and_its_completion_learned() -> None:
    """TRL's form of a conversation: what the assistant said before is part of what is asked."""
    prompt = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me."}]
    prompt.append({"role": "user", "content": "why?"})
    record = {"prompt": prompt, "completion": [{"role": "assistant", "content": "so."}]}
    read = recognise(record)
    assert [(turn.content, turn.prompt) for turn in read] == [  # type: ignore[union-attr]
        ("who?", True), ("me.", True), ("why?", True), ("so.", False),
    ]  # fmt: skip
    system = Message(role="system", content="be brief")
    assert recognise({**record, "system": "be brief"}) == (system, *read)
    assert recognise({key: json.dumps(value) for key, value in record.items()}) == read
    # A text may quote turns, or begin as they do.
    for other in ('["a"]', "[1", "so."):
        quoting = recognise({"prompt": json.dumps(prompt), "completion": other})
        assert [turn.content for turn in quoting] == [json.dumps(prompt), other]  # type: ignore[union-attr]


@pytest.mark.parametrize("asked", ["instruction", "prompt", "question"])
def test_who_names_the_question_of_a_pair_means_the_pair(asked: str) -> None:
    answer = {"instruction": "output", "prompt": "completion", "question": "answer"}[asked]
    assert recognise({asked: "why?", answer: "so."}, asked) == TURNS
    assert recognise({asked: "why?", answer: "so."}, answer) == "so."
    assert recognise({asked: "why?"}, asked) == "why?"


def test_a_question_without_its_other_half_is_no_pair() -> None:
    turns = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    assert recognise({"prompt": "why?", "messages": turns}) == TURNS
    for record in ({"prompt": "why?", "chosen": "so."}, {"question": "why?"}):
        with pytest.raises(UnreadableError, match="no field that is known") as caught:
            recognise(record)
        assert "write a question and its answer as instruction and output" in caught.value.detail


@pytest.mark.parametrize("field", [None, "translation"])
def test_a_translation_is_asked_for_in_no_words_of_ours(field: str | None) -> None:
    with pytest.raises(UnreadableError, match="a translation that nothing asks for") as caught:
        recognise({"translation": {"de": "warum?", "en": "why?"}}, field)
    for words in ("it has de, en", "'Translate from German to English: ...', as instruction", "as output"):
        assert words in caught.value.detail
    assert caught.value.broken


def test_an_instructions_input_stands_below_it() -> None:
    assert recognise({"instruction": "add", "input": "1 2", "output": "3"})[0].content == "add\n\n1 2"  # type: ignore[union-attr]


def test_an_answer_that_is_not_to_be_learned_says_so() -> None:
    turns = [{"role": "user", "content": "q", "weight": 0}, {"role": "assistant", "content": "bad", "weight": 0}]
    read = recognise({"messages": [*turns, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
    assert [turn.learned for turn in read] == [True, False, True, True]  # type: ignore[union-attr]


def test_what_stands_beside_the_turns_is_put_before_them() -> None:
    system = Message(role="system", content="be brief")
    turns = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so."}]
    assert recognise({"conversations": turns, "system": "be brief"}) == (system, *TURNS)
    assert recognise({"conversations": [{"from": "system", "value": "be brief"}, *turns], "system": "be brief"}) == (
        system,
        *TURNS,
    )
    before = (Message(role="user", content="who?"), Message(role="assistant", content="me."))
    record = {"instruction": "why?", "output": "so.", "history": [["who?", "me."]], "system": "be brief"}
    assert recognise(record) == (system, *before, *TURNS)
    # Of a text they are other columns.
    assert recognise({"text": "a", "system": "unix", "tools": ["hammer"], "history": "long"}) == "a"


def test_a_text_in_a_conversations_field_is_read_only_where_named() -> None:
    assert recognise({"conversation": "A: hello"}, "conversation") == "A: hello"
    for field in (None, "conversation"):
        with pytest.raises(UnreadableError, match="field 'conversation' holds no turns"):
            recognise({"conversation": '[{"role": "user", '}, field)


def test_a_text_is_read_from_its_field() -> None:
    assert recognise({"text": "a"}) == "a"
    assert recognise({"body": "a", "text": "b"}, "body") == "a"
    assert recognise({"chat": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so."}]}, "chat") == TURNS


@pytest.mark.parametrize(
    ("record", "field", "reason", "detail"),
    [
        ([1], None, "no object", "a list"),
        ({"txet": "a"}, None, "no field that is known", "it has txet; name the one text with --field"),
        ({"text": "a", "messages": []}, None, "more than one field to read", "it has text, messages"),
        ({"text": "a"}, "body", "no field 'body'", "it has text"),
        ({"text": 3}, None, "field 'text' is neither text nor turns", "a number"),
        ({"text": None}, None, "field 'text' is neither text nor turns", "null"),
        ({"text": "a\ud800"}, None, "a lone surrogate", "at character 1"),
        ({"messages": ["hi"]}, None, "a turn that is no object", "text"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, None, "a turn of unknown role", "['user']"),
        ({"messages": [{"role": {"name": "user"}, "content": "a"}]}, None, "a turn of unknown role", "{'name': 'user'}"),
        ({"messages": [{"content": "a"}]}, None, "a turn of unknown role", "None"),
        ({"messages": [{"role": "user", "content": None}]}, None, "a turn that is not text", "null"),
        ({"messages": [{"role": "user", "content": [{"text": 1}]}]}, None, "a turn that is not text", "a list"),
        ({"instruction": 1, "output": "a"}, None, "a field of an instruction is not text", "a number"),
        ({"prompt": [], "completion": "a"}, None, "a field of a prompt is not text", "a list"),
        ({"question": "a", "answer": {"text": ["b"]}}, None, "a field of a question is not text", "an object"),
        ({}, None, "no field that is known", "it has none"),
        ({"instruction": "double it", "input": 0, "output": "0"}, None, "a field of an instruction is not text", "a number"),
        ({"conversations": "hello"}, None, "field 'conversations' holds no turns", "--field conversations"),
        ({"messages": '{"role": "user"}'}, None, "field 'messages' holds no turns", "no JSON list"),
    ],
)
def test_a_record_of_no_use_says_why(record: object, field: str | None, reason: str, detail: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        recognise(record, field)
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert caught.value.broken


ANSWER = {"role": "assistant", "content": "so."}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": [{"role": "developer", "content": "be brief"}, ANSWER]}, "a turn of unknown role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a turn that is not text"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "a turn that calls tools"),
        ({"messages": [{**ANSWER, "reasoning_content": "hm"}]}, "a turn with its reasoning beside it"),
        ({"messages": [{**ANSWER, "weight": 0.5}]}, "a turn with a weight that is neither 0 nor 1"),
        ({"messages": [ANSWER], "tools": [{"name": "f"}]}, "a record with tools"),
        ({"messages": [{"role": "system", "content": "a"}], "system": "b"}, "a record with a system prompt that is not its"),
        ({"messages": [ANSWER], "system": ["b"]}, "a record with a system prompt that is not its turn's"),
        ({"messages": [ANSWER], "history": [["a", "b"]]}, "a record with a history that is no pairs of texts before it"),
        ({"instruction": "a", "output": "b", "history": "c"}, "a record with a history that is no pairs of texts before it"),
        ({"instruction": "a", "output": "b", "tools": [1]}, "a record with tools"),
        ({"question": "a", "answer": "b", "context": "c"}, "a question with its context beside it"),
        ({"question": "a", "answer": "b", "choices": ["b", "c"]}, "a question with its context beside it"),
    ],
)
def test_a_whole_record_of_a_kind_that_is_not_read_is_left_out_and_not_broken(record: object, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as caught:
        recognise(record)
    assert not caught.value.broken


def test_a_broken_line_in_the_middle_is_named_with_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one"}', '{"text": ', "", '{"body": 1}', '{"text": " "}', '{"text": "two"}')
    contents, left = read(path)
    assert contents == ["one", "two"]
    assert left == [
        f"{path} line 2: broken JSON (Expecting value at character 10)",
        f"{path} line 4: no field that is known (it has body; {MEND})",
        f"{path} line 5: empty",
    ]


def test_a_role_that_is_a_list_is_a_broken_line(tmp_path: Path) -> None:
    turns = '{"messages": [{"role": %s, "content": "why?"}, {"role": "assistant", "content": "so."}]}'
    contents, left = read(write(tmp_path / "a.jsonl", turns % '"user"', turns % '["user"]', turns % '"user"'))
    assert contents == [TURNS, TURNS]
    [said] = left
    assert said.startswith(f"{tmp_path / 'a.jsonl'} line 2: a turn of unknown role (it is ['user']")


def test_a_line_in_another_encoding_is_left_out_and_its_neighbours_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n{"text": "two"}')
    contents, left = read(path)
    assert contents == ["one", "two"]
    assert left == [f"{path} line 2: not UTF-8 (byte 13)"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_text_in_utf_16_is_no_text_with_holes(tmp_path: Path, encoding: str) -> None:
    """Without its mark it is UTF-8 as well, byte by byte."""
    (tmp_path / "a.txt").write_bytes("plain words".encode(encoding))
    contents, left = read(tmp_path / "a.txt")
    assert contents == []
    assert "not UTF-8" in left[0]


def test_names_of_fields_are_few_short_and_harmless(tmp_path: Path) -> None:
    record = {f"{'k' * 60}{i}\x1b[31m": 1 for i in range(3000)}
    with pytest.raises(UnreadableError) as caught:
        recognise(record)
    assert "\x1b" not in caught.value.detail
    assert "and 2992 more" in caught.value.detail
    assert len(caught.value.detail) < 600


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "why?", "output": " "},
        {"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "\n"}]},
    ],
)
def test_an_answer_that_says_nothing_is_left_out_and_named(tmp_path: Path, record: dict) -> None:
    contents, left = read(write(tmp_path / "a.jsonl", json.dumps(record)))
    assert contents == []
    assert left == [f"{tmp_path / 'a.jsonl'} line 1: an answer that is empty"]


def test_a_parquet_file_that_is_damaged_inside_is_a_sentence(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    table = arrow.table({"text": [f"{i} words. " * 40 for i in range(2000)]})
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[3000:90000] = b"\xff" * 87000
    path.write_bytes(data)
    with pytest.raises(TextError, match=r"a\.parquet is damaged and cannot be read to its end .*; give a whole file"):
        read(path)


def test_a_data_set_that_breaks_off_can_be_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def skip(self, number: int) -> Iterator[dict[str, str]]:
            yield {"text": "one"}
            raise RuntimeError("peer closed connection\nand more")

    source = HubSource(name="o/n", config=None, split="train", revision="r", documents=None)
    monkeypatch.setattr(HubSource, "_open", lambda self: Broken())
    records = source.records()
    assert next(records).content == "one"  # type: ignore[union-attr]
    with pytest.raises(MachineError, match=r"o/n broke off \(peer closed connection\); .* --resume"):
        next(records)


def test_reading_goes_on_after_any_record(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", *(json.dumps({"text": f"a{i}"}) for i in range(3)))
    write(tmp_path / "in" / "b.txt", "b")
    write(tmp_path / "in" / "c.json", json.dumps([{"text": f"c{i}"} for i in range(3)]))
    source = open_files(str(tmp_path / "in"))
    whole = [found for found in source.records(0, 0) if isinstance(found, Record)]
    assert [found.content for found in whole] == ["a0", "a1", "a2", "b\n", "c0", "c1", "c2"]
    for index, found in enumerate(whole):
        assert list(source.records(found.file, found.number)) == whole[index + 1 :]


def test_a_folder_is_read_in_order_and_nothing_outside_it(tmp_path: Path) -> None:
    write(tmp_path / "outside.txt", "secret")
    folder = tmp_path / "in"
    write(folder / "z.txt", "z")
    write(folder / "a" / "deep" / "x.md", "x")
    write(folder / ".git" / "config", "hidden")
    write(folder / ".hidden.txt", "hidden")
    write(folder / "packed.gz", "?")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inner.txt").symlink_to(folder / "z.txt")
    source = open_files(str(folder))
    assert list(source.files) == ["a/deep/x.md", "z.txt"]
    assert {(Path(left.file).name, left.reason) for left in source.skipped} == {
        (".git", "hidden"),
        (".hidden.txt", "hidden"),
        ("packed.gz", "compressed"),
        ("link.txt", "a link that leads out of the folder"),
        ("up", "a link that leads out of the folder"),
        ("inner.txt", "another name of a file that is read"),
    }


def test_a_file_with_two_hard_links_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x")
    write(tmp_path / "b.txt", "x")
    (tmp_path / "c.txt").hardlink_to(tmp_path / "a.txt")
    source = open_files(str(tmp_path))
    assert list(source.files) == ["a.txt", "b.txt"]
    ((left),) = source.skipped
    assert (Path(left.file).name, left.reason, left.detail) == ("c.txt", "another name of a file that is read", "a.txt")


def test_only_what_is_included_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.py", "1")
    write(tmp_path / "b" / "c.py", "2")
    write(tmp_path / "b" / "d.txt", "3")
    source = open_files(str(tmp_path), include=["*.py"])
    assert list(source.files) == ["a.py", "b/c.py"]
    assert [left.reason for left in source.skipped] == ["not asked for by --include"]
    with pytest.raises(InputError, match=r"no file to read that fits --include \*\.rs \(3 left out, the first is "):
        open_files(str(tmp_path), include=["*.rs"])


def test_a_source_is_named_by_its_path_or_by_the_user(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1")
    assert open_files(str(tmp_path / "a.txt")).name == "a.txt"
    assert open_files(f"books={tmp_path / 'a.txt'}").name == "books"
    write(tmp_path / "x=y.txt", "1")
    assert open_files(str(tmp_path / "x=y.txt")).name == "x=y.txt"


def test_a_path_that_is_missing_compressed_or_empty_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.txt does not exist; expected a file or folder"):
        open_files(str(tmp_path / "no.txt"))
    write(tmp_path / "a.gz", "?")
    with pytest.raises(InputError, match="is compressed; unpack it first"):
        open_files(str(tmp_path / "a.gz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no file to read"):
        open_files(str(tmp_path / "empty"))


def test_lines_under_the_name_of_json_are_read_as_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"text": "one"}', '{"text": "two"}')
    assert read(path) == (["one", "two"], [])


def test_parquet_is_read_by_rows(tmp_path: Path) -> None:
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = [f"text {i}" for i in range(700)]
    parquet.write_table(arrow.table({"text": texts, "n": list(range(700))}), path, row_group_size=100)
    assert read(path) == (texts, [])
    source = open_files(str(path))
    rest = [f.content for f in source.records(0, 300) if isinstance(f, Record)]
    assert rest == texts[300:]
    assert list(source.check()) == []
    with pytest.raises(InputError, match=r"no field 'body'; it has text, n"):
        list(open_files(str(path), field="body").check())
    parquet.write_table(arrow.table({"n": [1]}), path)
    with pytest.raises(InputError, match="no field that is known, it has n; name the one text with --field"):
        list(source.check())


def test_a_parquet_conversation_is_a_conversation(tmp_path: Path) -> None:
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    turns = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}]
    parquet.write_table(arrow.table({"messages": [turns]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([TURNS], [])


def test_a_file_that_only_says_it_is_parquet_is_a_sentence(tmp_path: Path) -> None:
    importlib.import_module("pyarrow")
    path = write(tmp_path / "a.parquet", "not at all")
    with pytest.raises(TextError, match=r"cannot be read as Parquet"):
        list(open_files(str(path)).check())


@pytest.mark.parametrize(
    ("module", "words"), [("pyarrow", "is a Parquet file and needs pyarrow"), ("datasets", "need datasets")]
)
def test_a_missing_package_is_a_sentence(module: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    for name in ("ropewalk.data.reading.parquet", "ropewalk.data.reading.hub"):
        monkeypatch.setattr(f"{name}.find_spec", lambda asked: None if asked == module else real(asked))
    asked = (lambda: list(open_files(str(write(tmp_path / "a.parquet", "?"))).check())) if module == "pyarrow" else None
    with pytest.raises(InputError, match=rf"{words}; install it with pip install '\.\[data\]' in a checkout of ropewalk"):
        asked() if asked is not None else open_dataset("a/b")


def test_a_data_set_is_streamed_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "set" / "train.jsonl", *(json.dumps({"text": f"t{i}" if i != 2 else ""}) for i in range(6)))
    source = open_dataset(f"{tmp_path / 'set'}:split=train,documents=5")
    found = list(source.records(0, 0))
    assert [f.content for f in found if isinstance(f, Record)] == ["t0", "t1", "t3", "t4"]
    assert [(f.number, f.reason) for f in found if isinstance(f, LeftOut)] == [(3, "empty")]
    assert list(source.records(0, 4)) == found[4:]
    assert list(source.check()) == []
    assert source.fingerprint()[0]["documents"] == 5
    with pytest.raises(InputError, match="cannot be opened"):
        list(open_dataset(f"{tmp_path / 'set'}:split=nosuch").check())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/b:spilt=train", "takes no option 'spilt=train'; did you mean split"),
        ("a/b:documents=few", "at least 1, got 'few'"),
    ],
)
def test_a_wrong_option_of_a_data_set_is_a_sentence(text: str, words: str) -> None:
    importlib.import_module("datasets")
    with pytest.raises(InputError, match=words):
        open_dataset(text)


def test_a_line_of_json_ends_where_the_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y\x85z"}\r\n\n{"a": "b"}\n'.encode())
    assert read_records(path) == [{"a": "x\u2028y\x85z"}, {"a": "b"}]


def test_a_mark_of_byte_order_is_no_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(b"\xef\xbb\xbf{% for message in messages %}")
    assert read_text(path) == "{% for message in messages %}"


PIECES = st.sampled_from(
    [b'{"text": "a"}', b'{"messages": [{"role": "user", "content": "a"}]}', b"\n", b"\r\n", b"[" * 3000, b"9" * 5000, b"{",
     b'"', b"\xef\xbb\xbf", b"\xff", b"\0", b"null", b'{"text": "\\ud800"}', b'{"conversations": {"from": 1}}',
     b"NaN", b"PAR1"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES | st.binary(max_size=9), max_size=8), suffix=st.sampled_from([".jsonl", ".json", ".txt"]))
def test_whatever_a_file_holds_is_read_or_left_out(pieces: list[bytes], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(b"".join(pieces))
    source = open_files(str(path))
    found = list(source.records(0, 0))
    for one in found:
        if isinstance(one, Record):
            (one.content if isinstance(one.content, str) else "".join(m.content for m in one.content)).encode()
        else:
            assert str(one).startswith(str(path))
    assert [one for one in found if isinstance(one, LeftOut)] == [one for one in source.check() if isinstance(one, LeftOut)]


def test_a_parquet_of_halves_has_no_field_that_is_known(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"prompt": ["why?"], "chosen": ["so."]}), path)
    with pytest.raises(InputError, match="it has prompt, chosen; name the one text with --field, or write a question"):
        list(open_files(str(path)).check())
    parquet.write_table(arrow.table({"prompt": ["why?"], "completion": ["so."]}), path)
    assert list(open_files(str(path)).check()) == []
    assert read(path) == ([TURNS], [])


def test_a_table_is_no_text(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.csv", "text,n", "hello,1")
    with pytest.raises(InputError, match=r"a\.csv is a table, .*; write it as JSON lines or Parquet"):
        open_files(str(tmp_path / "in" / "a.csv"))
    with pytest.raises(InputError, match=r"has no file to read \(1 left out, the first is .*a\.csv: a table \(CSV\)\)"):
        open_files(str(tmp_path / "in"))
    write(tmp_path / "in" / "b.txt", "a text")
    source = open_files(str(tmp_path / "in"))
    assert (list(source.files), [left.reason for left in source.skipped]) == (["b.txt"], ["a table (CSV)"])


@pytest.mark.parametrize("address", ["http://127.0.0.1/a.jsonl", "hf://datasets/a/b", "s3://bucket/a"])
@pytest.mark.parametrize("name", ["", "mine="])
def test_an_address_is_refused_as_it_was_written(address: str, name: str) -> None:
    pytest.importorskip("datasets")
    for opened in (open_files, open_dataset):
        with pytest.raises(InputError) as caught:
            opened(name + address)
        assert str(caught.value).startswith(f"{address} is an address, and only files here are read; download it")
