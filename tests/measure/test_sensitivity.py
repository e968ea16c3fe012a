"""BYOD's sensitivity against its own function and a naive run; the sweep over distance and its control."""

import itertools

import numpy as np
import pytest
import torch
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.errors import LengthError, TextError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.sensitivity import FLOOR, jensen_shannon, pairs

LENGTH = 16 * TRAINED
BYOD_GOLDEN = [0.15769240260124207, 0.19523417949676514, 0.11908818036317825, 0.0]
"""`JSD(softmax(a) + 1e-14, softmax(b) + 1e-14)` of neelsjain/BYOD at e737ad1 on the logits of `golden_logits`."""


class Quiet(Progress):
    def say(self, line: str) -> None:
        pass


def golden_logits() -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.arange(4.0)[:, None], torch.arange(7.0)[None]
    a, b = 3 * torch.sin(1.3 * i + 0.7 * j * j), 3 * torch.cos(0.4 * i * j + 0.2)
    b[3] = a[3]
    a[2, 0] = 60.0
    return a, b


def test_the_divergence_equals_byods_own():
    assert jensen_shannon(*golden_logits()).tolist() == pytest.approx(BYOD_GOLDEN, abs=1e-6)


def test_a_floor_keeps_impossible_tokens_finite():
    far = torch.tensor([[0.0, 200.0]])
    assert jensen_shannon(far, far.flip(1)).item() == pytest.approx(np.log(2.0), abs=1e-5)
    assert jensen_shannon(far, far).item() == 0.0
    assert FLOOR == 1e-14


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """12 paragraphs of 12 sentences, as two texts."""
    folder = tmp_path_factory.mktemp("prose")
    files = []
    for part in range(2):
        paragraphs = []
        for index in range(12):
            number = 100 * part + index
            line = [
                f"In year {number * 31 + n * 7} the keeper of light {n} wrote to port {number} again." for n in range(12)
            ]
            paragraphs.append(" ".join(line))
        files.append(folder / f"{part}.txt")
        files[-1].write_text("\n\n".join(paragraphs), encoding="ascii")
    return files


def measure(source, text, out, **changes):
    settings = {
        "text": text, "length": LENGTH, "out": out, "dtype": "float32", "method": "yarn", "progress": Quiet(), **changes,
    }  # fmt: skip
    ropewalk.measure(source, **settings)
    return Record.read(out)


@pytest.fixture(scope="module")
def run(tiny_checkpoint, prose, tmp_path_factory):
    out = tmp_path_factory.mktemp("sensitivity") / "run"
    return measure(tiny_checkpoint, prose, out, protocols=["byod-sensitivity:examples=6", "sensitivity-by-distance:swaps=3"])


@pytest.fixture(scope="module")
def stock(tiny_checkpoint):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_checkpoint)


def test_pairs_keep_the_last_sentence_and_take_two_from_the_passage_before():
    passages = {
        name: "\n\n".join(" ".join(f"{name}{p} sentence {s} is {'very ' * 17}long." for s in range(6)) for p in range(3))
        for name in "AB"
    }
    made = pairs(passages, seed=0, most=100)
    assert len(made) == 6
    for before, pair in zip([made[-1], *made], made, strict=False):
        whose = pair.last.split()[0]
        assert pair.own.count(whose) == 3
        assert pair.other.endswith(pair.last)
        assert pair.other.count(whose) == 1
        stranger = before.last.split()[0]
        assert [pair.other.count(f"{stranger} sentence {n}") for n in (0, 1, 2)] == [1, 1, 0]
    assert pairs(passages, seed=0, most=100) == made
    assert pairs(passages, seed=1, most=100) != made
    assert len(pairs(passages, seed=0, most=4)) == 4


@pytest.mark.parametrize("label", ["none", "yarn"])
def test_byod_equals_a_naive_run_with_full_logits(run, stock, prose, label):
    model, tokenizer = stock
    scores = []
    with torch.inference_mode(), ropewalk.apply(model, ropewalk.plan(model, label, length=LENGTH)):
        for pair in pairs({p.name: p.read_text() for p in prose}, seed=0, most=6):
            num = len(tokenizer(" " + pair.last)["input_ids"])
            both = [
                model(torch.tensor([tokenizer(t)["input_ids"]])).logits[0, -(num + 1) : -1] for t in (pair.own, pair.other)
            ]
            p, q = (b.softmax(-1) + 1e-14 for b in both)
            m = 0.5 * (p + q)
            scores.append(0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)).mean().item())
    (row,) = run.rows("sensitivity", protocol="byod-sensitivity", method=label)
    assert row.value == pytest.approx(np.mean(scores), rel=1e-3)
    assert row.stderr == pytest.approx(np.std(scores) / np.sqrt(len(scores)), rel=1e-3)
    assert row.n == 6
    assert row.ci_low < row.value < row.ci_high


def test_the_control_is_zero_and_distances_rise(run):
    for label in ("none", "yarn"):
        (control,) = run.rows("sensitivity_control", method=label)
        assert control.value == 0.0
        assert control.num_tokens > 0
        rows = run.rows("sensitivity", protocol="sensitivity-by-distance", method=label)
        assert [row.length for row in rows] == [64, 96, 128, 192, 256, 384, 512]
        for row in rows:
            assert row.value > 1e-6
            assert row.n == 6
            assert row.ci_low <= row.value <= row.ci_high
            assert "within-document" in row.note


def test_a_distance_equals_a_text_that_ends_with_the_scored_sentence(run, stock, prose):
    """Causality: what stands after the sentence cannot matter, so the text may be cut behind it."""
    from ropewalk.data.documents import read_documents
    from ropewalk.measure.distance import swaps
    from ropewalk.measure.probes import ByDistance
    from ropewalk.measure.settings import Settings

    model, tokenizer = stock
    documents = read_documents(prose, tokenizer, LENGTH)
    made = swaps(ByDistance(swaps=3), tokenizer, documents, 0, Settings(length=LENGTH))
    cell = run.arrays("none", "sensitivity-by-distance")[documents[0].name]
    ids = documents[0].ids[:LENGTH]
    assert len(made) == 3
    for (row, swap), column in itertools.product(enumerate(made, start=1), range(3)):
        low, high = swap.targets[column]
        end = swap.low + swap.replacement.size
        assert low - end >= (64, 96, 128)[column]
        changed = ids.copy()
        changed[swap.low : end] = swap.replacement
        assert not np.array_equal(changed, ids)
        with torch.inference_mode():
            both = [model(torch.from_numpy(t[:high])[None]).logits[0, low - 1 : high - 1] for t in (ids, changed)]
        assert cell[0, row, column] == pytest.approx(jensen_shannon(*both).mean().item(), rel=1e-3, abs=1e-7)
        assert cell[1, row, column] == high - low


@pytest.mark.parametrize("lost", ["byod-sensitivity", "sensitivity-by-distance"])
def test_resume_makes_what_is_missing(tiny_checkpoint, prose, tmp_path, lost):
    asked = ["byod-sensitivity:examples=4", "sensitivity-by-distance:swaps=1"]
    first = measure(tiny_checkpoint, prose, tmp_path / "run", protocols=asked)
    (tmp_path / "run" / next(n for n in first.card.files if n.startswith(f"{lost}/"))).unlink()
    second = measure(tiny_checkpoint, prose, tmp_path / "run", protocols=asked, resume=True)
    assert [(r.key, r.value) for r in second.measurements] == [(r.key, r.value) for r in first.measurements]


def test_texts_and_lengths_that_will_not_do_are_refused(tiny_checkpoint, prose, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        LengthError, match="begins at a distance of 64 tokens and goes to half the length, got a length of 100"
    ):
        measure(tiny_checkpoint, prose, out, length=100, protocols=["sensitivity-by-distance"])
    bare = tmp_path / "bare.txt"
    bare.write_text("no end " * 400, encoding="ascii")
    with pytest.raises(TextError, match=r"finds no sentence to replace in bare\.txt"):
        measure(tiny_checkpoint, [bare], out, protocols=["sensitivity-by-distance"])
    with pytest.raises(TextError, match="needs two passages"):
        measure(tiny_checkpoint, [bare], out, protocols=["byod-sensitivity"])
    assert not out.exists()
