"""Chains: runs that go on from one another, checked to their end before the first, and resumed wherever they were killed."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command, snapshot
from small import SETTINGS
from streams import Counting
from test_resume import At, dying, killed, weights

import ropewalk
from ropewalk.api import training_chain
from ropewalk.api.training_request import options_of
from ropewalk.api.training_run import Beside
from ropewalk.core.errors import InputError, LengthError, OutputError, RopewalkError
from ropewalk.core.plan import parse_length
from ropewalk.core.record import Card
from ropewalk.data.rows import Row
from ropewalk.tune.presets import names, read

SHARED = {key: SETTINGS[key] for key in ("method", "learning_rate", "accumulate", "device", "dtype")} | {"save_every": 2}
TWICE: list[dict[str, Any]] = [{"length": 128, "window": 48, "steps": 3}, {"length": 256, "window": 48, "steps": 5}]
"""YaRN at s = 2, then at s = 4: the tiny model reads 64 tokens."""


def chain(source: Path, out: Path, runs: list[dict[str, Any]] = TWICE, *, data: Any = Counting, **more: Any) -> Card:
    return ropewalk.tune(source, data, out=out, runs=runs, **{**SHARED, **more})


@pytest.fixture(scope="module")
def unbroken(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain that nobody disturbs."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    chain(tied, out)
    return out


def test_the_second_run_goes_on_from_the_first(tied: Path, unbroken: Path, tmp_path: Path) -> None:
    ropewalk.tune(tied, Counting, out=tmp_path / "first", **SHARED, **TWICE[0])

    class Unread(Counting):
        """The rows after those of the first run, which has three steps of two."""

        def row(self, index: int) -> Row:
            return super().row(index + 6)

    ropewalk.tune(tmp_path / "first", Unread, out=tmp_path / "second", **SHARED, **TWICE[1])
    assert weights(unbroken / "chain" / "1") == weights(tmp_path / "first")
    assert weights(unbroken) == weights(tmp_path / "second")


def test_a_longer_plan_is_made_from_the_origin(tied: Path, unbroken: Path) -> None:
    origin = ropewalk.plan(tied, "yarn", length=256)
    found = ropewalk.geometry(unbroken)
    np.testing.assert_allclose(found.groups[0].inv_freq, origin.frequencies.inv_freq, rtol=1e-6)
    assert found.groups[0].attention_factor == pytest.approx(origin.frequencies.attention_factor, rel=1e-6)
    assert (found.lineage, found.trained_length, found.original_length) == ("trained", 256, 64)
    stretched = ropewalk.plan(unbroken / "chain" / "1", "yarn", length=256)
    assert not np.allclose(stretched.frequencies.inv_freq, origin.frequencies.inv_freq, rtol=1e-3)
    assert {verdict.status for verdict in ropewalk.verify(unbroken).verdicts} == {"exact"}


def test_the_card_names_every_run(tied: Path, unbroken: Path) -> None:
    card = json.loads((unbroken / "card.json").read_text())
    (link,) = card["links"]
    assert (link["source"], link["method"], link["length"], link["steps"]) == (str(tied), "yarn", 128, 3)
    assert link["card"] == json.loads((unbroken / "chain" / "1" / "card.json").read_text())["hash"]
    assert len(link["fingerprint"]) == 32
    assert sorted(card["plans"]) == ["run 1: yarn", "yarn"]
    assert [run["length"] for run in card["config"]["runs"]] == [128, 256]
    assert "from its origin, which read 64" in " ".join(finding["problem"] for finding in card["findings"])
    # Whole weights between the runs are the chain's own word, and of all weights there is nothing to merge.
    assert "merge" not in " ".join(finding["problem"] for finding in card["findings"])
    assert tempfile.gettempdir() not in json.dumps(card["config"]["runs"])


def between(number: int) -> Callable[[], list[Any]]:
    """Dies after a run is finished and before the card of the chain says so."""
    return lambda: dying(training_chain, "_told_link", number)


PLACES: dict[str, Callable[[], list[Any]]] = {
    "in the first run": lambda: [At("on_step_end", 3)],
    "between the runs": between(1),
    "in the second run": lambda: [At("on_step_end", 4)],
    "before the first run": lambda: dying(training_chain, "_trained", 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_resumed_is_bit_equal_to_unbroken(place: str, tied: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: chain(tied, out, callbacks=PLACES[place]()))
    assert json.loads((out / "card.json").read_text())["status"] == "running"
    assert chain(tied, out, resume=True).status == "done"
    for folder in ("", "chain/1"):
        assert weights(out / folder) == weights(unbroken / folder)
        assert (out / folder / "log.jsonl").read_text() == (unbroken / folder / "log.jsonl").read_text()
    assert [link["fingerprint"] for link in json.loads((out / "card.json").read_text())["links"]] == [
        link["fingerprint"] for link in json.loads((unbroken / "card.json").read_text())["links"]
    ]


def test_a_finished_run_is_not_trained_again(
    tied: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert killed(lambda: chain(tied, out, callbacks=[At("on_step_end", 4)]))
    before = (out / "chain/1/model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    chain(tied, out, resume=True)
    assert (out / "chain/1/model.safetensors").stat().st_mtime_ns == before
    said = capsys.readouterr().err
    assert "run 1 of 2: finished" in said
    assert "run 2 of 2: yarn at 256 tokens, full, 5 steps on rows of 48" in said
    assert chain(tied, out, resume=True).status == "done"


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 4])
def test_the_card_says_how_it_ended_in_whichever_run(step: int, tied: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        chain(tied, out, callbacks=[At("on_step_end", step, interrupt)])
    assert json.loads((out / "card.json").read_text())["status"] == "interrupted"


def test_another_chain_is_another_question(tied: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: chain(tied, out, callbacks=[At("on_step_end", 3)]))
    with pytest.raises(
        OutputError, match=r"run 1 of .* has begun, and is asked for otherwise \(it differs in learning_rate\)"
    ):
        chain(tied, out, [{**TWICE[0], "learning_rate": 1e-3}, TWICE[1]], resume=True)


def test_adapters_are_merged_but_for_the_last(tied: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    chain(tied, out, recipe="longlora")
    assert (out / "chain/1/model.safetensors").is_file()
    assert not (out / "chain/1/adapter_config.json").exists()
    assert (out / "adapter_config.json").is_file()
    model, _ = ropewalk.load(out, device="cpu", dtype="float32")
    assert ropewalk.read_back(model).frequencies.difference(ropewalk.plan(tied, "yarn", length=256).frequencies) < 1e-6


# --- data ---------------------------------------------------------------------------------------------------------------

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def chatty(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template."""
    folder = tmp_path_factory.mktemp("chatty") / "tiny-chat"
    shutil.copytree(tied, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return folder


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    turns = [
        [
            {"role": "user", "content": f"How many ships in year {i}?"},
            {"role": "assistant", "content": f"{i * 31 % 97} ships."},
        ]
        for i in range(60)
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return path


def num_learned(folder: Path) -> int:
    from ropewalk.data.stream import Stream

    stream = Stream.open(folder, length=64)
    return sum(int((stream.row(index).labels != -100).sum()) for index in range(len(stream)))


def test_long_text_and_then_conversations(
    chatty: Path, books: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        {"data": books, "length": 256, "steps": 2},
        {"data": chats, "length": 256, "window": 64, "steps": 2, "data_options": {"allow_short": True}},
    ]
    out = tmp_path / "run"
    card = chain(chatty, out, runs)
    assert [document["name"] for document in card.documents] == ["books", "chats.jsonl"]
    assert "that plan is kept" in " ".join(finding["problem"] for finding in card.findings)
    assert ropewalk.geometry(out).trained_length == 256
    answers = num_learned(out / "data" / "2")
    everything = tmp_path / "everything"
    capsys.readouterr()
    options = {"allow_short": True, "prompt_loss": True}
    chain(chatty, everything, [{**run, "data_options": options} for run in runs])
    assert capsys.readouterr().err.count("prompt_loss does nothing to the texts of this run") == 1
    assert num_learned(everything / "data" / "2") > 1.5 * answers > 0


def test_texts_of_two_runs_are_tokenized_once(tied: Path, books: Path, tmp_path: Path) -> None:
    runs = [{"length": 128, "steps": 1}, {"length": 256, "steps": 1}]
    out = tmp_path / "run"
    chain(tied, out, runs, data=books)
    shards = [path for path in (out / "data/1/shards").rglob("*") if path.is_file()]
    assert shards
    for path in shards:
        assert path.stat().st_ino == (out / "data/2/shards" / path.relative_to(out / "data/1/shards")).stat().st_ino


def test_texts_that_changed_are_refused_before_training(tied: Path, books: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: chain(tied, out, data=books, callbacks=[At("on_step_end", 4)]))
    (books / "1.txt").write_text("Another book. " * 300)
    before = snapshot(out)
    with pytest.raises(OutputError, match=r"run 1 of 2: books is not what .* \(1.txt is changed\)"):
        chain(tied, out, data=books, resume=True)
    assert snapshot(out) == before


WRONG: dict[str, tuple[dict[str, Any], type[RopewalkError], str]] = {
    "a setting that is none": ({"rate": 1}, InputError, "no setting 'rate'"),
    "a length that is shorter": ({"length": 96}, LengthError, "not above the trained length 128"),
    "no length": ({"length": None}, InputError, "needs a length"),
    "no steps": ({"steps": None}, InputError, "needs a number of steps"),
    "a method that is none": ({"method": "jarn"}, RopewalkError, "did you mean yarn"),
    "what does not go together": ({"positions": "pose", "attention": "s2"}, InputError, "do not go together"),
    "data that are gone": ({"data": "gone"}, InputError, "gone does not exist"),
    "texts that are too short": ({"data": "SHORT", "window": 200}, RopewalkError, "200|256|short"),
    "rows above the length": ({"window": 512}, InputError, "rows of 512"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_later_run_cannot_do_is_said_before_the_first(name: str, tied: Path, books: Path, tmp_path: Path) -> None:
    changes, kind, message = WRONG[name]
    (tmp_path / "short.txt").write_text("A few words.")
    last = {**TWICE[1], "data": books, **changes}
    last = {key: tmp_path / "short.txt" if value == "SHORT" else value for key, value in last.items()}
    before = snapshot(tmp_path)
    with pytest.raises(kind, match=f"run 2 of 2: .*({message})"):
        chain(tied, tmp_path / "run", [{**TWICE[0], "window": 96}, last], data=books)
    assert snapshot(tmp_path) == before


PUBLISHED = {"pose-16k": (2048, 1e4), "prolong-512k": (8192, 5e5)}
"""What the models of the papers read, where it is not Llama 2's."""


@pytest.mark.parametrize("name", names())
def test_every_preset_can_begin_on_a_model_like_its_papers(name: str, tied: Path, tmp_path: Path) -> None:
    """All but the data: each run's plan, on what the run before it will leave."""
    source, (length, base) = tmp_path / "source", PUBLISHED.get(name, (4096, 1e4))
    shutil.copytree(tied, source)
    config = json.loads((source / "config.json").read_text())
    parameters = {"rope_type": "default", "rope_theta": base}
    config |= {"max_position_embeddings": length, "rope_parameters": parameters}
    (source / "config.json").write_text(json.dumps(config))
    runs = [{**options_of(run), "data": Counting, "device": "cpu"} for run in read(name).runs]
    asked = training_chain.requests(source, runs, tmp_path, Beside(), called=tmp_path)
    assert [one.settings.length for one in asked] == [parse_length(run["length"]) for run in runs]
    last = ropewalk.geometry(tmp_path / str(len(runs) - 1)) if len(runs) > 1 else None
    if name == "yarn-128k":
        assert asked[1].plan is not None
        assert asked[1].plan.factor == 32
    if name == "prolong-512k":
        assert last is not None
        assert (last.trained_length, last.groups[0].base) == (524288, 1.28e8)
        assert asked[2].plan is None


# --- the command --------------------------------------------------------------------------------------------------------


def test_a_file_holds_a_chain(chatty: Path, books: Path, chats: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.toml").write_text(
        'method = "yarn"\nlength = 256\nlearning_rate = 1e-2\ndevice = "cpu"\ndtype = "float32"\n'
        '[[runs]]\ndata = "books"\ncurriculum = "64:1,256:1"\n'
        '[[runs]]\ndata = "chats.jsonl"\nwindow = 64\nsteps = 1\nallow_short = true\nprompt_loss = true\n'
    )
    out = tmp_path / "run"
    said = command("tune", chatty, "--preset", tmp_path / "mine.toml", "--out", out, "--json")
    assert said.code == 0, said.err
    card = json.loads(said.out)
    assert card["status"] == "done"
    assert [len(run["stages"]) for run in card["config"]["runs"]] == [2, 1]
    assert card["config"]["runs"][1]["data_options"] == {"allow_short": True, "prompt_loss": True}
    again = command("tune", chatty, "--preset", tmp_path / "mine.toml", "--out", out, "--resume")
    assert (again.code, again.out) == (0, f"{out}\n"), again.err


def test_data_once_for_each_run(chatty: Path, books: Path, chats: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.toml").write_text(
        'method = "yarn"\nlength = 256\nsteps = 1\ndevice = "cpu"\ndtype = "float32"\n'
        "[[runs]]\n[[runs]]\nallow_short = true\n"
    )
    asked = ("tune", chatty, "--preset", tmp_path / "mine.toml", "--out", tmp_path / "run")
    assert command(*asked).refused("run 1 of 2", "--data")
    assert command(*asked, *("--data", books) * 3).refused("3 times for 2 runs")
    said = command(*asked, "--data", books, "--data", chats, "--steps", "1", "--json")
    assert said.code == 0, said.err
    assert [document["name"] for document in json.loads(said.out)["documents"]] == ["books", "chats.jsonl"]


def test_the_presets_are_listed(command: Command) -> None:
    said = command("tune", "--preset", "help")
    assert said.code == 0
    assert "yarn-128k (2 runs)\nYaRN, Llama 2 at s = 32 (arXiv:2309.00071" in said.out
    listed = json.loads(command("tune", "--preset", "help", "--json").out)["presets"]
    assert {"name", "source", "runs"} == set(listed[0])
    assert command("tune").refused("needs a SOURCE")
