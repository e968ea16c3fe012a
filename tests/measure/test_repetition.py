"""Repeated against continued text, held against stock logits."""

import numpy as np
import pytest
import torch
from tiny import TRAINED_LENGTH as TRAINED

import ropewalk
from ropewalk.core.errors import LengthError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Record
from ropewalk.data.documents import Document
from ropewalk.measure.repetition import repeat

LENGTH = 4 * TRAINED


class Quiet(Progress):
    def say(self, line: str) -> None:
        pass


def measure(source, text, out, **changes):
    settings = {
        "text": [text], "length": LENGTH, "out": out, "dtype": "float32", "protocols": ["repeated-text"], "method": "yarn",
        "progress": Quiet(), **changes,
    }  # fmt: skip
    ropewalk.measure(source, **settings)
    return Record.read(out)


def test_the_front_is_not_repeated():
    ids = np.array([1, 10, 11, 12, 13, 14])
    plain = Document(name="a", ids=ids, prefix=ids[:0], sha256="")
    front = Document(name="a", ids=ids, prefix=ids[:1], sha256="")
    assert repeat(plain, 3, 8).tolist() == [1, 10, 11, 1, 10, 11, 1, 10]
    assert repeat(front, 3, 8).tolist() == [1, 10, 11, 10, 11, 10, 11, 10]


@pytest.mark.parametrize("label", ["none", "yarn", "dynamic:ntk"])
def test_both_texts_equal_stock_logits(tiny_checkpoint, long_text, tmp_path, label):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = measure(tiny_checkpoint, long_text, tmp_path / "run", method=label)
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    ids = torch.tensor(AutoTokenizer.from_pretrained(tiny_checkpoint)(long_text.read_text())["input_ids"][:LENGTH])
    copied = ids[:TRAINED].repeat(4)
    found = {}
    with torch.inference_mode(), ropewalk.apply(model, ropewalk.plan(model, label, length=LENGTH).at(LENGTH)):
        for name, text in (("repeated", copied), ("continued", ids)):
            logits = model(input_ids=text[None]).logits[0].float()[TRAINED:-1]
            found[f"{name}_nll"] = torch.nn.functional.cross_entropy(logits, text[TRAINED + 1 :]).item()
            found[f"{name}_accuracy"] = (logits.argmax(1) == text[TRAINED + 1 :]).float().mean().item()
    found["repetition_gain_nll"] = found["continued_nll"] - found["repeated_nll"]
    found["repetition_gain_accuracy"] = found["repeated_accuracy"] - found["continued_accuracy"]
    for metric, value in found.items():
        (row,) = record.rows(metric, method=label)
        assert row.value == pytest.approx(value, abs=1e-5)
        assert (row.protocol, row.position_low, row.position_high) == ("repeated-text", TRAINED + 1, LENGTH)
        assert row.num_tokens == LENGTH - TRAINED - 1
        assert "period 64 tokens" in row.note
    assert ("plan of the whole length" in row.note) == (label == "dynamic:ntk")


def test_a_shorter_period_is_scored_inside_the_window_too(tiny_checkpoint, long_text, tmp_path):
    record = measure(tiny_checkpoint, long_text, tmp_path / "run", protocols=["repeated-text:period=16"], method=None)
    rows = record.rows("repetition_gain_accuracy")
    assert [(r.position_low, r.position_high) for r in rows] == [(17, TRAINED), (TRAINED + 1, LENGTH)]


def test_what_is_too_short_to_repeat_is_refused(tiny_checkpoint, long_text, tmp_path):
    with pytest.raises(LengthError, match="repeats the first 64 tokens, got a length of 65"):
        measure(tiny_checkpoint, long_text, tmp_path / "run", length=65)
    assert not (tmp_path / "run").exists()


def test_resume_makes_what_is_missing(tiny_checkpoint, long_text, tmp_path):
    out = tmp_path / "run"
    first = measure(tiny_checkpoint, long_text, out)
    (lost,) = [n for n, w in first.card.files.items() if n.startswith("repeated-text/") and w["method"] == "yarn"]
    (out / lost).unlink()
    second = measure(tiny_checkpoint, long_text, out, resume=True)
    assert [(r.key, r.value) for r in second.measurements] == [(r.key, r.value) for r in first.measurements]
