"""From documents to a tuned model as a user types it, with a server that fails as servers do and a model on this machine."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chat import chat_tokenizer
from command import Command
from completions_server import CompletionsServer, content, half_an_answer, hangs_up, status
from keepers import documents, writer
from tiny import write_tiny_checkpoint

from ropewalk.api.making import make
from ropewalk.api.writers import Decoding, opened
from ropewalk.data.making.settings import UnwrittenError, Written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer writes conversations, trained (it says) to 256 tokens."""
    folder = tmp_path_factory.mktemp("model") / "tiny-chat"
    write_tiny_checkpoint(folder, vocab_size=300, eos_token_id=2, max_position_embeddings=256)
    for path in folder.glob("token*"):
        path.unlink()
    chat_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    """A server behind which the writer by rule sits."""
    with CompletionsServer(lambda ids, room: (writer("".join(map(chr, ids)), 0), [])).running() as running:
        yield running


def items(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "messages.jsonl").read_text().splitlines()]


def test_from_documents_to_a_tuned_model(
    command: Command, model: Path, server: CompletionsServer, tmp_path: Path
) -> None:  # fmt: skip
    out, rows = tmp_path / "made", tmp_path / "rows"
    passing = [status(429, {"Retry-After": "0"}), status(500), hangs_up, half_an_answer, content({"choices": []})]
    server.faults = [each for fault in passing for each in (None, None, None, fault)]
    line = ["--tokenizer", model, "--length", 1000, "--rewrite", "rephrase,fobar", "--spans", 8, "--span-tokens", 120]
    said = command("data", documents(tmp_path / "in"), "--writer", server.url, *line, "--out", out, "--concurrency", 2)
    assert (said.code, said.out) == (0, f"{out}\n"), said.err
    assert not server.faults
    for words in ("question: 8 of 8 kept", "fobar: 8 of 8 kept", "24 conversations of", "drafts.jsonl"):
        assert words in said.err
    assert all(item["provenance"]["writer"]["model"] == "tiny" for item in items(out))
    assert {body["temperature"] for body in server.bodies} == {0.0}
    said = command("data", out, "--tokenizer", model, "--length", 1000, "--out", rows, "--json")
    assert said.code == 0, said.err
    card = json.loads(said.out)
    assert card["sources"][0]["name"] == "made"
    assert card["all"]["num_documents"] == 24
    assert card["all"]["num_tokens"] == sum(item["provenance"]["context"]["num_tokens"] for item in items(out))
    asked = ["--method", "yarn", "--length", 1000, "--steps", 1, "--device", "cpu", "--dtype", "float32"]
    for name, data in (("a", rows), ("b", out)):
        said = command("tune", model, "--data", data, *asked, "--out", tmp_path / name)
        assert said.code == 0, said.err
        assert (tmp_path / name / "model.safetensors").is_file()


def test_only_the_answers_are_learned(command: Command, model: Path, tmp_path: Path) -> None:
    from ropewalk.data.stream import Stream

    folder = documents(tmp_path / "in")
    make([folder], writer=writer, tokenizer=model, length=700, spans=3, span_tokens=120, out=tmp_path / "made")
    said = command("data", tmp_path / "made", "--tokenizer", model, "--length", 700, "--out", tmp_path / "rows")
    assert said.code == 0, said.err
    stream, learned = Stream.open(tmp_path / "rows"), []
    for index in range(len(stream)):
        row = stream.row(index)
        learned.append(chat_tokenizer().decode(row.labels[row.labels != -100].tolist()))
    answers = sorted(item["messages"][1]["content"] + "<|im_end|>" for item in items(tmp_path / "made"))
    assert sorted(learned) == answers


def test_a_server_that_is_gone_costs_nothing_that_was_finished(
    command: Command, model: Path, server: CompletionsServer, tmp_path: Path
) -> None:  # fmt: skip
    folder, out = documents(tmp_path / "in"), tmp_path / "out"
    line = ["data", folder, "--tokenizer", model, "--length", 1000, "--spans", 4, "--span-tokens", 120, "--timeout", 0.4]
    server.faults = [None] * 14 + [status(503)] * 50
    said = command(*line, "--writer", server.url, "--out", out)
    assert (said.code, said.out) == (3, "")
    assert "gave no answer" in said.err
    assert "--resume" in said.err
    assert len((out / "drafts.jsonl").read_text().splitlines()) == 2
    refused = command("data", out, "--tokenizer", model, "--length", 1000, "--out", tmp_path / "rows")
    assert refused.refused("are not finished", "--resume")
    server.faults = []
    before = len(server.bodies)
    assert command(*line, "--writer", server.url, "--out", out, "--resume").code == 0
    assert len(server.bodies) - before == 2 * 6
    assert command(*line, "--writer", server.url, "--out", tmp_path / "whole").code == 0
    assert items(out) == items(tmp_path / "whole")


def test_a_server_with_too_little_room_is_a_sentence(
    command: Command, model: Path, server: CompletionsServer, tmp_path: Path
) -> None:  # fmt: skip
    server.refuses_beyond = 100
    options = ["--tokenizer", model, "--length", 1000, "--spans", 9, "--span-tokens", 120, "--out", tmp_path / "out"]
    said = command("data", documents(tmp_path / "in"), "--writer", server.url, *options)
    assert said.refused("refused 5 spans in a row", "maximum context length is 100 tokens", "--check-length")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spans", "3"], ["--spans is of conversations", "--writer"]),
        (["--temperature", "0"], ["--temperature is of conversations"]),
        (["--writer", "MODEL", "--spans", "3", "--keep-short", "0"], ["--keep-short is of rows"]),
        (["--writer", "MODEL"], ["give it with --spans"]),
        (["--writer", "MODEL", "--spans", "0"], ["--spans is at least 1"]),
        (["--writer", "MODEL", "--spans", "3", "--mix", "a=1"], ["--mix is of rows", "ropewalk data out"]),
        (["--writer", "MODEL", "--spans", "3", "--prompt-loss"], ["--prompt-loss is of rows"]),
        (["--writer", "MODEL", "--spans", "3", "--rewrite", "fobra"], ["unknown rewriting 'fobra'", "fobar"]),
        (["--writer", "MODEL", "--spans", "3", "--temperature", "-1"], ["--temperature lies between 0 and 10"]),
        (["--writer", "MODEL", "--spans", "3", "--top-p", "0"], ["--top-p above 0"]),
        (["--writer", "MODEL", "--spans", "3", "--answer-tokens", "0"], ["--answer-tokens lies between 1"]),
        (["--writer", "MODEL", "--spans", "3", "--agreement", "2"], ["--agreement lies above 0 and up to 1"]),
        (["--writer", "MODEL", "--spans", "3", "--concurrency", "4"], ["are of servers"]),
        (["--writer", "MODEL", "--spans", "3", "--check-length", "0"], ["0"]),
        (["--writer", "MODEL", "--spans", "3", "--wordings", "no.json"], ["no.json", "cannot be read"]),
        (["--writer", "nowhere", "--spans", "3"], ["nowhere does not exist"]),
        (["--writer", "http://127.0.0.1:9/x?y", "--spans", "3"], ["more than host and path"]),
        (["--writer", "MODEL", "--spans", "3", "--length", "100"], ["no room for a span", "--span-tokens"]),
        (["--writer", "MODEL", "--spans", "3", "--tokenizer", "PLAIN"], ["no chat template", "--chat-template FILE"]),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    command: Command, model: Path, tiny_checkpoint: Path, tmp_path: Path, options: list[str], words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    documents(tmp_path / "in", num=1)
    places = {"MODEL": str(model), "PLAIN": str(tiny_checkpoint)}
    given = [places.get(option, option) for option in options]
    given += [] if "--tokenizer" in options else ["--tokenizer", str(model)]
    given += [] if "--length" in options else ["--length", "1000"]
    assert command("data", "in", *given, "--out", "out").refused(*words)
    assert not (tmp_path / "out").exists()


# --- a model on this machine ------------------------------------------------------------------------------------------


def test_a_weak_model_keeps_nothing_and_says_so(command: Command, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["--tokenizer", model, "--length", 200, "--spans", 3, "--span-tokens", 40, "--answer-tokens", 8]
    wordings = tmp_path / "w.json"
    wordings.write_text('{"question": "{span} Who?"}')
    said = command("data", documents(tmp_path / "in"), "--writer", model, *line, "--wordings", wordings, "--out", out)
    assert said.code == 0, said.err
    assert "question: 0 of 3 kept; dropped: 3 question" in said.err
    assert "nothing was kept" in said.err
    refused = command("data", out, "--tokenizer", model, "--length", 200, "--out", tmp_path / "rows")
    assert refused.refused("none was kept", "drafts.jsonl")


def test_a_local_writer_takes_the_likeliest_token(model: Path, tmp_path: Path) -> None:
    from ropewalk.hosts import live

    bare, tokenizer = live.load(model, device="cpu", dtype="float32")
    # Which the model's own config would bend.
    bent = shutil.copytree(model, tmp_path / "bent")
    (bent / "generation_config.json").write_text('{"do_sample": true, "temperature": 9.0, "repetition_penalty": 3.0}')
    with opened(bent, Decoding(answer_tokens=12), device="cpu", dtype="float32") as writing:
        said = writing.write("Who kept it?", 0)
        assert isinstance(said, Written)
        assert writing.longest == 256
        with pytest.raises(UnwrittenError, match="a prompt of 319 tokens with 12 to write, and it reads 256"):
            writing.write("x" * 300, 0)
    message = [{"role": "user", "content": "Who kept it?"}]
    ids = tokenizer(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))["input_ids"]
    new: list[int] = []
    while len(new) < 12 and 2 not in new:
        with torch.inference_mode():
            new.append(int(bare(torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
    assert said.text == tokenizer.decode(new, skip_special_tokens=True)
    assert said.cut is (2 not in new)


def test_a_drawn_reply_is_that_of_its_seed(model: Path) -> None:
    with opened(model, Decoding(answer_tokens=12, temperature=1.0), device="cpu", dtype="float32") as writing:
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        replies = [writing.write("Who kept it?", seed) for seed in (1, 1, 2)]
        assert torch.equal(torch.random.get_rng_state(), before)
    assert replies[0] == replies[1] != replies[2]
    with opened(model, Decoding(answer_tokens=12, temperature=1.0), device="cpu", dtype="float32") as writing:
        assert writing.identity["sha256"]
        assert writing.identity["temperature"] == 1.0
