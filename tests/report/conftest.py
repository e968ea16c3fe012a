"""A run folder for every test that asks for one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_run import make_example


@pytest.fixture
def example(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder: `example(documents=6, parts=[...])`."""

    def make(**options: Any) -> Path:
        return make_example(tmp_path / "run", **options)

    return make
