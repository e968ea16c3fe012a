"""What every benchmark says beside its numbers, and a child process that is measured from outside."""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ropewalk.api import provenance

INPUTS = Path("runs/inputs")
"""Where `make demo` puts the model and the text."""
RESULTS = Path(__file__).parent / "results"


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Runs `python -m module arguments` and returns the JSON object on its last line of stdout."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    content: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return content


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """The model and the text that nearly every benchmark reads."""
    parser.add_argument("--model", type=Path, default=INPUTS / "SmolLM2-135M-Instruct")
    parser.add_argument("--text", type=Path, default=INPUTS / "python-manual.txt")


def write(name: str, command: str, rows: list[dict[str, Any]]) -> Path:
    """A result file: the rows with command, versions, hardware and date."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware("cpu"),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def resident_peak_bytes() -> int:
    """Most memory this process has held, bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
