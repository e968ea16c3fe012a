"""Sets up the engines, each in an environment of its own, and prints where they are.

    python tools/engines.py [NAME ...] [--list]

An environment is `.engines/NAME-HASH`; HASH is of the engine's lock (`tools/engines/NAME.txt`) and of the Python version: an
unchanged lock is not installed again, a changed one gets a new folder and the old one is removed. The locks name every
package, and pip resolves nothing: a resolver would take CUDA builds of gigabytes. What was given up: packages are pinned for
CPython 3.11 or newer on x86-64 Linux, which is what the engines publish CPU builds for.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = Path(__file__).parent / "engines"
HOME = Path(os.environ.get("ROPEWALK_ENGINES", ROOT / ".engines"))
STAMP = ".installed"


def names() -> list[str]:
    """Engines that have a lock."""
    return sorted(path.stem for path in LOCKS.glob("*.txt"))


def environment(name: str) -> Path:
    """Where an engine's environment is, or will be."""
    python = "{}.{}".format(*sys.version_info[:2])
    content = (LOCKS / f"{name}.txt").read_bytes() + python.encode()
    return HOME / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def set_up(name: str) -> Path:
    """Makes the engine's environment unless it is there, removes older ones of the engine, and returns it."""
    place = environment(name)
    if not (place / STAMP).is_file():
        began = time.monotonic()
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--no-compile", "--requirement", str(LOCKS / f"{name}.txt")], check=True)
        (place / STAMP).write_text(f"{time.monotonic() - began:.0f} s\n")
    for other in HOME.glob(f"{name}-" + "?" * 12):
        if other != place:
            shutil.rmtree(other)
    return place


def main() -> int:
    """Sets up the named engines, or all."""
    parser = argparse.ArgumentParser(description="Set up the engines, each in its own environment.")
    parser.add_argument("name", nargs="*", help=f"engines, of {', '.join(names())}; all without a name")
    parser.add_argument("--list", action="store_true", help="only say where they are or would be")
    args = parser.parse_args()
    unknown = set(args.name) - set(names())
    if unknown:
        parser.error(f"unknown engine {', '.join(sorted(unknown))}; known are {', '.join(names())}")
    for name in args.name or names():
        place = environment(name) if args.list else set_up(name)
        seconds = (place / STAMP).read_text().strip() if (place / STAMP).is_file() else "not set up"
        print(f"{name}: {place} ({seconds})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
