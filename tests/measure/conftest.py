"""What the tests of measuring share."""

from typing import Any

import numpy as np
import pytest
import torch
from characters import Characters


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny models are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def characters() -> Characters:
    return Characters()


@pytest.fixture
def ids() -> np.ndarray:
    """200 tokens that every tiny model knows."""
    return np.random.default_rng(0).integers(3, 100, 200)
