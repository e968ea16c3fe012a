"""Short tasks: lm-eval's numbers against our own forward and against lm-eval by itself, with and without a plan."""

import json
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Command
from short_files import documents, write_task_folder
from tiny import TRAINED_LENGTH

import ropewalk
from ropewalk.api.short_tasks import ShortTasks
from ropewalk.core.errors import InputError, UnsupportedError
from ropewalk.core.record import Measurement, Record
from ropewalk.measure.short_rows import _paired_shares

LENGTH = 256
TASKS = "short_choice,short_rolling,short_written"


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task_folder(tmp_path_factory.mktemp("short") / "tasks")


@pytest.fixture(scope="session")
def run_folder(tiny_checkpoint: Path, task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of all three tasks, the untouched model and yarn."""
    out = tmp_path_factory.mktemp("short") / "run"
    ropewalk.measure(
        tiny_checkpoint, out=out, method="yarn", length=LENGTH, dtype="float32", device="cpu",
        short_tasks=ShortTasks(names=TASKS, path=task_folder),
    )  # fmt: skip
    return out


def summed(model: torch.nn.Module, tokenizer: object, context: str, continuation: str) -> float:
    """Log-probability of a continuation, from one forward of ours; the context is BOS where it is empty."""
    head = tokenizer(context)["input_ids"] or [tokenizer.bos_token_id]  # type: ignore[operator, attr-defined]
    tail = tokenizer(continuation)["input_ids"]  # type: ignore[operator]
    with torch.no_grad():
        logits = model(torch.tensor([head + tail])).logits[0].double()
    lines = torch.log_softmax(logits[len(head) - 1 : -1], dim=-1)
    return float(lines[torch.arange(len(tail)), torch.tensor(tail)].sum())


def written(model: torch.nn.Module, tokenizer: object, context: str) -> str:
    """Six tokens by greedy decoding without a cache, up to a line's end or the end of the text."""
    ids = tokenizer(context)["input_ids"]  # type: ignore[operator]
    start = len(ids)
    for _ in range(6):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == tokenizer.eos_token_id:  # type: ignore[attr-defined]
            break
    text: str = tokenizer.decode(ids[start:], skip_special_tokens=True)  # type: ignore[attr-defined]
    return text.split("\n")[0]


def scores(model: torch.nn.Module, tokenizer: object) -> dict[str, list[float]]:
    """What each document scores, by us."""
    found: dict[str, list[float]] = {"acc": [], "acc_norm": [], "rolling": [], "exact_match": []}
    for document in documents():
        question, choices, label = str(document["question"]), list(document["choices"]), document["label"]  # type: ignore[call-overload]
        sums = [summed(model, tokenizer, question, f" {choice}") for choice in choices]
        found["acc"].append(float(int(np.argmax(sums)) == label))
        lengths = [len(choice) for choice in choices]
        found["acc_norm"].append(float(int(np.argmax(np.array(sums) / lengths)) == label))
        found["rolling"].append(summed(model, tokenizer, "", str(document["page"])))
        found["exact_match"].append(float(written(model, tokenizer, question) == choices[label]))
    return found


def row(rows: list[Measurement], metric: str, method: str, task: str) -> Measurement:
    (found,) = [r for r in rows if (r.metric, r.method, r.task) == (metric, method, task)]
    return found


def test_scores_are_those_of_our_own_forward_with_and_without_the_plan(tiny_checkpoint: Path, run_folder: Path) -> None:
    rows = Record.read(run_folder).measurements
    model, tokenizer = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    plan = ropewalk.plan(tiny_checkpoint, "yarn", length=LENGTH)
    untouched = scores(model, tokenizer)
    with ropewalk.apply(model, plan):
        stretched = scores(model, tokenizer)
    num_bytes = sum(len(str(document["page"])) for document in documents())
    for method, ours in (("none", untouched), ("yarn", stretched)):
        for metric in ("acc", "acc_norm"):
            found = row(rows, f"short_{metric}", method, "short_choice")
            assert found.value == pytest.approx(np.mean(ours[metric]), abs=1e-12)
        assert row(rows, "short_exact_match", method, "short_written").value == np.mean(ours["exact_match"])
        nats = -sum(ours["rolling"]) / num_bytes
        assert row(rows, "short_byte_perplexity", method, "short_rolling").value == pytest.approx(math.exp(nats), rel=1e-5)
        assert row(rows, "short_bits_per_byte", method, "short_rolling").value == pytest.approx(nats / math.log(2), rel=1e-5)
    assert untouched["acc"] != stretched["acc"], "the plan moves no answer, so the test shows nothing"
    gain = row(rows, "short_acc_gain", "yarn", "short_choice")
    assert gain.value == pytest.approx(np.mean(stretched["acc"]) - np.mean(untouched["acc"]), abs=1e-12)
    moved = sum(a != b for a, b in zip(untouched["acc"], stretched["acc"], strict=True))
    assert f"paired on 24 documents, {moved} of which score otherwise" in str(gain.note)
    assert gain.ci_low is not None
    assert gain.ci_high is not None
    assert gain.ci_low < gain.value < gain.ci_high
    nats = [(b - a) / num_bytes for a, b in zip(untouched["rolling"], stretched["rolling"], strict=True)]
    assert row(rows, "short_byte_perplexity_gain", "yarn", "short_rolling").value == pytest.approx(sum(nats), rel=1e-4)


def test_the_text_that_is_written_is_our_own_greedy_decoding(tiny_checkpoint: Path, run_folder: Path) -> None:
    model, tokenizer = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    (file,) = (run_folder / "short_tasks").glob("none-*/short_written-*.jsonl")
    said = [json.loads(line)["filtered_resps"][0] for line in file.read_text().splitlines()]
    assert said == [written(model, tokenizer, str(document["question"])) for document in documents()]


def test_the_numbers_are_those_of_lm_eval_by_itself(tiny_checkpoint: Path, task_folder: Path, run_folder: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    found = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, backend="causal"), tasks=TASKS.split(","), bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(task_folder), include_defaults=False),
    )  # fmt: skip
    rows = Record.read(run_folder).measurements
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, comma, _ = name.partition(",")
            if comma and not metric.endswith("_stderr"):
                assert row(rows, f"short_{metric}", "none", task).value == value


def test_the_plan_is_off_again_and_nothing_of_the_process_has_moved(tiny_checkpoint: Path, task_folder: Path) -> None:
    from lm_eval import utils

    from ropewalk.core.progress import Progress
    from ropewalk.measure.comparison import Subject
    from ropewalk.measure.harness import Harness
    from ropewalk.measure.settings import ShortSettings

    model, tokenizer = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    before = ropewalk.read_back(model), len(tokenizer), tokenizer.pad_token, utils.env, len(model._forward_hooks)
    plans = {label: ropewalk.plan(tiny_checkpoint, label, length=LENGTH) for label in ("none", "yarn")}
    subject = Subject(model=model, tokenizer=tokenizer, plans=plans, geometry=ropewalk.geometry(tiny_checkpoint))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    harness = Harness(ShortSettings(names=("short_choice",), path=str(task_folder), limit=3), 0)
    with subject.put_on("yarn", TRAINED_LENGTH):
        found = harness.answer(model, tokenizer, "short_choice", TRAINED_LENGTH, Progress())
    assert found.num_documents == 3
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == drawn
    after = ropewalk.read_back(model), len(tokenizer), tokenizer.pad_token, utils.env, len(model._forward_hooks)
    assert after == before


def test_rows_say_what_they_are(run_folder: Path) -> None:
    rows = [r for r in Record.read(run_folder).measurements if r.protocol == "lm-eval"]
    assert {r.method for r in rows} == {"none", "yarn"}
    assert all(r.versions["lm_eval"] and r.n == 24 and r.task for r in rows)
    accuracy = row(rows, "short_acc", "none", "short_choice")
    assert accuracy.unit == "share"
    assert "0-shot, 24 documents" in str(accuracy.note)
    assert "Wilson's interval over documents" in str(accuracy.note)
    # lm-eval's standard error of a mean.
    value = float(accuracy.value or 0)
    assert accuracy.stderr == pytest.approx(math.sqrt(value * (1 - value) / 23))
    assert all(r.reference == "none" for r in rows if r.metric.endswith("_gain"))
    assert not (run_folder / "samples.jsonl").exists()
    samples = list((run_folder / "short_tasks").rglob("*.jsonl"))
    assert len(samples) == 6
    assert all(len(file.read_text().splitlines()) == 24 for file in samples)


def test_a_finished_cell_is_not_asked_again(
    tiny_checkpoint: Path, task_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.measure.harness import Harness

    asked: list[str] = []
    answer = Harness.answer

    def listed(self: Harness, model: object, tokenizer: object, name: str, *rest: object) -> object:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(name)
        return answer(self, model, tokenizer, name, *rest)  # type: ignore[arg-type]

    def run(*, resume: bool) -> list[Measurement]:
        return ropewalk.measure(
            tiny_checkpoint, out=tmp_path / "run", method="yarn", length=LENGTH, dtype="float32", device="cpu",
            resume=resume, short_tasks=ShortTasks(names="short_choice,short_rolling", path=task_folder, limit=5),
        )  # fmt: skip

    monkeypatch.setattr(Harness, "answer", listed)
    with pytest.raises(KeyboardInterrupt):
        run(resume=False)
    assert asked == ["short_choice", "short_rolling"]
    # One cell half done: its samples are there and its result is not.
    (result,) = (tmp_path / "run" / "short_tasks").glob("none-*/short_rolling-*.json")
    result.unlink()
    asked.clear()
    monkeypatch.setattr(Harness, "answer", lambda *a: asked.append(a[3]) or answer(*a))
    rows = run(resume=True)
    assert asked == ["short_rolling", "short_choice", "short_rolling"]
    asked.clear()
    again = run(resume=True)
    assert asked == []
    assert [(r.key, r.value, r.ci_low) for r in again] == [(r.key, r.value, r.ci_low) for r in rows]


def test_a_group_has_a_row_over_all_its_documents(tiny_checkpoint: Path, task_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("common.yaml", "short_choice.yaml"):
        (folder / name).write_text((task_folder / name).read_text())
    twin = (folder / "short_choice.yaml").read_text().replace("short_choice", "short_twin").replace("label", "0")
    (folder / "short_twin.yaml").write_text(twin)
    (folder / "both.yaml").write_text("group: both\ntask: [short_choice, short_twin]\n")
    rows = ropewalk.measure(
        tiny_checkpoint, out=tmp_path / "run", dtype="float32", device="cpu",
        short_tasks=ShortTasks(names=["both"], path=folder),
    )  # fmt: skip
    parts = [row(rows, "short_acc", "none", task) for task in ("short_choice", "short_twin")]
    whole = row(rows, "short_acc", "none", "group:both")
    assert whole.n == 48
    assert whole.value == pytest.approx(np.mean([part.value for part in parts]), abs=1e-12)
    assert not [r for r in rows if r.metric == "short_acc_gain"]


def test_paired_shares_are_agresti_and_min() -> None:
    """Of 100 pairs 8 are won and 3 lost: (8 - 3) / 102, and the standard error of their Wald+2 with N = 2."""
    found = _paired_shares([1.0] * 8 + [-1.0] * 3 + [0.0] * 89)
    won, lost, num = 8.5, 3.5, 102
    middle = (won - lost) / num
    half = 1.959963984540054 * math.sqrt(won + lost - (won - lost) ** 2 / num) / num
    assert found.value == pytest.approx(0.05)
    assert (found.ci_low, found.ci_high) == (pytest.approx(middle - half), pytest.approx(middle + half))
    same = _paired_shares([0.0] * 100)
    assert same.value == 0.0
    assert same.ci_low is not None
    assert -0.03 < same.ci_low < 0.0


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(tiny_checkpoint: Path, tmp_path: Path, match: str, **asked: object) -> None:
    """The sentence comes before any folder is made."""
    method: object = asked.pop("method", None)
    with pytest.raises(InputError, match=match):
        ropewalk.measure(
            tiny_checkpoint, out=tmp_path / "run", dtype="float32", device="cpu", method=method,  # type: ignore[arg-type]
            short_tasks=ShortTasks(**{"names": "short_choice", **asked}),  # type: ignore[arg-type]
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"limit": 0}, "--short-tasks-limit lies between 1 and 10000000, got 0"),
        ({"fewshot": -1}, "--short-tasks-fewshot lies between 0 and 1000, got -1"),
        ({"batch": 0}, "--short-tasks-batch lies between 1 and 4096, got 0"),
        ({"names": "", "limit": 3}, "the options --short-tasks-... are of --short-tasks; name the tasks"),
        ({"method": "pi"}, "a method is planned for a length; say --length"),
        ({"path": "nowhere"}, "nowhere is not a folder; give the folder that holds the task files"),
    ],
)
def test_counts_and_folders_that_cannot_be_meant(
    tiny_checkpoint: Path, tmp_path: Path, asked: dict[str, object], match: str
) -> None:
    refused(tiny_checkpoint, tmp_path, match, **asked)


def test_an_unknown_task_has_near_names(tiny_checkpoint: Path, task_folder: Path, tmp_path: Path) -> None:
    refused(tiny_checkpoint, tmp_path, "lm-eval has no task 'short_chioce'; did you mean short_choice", names="short_chioce",
            path=task_folder)  # fmt: skip


@pytest.mark.parametrize("name", ["runs", "holds", "tagged"])
def test_a_task_that_runs_what_a_model_writes_is_refused(task_folder: Path, tmp_path: Path, name: str) -> None:
    from lm_eval.tasks import TaskManager

    from ropewalk.measure.harness import _check_safe

    folder = tmp_path / "tasks"
    folder.mkdir()
    for file in ("common.yaml", "short_written.yaml"):
        (folder / file).write_text((task_folder / file).read_text())
    unsafe = "task: runs\ntag: tagged\ninclude: short_written.yaml\nunsafe_code: true\n"
    (folder / "runs.yaml").write_text(unsafe)
    (folder / "holds.yaml").write_text("group: holds\ntask: [short_written, runs]\n")
    # Without the thousands of tasks that lm-eval ships, which take ten seconds to read.
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with pytest.raises(UnsupportedError, match="the task runs runs the code that a model writes"):
        _check_safe(manager, name)
    _check_safe(manager, "short_written")


PROGRAMS = {
    "doc_to_text: !function evil.run\n": r"names Python code \(!function evil.run\), which ropewalk does not run",
    "metric_list: [{metric: ./evil}]\n": r"has the metric './evil', which lm-eval would look for as a script and run",
    "metric_list: [{metric: acc, hf_evaluate: true}]\n": r"asks for a metric that is a script \(hf_evaluate\)",
    "dataset_path: pandas\n": "reads its data as 'pandas', expected one of json, csv, parquet, arrow, text",
    "doc_to_text: [\n": "is no task file that can be read",
}


@pytest.mark.parametrize("line", PROGRAMS)
@pytest.mark.parametrize("included", [False, True])
def test_a_folder_with_programs_is_refused_and_runs_nothing(
    tiny_checkpoint: Path, tmp_path: Path, line: str, included: bool
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    if included:
        (tmp_path / "other.yaml").write_text(line)
        line = "include: ../other.yaml\n"
    (folder / "task.yaml").write_text(f"task: short_choice\n{line}")
    refused(tiny_checkpoint, tmp_path, PROGRAMS.get(line, "other.yaml"), path=folder)
    assert not (tmp_path / "ran").exists()


def test_a_template_reaches_no_object_of_python(tiny_checkpoint: Path, task_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "common.yaml").write_text((task_folder / "common.yaml").read_text())
    reach = "{{ question.__class__.__mro__[1].__subclasses__() | length }}"
    task = (task_folder / "short_choice.yaml").read_text().replace("{{question}}", reach)
    (folder / "short_choice.yaml").write_text(task)
    refused(tiny_checkpoint, tmp_path, r"lm-eval cannot load the task short_choice: SecurityError", path=folder)


def test_without_lm_eval_the_sentence_says_what_to_install(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lm_eval", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    sentence = (
        r"this needs lm_eval and datasets; install them with pip install '\.\[short-tasks\]' in a checkout of ropewalk"
    )
    refused(tiny_checkpoint, tmp_path, sentence)


def test_a_plan_of_its_own_at_each_length_is_refused(tiny_checkpoint: Path) -> None:
    from ropewalk.measure.comparison import Subject
    from ropewalk.measure.short_tasks import check_short

    geometry = ropewalk.geometry(tiny_checkpoint)
    plans = {"none": ropewalk.plan(geometry, "none", length=64), "d": ropewalk.plan(geometry, "dynamic:pi", length=LENGTH)}
    model, tokenizer = ropewalk.load(tiny_checkpoint, dtype="float32", device="cpu")
    subject = Subject(model=model, tokenizer=tokenizer, plans=plans, geometry=geometry)
    check_short(subject)  # One and the same up to the old window: the identity.
    # As if the window reached to where the plan begins to change.
    longer = Subject(
        model=model, tokenizer=tokenizer, plans=plans, geometry=replace(geometry, trained_length=LENGTH)
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="d has other frequencies at each length, and short tasks have prompts of"):
        check_short(longer)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_beside_texts_and_tasks(
    tiny_checkpoint: Path, task_folder: Path, long_text: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "run"
    result = command(
        "measure", tiny_checkpoint, "--out", out, "--method", "pi", "--length", 512, "--text", long_text,
        "--tasks", "needle", "--lengths", 512, "--depths", 2, "--samples", 1,
        "--short-tasks", "short_choice", "--short-tasks-path", task_folder,
        "--short-tasks-limit", 6, "--short-tasks-batch", 4, "--dtype", "float32", "--device", "cpu", "--fail-under",
        "short_tasks>=-1", "short_tasks[short_choice]>=0.9",
    )  # fmt: skip
    assert result.code == 1, result.err
    assert "not met: short_tasks[short_choice]>=0.9" in result.err
    assert "not met: short_tasks>=-1" not in result.err
    assert "Short tasks by lm-eval" in result.out
    table = [line for line in result.out.splitlines() if line.startswith("short_choice")]
    assert len(table) == 2
    assert all(len(line) <= 120 for line in result.out.splitlines())
    page = (out / "report.html").read_text()
    assert "Short tasks by lm-eval" in page
    assert "On short_choice (acc) it is undecided against the untouched model" in page
    metrics = {r.metric for r in Record.read(out).measurements}
    assert {"nll", "retrieval_exact", "short_acc", "short_acc_gain"} <= metrics


def test_the_command_alone_gives_one_document_of_json(
    tiny_checkpoint: Path, task_folder: Path, tmp_path: Path, command: Command
) -> None:
    result = command(
        "measure", tiny_checkpoint, "--out", tmp_path / "run", "--short-tasks", "short_written,short_choice",
        "--short-tasks-path", task_folder, "--short-tasks-fewshot", 1, "--short-tasks-limit", 4, "--dtype", "float32",
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert {r["metric"] for r in rows} == {"short_exact_match", "short_acc", "short_acc_norm"}
    assert all("1-shot, 4 of 24 documents" in r["note"] for r in rows)
    # One example makes a prompt of more than the 64 tokens that the model was trained to.
    assert all("were cut from the left" in r["note"] for r in rows)
    assert not [line for line in result.err.splitlines() if not line.startswith("device")]
    assert "2 short tasks asked inside 64 tokens" in (tmp_path / "run" / "report.html").read_text()
