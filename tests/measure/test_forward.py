"""One pass with a chunked head against stock calls."""

import families
import numpy as np
import pytest
import torch

from ropewalk.core.errors import UnsupportedError
from ropewalk.measure import forward as forward_module
from ropewalk.measure.forward import Forward, divergence

FAMILIES = ["llama", "qwen3", "gpt-neox", "gemma3", "olmo3", "gpt-oss", "smollm3", "deepseek-v3", "qwen3.5"]


def stock_nll(model, ids):
    """The naive twin: full logits in one stock call."""
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")


@pytest.mark.parametrize("family", FAMILIES)
def test_nll_equals_the_stock_call(family, ids):
    model = families.model(family)
    tokens = torch.from_numpy(ids[:61])
    mine = Forward(model)
    assert torch.allclose(mine.nll(mine.hidden(tokens)[:-1], tokens[1:]), stock_nll(model, tokens), atol=1e-5)


def test_soft_capping_is_part_of_the_head(ids):
    model = families.model("gemma3")
    model.config.get_text_config().final_logit_softcapping = 3.0
    tokens = torch.from_numpy(ids[:31])
    mine = Forward(model)
    assert mine.softcap == 3.0
    assert torch.allclose(mine.nll(mine.hidden(tokens)[:-1], tokens[1:]), stock_nll(model, tokens), atol=1e-5)


def test_a_head_that_does_more_is_refused(monkeypatch):
    model = families.model("llama")
    head = model.get_output_embeddings()
    whole = model.forward

    def scaled(*args, **kwargs):
        out = whole(*args, **kwargs)
        out.logits = out.logits * 3.0
        return out

    monkeypatch.setattr(model, "forward", scaled)
    assert head is not None
    with pytest.raises(UnsupportedError, match="does more than this version knows"):
        Forward(model)


@pytest.mark.parametrize("num_bytes", [1, 128 * 4 * 7, 1 << 20])
def test_chunks_of_any_size_give_the_same_numbers(monkeypatch, ids, num_bytes):
    model, tokens = families.model("llama"), torch.from_numpy(ids[:53])
    mine = Forward(model)
    whole = mine.nll(mine.hidden(tokens)[:-1], tokens[1:])
    monkeypatch.setattr(forward_module, "CHUNK_BYTES", num_bytes)
    assert torch.allclose(mine.nll(mine.hidden(tokens)[:-1], tokens[1:]), whole, atol=1e-6)


def test_one_pass_holds_the_perplexity_of_every_length(ids):
    """YaRN's way is a pass for each length; the prefix means of one array are the same numbers."""
    model = families.model("llama")
    mine = Forward(model)
    tokens = torch.from_numpy(ids[:128])
    nll = mine.nll(mine.hidden(tokens)[:-1], tokens[1:])
    for length in range(2, 129, 9):
        assert nll[: length - 1].mean() == pytest.approx(float(stock_nll(model, tokens[:length]).mean()), abs=1e-5)


@torch.inference_mode()
def test_divergence_is_zero_against_itself_and_equals_torch(ids):
    model, other = families.model("llama"), families.model("qwen3")
    a, b = Forward(model), Forward(other)
    tokens = torch.from_numpy(ids[:41])
    ha, hb = a.hidden(tokens), b.hidden(tokens)
    same = divergence(a, ha, a, ha)
    assert same[0].max() < 1e-6
    assert same[1].min() == 1.0
    got = divergence(a, ha, b, hb)
    logp, logq = torch.log_softmax(a.logits(ha), 1), torch.log_softmax(b.logits(hb), 1)
    expected = torch.nn.functional.kl_div(logq, logp, log_target=True, reduction="none").sum(1)
    assert torch.allclose(got[0], expected, atol=1e-5)
    assert torch.equal(got[1], (logp.argmax(1) == logq.argmax(1)).float())


def test_layers_tell_their_progress_and_lose_their_hooks(ids):
    model = families.model("llama")
    shares: list[float] = []
    Forward(model).hidden(torch.from_numpy(ids[:9]), tick=shares.append)
    assert shares == [0.5, 1.0]
    assert all(not layer._forward_hooks for layer in model.get_decoder().layers)


def test_ids_stay_as_given(ids):
    before = ids.copy()
    mine = Forward(families.model("llama"))
    mine.hidden(torch.from_numpy(ids[:20]))
    assert np.array_equal(ids, before)
