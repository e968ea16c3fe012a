"""The longest length: the line through a few measurements, a child under a limit, and the search with real steps."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_tiny_checkpoint

from ropewalk.api import training_memory
from ropewalk.api.training_longest import check_found, told
from ropewalk.api.training_memory import check_fits, parse_memory
from ropewalk.api.training_request import request
from ropewalk.core.budget import GIGABYTE, Sizes, Training, budget
from ropewalk.core.errors import InputError, LengthError, MachineError
from ropewalk.core.progress import Progress
from ropewalk.hosts.watched import Watched, out_of_memory, watch
from ropewalk.tune.longest import LONGEST_ROW, Line, Point, Search, line_of, period, seconds_of
from ropewalk.tune.measured import first_window, measured, plain
from ropewalk.tune.settings import Settings, Stage

MODEL: dict[str, Any] = {"hidden": 576, "intermediate": 1536, "num_heads": 9, "query": 576, "key": 192,
                         "vocabulary": 49152, "tied": True}  # fmt: skip
SETTINGS = Settings(length=64, stages=(Stage(window=16, steps=1),))


def points(training: Training) -> list[Point]:
    """What counting would find, by the arithmetic, with gradients there."""
    found = []
    for layers in (2, 4):
        sizes = Sizes(num_layers=layers, **MODEL)
        for tokens in (8192, 16384):
            held = budget(sizes, training, tokens, runtime=0)
            found.append(
                Point(
                    num_layers=layers, tokens=tokens, num_bytes=held.total, seconds=1.0, trained=held.optimizer // 8
                )
            )  # fmt: skip
    return found


@pytest.mark.parametrize("every", [1, 2, 0])
@pytest.mark.parametrize("tokens", [6144, 16_384, 65_536])
@pytest.mark.parametrize("accumulated", [True, False])
def test_four_small_steps_say_what_thirty_layers_take(every: int, tokens: int, accumulated: bool) -> None:
    """Also where a run of one pass has its peak at the other end than the measured steps, whose gradients are there."""
    counted = points(Training(checkpoint_every=every, accumulated=True))
    line = line_of(counted, num_layers=30, runtime=0, accumulated=accumulated)
    truth = budget(
        Sizes(num_layers=30, **MODEL), Training(checkpoint_every=every, accumulated=accumulated), tokens, runtime=0
    )  # fmt: skip
    assert line.need(tokens) == pytest.approx(truth.total, rel=0.03)


def test_seconds_grow_with_the_square_of_a_row() -> None:
    def taken(layers: int, tokens: int) -> float:
        return 3e-4 * tokens + layers * (1e-4 * tokens + 2e-8 * tokens**2)

    counted = [
        Point(num_layers=layers, tokens=tokens, num_bytes=0, seconds=taken(layers, tokens), trained=0)
        for layers in (2, 4)
        for tokens in (1024, 2048)
    ]
    assert seconds_of(counted, 30, 65_536, 1) == pytest.approx(taken(30, 65_536), rel=1e-6)


def test_depths_are_whole_patterns_of_layers() -> None:
    assert period(("a",) * 8, 1) == 2
    assert period(("s", "s", "s", "f") * 3, 1) == 4
    assert period(("a",) * 8, 3) == 3


TAKES = """
import json, sys
job = json.loads(sys.stdin.readline())
held = bytearray(job["bytes"])
held[::4096] = b"x" * len(held[::4096])
print(json.dumps({"resident_bytes": 0, "len": len(held)}))
"""


def test_a_child_within_its_limit_answers() -> None:
    done = watch([sys.executable, "-c", TAKES], {"bytes": 2**26}, limit_bytes=2**30)
    assert (done.ended, done.answer["len"]) == ("done", 2**26)


def test_a_child_beyond_its_limit_is_ended() -> None:
    sleeps = TAKES.replace("print(", "import time; time.sleep(60); print(")
    done = watch([sys.executable, "-c", sleeps], {"bytes": 2**29}, limit_bytes=2**28)
    assert (done.ended, done.too_large, done.answer) == ("limit", True, {})
    assert done.seconds < 50


def test_a_peak_between_two_looks_is_found_by_the_childs_own_word() -> None:
    says = 'import json, sys; sys.stdin.readline(); print(json.dumps({"resident_bytes": 2**40}))'
    assert watch([sys.executable, "-c", says], {}, limit_bytes=2**30).ended == "limit"


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed"),
        ("raise RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes')", "memory"),
        ("raise RuntimeError('shapes do not fit')", "failed"),
    ],
)
def test_how_a_child_can_end(code: str, ended: str) -> None:
    done = watch([sys.executable, "-c", code], {}, limit_bytes=2**30)
    assert (done.ended, done.fits) == (ended, False)


def test_torch_really_says_that_memory_is_out() -> None:
    code = "import torch; torch.empty(2**60, dtype=torch.uint8)"
    assert watch([sys.executable, "-c", code], {}, limit_bytes=2**32).ended == "memory"


def test_what_torch_raises_on_a_cpu_is_out_of_memory_and_another_error_is_not() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(raised.value)
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def fake(*, holds: int) -> Any:
    """A machine whose steps take a tenth more than was counted, and hold `holds` bytes."""

    def run(command: Any, job: dict[str, Any], *, limit_bytes: int) -> Watched:
        if job["kind"] == "count":
            found = [
                {"num_layers": layers, "tokens": tokens, "held_bytes": 0, "step_bytes": 1000 * layers * tokens,
                 "seconds": 1.0, "trained": 0, "runtime_bytes": 0}
                for layers in (2, 4) for tokens in (1024, 2048)
            ]  # fmt: skip
            return Watched(ended="done", answer={"measured": found}, peak_bytes=0, seconds=1.0, words="")
        peak = int(1.1 * 1000 * 8 * job["window"])
        fits = peak <= holds
        answer = {"measured": [{"seconds": 1.0}]} if fits else {}
        return Watched(ended="done" if fits else "limit", answer=answer, peak_bytes=peak, seconds=1.0, words="")

    return run


def search(limit: int, **changes: Any) -> Search:
    given: dict[str, Any] = {
        "source": Path("model"), "settings": plain(SETTINGS), "num_layers": 8, "layer_types": ("a",) * 8, "device": "cpu",
        "bfloat16": False, "limit_bytes": limit, "wanted": None, "confirm": True, "progress": Progress(),
    }  # fmt: skip
    return Search(**{**given, **changes})


def test_a_step_that_takes_too_much_is_followed_by_a_shorter_one() -> None:
    limit = 8000 * 32 * 1024
    found = search(limit, run=fake(holds=limit)).find()
    assert [one["length"] for one in found.tried] == [32 * 1024, 28 * 1024]
    assert (found.length, found.confirmed_bytes) == (28 * 1024, int(1.1 * 8000 * 28 * 1024))


def test_an_estimate_tries_nothing() -> None:
    found = search(8000 * 32 * 1024, confirm=False, run=fake(holds=0)).find()
    assert (found.length, found.tried, found.confirmed_bytes) == (32 * 1024, (), None)
    assert "no real step" in told(found)


def test_nothing_longer_than_asked_for_is_tried() -> None:
    limit = 8000 * 32 * 1024
    found = search(limit, wanted=5000, run=fake(holds=limit)).find()
    assert (found.length, found.missed) == (5000, False)
    assert search(limit, wanted=40_000, confirm=False, run=fake(holds=limit)).find().missed


def test_a_few_layers_are_measured_on_rows_that_somebody_trains(tmp_path: Path) -> None:
    """Narrow models with many words would need longer ones before a layer's work is the peak."""
    config = {"model_type": "llama", "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 49152}
    job = {"source": str(tmp_path), "window": 1024, "bfloat16": False}

    def first(hidden: int, longest_row: int) -> int:
        (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": hidden}))
        return first_window({**job, "longest_row": longest_row})

    assert first(32, LONGEST_ROW) == LONGEST_ROW // 2
    assert [first(32, row) for row in (4096, 100, 20)] == [2048, 48, 16]
    assert first(576, LONGEST_ROW) == 5632


@pytest.mark.parametrize(("wanted", "row"), [(None, LONGEST_ROW), (4096, 4096), (2**20, LONGEST_ROW)])
def test_nothing_longer_than_asked_for_is_measured(wanted: int | None, row: int) -> None:
    asked: list[dict[str, Any]] = []

    def run(command: Any, job: dict[str, Any], *, limit_bytes: int) -> Watched:
        asked.append(job)
        return fake(holds=0)(command, job, limit_bytes=limit_bytes)

    search(2**34, wanted=wanted, confirm=False, run=run).find()
    assert [job["longest_row"] for job in asked] == [row]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": "full"}, "give more --memory, or a recipe that trains less, such as --recipe longlora"),
        ({"recipe": "longlora"}, "give more --memory"),
        ({"recipe": "longlora", "batch_size": 2}, "give more --memory, or a smaller --batch-size"),
    ],
)  # fmt: skip
def test_what_counting_took_is_held_against_its_own_limit(changes: dict[str, Any], words: str) -> None:
    """Which is not below 4 GB, whatever --memory says; and nobody is told to take the recipe that was asked for."""

    def run(command: Any, job: dict[str, Any], *, limit_bytes: int) -> Watched:
        return Watched(ended="limit", answer={}, peak_bytes=limit_bytes + 1, seconds=1.0, words="")

    with pytest.raises(MachineError) as raised:
        search(2 * GIGABYTE, settings={**plain(SETTINGS), **changes}, run=run).find()
    assert str(raised.value) == f"measuring a few layers took more than 4.0 GB; {words}"


def test_a_row_behind_a_prefix_is_measured(tied: Path) -> None:
    settings = replace(SETTINGS, recipe="prefix", checkpoint_every=0)
    job = {"source": str(tied), "device": "cpu", "bfloat16": False, "settings": plain(settings)}
    found = measured(job, num_layers=None, window=64, counted=False)
    assert (found["tokens"], found["trained"] % settings.num_virtual_tokens) == (64, 0)


def test_nothing_fits() -> None:
    found = search(8000, run=fake(holds=0)).find()
    assert found.length == 0
    with pytest.raises(MachineError, match=r"no row fits into .* give more --memory, or .* longlora, or a smaller"):
        check_found(found)
    with pytest.raises(MachineError, match=r"GB; give more --memory, or a smaller --batch-size$"):
        check_found(replace(found, recipe="longlora"))


def test_a_line_needs_what_its_parts_say() -> None:
    line = Line(
        constant=5.0, by_layer=7.0, by_token=2.0, by_both=3.0, gradients=4.0, runtime=100, num_layers=10, accumulated=True
    )  # fmt: skip
    assert line.need(1000) == 100 + 5 + 70 + 2000 + 30_000
    assert line.bytes_per_token == 32.0


def test_memory_as_people_write_it() -> None:
    """GB are 10^9 bytes, as what is printed and what was measured; GiB are 2^30."""
    assert GIGABYTE == 10**9
    assert [parse_memory(text) for text in ("24G", "24gb", "1.5 GB", "512M", "24GiB", "24gi", "1.5GiB", str(2**30))] == [
        24 * 10**9, 24 * 10**9, 15 * 10**8, 512 * 10**6, 24 * 2**30, 24 * 2**30, 3 * 2**29, 2**30,
    ]  # fmt: skip
    for wrong in ("24", "much", "-1G", "", "nanG", "i", "GiB", "5000000i"):
        with pytest.raises(InputError, match="memory looks like 24G, 24GiB or 512M"):
            parse_memory(wrong)


def test_rows_that_cannot_fit_are_refused_with_those_that_would() -> None:
    config = {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
              "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}  # fmt: skip
    long = Settings(length=2**24, stages=(Stage(window=2**24, steps=1),))
    with pytest.raises(LengthError, match=r"16777216 tokens in a pass take at least .* GB .* give --window \d+"):
        check_fits(config, long, "cpu", bfloat16=False)
    check_fits(config, SETTINGS, "cpu", bfloat16=False)
    check_fits({**config, "model_type": "gemma3_text"}, long, "cpu", bfloat16=False)


def test_what_fits_offloaded_or_with_a_lean_optimizer_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 3.1 8B with 79 GB free: 131,072 tokens with adapters, and 4,096 in full."""
    config = {"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
              "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
              "tie_word_embeddings": False}  # fmt: skip
    monkeypatch.setattr(training_memory, "free_on", lambda device: 79 * GIGABYTE)
    far = Settings(length=2**17, stages=(Stage(window=2**17, steps=1),), recipe="lora")
    with pytest.raises(LengthError, match="131072 tokens"):
        check_fits(config, far, "cuda", bfloat16=True)
    check_fits(config, replace(far, offload=True), "cuda", bfloat16=True)
    with pytest.raises(LengthError, match="131072 tokens"):
        # There it is main memory that is short.
        check_fits(config, replace(far, offload=True), "cpu", bfloat16=True)
    full = Settings(length=4096, stages=(Stage(window=4096, steps=1),))
    for optimizer in (None, "adamw_torch", "OptimizerNames.ADAMW_TORCH_FUSED"):
        with pytest.raises(LengthError, match="4096 tokens"):
            check_fits(config, full, "cuda", bfloat16=True, optimizer=optimizer)
    for optimizer in ("adafactor", "sgd", "adamw_bnb_8bit"):
        check_fits(config, full, "cuda", bfloat16=True, optimizer=optimizer)


def test_the_optimizer_of_a_request_is_looked_at(tied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(**arguments: str) -> None:
        request(tied, length=64, steps=1, device="cpu", dtype="float32", more={"arguments": arguments})

    monkeypatch.setattr(training_memory, "free_on", lambda device: 2**16)
    with pytest.raises(LengthError, match="take at least"):
        asked()
    asked(optim="adamw_bnb_8bit")


class BothAtOnce:
    """Real children. Where the length is known beforehand its step does not wait for the counting, most of which, as of the
    step, is the start of a process that imports everything."""

    def __init__(self, pool: ThreadPoolExecutor, window: int) -> None:
        self.pool, self.window = pool, window

    def __call__(self, command: Any, job: dict[str, Any], *, limit_bytes: int) -> Watched:
        if job["kind"] == "count":
            known = {key: value for key, value in job.items() if key != "depths"}
            self.job = {**known, "kind": "step", "window": self.window, "settings": plain(SETTINGS)}
            self.step = self.pool.submit(watch, command, self.job, limit_bytes=limit_bytes)
            return watch(command, job, limit_bytes=limit_bytes)
        assert job == self.job, "the step that is asked for is another one"
        return self.step.result()


@pytest.mark.slow
def test_a_small_model_for_real(tmp_path: Path) -> None:
    """Counted, extrapolated from two and four layers to eight, confirmed by a real step in a process of its own."""
    source = write_tiny_checkpoint(
        tmp_path / "mid", hidden_size=128, intermediate_size=352, num_hidden_layers=8, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        run = BothAtOnce(pool, window=2048)
        found = search(4 * GIGABYTE, source=source, wanted=2048, window=128, run=run).find()
    assert found.length == 2048
    assert found.confirmed_bytes is not None
    assert 0.7 < found.extrapolated_bytes / found.confirmed_bytes < 1.1
    arithmetic = budget(
        Sizes(hidden=128, intermediate=352, num_layers=8, num_heads=2, query=128, key=64, vocabulary=258, tied=True),
        Training(), 2048, runtime=0,
    )  # fmt: skip
    line = line_of(found.points, num_layers=8, runtime=0, accumulated=False)
    assert line.need(2048) == pytest.approx(arithmetic.total, rel=0.05)
