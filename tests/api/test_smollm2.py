"""What the papers say, on a real model and real text: the untouched model breaks, a stretched one does not."""

import numpy as np
import pytest
import torch

import ropewalk
from examples.demo import write_manual
from ropewalk.data.documents import read_documents
from ropewalk.measure.answering.prefilled import Prefilled
from ropewalk.measure.answering.tree import fits
from ropewalk.measure.forward import Forward

TRAINED = 8192


@pytest.mark.model
@pytest.mark.slow
def test_the_window_ends_where_the_config_says_and_yarn_opens_it(smollm2, tmp_path):
    write_manual(tmp_path / "manual.txt")
    model, tokenizer = ropewalk.load(smollm2, device="cpu")
    (document,) = read_documents([tmp_path / "manual.txt"], tokenizer, TRAINED + 4096)
    ids = torch.from_numpy(document.ids[: TRAINED + 4096])
    forward = Forward(model)

    def tail() -> float:
        return float(np.mean(forward.nll(forward.hidden(ids)[-513:-1], ids[-512:]).numpy()))

    untouched = tail()
    with ropewalk.apply(model, ropewalk.plan(smollm2, "yarn", length="16k")):
        stretched = tail()
    assert untouched - stretched > 0.5


@pytest.mark.model
def test_one_pass_equals_truncated_passes_on_the_real_model(smollm2, tmp_path):
    """Every point of the curve, in float32, to 1e-4 nats."""
    write_manual(tmp_path / "manual.txt")
    model, tokenizer = ropewalk.load(smollm2, dtype="float32", device="cpu")
    (document,) = read_documents([tmp_path / "manual.txt"], tokenizer, 512)
    ids = torch.from_numpy(document.ids[:512])
    forward = Forward(model)
    nll = forward.nll(forward.hidden(ids)[:-1], ids[1:])
    for length in (64, 200, 333, 512):
        with torch.inference_mode():
            loss = model(input_ids=ids[None, :length], labels=ids[None, :length], use_cache=False).loss
        assert float(nll[: length - 1].mean()) == pytest.approx(float(loss), abs=1e-4)


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_real_model_is_asked_by_trees(smollm2, dtype):
    """Bfloat16's noise must not be taken for a wrong mask: nothing else would say that the slow way is taken."""
    model, _ = ropewalk.load(smollm2, dtype=dtype, device="cpu")
    assert fits(Prefilled(Forward(model)))
