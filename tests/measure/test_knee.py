"""The knee from planted harm, and from a real model whose positions end."""

import json

import numpy as np
import pytest
from tiny import write_tiny_checkpoint

from ropewalk.api.probing import probe
from ropewalk.core.errors import LengthError
from ropewalk.measure.knee import judge, lengths

ENDS = 4608
"""Where the positions of the lying model end."""
RNG = np.random.default_rng(4)


def harm(mean, num=6):
    return [RNG.normal(mean, 0.5, 512) for _ in range(num)]


def test_the_knee_lies_between_the_last_unhurt_and_the_first_hurt_length():
    found = judge({2048: harm(-0.2), 3072: harm(-0.3), 4096: harm(-0.2), 6144: harm(0.05), 8192: harm(1.5)})
    assert (found.low, found.high, found.longest) == (4096, 8192, 8192)
    assert "reads up to 4096 tokens and no longer at 8192; its config says 8192" in found.words(8192)


def test_a_model_that_is_never_hurt():
    found = judge({2048: harm(-0.2), 3072: harm(-0.3)})
    assert (found.low, found.high) == (3072, None)
    assert found.words(3072) == "no harm is shown up to 3072 tokens, the longest tried"


def test_one_text_has_blocks_for_an_interval_and_says_so():
    found = judge({2048: harm(-0.2, num=1), 3072: harm(2.0, num=1)})
    assert (found.low, found.high) == (2048, 3072)
    assert "within-window" in found.points[0].note


def test_lengths():
    assert lengths(16384) == (2048, 3072, 4096, 6144, 8192, 12288, 16384)


def test_too_short(tiny_checkpoint, long_text):
    with pytest.raises(LengthError, match="a probe needs at least 2048 tokens, got 128"):
        probe(tiny_checkpoint, text=[long_text])


def test_a_model_that_is_hurt_everywhere_is_not_said_to_read_nothing():
    """That 0 tokens are read is more than was shown."""
    found = judge({2048: harm(0.0), 4096: harm(1.5)}, margin=-1.0)
    assert found.low is None
    assert found.words(8192) == "not shown to read even 2048 tokens; harm is shown at 2048"
    found = judge({2048: [np.zeros(4)], 3072: [np.zeros(4)]})
    assert (found.low, found.high) == (None, None)
    assert found.words(8192) == "no harm is shown up to 3072 tokens, the longest tried; it is excluded nowhere"


def test_a_model_whose_config_lies(lying, long_text):
    """Its positions end between 4096 and 6144, and its config says 8192."""
    found = probe(lying, text=[long_text], length=8192, dtype="float32")
    assert (found.low, found.high, found.longest) == (4096, 6144, 8192)
    assert [point.length for point in found.points] == list(lengths(8192))
    assert all(abs(point.harm) < 1e-3 for point in found.points if point.length <= 4096)
    assert all(point.harm > 1.0 for point in found.points if point.length > 4096)


def test_the_probe_of_the_command_line(lying, long_text, command):
    said = command("inspect", lying, "--probe", "--text", long_text, "--length", "6k", "--dtype", "float32")
    assert (said.code, said.err) == (0, "")
    assert "probe: the untouched model reads up to 4096 tokens and no longer at 6144; its config says 8192" in said.out
    assert len([line for line in said.out.splitlines() if "nats against a tail of 1024" in line]) == 4
    found = json.loads(command("inspect", lying, "--probe", "--text", long_text, "--length", "4k", "--json").out)["probe"]
    assert (found["low"], found["high"], found["longest"]) == (4096, None, 4096)
    assert "give --text FILE" in command("inspect", lying, "--probe").err


def test_out_of_memory_is_told_and_does_not_speak_of_resuming(lying, long_text, command, monkeypatch):
    from ropewalk.measure.forward import Forward

    def starved(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Forward, "hidden", starved)
    said = command("inspect", lying, "--probe", "--text", long_text, "--length", "4k", "--dtype", "float32")
    assert said.code == 3
    assert "out of memory at length 4096; free some memory, or give a smaller --length" in said.err
    assert "--resume" not in said.err


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A checkpoint that says it reads 8192 tokens. From 4608 on its one head sees nothing but the first token.

    A query is one constant and a key is zero but for BOS, so what is attended hangs on the distance to BOS alone: -cos of it
    times a quarter turn in 4608 tokens. The value of BOS makes the model expect BOS.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = write_tiny_checkpoint(
        tmp_path_factory.mktemp("lying") / "tiny", max_position_embeddings=8192, hidden_size=8, intermediate_size=8,
        num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=4, tie_word_embeddings=False,
        # The second of two pairs of dimensions turns by base^-1/2.
        rope_parameters={"rope_type": "default", "rope_theta": (2 * ENDS / np.pi) ** 2},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layer = model.model.layers[0]
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0 if weight.ndim == 1 else 0.0)
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[0, 1] = 1.0
        layer.self_attn.q_proj.weight[1, 0] = 20.0
        layer.self_attn.k_proj.weight[1, 1] = -20.0
        layer.self_attn.v_proj.weight[0, 1] = 1.0
        layer.self_attn.o_proj.weight[2, 0] = 8.0
        model.lm_head.weight[0, 2] = 10.0
    model.save_pretrained(folder)
    # A tokenizer that puts BOS in front, as most do.
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
