"""LongPPL against a naive twin: stock logits, one token at a time, as the paper defines it."""

import math

import numpy as np
import pytest
import torch
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.errors import InputError, LengthError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.key_tokens import estimate, mark, short_windows
from ropewalk.measure.probes import KeyTokens

LENGTH, SHARED = 200, 24
ASKED = f"longppl:shared={SHARED},alpha=0.5,beta=-6"


class Quiet(Progress):
    def say(self, line: str) -> None:
        pass


def measure(source, text, out, **changes):
    settings = {
        "text": text if isinstance(text, list) else [text], "length": LENGTH, "out": out, "dtype": "float32",
        "protocols": [ASKED], "method": "yarn", "progress": Quiet(), **changes,
    }  # fmt: skip
    ropewalk.measure(source, **settings)
    return Record.read(out)


@pytest.fixture(scope="module")
def stock(tiny_checkpoint, long_text):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(tiny_checkpoint)(long_text.read_text())["input_ids"]
    return model, torch.tensor(ids[:LENGTH])


@torch.inference_mode()
def logprob(model, ids, i):
    """log p(ids[i] | ids[:i]) from full logits."""
    return torch.log_softmax(model(input_ids=ids[None, :i]).logits[0, -1].float(), 0)[ids[i]].item()


@pytest.fixture(scope="module")
def twin(stock):
    """Key tokens by the definition: token i of group g reads ids[g*d : i]."""
    model, ids = stock
    keys = []
    for i in range(TRAINED, LENGTH):
        begin = (i - TRAINED) // SHARED * SHARED
        long, short = logprob(model, ids, i), logprob(model, ids[begin:], i - begin)
        if long - short > 0.5 and long > -6:
            keys.append(i)
    return keys


@pytest.fixture(scope="module")
def run(tiny_checkpoint, long_text, tmp_path_factory) -> Record:
    return measure(tiny_checkpoint, long_text, tmp_path_factory.mktemp("longppl") / "run")


def test_key_tokens_and_longppl_equal_the_naive_twin(run, stock, twin):
    model, ids = stock
    (array,) = run.arrays("none", "longppl-keys").values()
    assert len(twin) > 5
    assert (np.flatnonzero(array[0] == 1) + 1).tolist() == twin
    (count,) = run.rows("longppl_key_tokens")
    assert (count.value, count.method) == (len(twin), "none")
    for label in ("none", "yarn"):
        with ropewalk.apply(model, ropewalk.plan(model, label, length=LENGTH)):
            expected = math.exp(-sum(logprob(model, ids, i) for i in twin) / len(twin))
        (row,) = run.rows("longppl", method=label)
        assert row.value == pytest.approx(expected, rel=1e-4)
        assert (row.num_tokens, row.reference, row.position_low) == (len(twin), "none", TRAINED)
        assert "too few" in row.note
        assert "read beyond its window" in row.note


def test_windows_of_short_contexts():
    windows = short_windows(20, 8, 5)
    assert [(w.begin, w.low, w.end) for w in windows] == [(0, 8, 13), (5, 13, 18), (10, 18, 20)]


def test_the_bounds_are_strict_and_nothing_is_key_without_a_short_context():
    long, short = np.float32([1.0, 1.0, 2.0, 1.9]), np.float32([np.nan, 3.0, 9.0, 3.95])
    assert mark(long, short, KeyTokens()).tolist() == [False, False, False, True]


def test_documents_are_pooled_by_their_counts_of_key_tokens():
    rng = np.random.default_rng(0)
    nll = {str(i): rng.random(2000).astype(np.float32) + i for i in range(6)}
    masks = {name: rng.random(2000) < 0.1 * (1 + int(name)) / 6 for name in nll}
    found = estimate(nll, masks)
    assert found.value == pytest.approx(np.concatenate([nll[n][masks[n]] for n in nll]).astype(float).mean())
    assert (found.n, found.num_clusters) == (6, 6)
    assert found.ci_low < found.value < found.ci_high
    within = estimate({"0": nll["0"]}, {"0": masks["0"]})
    assert (within.n, within.num_clusters) == (1, 4)
    assert "within-document" in within.note


def test_no_key_token_is_null_with_its_reason(tiny_checkpoint, long_text, tmp_path):
    record = measure(tiny_checkpoint, long_text, tmp_path / "run", protocols=["longppl:alpha=1000,shared=24"], method=None)
    (row,) = record.rows("longppl")
    assert row.value is None
    assert "no token is key" in row.note


def test_another_method_may_be_the_evaluator_and_length_plans_are_read_whole(tiny_checkpoint, long_text, tmp_path):
    record = measure(
        tiny_checkpoint, long_text, tmp_path / "run", method="dynamic:ntk",
        protocols=["longppl:evaluator=dynamic:ntk,context=40,shared=24,alpha=0.5,beta=-6"],
    )  # fmt: skip
    assert {row.method for row in record.rows("longppl")} == {"none", "dynamic:ntk"}
    assert all(row.value is not None and row.position_low == 40 for row in record.rows("longppl"))


@pytest.mark.parametrize("lost", ["longppl-keys", "nll"])
def test_a_resumed_run_ends_with_the_same_rows(tiny_checkpoint, long_text, tmp_path, lost):
    out = tmp_path / "run"
    first = measure(tiny_checkpoint, long_text, out)
    for name in first.card.files:
        if name.startswith(f"{lost}/"):
            (out / name).unlink(missing_ok=True)
    second = measure(tiny_checkpoint, long_text, out, resume=True)
    assert [(r.key, r.value, r.ci_low) for r in second.measurements] == [
        (r.key, r.value, r.ci_low) for r in first.measurements
    ]


@pytest.mark.parametrize(
    ("protocol", "length", "error", "words"),
    [
        ("longppl:shared=24", 88, LengthError, "within the first 64 [+] 24 .* and the length is 88"),
        ("longppl:shared=24,evaluator=pi", 200, InputError, "evaluator 'pi' is not among the methods"),
        ("longppl:depth=3", 200, InputError, "does not take the option 'depth'"),
        ("longppl:alpha", 200, InputError, "looks like key=value, got 'alpha'"),
        ("longppl:alpha=1,alpha=2", 200, InputError, "'alpha' of longppl is given twice"),
        ("longppl:shared=0", 200, InputError, "longppl:shared must be at least 1, got 0"),
        ("disjoint:window=3", 200, InputError, "disjoint takes no options after a colon"),
        ("guess", 200, InputError, "unknown protocol 'guess'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_folder_is_made(
    tiny_checkpoint, long_text, tmp_path, protocol, length, error, words
):
    with pytest.raises(error, match=words):
        measure(tiny_checkpoint, long_text, tmp_path / "run", protocols=[protocol], length=length)
    assert not (tmp_path / "run").exists()
