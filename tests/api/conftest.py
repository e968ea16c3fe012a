"""The real model, converted once from the weights that a package ships."""

from pathlib import Path

import pytest

import ropewalk
from examples.demo import packaged_weights


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a float32 folder. The package must be there: `make test` installs it."""
    out = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    ropewalk.convert(packaged_weights(), out)
    return out
