"""What the live model says with a plan on is what the written checkpoint says in stock transformers."""

import pytest
import torch

import ropewalk


def greedy(model, ids, num_tokens=64):
    out = model.generate(ids, max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return out[0, ids.shape[1] :].tolist()


def check(source, ids, method, length, out):
    """The tokens under the plan: the same live and as written, others than before, and gone once the plan is off."""
    from transformers import AutoModelForCausalLM

    model, _ = ropewalk.load(source, dtype="float32", device="cpu")
    plan = ropewalk.plan(source, method, length=length)
    before = greedy(model, ids)
    with ropewalk.apply(model, plan):
        live = greedy(model, ids)
    ropewalk.extend(source, method, length=length, out=out)
    written = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert live == greedy(written, ids)
    assert greedy(model, ids) == before
    # Without this a plan that changes nothing would pass.
    assert before != live
    return live


@pytest.mark.parametrize(
    "method", ["pi", "ntk", "ntk-mixed", "ntk-by-parts", "yarn", "yarn:ramp=rotations", "abf", "llama3"]
)
def test_64_greedy_tokens_of_a_tiny_model(tiny_checkpoint, tmp_path, method):
    ids = torch.randint(2, 250, (1, 96), generator=torch.Generator().manual_seed(0))
    assert len(check(tiny_checkpoint, ids, method, 256, tmp_path / "out")) == 64


@pytest.mark.model
def test_64_greedy_tokens_of_smollm2(smollm2, tmp_path):
    _, tokenizer = ropewalk.load(smollm2, dtype="float32", device="cpu")
    text = "The lighthouse keeper climbed the stairs every night, and every night he counted them. " * 20
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    live = check(smollm2, ids, "yarn", 32768, tmp_path / "out")
    assert len(live) == 64
