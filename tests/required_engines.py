"""Makes a skipped test of an engine a failed one where the engines must be there: `make engines` sets the variable.

A test that needs an engine skips where it is not set up, so that `make test` is whole without any. The command that sets
them up must not pass by skipping.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

VARIABLE = "ROPEWALK_ENGINES_REQUIRED"
REQUIRED = "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """The report of one phase of a test, a skip turned into a failure where engines are required."""
    report = yield
    engine = item.get_closest_marker("engine") is not None
    if engine and os.environ.get(VARIABLE) == REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and {VARIABLE} asks for every engine: {report.longrepr}"
    return report
