"""The index ramp on vectors of every kind."""

import dataclasses

import numpy as np
import pytest

from ropewalk.core.geometry import Start, geometric, rotations
from ropewalk.core.method import find
from ropewalk.methods.ramp import by_index, correction_range


def start(inv_freq, *, base=None, length=8192, nominal=10000.0):
    return Start(
        inv_freq=inv_freq, base=base, nominal_base=nominal, rotary_dim=2 * inv_freq.size, length=length,
        attention_factor=1.0, logit_scale=1.0, temperature_on="rotated",
    )  # fmt: skip


@pytest.mark.parametrize("length", [64, 128, 4096, 131072])
@pytest.mark.parametrize("base", [1e4, 5e5])
@pytest.mark.parametrize("truncate", [True, False])
def test_read_off_the_vector_is_the_closed_form_on_a_geometric_one(length, base, truncate):
    """Two ways to the same indices, so that a trained stretch is judged by what it does and not by what it is called."""
    vector = geometric(base, 128)
    named = start(vector, base=base, length=length, nominal=base)
    unnamed = dataclasses.replace(named, base=None)
    for fast, slow in ((32.0, 1.0), (16.0, 2.0)):
        mine = correction_range(unnamed, slow=slow, fast=fast, truncate=False)
        assert mine == pytest.approx(correction_range(named, slow=slow, fast=fast, truncate=False), rel=1e-9, abs=1e-9)
        a = by_index(unnamed, slow=slow, fast=fast, truncate=truncate)
        assert np.allclose(a, by_index(named, slow=slow, fast=fast, truncate=truncate), atol=1e-9)


def test_a_model_trained_at_its_stretch_gets_no_angle_it_never_saw():
    """Llama 3.1: its slow dimensions are already divided by 8; by the base's own indices many would be left too fast."""
    plain = geometric(500000.0, 128)
    current = find("llama3:factor=8").frequencies(start(plain, base=500000.0, length=8192, nominal=500000.0), 8.0).inv_freq
    trained = start(current, length=131072, nominal=500000.0)
    word = find("yarn").frequencies(trained, 2.0)
    never_turned = rotations(current, 131072) < 1.0
    assert never_turned.any()
    assert np.allclose(word.inv_freq[never_turned], current[never_turned] / 2.0, rtol=0.06)
    assert np.all(rotations(word.inv_freq, 262144)[never_turned] <= rotations(current, 131072)[never_turned] * 1.06)
