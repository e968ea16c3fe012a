"""A map asked of a server: the rows a local run has, in whatever order answers come, through faults, kills and resumes."""

import _thread
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completions_server import Answering, CompletionsServer, content, hangs_up, status
from tiny import write_tiny_checkpoint

from ropewalk.api import running, runs, serving
from ropewalk.core.errors import HostError, InputError, LengthError, MachineError
from ropewalk.data.tasks.task import Question
from ropewalk.hosts.served import Completion, Patience
from ropewalk.measure.served import as_text, begins_with

WINDOW = 640
QUICK = Patience(attempts=3, first_seconds=0.01, longest_seconds=0.02, answer_seconds=20.0, total_seconds=30.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("served") / "tiny", max_position_embeddings=WINDOW)


@pytest.fixture(scope="module")
def tokenizer(source: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)


@pytest.fixture(scope="module")
def greedy(source: Path) -> Answering:
    """The tiny model, decoding by whole forwards: what a real server computes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokenizer, lock = AutoTokenizer.from_pretrained(source), threading.Lock()

    def answering(ids: list[int], room: int) -> tuple[str, list[int]]:
        new: list[int] = []
        with lock, torch.inference_mode():
            while len(new) < room and 1 not in new:
                new.append(int(model(torch.tensor([ids + new]), logits_to_keep=1).logits[0, -1].argmax()))
        return tokenizer.decode(new, skip_special_tokens=True), new

    return answering


@pytest.fixture
def finds(tokenizer: Any) -> Answering:
    """Finds every pass key, as the perfect model would."""

    def answering(ids: list[int], room: int) -> tuple[str, list[int]]:
        text = tokenizer.decode(ids)
        asked = text.rpartition("pass key of the ")[2].split()[0] if "pass key of the " in text else ""
        known = [line for line in text.replace("\n", ". ").split(". ") if asked and asked in line]
        digits = [word.strip(".") for line in known for word in line.split() if word.strip(".").isdigit()]
        new = tokenizer(f" {digits[0] if digits else 'nothing'}", add_special_tokens=False)["input_ids"][:room]
        return tokenizer.decode(new), new

    return answering


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # The report has its own tests.
    monkeypatch.setattr(runs, "find_spec", lambda name: None)
    monkeypatch.setattr(serving, "Patience", lambda **_: QUICK)


Measured = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def measured(source: Path, tmp_path: Path) -> Measured:
    """Samples of a run, without what a clock decides."""

    def run(name: str, server: CompletionsServer | None, **options: Any) -> list[dict[str, Any]]:
        asked: dict[str, Any] = {"tasks": "passkey", "lengths": [512, 768, 1024], "depths": 2, "samples": 2} | options
        where = {"dtype": "float32"} if server is None else {"server": server.url}
        runs.measure(source, out=tmp_path / name, **asked, **where)
        return samples(tmp_path / name)

    return run


def samples(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def rows(folder: Path, metric: str = "") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    wanted = [line for line in lines if metric in ("", line["metric"])]
    return [{key: value for key, value in line.items() if key not in ("seconds", "peak_bytes")} for line in wanted]


@pytest.fixture
def server(greedy: Answering) -> Iterator[CompletionsServer]:
    with CompletionsServer(greedy).running() as running_server:
        yield running_server


@pytest.fixture
def finder(finds: Answering) -> Iterator[CompletionsServer]:
    with CompletionsServer(finds).running() as running_server:
        yield running_server


# --- the same answers -------------------------------------------------------------------------------------------------

WHAT = (
    "task",
    "protocol",
    "asked_length",
    "length",
    "haystack",
    "seed",
    "depth",
    "position",
    "key",
    "references",
    "template",
)
SAID = ("exact", "found", "text", "scoring", "num_prompt_tokens")


@pytest.mark.parametrize("mode", ["fixed", "grow", "single"])
def test_a_server_gives_the_rows_of_a_local_model(measured, server, mode):
    options = {"modes": (mode,), "scoring": "generate", "samples": 1}
    local = [s for s in measured("local", None, **options) if s["method"] == "none"]
    asked = [s for s in measured("served", server, **options) if s["method"] == "served"]
    assert [[s[key] for key in WHAT + SAID] for s in asked] == [[s[key] for key in WHAT + SAID] for s in local]
    assert len({s["text"] for s in asked}) > 1
    assert {s["engine"] for s in asked} == {"vllm"}


def test_several_references_are_decoded_and_what_a_server_cannot_say_is_said(measured, server, tmp_path):
    found = measured("served", server, tasks="variable-tracking", lengths=[2048], samples=1)
    (sample,) = [s for s in found if s["protocol"] == "one-question" and s["method"] == "served"]
    assert sample["scoring"] == "generate"
    assert "several references" in sample["note"]
    assert sample["logprob"] is None
    (row,) = [
        r
        for r in rows(tmp_path / "served", "retrieval_exact")
        if r["protocol"] == "one-question" and r["method"] == "served"
    ]
    assert "no log-probability or rank" in row["note"]
    assert (row["engine"], row["device"], row["dtype"]) == ("vllm", "server", "as served")
    assert not rows(tmp_path / "served", "retrieval_logprob")


@pytest.mark.parametrize("unable", ["takes_extra", "takes_ids", "gives_ids", "counts"])
def test_a_server_that_knows_less_gives_the_same_answers(measured, finder, tokenizer, unable):
    wanted = measured("able", finder)
    setattr(finder, unable, False)
    finder.encode = lambda text: tokenizer(text)["input_ids"]
    found = measured("unable", finder)
    assert [s["exact"] for s in found] == [s["exact"] for s in wanted]
    assert any(s["exact"] for s in found)
    if unable == "takes_ids":
        assert all(isinstance(body["prompt"], str) for body in finder.bodies[len(finder.bodies) - 10 :])


def test_without_counts_the_rows_say_so(measured, finder, tmp_path):
    finder.counts = finder.gives_ids = False
    assert all("does not count prompt tokens" in s["note"] for s in measured("run", finder))
    assert all("does not count prompt tokens" in r["note"] for r in rows(tmp_path / "run", "retrieval_exact"))


def test_crop_reads_no_more_than_the_window_and_is_copied_where_it_crops_nothing(measured, server):
    found = measured("run", server)
    asked = {len(prompt) for prompt in server.prompts}
    cropped = [s for s in found if s["method"] == "crop"]
    assert all(s["length"] <= WINDOW for s in cropped)
    assert max(asked) > WINDOW
    short = [s for s in cropped if s["asked_length"] == 512]
    assert short
    assert all(s["note"].endswith("identical to served: nothing is cropped") for s in short)
    long = [s for s in cropped if s["asked_length"] > WINDOW]
    assert all("identical" not in s["note"] for s in long)


def test_the_control_has_no_context(measured, server):
    found = [s for s in measured("run", server) if s["protocol"] == "no-context"]
    assert len(found) == 4
    assert all(s["num_prompt_tokens"] < 100 for s in found)


# --- order, faults, resumes -------------------------------------------------------------------------------------------


def jitters(answering: Answering) -> Answering:
    rng = random.Random(1)

    def late(ids: list[int], room: int) -> tuple[str, list[int]]:
        time.sleep(rng.random() * 0.02)
        return answering(ids, room)

    return late


@pytest.mark.parametrize("modes", [("fixed",), ("single", "grow")])
@pytest.mark.parametrize("stop_early", [False, True])
def test_the_order_of_answers_changes_nothing(measured, finder, finds, modes, stop_early):
    options = {"modes": modes, "samples": 8, "stop_early": stop_early, "lengths": [512, 768]}
    one = measured("one", finder, concurrency=1, **options)
    assert finder.most_at_once == 1
    finder.answering = jitters(finds)
    many = measured("many", finder, concurrency=8, **options)
    assert finder.most_at_once > 2
    assert many == one


def test_one_at_a_time_the_questions_of_a_haystack_follow_each_other(measured, finder):
    measured("run", finder, concurrency=1, depths=3, lengths=[768, 1024])
    heads = [tuple(prompt[:200]) for prompt in finder.prompts if len(prompt) > 300]
    changes = sum(a != b for a, b in itertools.pairwise(heads))
    assert changes == len(set(heads)) - 1


def test_faults_cost_time_and_no_row(measured, finder):
    wanted = measured("whole", finder)
    faults = [status(429, {"Retry-After": "0"}), hangs_up, status(500), content({"choices": []}), content(b"{")]
    finder.faults = [fault for bad in faults for fault in (bad, None, None)]
    assert measured("faulty", finder) == wanted


def dies_after(num: int, answering: Answering, how: Callable[[], None] | None = None) -> Answering:
    left = [num]

    def answer(ids: list[int], room: int) -> tuple[str, list[int]]:
        left[0] -= 1
        if left[0] < 0:
            if how is not None:
                how()
            raise ConnectionResetError
        return answering(ids, room)

    return answer


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_server_that_goes_away_leaves_finished_cells_and_is_resumed(measured, finder, finds, tmp_path, concurrency):
    wanted = measured("whole", finder)
    finder.answering = dies_after(9, finds)
    with pytest.raises(MachineError, match="--resume"):
        measured("broken", finder, concurrency=concurrency)
    left = samples(tmp_path / "broken")
    assert 0 < len(left) < len(wanted)
    assert left == wanted[: len(left)]
    assert json.loads((tmp_path / "broken" / "card.json").read_text())["status"] == "failed"
    finder.answering = finds
    before = len(finder.bodies)
    assert measured("broken", finder, resume=True) == wanted
    # Requests that were on their way when the run broke off may arrive after the count.
    assert len(finder.bodies) - before <= len(wanted) - len(left) + concurrency
    mine, whole = (rows(tmp_path / name) for name in ("broken", "whole"))
    assert mine == whole


def test_an_interrupt_ends_at_once_and_leaves_finished_cells(measured, finder, finds, tmp_path):
    # A shell that starts jobs in the background has them ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = measured("whole", finder)

    once = threading.Lock()

    def interrupt() -> None:
        # Both requests under way come by here. A second interrupt would meet the saving of the first, as in any program.
        if once.acquire(blocking=False):
            _thread.interrupt_main()
        # Long enough that a busy machine delivers the interrupt before the client has tried three times.
        time.sleep(3.0)

    finder.answering = dies_after(9, finds, interrupt)
    with pytest.raises(KeyboardInterrupt):
        measured("stopped", finder, concurrency=2)
    left = samples(tmp_path / "stopped")
    assert 0 < len(left) < len(wanted)
    assert json.loads((tmp_path / "stopped" / "card.json").read_text())["status"] == "interrupted"
    finder.answering = finds
    assert measured("stopped", finder, resume=True) == wanted


def test_a_prompt_that_is_cut_on_the_way_ends_the_run_with_both_numbers(measured, finder, tmp_path):
    finder.cuts_to = 700
    with pytest.raises(HostError, match="read 700 tokens of a prompt of 7"):
        measured("cut", finder, concurrency=1)
    left = samples(tmp_path / "cut")
    assert {s["asked_length"] for s in left} == {512}


# --- refused before a folder is made ----------------------------------------------------------------------------------


def test_what_can_be_refused_is_refused_before_a_folder_is_made(measured, finder, tmp_path):
    finder.longest = 900
    with pytest.raises(LengthError, match="takes 900 tokens, and the map has a length of 1024"):
        measured("a", finder)
    finder.longest = None
    with pytest.raises(InputError, match="does not serve 'other'"):
        measured("a", finder, served_model="other")
    finder.adds = 1
    with pytest.raises(HostError, match="it puts tokens in front"):
        measured("a", finder)
    for options, words in (
        ({"tasks": (), "lengths": None}, "name --tasks"),
        ({"method": "yarn", "length": 2048}, "--method has no meaning"),
        ({"protocols": ["disjoint"]}, "--protocol has no meaning"),
        ({"device": "cpu"}, "--device has no meaning"),
        ({"concurrency": 0}, "concurrency lies between"),
        ({"base_run": tmp_path / "nowhere"}, "not a run folder"),
    ):
        finder.adds = 0
        with pytest.raises(InputError, match=words):
            measured("a", finder, **({"length": 1024} | options))
    assert not (tmp_path / "a").exists()


class Merging:
    """Encodes any two equal tokens as one, so that few ids come back."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(token) for token in ids)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in dict.fromkeys(text)]}


def test_ids_that_no_text_gives_back_are_refused():
    assert as_text(np.array([97, 98]), Merging()) == "ab"
    with pytest.raises(InputError, match="no text gives the 3 tokens of a prompt back"):
        as_text(np.array([97, 98, 98]), Merging())


def test_a_text_is_sent_without_the_bos_that_the_server_adds():
    class Adding(Merging):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [1, *(ord(letter) for letter in text)]}

    assert as_text(np.array([1, 97, 97]), Adding()) == "aa"


@pytest.mark.parametrize(
    ("text", "ids", "right"),
    [(" 123.", None, True), ("\n123", None, True), ("0123", None, False), ("12", None, False), (" 123", (4,), False)],
)
def test_exact_is_by_ids_where_they_are_known_and_by_text_else(tokenizer, text, ids, right):
    answer = np.array(tokenizer(" 123", add_special_tokens=False)["input_ids"])
    question = Question(key="", references=("123",), question=answer, answer=answer)
    assert begins_with(Completion(text=text, ids=ids, counted=True), question, tokenizer) is right
    known = Completion(text="", ids=(*answer.tolist(), 9), counted=True)
    assert begins_with(known, question, tokenizer)


# --- s0 ---------------------------------------------------------------------------------------------------------------

MANY = {"samples": 24, "depths": 2, "lengths": [512, 768]}


def test_beyond_the_trained_length_s0_must_come_from_the_untouched_model(measured, finder, tmp_path):
    measured("run", finder, **MANY)
    served = [r for r in rows(tmp_path / "run", "effective_length") if r["method"] == "served"]
    assert [r["value"] for r in served] == [None]
    assert "--base-run" in served[0]["note"]
    assert "beyond the 640 tokens" in served[0]["note"]


def test_inside_it_s0_is_the_served_models_own_and_the_row_says_so(measured, finder, tmp_path):
    measured("run", finder, samples=24, lengths=[512])
    (row,) = rows(tmp_path / "run", "effective_length")
    assert row["value"] == 512
    assert "the served model's own short score" in row["note"]
    assert row["engine"] == "vllm"
    finder.longest = 4096
    measured("longer", finder, samples=24, lengths=[512])
    (row,) = rows(tmp_path / "longer", "effective_length")
    assert row["value"] is None
    assert "the server takes 4096 tokens" in row["note"]


def test_s0_of_an_earlier_run_certifies_and_is_checked_prompt_by_prompt(measured, finder, tmp_path):
    measured("base", finder, samples=24, lengths=[512])
    base = tmp_path / "base"
    measured("run", finder, base_run=base, **MANY)
    (row,) = [r for r in rows(tmp_path / "run", "effective_length") if r["method"] == "served"]
    assert row["value"] == 768
    assert "s0 from the run" in row["note"]
    for other in ({"seed": 3}, {"depths": 1}, {"samples": 25}, {"modes": ("single",)}):
        with pytest.raises(InputError, match="lacks the untouched model's answer to a prompt of passkey"):
            measured("other", finder, base_run=base, **(MANY | other))
    with pytest.raises(InputError, match=r"scored passkey .* as 'forced'"):
        measured("other", finder, base_run=base, scoring="generate", **MANY)
    assert not (tmp_path / "other").exists()


def test_the_base_may_be_a_local_run(measured, finder, tmp_path):
    measured("base", None, samples=2, lengths=[512])
    measured("run", finder, base_run=tmp_path / "base", samples=2, lengths=[512, 768])
    (row,) = [r for r in rows(tmp_path / "run", "effective_length") if r["method"] == "served"]
    # A random model finds nothing, and so nothing can be certified against it.
    assert row["value"] is None
    assert "not above a guess" in row["note"]


def test_no_key_is_in_any_record(measured, finder, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    measured("run", finder, lengths=[512])
    assert finder.keys[0] == "Bearer sk-very-secret"
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_a_served_job_is_a_job() -> None:
    assert issubclass(serving.ServedJob, running.Job)
