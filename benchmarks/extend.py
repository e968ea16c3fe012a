"""Extending takes the same time whatever the size of the checkpoint, and `verify` on a config takes well under a second.

    python -m benchmarks.extend [--model DIR] [--rounds N]

Each round is a whole command in a process of its own, imports included, the three in turn so that a busy minute cannot
favour one: `extend` on the real 135M checkpoint, `extend` on a folder of the shape of a 70B model (real headers over sparse
files, 141 GB of tensors that take no room), `verify` on a config alone. A process says itself how many bytes it read in
all, modules of Python included, from the kernel's own count.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import write

MODEL = Path("runs/inputs/SmolLM2-135M-Instruct")
RUN = """
import sys
from pathlib import Path
from ropewalk.cli import main
code = main(sys.argv[1:])
count = Path("/proc/self/io")
print(count.read_text().split()[1] if count.is_file() else "", file=sys.stderr)
sys.exit(code)
"""


def run(*arguments: object) -> tuple[float, int | None]:
    """Seconds of one command and the bytes it read."""
    began = time.perf_counter()
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    # verify ends with 1 where an engine differs, which is an answer too.
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    said = done.stderr.strip().splitlines()[-1]
    return seconds, int(said) if said.isdigit() else None


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files, as their sizes say."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def rows(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """One row for each command."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "hosts"))
    from large_folders import LLAMA_70B, write_sparse

    write_sparse(work / "large", LLAMA_70B)
    (work / "config").mkdir()
    (work / "config" / "config.json").write_bytes((args.model / "config.json").read_bytes())
    commands: dict[str, tuple[Path, list[object], float]] = {
        "extend, 135M": (args.model, ["extend", args.model, "--method", "yarn", "--length", "32k"], 2.0),
        "extend, 70B-shaped": (work / "large", ["extend", work / "large", "--method", "yarn", "--length", "32k"], 2.0),
        "verify, config alone": (work / "config", ["verify", work / "config"], 1.0),
    }
    taken: dict[str, list[tuple[float, int | None]]] = {name: [] for name in commands}
    for number in range(args.rounds + 1):
        for name, (_, arguments, _) in commands.items():
            out = ["--out", work / f"out{number}-{len(taken[name])}-{name[-3:]}"] if arguments[0] == "extend" else []
            found = run(*arguments, *out)
            # The first round fills the caches of the system.
            if number:
                taken[name].append(found)
    return [row(name, folder, goal, taken[name]) for name, (folder, _, goal) in commands.items()]


def row(name: str, folder: Path, goal: float, taken: list[tuple[float, int | None]]) -> dict[str, Any]:
    """What one command took."""
    seconds = [time for time, _ in taken]
    return {
        "what": f"{name}: the whole command, imports included",
        "median_seconds": statistics.median(seconds),
        "seconds": seconds,
        "weight_bytes": weight_bytes(folder),
        "read_bytes": taken[-1][1],
        "goal": f"under {goal:g} s; bytes read do not follow the weights",
        "met": statistics.median(seconds) < goal,
    }


def main() -> int:
    """Writes benchmarks/results/extend.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the 135M model (make demo makes it)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted (default 5)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.model.parent) as work:
        found = rows(args, Path(work))
    for entry in found:
        print(f"{entry['what']}: {entry['median_seconds']:.2f} s, {entry['read_bytes']} of {entry['weight_bytes']} bytes")
    print(write("extend", f"python -m benchmarks.extend --rounds {args.rounds}", found))
    return 0 if all(entry["met"] for entry in found) else 1


if __name__ == "__main__":
    sys.exit(main())
