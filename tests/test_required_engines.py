"""`make engines` fails where an engine is absent; `make test` skips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from required_engines import REQUIRED, VARIABLE

CASES = """
import pytest

@pytest.fixture
def absent():
    pytest.skip("vllm is not set up here")

@pytest.mark.engine
def test_in_a_fixture(absent): ...

@pytest.mark.engine
def test_in_the_test():
    pytest.skip("llama.cpp is not set up here")

def test_of_no_engine():
    pytest.skip("no named pipes here")
"""


@pytest.mark.parametrize(("value", "code", "says"), [("", 0, "3 skipped"), (REQUIRED, 1, "1 skipped")])
def test_an_absent_engine(value: str, code: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["required_engines"]\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = engine\n")
    (tmp_path / "test_cases.py").write_text(CASES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, VARIABLE: value, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert says in done.stdout
    assert ("asks for every engine" in done.stdout) == bool(code)


def test_the_makefile_requires_them() -> None:
    text = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "-m engine" in line]
    assert f"{VARIABLE}={REQUIRED}" in line
