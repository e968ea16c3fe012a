"""Fixtures for tests of hosts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small_folders import make_folder_in


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkpoint folder under `tmp_path`: files by name, as bytes or JSON; None leaves one out."""
    return partial(make_folder_in, tmp_path)
