"""Conversations made from documents: true to their provenance, everything else counted, the same after a kill."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat import CHATML, TODAY, chat_tokenizer, on_day
from keepers import counting, documents, fact, writer
from letters import content, killed_at

from ropewalk.core.errors import InputError, OutputError, TextError
from ropewalk.data.making.folder import make
from ropewalk.data.making.settings import REWRITES, Settings, UnwrittenError, Writing, Written
from ropewalk.data.making.texts import Texts
from ropewalk.data.making.wording import WORDINGS, Wordings, first_line
from ropewalk.data.reading.files import open_files
from ropewalk.data.tokens import Encoder

Reply = Callable[[str, int], Any]


def made(folder: Path, out: Path, write: Reply = writer, *, template: str = CHATML, **options: Any) -> dict[str, Any]:
    """The card of a folder of conversations; options are those of `Settings`, `Writing` and `make`."""
    how = {key: options.pop(key) for key in ("force", "resume", "wordings") if key in options}
    about = {key: options.pop(key) for key in ("identity", "longest", "at_once") if key in options}
    settings = Settings(**{"length": 1200, "num_spans": 6, "span_tokens": 120, **options})
    encoder = Encoder(tokenizer=chat_tokenizer(template))
    return make([open_files(str(folder))], encoder, settings, Writing(write=write, **about), out, **how)


def items(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "messages.jsonl").read_text().splitlines()]


def drafts(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "drafts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("length", [800, 1200, 5000, 20_000])
def test_an_item_is_what_its_provenance_says(tmp_path: Path, length: int) -> None:
    folder = documents(tmp_path / "in")
    card = made(folder, tmp_path / "out", length=length, rewrites=REWRITES)
    found, tokenizer = items(tmp_path / "out"), chat_tokenizer()
    assert len(found) == card["num_kept"] == 24
    for item in found:
        said = item["provenance"]
        user, assistant = item["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        ids = tokenizer(tokenizer.apply_chat_template(item["messages"], tokenize=False))["input_ids"]
        assert len(ids) == said["context"]["num_tokens"] <= length
        text = (folder / said["document"]["file"]).read_text()
        span = text[slice(*said["span"]["characters"])]
        low, high = said["context"]["span_tokens"]
        assert tokenizer.decode(ids[low:high]) == span
        own = tokenizer(text)["input_ids"]
        assert tokenizer.decode(own[slice(*said["span"]["tokens"])]) == span
        shown = [(folder / p["file"]).read_text()[slice(*p["characters"])] for p in said["context"]["pieces"]]
        assert all(part in user["content"] for part in shown)
        assert assistant["content"] in span
        assert said["wordings"] == Wordings().sha256


def test_a_long_text_is_filled_up_to_the_length(tmp_path: Path) -> None:
    """A document of 1,900 tokens: a stretch of it below that, others beside it above, and never more than there is."""
    folder = documents(tmp_path / "in")
    found = {}
    for length in (800, 5000, 20_000):
        made(folder, tmp_path / f"{length}", length=length)
        contexts = [item["provenance"]["context"] for item in items(tmp_path / f"{length}")]
        assert len({context["depth"] for context in contexts}) == len(contexts)
        found[length] = ([c["num_tokens"] for c in contexts], {len(c["pieces"]) for c in contexts})
    assert min(found[800][0]) > 800 - 2 * 60
    assert found[800][1] == {1}
    assert min(found[5000][0]) > 5000 - 2 * 60
    assert found[5000][1] == {3}
    assert found[20_000][1] == {4}
    made(folder, tmp_path / "alone", length=5000, distractors=False)
    assert all(len(item["provenance"]["context"]["pieces"]) == 1 for item in items(tmp_path / "alone"))


def test_fobar_asks_for_a_number_of_the_question(tmp_path: Path) -> None:
    made(documents(tmp_path / "in"), tmp_path / "out", num_spans=1, rewrites=["fobar"])
    question, backward = (item["messages"] for item in items(tmp_path / "out"))
    asked = re.search(r"keeper (\d+)", question[0]["content"].partition("what stands above")[2])
    assert asked
    assert backward[1]["content"] == asked[1]
    ending = backward[0]["content"].partition("what stands above")[2]
    assert "keeper x" in ending
    assert asked[0] not in ending
    assert f"answer to it is: {question[1]['content']}" in ending


def knows(word: str, reply: str) -> Reply:
    """The writer, but for prompts that hold a word."""
    return lambda prompt, seed: reply if word in prompt else writer(prompt, seed)


def vague(prompt: str, seed: int) -> str:
    """Asks for no keeper in particular, and answers with the first number of ships."""
    asking = "Write one question" in prompt
    return "How many ships were seen?" if asking else re.findall(r"down (\d+) ships|$", prompt)[0] or "Not stated."


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (knows("Write one question", "Ships were seen."), "question: not a question"),
        (knows("Write one question", "How many ships are in the text?"), "question: speaks of the lines it was made from"),
        (
            knows("Write one question", "What is the meaning of this sentence?"),
            "question: speaks of the lines it was made from",
        ),
        (knows("Write one question", ""), "question: nothing was written"),
        (knows("Write one question", "<think>well, ships"), "question: not a question"),
        (knows("Answer the question", "Not stated."), "answer: not stated"),
        (knows("Answer the question", "The answer to this question is: not stated"), "answer: not stated"),
        (knows("Answer the question", "1007<|im_end|>"), "answer: holds a special token"),
        (knows("Answer the question", "keeper"), "answer: the question says it"),
        (knows("Somebody asks", "Not stated"), "again: does not agree"),
        (knows("Somebody asks", "He wrote down 77 ships"), "again: does not agree"),
        (lambda prompt, seed: vague(prompt, seed), "amid: does not agree"),
        (lambda prompt, seed: Written(text="How many", cut=True), "question: cut before its end"),
    ],
)
def test_what_is_dropped_says_why(tmp_path: Path, write: Reply, reason: str) -> None:
    card = made(documents(tmp_path / "in"), tmp_path / "out", write, num_spans=3, rewrites=REWRITES)
    assert card["kinds"] == {"question": {"tried": 3, "kept": 0, "dropped": {reason: 3}}}
    assert items(tmp_path / "out") == []
    assert card["num_kept"] == 0


def test_what_is_known_by_heart_is_dropped(tmp_path: Path) -> None:
    everything = " ".join(fact(keeper) for keeper in range(40))

    def learned(prompt: str, seed: int) -> str:
        return writer(f"{prompt}\n{everything}" if prompt.startswith("Answer by what you know") else prompt, seed)

    card = made(documents(tmp_path / "in"), tmp_path / "out", learned, num_spans=24)
    said = card["kinds"]["question"]
    # The first of four documents has the keepers that the writer knows.
    known = [draft for draft in drafts(tmp_path / "out") if draft["document"]["file"] == "light0.txt"]
    assert said["dropped"] == {"alone: known by heart": len(known)}
    assert 0 < len(known) < 24
    assert said["kept"] == 24 - len(known)


def test_what_stands_elsewhere_too_is_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [fact(keeper) for keeper in range(20)]
    (folder / "a.txt").write_text(" ".join([*lines, *lines[:10]]))
    card = made(folder, tmp_path / "out", num_spans=99, length=5000, span_tokens=60)
    for draft in drafts(tmp_path / "out"):
        asked = int(re.findall(r"\d+", draft["items"][0]["question"])[0])
        expected = "without: stands elsewhere in the text" if asked < 10 else "kept"
        assert draft["items"][0]["verdict"] == expected
    assert card["kinds"]["question"]["kept"] > 3


def test_without_the_span_the_nearest_tokens_are_read(tmp_path: Path) -> None:
    write, prompts = counting(writer)
    card = made(documents(tmp_path / "in"), tmp_path / "out", write, num_spans=1, longest=1100, length=1300)
    assert card["asked"]["reads"] == 1100 - 512
    (item,) = items(tmp_path / "out")
    assert item["provenance"]["check"]["checked_tokens"] == card["fewest_checked_tokens"] == 588
    text = (tmp_path / "in" / item["provenance"]["document"]["file"]).read_text()
    low, high = item["provenance"]["span"]["characters"]
    read = prompts[-1].partition("\n\nAnswer the question")[0]
    assert len(chat_tokenizer()(read)["input_ids"]) <= 588
    assert text[low:high] not in read
    before, _, after = read.partition("\n\n")
    assert text[:low].rstrip().endswith(before) or text[high:].lstrip().startswith(after)


def test_a_question_is_taken_once(tmp_path: Path) -> None:
    always = knows("Write one question", "How many ships did keeper 3 write down?")
    card = made(documents(tmp_path / "in", num=1), tmp_path / "out", always, num_spans=99)
    assert card["num_kept"] == 1
    assert card["kinds"]["question"]["dropped"]["answer: not stated"] > 3


def test_two_documents_with_one_question_keep_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        # The facts are the same, the documents are not; each is shown alone.
        (folder / f"{name}.txt").write_text(f"{name * 50}. " + fact(1) + f" {name * 50}.")
    card = made(folder, tmp_path / "out", span_tokens=200, distractors=False)
    assert card["kinds"]["question"] == {"tried": 2, "kept": 1, "dropped": {"question: asked already": 1}}


# --- a run that is stopped --------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_anywhere_ends_with_the_same_items(tmp_path: Path) -> None:
    folder = documents(tmp_path / "in")
    made(folder, tmp_path / "whole", rewrites=["rephrase"])
    whole, count = content(tmp_path / "whole"), 0
    while killed_at(count := count + 1, lambda: made(folder, tmp_path / f"at{count}", rewrites=["rephrase"])):
        made(folder, tmp_path / f"at{count}", rewrites=["rephrase"], resume=True)
        assert content(tmp_path / f"at{count}") == whole
    assert count > 3


@pytest.mark.parametrize("lost", [1, 40, 3000])
def test_a_line_that_was_cut_is_asked_again_and_no_other(tmp_path: Path, lost: int) -> None:
    folder = documents(tmp_path / "in")
    made(folder, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    made(folder, tmp_path / "out")
    path = tmp_path / "out" / "drafts.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    left = path.read_bytes().count(b"\n")
    (tmp_path / "out" / "messages.jsonl").unlink()
    write, prompts = counting(writer)
    made(folder, tmp_path / "out", write, resume=True)
    assert content(tmp_path / "out") == whole
    assert sum("Write one question" in prompt for prompt in prompts) == 6 - left > 0


def test_more_spans_begin_with_the_same_ones(tmp_path: Path) -> None:
    folder = documents(tmp_path / "in")
    made(folder, tmp_path / "few", num_spans=3)
    few = items(tmp_path / "few")
    made(folder, tmp_path / "few", num_spans=8, resume=True)
    made(folder, tmp_path / "many", num_spans=8)
    assert content(tmp_path / "few") == content(tmp_path / "many")
    assert items(tmp_path / "many")[:3] == few
    made(folder, tmp_path / "other", num_spans=8, seed=1)
    assert items(tmp_path / "other") != items(tmp_path / "many")


def test_asking_about_several_at_once_changes_no_item(tmp_path: Path) -> None:
    folder = documents(tmp_path / "in")
    for at_once in (1, 4):
        made(folder, tmp_path / f"{at_once}", at_once=at_once, num_spans=12, rewrites=REWRITES)
    assert items(tmp_path / "1") == items(tmp_path / "4")
    assert len(items(tmp_path / "1")) == 48


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_is_finished_when_the_writer_fails_stays(tmp_path: Path, at_once: int) -> None:
    folder, asked = documents(tmp_path / "in"), iter(range(99))

    def failing(prompt: str, seed: int) -> str:
        if next(asked) > 20:
            raise OSError("the cable")
        return writer(prompt, seed)

    with pytest.raises(OSError, match="the cable"):
        made(folder, tmp_path / "out", failing, at_once=at_once)
    assert len(drafts(tmp_path / "out")) >= 1
    with pytest.raises(InputError, match=r"are not finished; repeat the command that makes them with --resume"):
        open_files(str(tmp_path / "out"))
    made(folder, tmp_path / "out", resume=True)
    made(folder, tmp_path / "whole")
    assert items(tmp_path / "out") == items(tmp_path / "whole")


def test_a_writer_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    folder = documents(tmp_path / "in")

    def refusing(prompt: str, seed: int) -> str:
        raise UnwrittenError("maximum context length is 12 tokens")

    with pytest.raises(InputError, match=r"refused 5 spans in a row \(the last: maximum context length is 12 tokens\)"):
        made(folder, tmp_path / "out", refusing, num_spans=9)
    made(folder, tmp_path / "out", num_spans=9, resume=True)
    assert len(items(tmp_path / "out")) == 9


def test_a_single_refusal_is_counted(tmp_path: Path) -> None:
    asked = iter(range(99))

    def refusing(prompt: str, seed: int) -> str:
        if next(asked) == 7:
            raise UnwrittenError("no")
        return writer(prompt, seed)

    card = made(documents(tmp_path / "in"), tmp_path / "out", refusing)
    assert card["kinds"]["question"] == {"tried": 6, "kept": 5, "dropped": {"refused by the writer": 1}}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda f: (f / "light1.txt").write_text(fact(9) * 9), {}, r"light1\.txt is changed"),
        (lambda f: (f / "light1.txt").unlink(), {}, r"light1\.txt is gone"),
        (lambda f: None, {"identity": {"model": "other"}}, r"begun with other writer; repeat the first command"),
        (lambda f: None, {"length": 1300}, r"begun with other length and reads"),
        (lambda f: None, {"rewrites": ["fobar"]}, r"begun with other rewrites"),
        (lambda f: None, {"wordings": Wordings(templates={**WORDINGS, "heading": "T {number}"})}, r"other wordings"),
    ],
)
def test_another_question_is_not_gone_on_with(
    tmp_path: Path, change: Callable[[Path], object], options: dict[str, Any], words: str
) -> None:
    folder = documents(tmp_path / "in")
    made(folder, tmp_path / "out")
    before = content(tmp_path / "out")
    change(folder)
    with pytest.raises(OutputError, match=words):
        made(folder, tmp_path / "out", resume=True, **options)
    assert content(tmp_path / "out") == before


# --- documents --------------------------------------------------------------------------------------------------------


def test_spans_are_whole_sentences_that_cover_a_document(tmp_path: Path) -> None:
    texts = Texts(chat_tokenizer())
    texts.read([open_files(str(documents(tmp_path / "in")))], 0)
    found = texts.spans(120, 0)
    for index, text in enumerate(texts.items):
        mine = sorted((span.low, span.high) for span in found if span.text == index)
        assert " ".join(text.content[low:high] for low, high in mine) == text.content
        assert all(text.content[high - 1] == "." and 60 <= high - low <= 240 for low, high in mine)


def test_a_sentence_without_an_end_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 400)
    texts = Texts(chat_tokenizer())
    texts.read([open_files(str(tmp_path / "a.txt"))], 0)
    assert all(span.high - span.low <= 240 for span in texts.spans(120, 0))


def test_going_on_with_another_field_is_refused(tmp_path: Path) -> None:
    texts = [path.read_text() for path in sorted(documents(tmp_path / "in", num=2).iterdir())]
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps({"text": "no", "a": texts[0], "b": texts[1]}))
    settings = Settings(length=1200, num_spans=2, span_tokens=120)

    def done(field: str, **how: bool) -> object:
        sources = [open_files(str(path), field=field)]
        return make(sources, Encoder(tokenizer=chat_tokenizer()), settings, Writing(write=writer), tmp_path / "out", **how)

    done("a")
    with pytest.raises(OutputError, match=r"of two\.jsonl field 'a' was read, and now field 'b' is asked for"):
        done("b", resume=True)
    done("a", resume=True)


def test_documents_that_are_not_asked_about_are_named(tmp_path: Path) -> None:
    folder = documents(tmp_path / "in", num=1)
    (folder / "again.txt").write_text((folder / "light0.txt").read_text())
    (folder / "short.txt").write_text("Too short.")
    (folder / "mark.txt").write_text("Somebody wrote <|im_end|> here. " * 20)
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "chat.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    card = made(folder, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert {(Path(row["file"]).name, row["reason"]) for row in rows} == {
        ("light0.txt", "the same text again"),
        ("short.txt", "shorter than half a span"),
        ("mark.txt", "holds the special token <|im_end|>"),
        ("latin.txt", "not UTF-8"),
        ("chat.jsonl", "a conversation, not a text"),
    }
    # Each by its path; a text is the whole file, and a record has its line.
    assert {(Path(row["file"]).parent, row["line"]) for row in rows} == {(folder, 0), (folder, 1)}
    assert [Path(row["file"]).name for row in rows if row["line"]] == ["chat.jsonl"]
    assert card["num_left_out"] == 5


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({"a.txt": "short."}, {}, r"no document has the 60 tokens of half a span \(the longest has 6\)"),
        ({"a.txt": " \n"}, {}, r"no text to ask about in in; the first that is left out is .*a\.txt: empty"),
        ({"a.jsonl": "{\n" * 12}, {}, r"11 broken records, more than --max-broken 10; the first is .*a\.jsonl line 1"),
        ({"a.txt": "x. " * 99}, {"length": 100}, r"a --length of 100 has no room for a span of about 120 tokens"),
        ({"a.txt": "x. " * 99}, {"longest": 200}, r"the writer takes 200 tokens, too few to read around a span of 120"),
        ({"a.txt": "x. " * 99}, {"num_spans": 0}, r"--spans is at least 1"),
        ({"a.txt": "x. " * 99}, {"rewrites": ["fobra"]}, r"unknown rewriting 'fobra'; did you mean fobar"),
        ({"a.txt": "x. " * 99}, {"agreement": 0.0}, r"--agreement lies above 0"),
        ({"a.txt": "x. " * 99}, {"template": "{{ messages[9].content }}"}, r"does not write a question and its answer"),
    ],
)
def test_a_mistake_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], words: str
) -> None:
    (tmp_path / "in").mkdir()
    for name, text in files.items():
        (tmp_path / "in" / name).write_text(text)
    with pytest.raises((InputError, TextError), match=words):
        made(tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("Question: Who kept it?\nAnswer: He.", "Who kept it?"),
        ("\n  **Q:** “Who kept it?” ", "Who kept it?"),
        ("<think>\nWho?\n</think>\n\nWho kept it?", "Who kept it?"),
        ("Answer: 1802", "1802"),
        ("Questions are asked.", "Questions are asked."),
        ("\n\n", ""),
    ],
)
def test_a_reply_is_taken_by_its_first_line(reply: str, line: str) -> None:
    assert first_line(reply) == line


def test_a_wording_is_filled_once(tmp_path: Path) -> None:
    """A document that holds the name of a place is no template."""
    said = Wordings().say("answer", text="{question} {0.__class__}", question="{text}?")
    assert said.startswith("{question} {0.__class__}\n")
    assert "Question: {text}?\n" in said


def test_wordings_of_the_users_own_take_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"heading": "Dokument {number}"}))
    assert Wordings.read(path).say("heading", number="3") == "Dokument 3"
    assert Wordings.read(path).sha256 != Wordings().sha256
    for text, words in (
        ('{"headign": "T"}', "has a wording 'headign' that nobody uses; did you mean heading"),
        ('{"heading": "T"}', r"has places for nothing, expected \{number\}"),
        ('{"heading": 3}', "no JSON object of texts"),
        ("{", "is no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            Wordings.read(path)


def test_the_order_of_spans_is_drawn(tmp_path: Path) -> None:
    texts = Texts(chat_tokenizer())
    texts.read([open_files(str(documents(tmp_path / "in")))], 0)
    orders = [[(span.text, span.low) for span in texts.spans(120, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert np.unique([text for text, _ in orders[0][:12]]).size > 1


def test_a_run_that_goes_on_tomorrow_counts_with_the_day_on_which_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """May is shorter than September, and every place in tokens lies behind it."""
    folder = documents(tmp_path / "in")
    with on_day(monkeypatch, "2026-05-31"):
        made(folder, tmp_path / "whole", template=TODAY)
        made(folder, tmp_path / "out", template=TODAY, num_spans=2)
    with on_day(monkeypatch, "2026-09-30"):
        card = made(folder, tmp_path / "out", template=TODAY, resume=True)
        made(folder, tmp_path / "other", template=TODAY)
    assert card["date"] == "2026-05-31"
    assert items(tmp_path / "out") == items(tmp_path / "whole")
    assert items(tmp_path / "other") != items(tmp_path / "whole")
