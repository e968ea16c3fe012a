"""A whole comparison on a tiny model, cell by cell against the naive way of getting each number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.errors import InputError, LengthError, OutputError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.measure.windows import crop_windows

LENGTH = 4 * TRAINED
METHODS = ["pi", "yarn", "dynamic:ntk"]


class Quiet(Progress):
    """Says nothing."""

    def say(self, line: str) -> None:
        pass


def compare(source, text, out, **changes):
    settings = {
        "methods": METHODS, "length": LENGTH, "text": text if isinstance(text, list) else [text], "out": out,
        "dtype": "float32", "crop_windows": 8, "retrieval": "", "progress": Quiet(), **changes,
    }  # fmt: skip
    return ropewalk.compare(source, **settings)


@pytest.fixture(scope="module")
def run(tiny_checkpoint, long_text, tmp_path_factory) -> Record:
    out = tmp_path_factory.mktemp("runs") / "run"
    compare(tiny_checkpoint, long_text, out)
    return Record.read(out)


@pytest.fixture(scope="module")
def stock(tiny_checkpoint, long_text):
    """(model, ids) by stock transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tiny_checkpoint)(long_text.read_text())["input_ids"]
    return model.eval(), torch.tensor(ids)


@torch.inference_mode()
def naive(model, ids):
    """NLL of ids[1:] from full logits."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none").numpy()


def only(arrays):
    (array,) = arrays.values()
    return array


def test_every_method_is_there_and_the_baselines_first(run):
    assert list(run.card.plans) == ["none", "crop", *METHODS]
    assert run.card.status == "done"
    assert {row.method for row in run.rows("nll")} == {"none", "crop", *METHODS}


@pytest.mark.parametrize("label", ["none", "pi", "yarn"])
def test_one_pass_equals_a_stock_pass_with_the_plan_on(run, stock, label):
    model, ids = stock
    with ropewalk.apply(model, ropewalk.plan(model, label, length=LENGTH)):
        assert np.allclose(only(run.arrays(label)), naive(model, ids[:LENGTH]), atol=1e-5)


def test_crop_reads_a_window_and_scores_its_end(run, stock):
    model, ids = stock
    nll = only(run.arrays("crop"))
    scored = np.zeros(LENGTH - 1, dtype=bool)
    for window in crop_windows(TRAINED, LENGTH, 8):
        assert window.end - window.begin == TRAINED
        expected = naive(model, ids[window.begin : window.end])[-window.num_scored :]
        assert np.allclose(nll[window.low - 1 : window.end - 1], expected, atol=1e-5)
        scored[window.low - 1 : window.end - 1] = True
    assert np.array_equal(np.isfinite(nll), scored)


def test_a_dynamic_plan_is_measured_length_by_length_never_by_prefixes(run, stock):
    model, ids = stock
    nll = only(run.arrays("dynamic:ntk"))
    plan = ropewalk.plan(model, "dynamic:ntk", length=LENGTH)
    assert np.isfinite(nll).any()
    for window in crop_windows(TRAINED, LENGTH, 8):
        with ropewalk.apply(model, plan.at(window.end)):
            expected = naive(model, ids[: window.end])[-window.num_scored :]
        assert np.allclose(nll[window.low - 1 : window.end - 1], expected, atol=1e-5)
    assert {row.protocol for row in run.rows("nll", method="dynamic:ntk")} == {"by-length"}
    assert not run.rows("perplexity", method="dynamic:ntk")


def test_net_gain_is_paired_on_crops_targets(run):
    crop, yarn = only(run.arrays("crop")), only(run.arrays("yarn"))
    (whole,) = run.rows("net_gain", method="yarn", position_low=TRAINED, position_high=LENGTH)
    assert whole.value == pytest.approx(np.nanmean(crop - yarn), abs=1e-6)
    assert whole.reference == "crop"
    assert whole.num_clusters == 8
    assert "within-document" in whole.note
    assert len(run.rows("net_gain", method="yarn")) == 9


def test_the_price_is_paired_inside_the_old_window(run, stock):
    model, ids = stock
    with torch.inference_mode():
        base = torch.log_softmax(model(input_ids=ids[None, :LENGTH]).logits[0].float(), 1)[: TRAINED - 1]
        with ropewalk.apply(model, ropewalk.plan(model, "yarn", length=LENGTH)):
            other = torch.log_softmax(model(input_ids=ids[None, :LENGTH]).logits[0].float(), 1)[: TRAINED - 1]
    kl = (base.exp() * (base - other)).sum(1).numpy()
    price = only(run.arrays("yarn", "price"))
    assert kl.mean() > 1e-3
    assert np.allclose(price[0], kl, atol=1e-5)
    (mean,) = run.rows("price_kl_mean", method="yarn")
    assert mean.value == pytest.approx(kl.mean(), abs=1e-6)
    (top1,) = run.rows("price_top1", method="yarn")
    assert top1.value == pytest.approx((base.argmax(1) == other.argmax(1)).float().mean().item())
    (loss,) = run.rows("price_nll", method="yarn")
    gap = only(run.arrays("yarn"))[: TRAINED - 1] - only(run.arrays("none"))[: TRAINED - 1]
    assert loss.value == pytest.approx(gap.mean(), abs=1e-6)


def test_perplexity_at_every_length_is_a_prefix_mean(run):
    rows = run.rows("perplexity", method="none", protocol="prefix")
    assert len(rows) == 64
    nll = only(run.arrays("none"))
    for row in rows:
        assert row.value == pytest.approx(np.exp(nll[: row.length - 1].astype(np.float64).mean()), rel=1e-6)


def test_the_card_says_what_was_asked(run):
    content = json.loads((run.path / "card.json").read_text())
    assert content["config"]["length"] == LENGTH
    assert content["plans"]["crop"]["options"] == {"keep_last": TRAINED}
    assert content["versions"]["torch"] == torch.__version__
    assert content["documents"][0]["num_tokens"] > LENGTH
    assert len(content["source"]["sha256"]) == 64


@pytest.mark.parametrize("lost", ["yarn", "none", "crop", "dynamic:ntk"])
def test_a_resumed_run_ends_with_the_same_rows(tiny_checkpoint, long_text, tmp_path, run, lost):
    """A cell is lost, as a kill would lose it; resume makes it again and every row comes out the same."""
    out = tmp_path / "run"
    compare(tiny_checkpoint, long_text, out)
    first = Record.read(out)
    for name, what in first.card.files.items():
        if what["method"] == lost and name.startswith("nll/"):
            (out / name).unlink()
    (out / "measurements.jsonl").unlink()
    compare(tiny_checkpoint, long_text, out, resume=True)
    assert rows_of(Record.read(out)) == rows_of(first)


def test_a_run_takes_in_methods_and_haystacks_without_measuring_anything_twice(tiny_checkpoint, long_text, tmp_path):
    """Grown, it holds the rows of a run that was asked for all of it at once, and the first cells are the first's."""
    asked = {"length": 16 * TRAINED, "lengths": [12 * TRAINED, 16 * TRAINED], "depths": 2}
    out, whole = tmp_path / "run", tmp_path / "whole"
    compare(tiny_checkpoint, long_text, out, methods=["yarn"], retrieval="none,yarn", **asked)
    first = Record.read(out)
    all_of_it = {"methods": ["pi", "yarn"], "retrieval": "none,pi,yarn", "haystacks": 2, **asked}
    compare(tiny_checkpoint, long_text, out, resume=True, **all_of_it)
    compare(tiny_checkpoint, long_text, whole, **all_of_it)
    grown, wanted = Record.read(out), Record.read(whole)
    assert grown.samples[: len(first.samples)] == first.samples
    assert {s["haystack"] for s in grown.samples} == {0, 1}
    assert {s["method"] for s in grown.samples} == {"none", "pi", "yarn"}
    assert in_order(rows_of(grown)) == in_order(rows_of(wanted))
    assert grown.card.hash == wanted.card.hash != first.card.hash
    # Less than it holds is another question.
    with pytest.raises(OutputError, match="differs in map, methods, plans"):
        compare(tiny_checkpoint, long_text, out, methods=["yarn"], retrieval="none,yarn", resume=True, **asked)


def in_order(rows):
    """Cells that came later stand later in a grown run."""
    return sorted(rows, key=lambda row: json.dumps([row["metric"], *map(str, row.values())]))


def rows_of(record):
    """Rows without what may differ."""
    return [{k: v for k, v in row.to_dict().items() if k not in ("seconds", "peak_bytes")} for row in record.measurements]


def test_five_documents_are_the_unit(tiny_checkpoint, long_text, tmp_path):
    texts = []
    for index in range(5):
        path = tmp_path / f"{index}.txt"
        path.write_text(long_text.read_text()[index * 3000 : (index + 1) * 3000], encoding="ascii")
        texts.append(path)
    compare(tiny_checkpoint, texts, tmp_path / "run", methods=["yarn"])
    record = Record.read(tmp_path / "run")
    (whole,) = record.rows("net_gain", method="yarn", position_low=TRAINED)
    assert (whole.n, whole.num_clusters) == (5, 5)
    gains = [np.nanmean(record.arrays("crop")[p.name] - record.arrays("yarn")[p.name]) for p in texts]
    assert whole.value == pytest.approx(np.mean(gains), abs=1e-6)
    assert "within-document" not in (whole.note or "")


def test_the_map_and_its_control(tiny_checkpoint, long_text, tmp_path):
    out = tmp_path / "run"
    small = {"methods": ["yarn"], "length": 16 * TRAINED, "retrieval": "none,yarn", "lengths": [12 * TRAINED, 16 * TRAINED]}
    compare(
        tiny_checkpoint,
        long_text,
        out,
        depths=3,
        haystacks=2,
        modes=["fixed", "single"],
        **small,
    )
    record = Record.read(out)
    assert len([s for s in record.samples if s["protocol"] == "multikey-branch"]) == 2 * 2 * 2 * 3
    (cell,) = record.rows("retrieval_exact", protocol="multikey-branch", method="yarn", length=16 * TRAINED, depth=None)
    assert (cell.n, cell.num_clusters) == (6, 2)
    assert record.rows("retrieval_exact", protocol="no-context")
    assert record.rows("retrieval_rank", protocol="single-key", method="yarn", length=12 * TRAINED)
    (gain,) = record.rows("retrieval_gain", protocol="multikey-branch", method="yarn", length=16 * TRAINED)
    assert (gain.reference, gain.n) == ("none", 6)
    (effective,) = record.rows("effective_length", protocol="multikey-branch", method="yarn")
    assert effective.value is None
    assert "above half of its window" in effective.note
    for sample in record.samples:
        assert sample["length"] <= sample["asked_length"]
        assert {"seed", "depth", "exact", "logprob", "rank", "template"} <= set(sample)


def test_protocols_under_their_names(tiny_checkpoint, long_text, tmp_path, stock):
    model, ids = stock
    ropewalk.measure(
        tiny_checkpoint, text=[long_text], length=200, out=tmp_path / "run", dtype="float32", window=64, stride=16,
        protocols=["disjoint", "sliding-press", "yarn-truncate"], progress=Quiet(),
    )  # fmt: skip
    record = Record.read(tmp_path / "run")
    (disjoint,) = record.rows("perplexity", protocol="disjoint")
    parts = [naive(model, ids[low : min(low + 64, 200)]) for low in range(0, 200, 64)]
    assert disjoint.value == pytest.approx(np.exp(np.concatenate(parts).mean()), rel=1e-5)
    (macro,) = record.rows("perplexity_window_mean", protocol="disjoint")
    assert macro.value == pytest.approx(np.exp(np.mean([p.mean() for p in parts])), rel=1e-5)
    (sliding,) = record.rows("perplexity", protocol="sliding-press")
    assert sliding.num_tokens == 199
    truncated = {row.length: row.value for row in record.rows("perplexity", protocol="yarn-truncate")}
    prefix = {row.length: row.value for row in record.rows("perplexity", protocol="prefix")}
    assert truncated.keys() == prefix.keys()
    for length, value in truncated.items():
        assert value == pytest.approx(prefix[length], rel=1e-4)


def test_an_untrained_stretch_is_judged_against_the_model_as_it_was_trained(tiny_checkpoint, long_text, tmp_path, run):
    """Cropping keeps the original length at the original frequencies, not the stretched ones."""
    stretched = tmp_path / "stretched"
    ropewalk.extend(tiny_checkpoint, "pi", length=2 * TRAINED, out=stretched)
    assert ropewalk.geometry(stretched).lineage == "runtime"
    compare(stretched, long_text, tmp_path / "run", methods=["yarn"])
    record = Record.read(tmp_path / "run")
    assert np.allclose(only(record.arrays("crop")), only(run.arrays("crop")), atol=1e-5, equal_nan=True)
    assert np.allclose(only(record.arrays("yarn")), only(run.arrays("yarn")), atol=1e-5)


def test_a_control_says_what_difference_means_nothing(tiny_checkpoint, long_text, tmp_path):
    compare(tiny_checkpoint, long_text, tmp_path / "run", methods=["yarn"], dtype="bfloat16", control_tokens=48)
    record = Record.read(tmp_path / "run")
    (row,) = record.rows("control_kl_mean")
    assert (row.method, row.reference, row.position_high) == ("none", "none@float32", 48)
    assert 0.0 < row.value < 0.1
    assert Path(record.path / "card.json").is_file()


def test_crop_with_a_length_of_its_own_reads_only_that_much(tiny_checkpoint, long_text, tmp_path, stock):
    model, ids = stock
    compare(tiny_checkpoint, long_text, tmp_path / "run", methods=["crop:keep_last=32", "pi"])
    record = Record.read(tmp_path / "run")
    nll = only(record.arrays("crop:keep_last=32"))
    for window in crop_windows(TRAINED, LENGTH, 8):
        expected = naive(model, ids[window.end - 32 : window.end])[-window.num_scored :]
        assert np.allclose(nll[window.low - 1 : window.end - 1], expected, atol=1e-4)
    assert not record.rows("price_nll", method="crop:keep_last=32")
    assert {row.protocol for row in record.rows("nll", method="crop:keep_last=32")} == {"crop-window"}


def test_what_cannot_be_had_is_null_with_a_reason(run):
    for metric in ("price_kl_mean", "price_kl_p999", "price_top1"):
        (row,) = run.rows(metric, method="dynamic:ntk")
        assert row.value is None
        assert "depend on the length" in row.note
    (control,) = run.rows("control_kl_mean")
    assert control.value is None
    assert "float32 already" in control.note


def test_a_map_that_was_asked_for_is_never_dropped(tiny_checkpoint, long_text, tmp_path):
    with pytest.raises(LengthError, match="a retrieval map needs a length of at least 1024 tokens, got 256"):
        compare(tiny_checkpoint, long_text, tmp_path / "run", retrieval="none,pi")
    assert not (tmp_path / "run").exists()


def test_a_live_model_is_refused_in_words(stock, long_text, tmp_path):
    model, _ = stock
    with pytest.raises(InputError, match="measure reads a checkpoint folder or a hub id, got a LlamaForCausalLM"):
        ropewalk.measure(model, text=[long_text], length=200, out=tmp_path / "run")


def test_the_report_is_drawn_from_python_too(run):
    assert (run.path / "report.html").is_file()
