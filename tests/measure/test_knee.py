"""The knee from planted harm, and from a real model whose positions end."""

import numpy as np
import pytest

from ropewalk.api.probing import probe
from ropewalk.core.errors import LengthError
from ropewalk.measure.knee import judge, lengths

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


@pytest.mark.slow
def test_a_tiny_model_is_probed(tiny_checkpoint, long_text):
    found = probe(tiny_checkpoint, text=[long_text], length=2048, dtype="float32")
    assert found.longest == 2048
    assert len(found.points) == 1
