"""The model of the tests of this folder, which each of them leaves as it was."""

from collections.abc import Iterator
from typing import Any

import pytest
from attention_models import llama


@pytest.fixture(scope="module")
def shared() -> Any:
    return llama()


@pytest.fixture
def model(shared: Any) -> Iterator[Any]:
    """A tiny Llama in evaluation mode. Whatever was put on it is off again after each test."""
    shared.eval()
    shared.zero_grad()
    yield shared
    assert shared.config._attn_implementation == "sdpa"
